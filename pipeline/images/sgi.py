"""Reads SGI, of which Pillow reads run-length encoded rows only if each has an end mark, as ffmpeg's have not.

The layout is that of Paul Haeberli's "The SGI Image File Format".
"""

from __future__ import annotations

import io
import struct
from itertools import accumulate
from typing import Any

from PIL import SgiImagePlugin

from pipeline.errors import Unreadable

MAGIC = b"\x01\xda"
# Bytes of the header, and the offset in it of the kind of its colour map: 0 where the samples are the colours.
_HEADER, _COLOR_MAP = 512, 104


class SgiFile(SgiImagePlugin.SgiImageFile):
    """An SGI file."""

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        self.fp.seek(_COLOR_MAP)
        if (kind := self.fp.read(4)) > bytes(4):
            raise Unreadable(f"unsupported: SGI with a colour map of kind {int.from_bytes(kind)}")

    def load(self) -> Any:
        if self.tile and self.tile[0].codec_name == "sgi_rle":
            self._end_rows()
        return super().load()

    def _end_rows(self) -> None:
        """Put in place of the file one in which each row is followed by an end mark."""
        assert self.fp is not None
        file_bytes = self.fp.seek(0, io.SEEK_END)
        self.fp.seek(0)
        header, rows = self.fp.read(_HEADER), self.height * len(self.getbands())
        tables = self.fp.read(8 * rows)
        if len(tables) < 8 * rows:
            raise Unreadable("truncated picture: the table of its rows is cut off")
        numbers = struct.unpack(f">{2 * rows}I", tables)
        spans = list(zip(numbers[:rows], numbers[rows:], strict=True))
        once = list(dict.fromkeys(spans))  # rows that are alike may be stored once
        if any(place + size_bytes > file_bytes for place, size_bytes in once):
            raise Unreadable("truncated picture: it ends within its pixels")
        if sum(size_bytes for _, size_bytes in once) > file_bytes:  # which would take any amount of memory
            raise Unreadable("damaged picture: its rows lie upon each other")
        mark = bytes(self.tile[0].args[2])  # type: ignore  # as long as a sample
        packed = []
        for place, size_bytes in once:
            self.fp.seek(place)
            packed.append(self.fp.read(size_bytes) + mark)
        places = dict(zip(once, accumulate(map(len, packed), initial=_HEADER + 8 * rows), strict=False))
        moved = [places[span] for span in spans] + [size_bytes + len(mark) for _, size_bytes in spans]
        if self._exclusive_fp:
            self.fp.close()
        self.fp, self.filename = io.BytesIO(b"".join((header, struct.pack(f">{2 * rows}I", *moved), *packed))), ""
