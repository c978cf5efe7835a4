"""Reads JPEG 2000 with channels of less than 8 bits as bright as they are, and what a codestream says of its size."""

from __future__ import annotations

import struct
from itertools import chain
from typing import IO, NamedTuple

from PIL import Jpeg2KImagePlugin

from pipeline.images import Size

MAGIC = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
"""What a codestream begins with, and a JP2."""
# Bytes in which the codestream begins, which is behind the boxes of a JP2.
_HEAD_BYTES = 1 << 20
_SIZ = struct.Struct(">4xHH8IH")


class Codestream(NamedTuple):
    """What stands where a codestream begins (T.800, A.5.1)."""

    size: Size
    tile_size: Size
    bits: tuple[int, ...]
    """The bits of each channel."""


def read_codestream(file: IO[bytes]) -> Codestream | None:
    """Return what a codestream says of itself; None where it is cut off. The file is left where it was."""
    here = file.tell()
    file.seek(0)
    head = file.read(_HEAD_BYTES)
    file.seek(here)
    at = head.find(MAGIC[0])
    if at < 0 or len(head) < at + _SIZ.size:
        return None
    _, _, right, bottom, left, top, across, down, _, _, channels = _SIZ.unpack_from(head, at)
    depths = head[at + _SIZ.size : at + _SIZ.size + 3 * channels : 3]
    return Codestream(
        size=(max(1, right - left), max(1, bottom - top)),
        tile_size=(max(1, across), max(1, down)),
        bits=tuple((depth & 0x7F) + 1 for depth in depths),
    )


class Jpeg2000File(Jpeg2KImagePlugin.Jpeg2KImageFile):
    """A JPEG 2000 whose channels of less than 8 bits reach from 0 to 255, where Pillow fills them up with zeros."""

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        codestream = read_codestream(self.fp)
        self._bits = codestream.bits if codestream else ()

    def load_end(self) -> None:
        super().load_end()
        bands = self.getbands()
        if len(self._bits) == len(bands) and min(self._bits) < 8 and not self.mode.startswith("I"):
            tables = [_levels(bits, is_index=band == "P") for bits, band in zip(self._bits, bands, strict=True)]
            self._im = self.im.point([*chain.from_iterable(tables)], None)


def _levels(bits: int, *, is_index: bool) -> list[int]:
    """Return what becomes of the values of a channel, which has its bits in the upper ones of 8."""
    if bits >= 8:
        return [*range(256)]
    values = [level >> (8 - bits) for level in range(256)]
    top = (1 << bits) - 1
    return values if is_index else [(255 * value + top // 2) // top for value in values]
