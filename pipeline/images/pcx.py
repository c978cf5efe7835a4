"""Reads PCX whose palette is followed by other bytes, refuses one that is cut off, and notes where there is none.

The palette of 256 colours follows the pixels, behind a mark (ZSoft's "PCX Technical Reference Manual", 1991).
"""

from __future__ import annotations

import re

from PIL import ImagePalette, PcxImagePlugin

from pipeline.errors import Unreadable
from pipeline.images import refuse_if_too_large
from pipeline.notes import note

# The bytes of the header, of the palette, and its mark.
_HEADER, _PALETTE, _MARK = 128, 768, b"\x0c"
# Version, bits and planes of a picture that has such a palette, unless it is of greys.
_OF_COLORS = (5, 8, 1)
# A byte of pixels, or how often the byte that follows stands: six bits below two that are set.
_RUN = re.compile(rb"[^\xc0-\xff]|[\xc0-\xff].", re.DOTALL)


def begins_pcx(head: bytes) -> bool:
    """Return whether a file begins as a PCX does: with its mark, a version, and run-length encoding or none."""
    return len(head) > 1 and head[0] == 10 and head[1] in (0, 2, 3, 5)


class PcxFile(PcxImagePlugin.PcxImageFile):
    """A PCX file."""

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        refuse_if_too_large(self.size)
        self.fp.seek(0)
        header = self.fp.read(_HEADER)
        if self.mode == "L" and (header[1], header[3], header[65]) == _OF_COLORS:
            self.fp.seek(-_PALETTE - 1, 2)
            if self.fp.read(1) != _MARK:
                self._find_palette()

    def _find_palette(self) -> None:
        """Take the palette from behind the pixels. Raises `Unreadable` if it is cut off; notes that there is none."""
        assert self.fp is not None
        self.fp.seek(_HEADER)
        data = self.fp.read()
        row_bytes: int = self.tile[0].args[1]  # type: ignore
        missing, end = row_bytes * self.height, 0
        for run in _RUN.finditer(data):
            if missing <= 0:
                break
            missing -= data[run.start()] & 0x3F if run.end() - run.start() > 1 else 1
            end = run.end()
        behind = data[end:]
        if missing > 0:
            raise Unreadable("truncated picture: it ends within its pixels")
        if not behind.startswith(_MARK):
            note("it has no palette: read as greys")
        elif len(behind) <= _PALETTE:
            raise Unreadable("truncated picture: its palette is cut off")
        else:
            self.palette, self._mode = ImagePalette.raw("RGB", behind[1 : _PALETTE + 1]), "P"
            self.tile = [self.tile[0]._replace(args=("P", row_bytes))]
