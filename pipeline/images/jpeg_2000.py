"""Reads JPEG 2000 as bright as it is, whatever the bits of its channels, and what a codestream says of itself."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO

from PIL import Image, ImageChops, Jpeg2KImagePlugin

from pipeline.errors import Unreadable
from pipeline.images import Size
from pipeline.records import NamedTuple

MAGIC = (b"\xff\x4f\xff\x51", b"\0\0\0\x0cjP  \r\n\x87\n")
"""What a codestream begins with, and a JP2."""
# Bytes in which the codestream begins, which is behind the boxes of a JP2.
_HEAD_BYTES = 1 << 20
_SIZ = struct.Struct(">4xHH8IH")
# Markers (T.800, table A.2): the first of a tile's part, the last of its header, and the end of all.
_SOT, _SOD, _EOC = 0xFF90, 0xFF93, 0xFFD9
# The quantisation of all channels, and where it begins in its segment; that of one begins behind the channel's number,
# which has two bytes where there are more than 256 of them.
_QCD, _QCC = 0xFF5C, 0xFF5D
# The box by which a JP2 says that its colours are luma and chroma (T.800, I.5.3.3).
_SYCC = re.compile(rb"colr\x01..\0\0\0\x12", re.DOTALL)
# The least level of white in a picture of one bit more.
_WHITE = 192


class Codestream(NamedTuple):
    """What stands where a codestream begins (T.800, A.5.1)."""

    begin: int
    """Its offset in the file."""
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
        begin=at,
        size=(max(1, right - left), max(1, bottom - top)),
        tile_size=(max(1, across), max(1, down)),
        bits=tuple((depth & 0x7F) + 1 for depth in depths),
    )


class Jpeg2000File(Jpeg2KImagePlugin.Jpeg2KImageFile):
    """A JPEG 2000 whose channels reach from 0 to 255, however many bits they have.

    Pillow fills less than 8 bits up with zeros. More than 8 it rounds to 8, so that the greatest values become 256, of
    which it keeps 0. To tell white from black the picture is decoded once more then, as one of a bit more.
    """

    def _open(self) -> None:
        super()._open()
        assert self.fp is not None
        self._codestream = read_codestream(self.fp)
        if self.is_deep:
            self._refuse_luma()

    @property
    def is_deep(self) -> bool:
        """True if there are more than 8 bits in a channel, and Pillow has no mode for them."""
        bits = self._codestream.bits if self._codestream else ()
        return max(bits, default=0) > 8 and not self.mode.startswith("I")

    def _refuse_luma(self) -> None:
        """Raise `Unreadable` where Pillow makes other colours of those that it has rounded."""
        assert self.fp is not None and self._codestream
        self.fp.seek(0)
        if _SYCC.search(self.fp.read(self._codestream.begin)):
            raise Unreadable(f"unsupported: JPEG 2000 of {max(self._codestream.bits)} bits in luma and chroma")

    def load_end(self) -> None:
        super().load_end()
        bits, bands = self._codestream.bits if self._codestream else (), self.getbands()
        if len(bits) != len(bands) or {*bits} == {8} or self.mode.startswith("I"):
            return
        white = self._white() if self.is_deep else None
        tables = [_levels(depth, is_index=band == "P") for depth, band in zip(bits, bands, strict=True)]
        self._im = self.im.point([*chain.from_iterable(tables)], None)
        if white:
            self._im = ImageChops.lighter(self, white).im

    def _white(self) -> Image.Image:
        """Return an image that is 255 where a deep channel has its greatest values, and 0 elsewhere."""
        assert self.fp is not None and self._codestream
        self.fp.seek(0)
        data = _with_one_bit_more(self.fp.read(), self._codestream)
        with Jpeg2KImagePlugin.Jpeg2KImageFile(io.BytesIO(data)) as image:
            bits = self._codestream.bits
            tables = ([255 * (depth > 8 and level >= _WHITE) for level in range(256)] for depth in bits)
            return image.point([*chain.from_iterable(tables)])


def _levels(bits: int, *, is_index: bool) -> list[int]:
    """Return what becomes of the values of a channel as Pillow brings them to 8 bits."""
    if is_index or bits <= 8:
        values: Sequence[float] = [level >> max(0, 8 - bits) for level in range(256)]
    else:  # the middle of those that Pillow rounds to a level
        values = [(level << bits - 8) - 0.5 for level in range(256)]
    scale = 1.0 if is_index else 255 / ((1 << bits) - 1)
    return [round(scale * value) for value in values]


def _with_one_bit_more(data: bytes, codestream: Codestream) -> bytes:
    """Return a file whose channels are said to have one bit more, so that its values lie in the middle of the range.

    Values are stored as their distance to the middle (T.800, G.1.2), so black is a quarter of the range then, and white
    three quarters. A quantised step is a fraction of the range, so it has to be halved (equation E-3), by an exponent
    that is greater by one. By this and the guard bits a decoder counts the bit planes (equation E-2), which stay as
    many with one guard bit less.
    """
    raised = bytearray(data)
    at = codestream.begin + _SIZ.size
    for number in range(len(codestream.bits)):
        raised[at + 3 * number] += 1
    for marker, begin, end in _segments(data, codestream.begin):
        if marker not in (_QCD, _QCC):
            continue
        style = begin + (marker == _QCC) * (2 if len(codestream.bits) > 256 else 1)
        if not data[style] & 0x1F:  # no quantisation
            continue
        exponents = range(style + 1, end - 1, 2)
        if data[style] < 0x20 or any(data[at] >= 0xF8 for at in exponents):
            raise Unreadable(f"unsupported: JPEG 2000 of {max(codestream.bits)} bits without a guard bit")
        raised[style] -= 0x20
        for at in exponents:
            raised[at] += 8
    return bytes(raised)


def _segments(data: bytes, at: int) -> Iterator[tuple[int, int, int]]:
    """Yield the marker, the begin and the end of each segment in the headers of a codestream and of its tiles."""
    at, next_part = at + 2, 0
    while at + 4 <= len(data):
        marker, length = struct.unpack_from(">HH", data, at)
        if marker == _EOC:
            return
        if marker == _SOD:
            if next_part <= at:
                return
            at = next_part
            continue
        end = at + 2 + length
        if length < 2 or end > len(data):
            return
        if marker == _SOT and length >= 10:
            (part_bytes,) = struct.unpack_from(">I", data, at + 6)
            next_part = at + part_bytes if part_bytes else len(data)  # 0: up to the end
        yield marker, at + 4, end
        at = end
