"""Reads icons and cursors of Windows (ICO, CUR): the largest of their pictures, and of several such the deepest.

Browsers take that one, too. The size and the depth of the picture itself count, since the directory may be wrong.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import IO

from PIL import Image, ImageFile

from pipeline.errors import Unreadable
from pipeline.images import refuse_if_too_large
from pipeline.images.bmp import CORE_BYTES, HEADERS_BYTES, DibFile, Header
from pipeline.images.png import open_png
from pipeline.images.png_chunks import SIGNATURE
from pipeline.notes import note
from pipeline.records import dataclass

MAGIC = (b"\0\0\1\0", b"\0\0\2\0")
# Bytes of the header of the file, and of an entry of the directory behind it.
_HEADER, _ENTRY = 6, 16
# Samples a pixel by PNG's colour types.
_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_ALPHA = 0xFF000000


@dataclass(frozen=True)
class _Entry:
    """One of the pictures in an icon."""

    offset: int
    width: int
    height: int
    bits: int
    """Bits a pixel."""


class IconBitmap(DibFile):
    """A bitmap in an icon: twice as high as the picture, since a mask of one bit a pixel follows the pixels."""

    def _understood(self, header: Header) -> Header:
        if header.has_runs:
            raise Unreadable("unsupported: an icon with run-length encoding")
        masks = header.masks
        if header.bits == 32 and not masks[3]:
            masks = (*masks[:3], _ALPHA & ~(masks[0] | masks[1] | masks[2]))
        return replace(header, height=header.height // 2, masks=masks)

    def load_end(self) -> None:
        super().load_end()
        if self.mode != "RGBA":
            mask = self._mask()
            self._im, self._mode = self.convert("RGBA").im, "RGBA"
            self.putalpha(mask)

    def _mask(self) -> Image.Image:
        """Return the alpha of a picture whose pixels have none: 0 where the mask is set, whatever the pixel is."""
        assert self.fp is not None
        header, row_bytes = self.header, (self.width + 31) // 32 * 4
        self.fp.seek(header.pixels_at + header.row_bytes * header.height)
        data = self.fp.read(row_bytes * header.height)
        if len(data) < row_bytes * header.height:
            if header.bits == 32:  # whose alpha was 0 everywhere, and which need not have a mask
                return Image.new("L", self.size, 255)
            raise Unreadable("truncated picture: its mask ends too early")
        direction = 1 if header.is_top_down else -1
        return Image.frombytes("1", self.size, data, "raw", "1;I", row_bytes, direction).convert("L")


def open_icon(file: IO[bytes], filename: str | bytes = "") -> ImageFile.ImageFile:
    """Open the best picture of an icon or a cursor; a note says so if there are more.

    Raises:
        Unreadable: A picture is cut off or damaged, or the best is too large or of a kind that is not read.
        SyntaxError: It is no cursor, but a TGA that begins like one.
    """
    entries = list(_entries(file))
    best = max(entries, key=lambda entry: (entry.width * entry.height, entry.bits))
    refuse_if_too_large((best.width, best.height))
    file.seek(best.offset)
    picture = io.BytesIO(file.read())
    image = open_png(picture) if picture.getvalue().startswith(SIGNATURE) else IconBitmap(picture)
    image.format = "ICO"
    if len(entries) > 1:
        note("largest picture only", f"{best.width}x{best.height} of {len(entries)}")
    file.close()
    return image


def _entries(file: IO[bytes]) -> Iterator[_Entry]:
    file.seek(0)
    kind, count = struct.unpack("<2xHH", file.read(_HEADER))
    directory = file.read(_ENTRY * count)
    offsets = [offset for (offset,) in struct.iter_unpack("<12xI", directory[: len(directory) // _ENTRY * _ENTRY])]
    if kind == 2 and (not count or (offsets and min(offsets) < _HEADER + _ENTRY * count)):
        raise SyntaxError("no cursor")
    if not count:
        raise Unreadable("damaged picture: an icon without a picture")
    if len(directory) < _ENTRY * count:
        raise Unreadable("truncated picture: the directory of the icon is cut off")
    for number, offset in enumerate(offsets, 1):
        file.seek(offset)
        head = file.read(26)
        if len(head) < 26:
            raise Unreadable(f"truncated picture: picture {number} of the icon's {count} is missing")
        if head.startswith(SIGNATURE):
            width, height, depth, color_type = struct.unpack(">16xIIBB", head)
            yield _Entry(offset, width, height, depth * _SAMPLES.get(color_type, 1))
            continue
        size, width, height, bits = struct.unpack("<Iii2xH10x", head)
        if size not in HEADERS_BYTES:
            raise Unreadable(f"damaged picture: picture {number} of the icon's {count} is neither a bitmap nor a PNG")
        if size == CORE_BYTES:
            width, height, bits = struct.unpack("<4xHH2xH14x", head)
        yield _Entry(offset, width, abs(height) // 2, bits)
