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
# The offset of its height, and the rows that are decoded at a time.
_HEIGHT, _ROWS = 8, 64


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
            self.load_prepare()
            self._load_rows()
            self.tile = []
            if self._exclusive_fp:
                self.fp.close()  # type: ignore[union-attr]
            self.fp = None
        return super().load()

    def _load_rows(self) -> None:
        """Decode some rows at a time, as a file of their own in which each is followed by an end mark."""
        assert self.fp is not None
        file_bytes = self.fp.seek(0, io.SEEK_END)
        self.fp.seek(0)
        header, rows = self.fp.read(_HEADER), self.height * len(self.getbands())
        tables = self.fp.read(8 * rows)
        if len(tables) < 8 * rows:
            raise Unreadable("truncated picture: the table of its rows is cut off")
        numbers = struct.unpack(f">{2 * rows}I", tables)
        spans = list(zip(numbers[:rows], numbers[rows:], strict=True))
        once = set(spans)  # rows that are alike may be stored once
        if any(place + size_bytes > file_bytes for place, size_bytes in once):
            raise Unreadable("truncated picture: it ends within its pixels")
        if sum(size_bytes for _, size_bytes in once) > file_bytes:  # which would take any amount of memory
            raise Unreadable("damaged picture: its rows lie upon each other")
        # No row needs more than a count for each of its samples, and a mark.
        longest = (2 * self.width + 1) * int(self.tile[0].args[2])  # type: ignore
        spans = [(place, min(size_bytes, longest)) for place, size_bytes in spans]
        for begin in range(0, self.height, _ROWS):  # from the lowest row
            end = min(self.height, begin + _ROWS)
            part = [span for at in range(0, rows, self.height) for span in spans[at + begin : at + end]]
            data = header[:_HEIGHT] + struct.pack(">H", end - begin) + header[_HEIGHT + 2 :] + self._ended(part)
            with SgiImagePlugin.SgiImageFile(io.BytesIO(data)) as image:
                image.load()
                self.im.paste(image.im, (0, self.height - end, self.width, self.height - begin))

    def _ended(self, spans: list[tuple[int, int]]) -> bytes:
        """Return the table of rows, which are at these places of the file, and the rows with an end mark each."""
        assert self.fp is not None
        mark = bytes(self.tile[0].args[2])  # type: ignore  # as long as a sample
        packed: dict[tuple[int, int], bytes] = {}
        for place, size_bytes in dict.fromkeys(spans):
            self.fp.seek(place)
            packed[place, size_bytes] = self.fp.read(size_bytes) + mark
        begins = accumulate(map(len, packed.values()), initial=_HEADER + 8 * len(spans))
        places = dict(zip(packed, begins, strict=False))
        table = [places[span] for span in spans] + [size_bytes + len(mark) for _, size_bytes in spans]
        return b"".join((struct.pack(f">{len(table)}I", *table), *packed.values()))
