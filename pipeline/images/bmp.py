"""Reads BMP of Windows and OS/2: every header, palette, bit field and run-length encoding, with alpha where it has one.

Pillow's reader knows few bit fields, leaves alpha out, and misreads short palettes. The layout is that of Microsoft's
"Bitmap Storage" (wingdi.h) and of OS/2's "Bitmap File Format".
"""

from __future__ import annotations

import io
import struct
from functools import lru_cache
from typing import IO, Any, ClassVar

from PIL import Image, ImageFile, ImageMath, ImagePalette

from pipeline.errors import Unreadable
from pipeline.images import refuse_if_too_large
from pipeline.records import dataclass

# Bytes of the header of the file, of the oldest header of a bitmap, of Windows' newer ones, and of the longest.
_FILE_HEADER, CORE_BYTES, _WINDOWS, _LONGEST = 14, 12, (40, 52, 56, 108, 124), 124
HEADERS_BYTES = (CORE_BYTES, 64, *_WINDOWS)
"""The usual sizes of a bitmap's header, with which it begins."""
# A header that is not known is shorter than that, and so is what stands before the pixels; in a text that begins as a
# BMP does, letters stand where the two numbers do.
_UNLIKELY = 1 << 16
# Kinds of compression (wingdi.h). Two numbers mean something else in OS/2's header, and are known by others here.
_RGB, _RLE8, _RLE4, _FIELDS, _ALPHA_FIELDS, _HUFFMAN, _RLE24 = 0, 1, 2, 3, 6, 103, 104
_IN_OS2 = {3: _HUFFMAN, 4: _RLE24}
_REFUSED = {4: "a JPEG in it", 5: "a PNG in it", 11: "CMYK", 12: "CMYK", 13: "CMYK", _HUFFMAN: "Huffman compression"}
# Bits a pixel that each run-length encoding is for.
_RUNS = {_RLE8: 8, _RLE4: 4, _RLE24: 24}
# The bits of red, green, blue and alpha where no bit fields are named, and of alpha where there is one.
_USUAL = {16: (0x7C00, 0x3E0, 0x1F, 0), 24: (0xFF0000, 0xFF00, 0xFF, 0), 32: (0xFF0000, 0xFF00, 0xFF, 0)}
_ALPHA = 0xFF000000
# Pixels that Pillow unpacks in one go: its mode, and its name for the order of their bytes.
_WHOLE_BYTES: dict[tuple[int, tuple[int, ...]], tuple[str, str]] = {
    (24, (0xFF0000, 0xFF00, 0xFF, 0)): ("RGB", "BGR"),
    (32, (0xFF0000, 0xFF00, 0xFF, 0)): ("RGB", "BGRX"),
    (32, (0xFF0000, 0xFF00, 0xFF, _ALPHA)): ("RGBA", "BGRA"),
}
# The name of a colour space in a header that has an ICC profile behind the pixels (wingdi.h, LOGCOLORSPACE).
_EMBEDDED = int.from_bytes(b"MBED")
# Rows whose bit fields are taken apart at a time: small beside the picture.
_BAND = 64
_INCHES = 39.3701


@dataclass(frozen=True)
class Header:
    """What the header of a bitmap says."""

    width: int
    height: int
    is_top_down: bool
    bits: int
    """Bits a pixel."""
    compression: int
    masks: tuple[int, ...]
    """The bits of a pixel that are its red, green, blue and alpha."""
    palette: bytes
    """Blue, green and red of each colour, and a byte without meaning if an entry has four."""
    entry_bytes: int
    pixels_at: int
    """The offset of the pixels in the file."""
    dots_per_meter: tuple[int, int]
    icc_profile: bytes | None

    @property
    def row_bytes(self) -> int:
        """The bytes of a row that is not compressed."""
        return (self.width * self.bits + 31) // 32 * 4

    @property
    def has_runs(self) -> bool:
        """Whether the pixels are run-length encoded."""
        return self.compression in _RUNS


def read_header(file: IO[bytes], begin: int, pixels_at: int = 0) -> Header:
    """Read the header and the palette of a bitmap.

    Args:
        file: The file.
        begin: The offset of the header in it.
        pixels_at: The offset of the pixels; 0 if they follow the palette.

    Raises:
        SyntaxError: It is no bitmap.
        Unreadable: The bitmap is cut off, damaged, too large, or of a kind that is not read.
    """
    file.seek(begin)
    head = file.read(_LONGEST)
    size = int.from_bytes(head[:4], "little")
    _refuse_unless_header(head, size, begin, pixels_at)
    head = head[:size].ljust(_LONGEST, b"\0")
    if size == CORE_BYTES:
        width, height, bits = struct.unpack("<4xHH2xH", head[:12])
        compression, dots_x, dots_y, count = _RGB, 0, 0, 0
    else:
        width, height, bits, compression, dots_x, dots_y, count = struct.unpack("<4xii2xHI4xiiI", head[:36])
        compression = compression if size in _WINDOWS else _IN_OS2.get(compression, compression)
    refuse_if_too_large((width, abs(height)))
    _refuse_unknown(bits, compression, height)
    masks, masks_bytes = _masks(file, begin, size, bits, compression)
    palette_at, entry_bytes = begin + size + masks_bytes, 3 if size == CORE_BYTES else 4
    count = count or (1 << bits if bits <= 8 else 0)
    room = (pixels_at - palette_at) // entry_bytes if pixels_at > palette_at else count
    file.seek(palette_at)
    palette = file.read(min(count, room, 1 << bits) * entry_bytes) if bits <= 8 else b""
    profile_at, profile_bytes = struct.unpack("<II", head[112:120])
    file.seek(begin + profile_at)
    is_embedded = int.from_bytes(head[56:60], "little") == _EMBEDDED
    return Header(
        width=width, height=abs(height), is_top_down=height < 0, bits=bits, compression=compression, masks=masks,
        palette=palette, entry_bytes=entry_bytes, pixels_at=pixels_at or palette_at + count * entry_bytes,
        dots_per_meter=(dots_x, dots_y), icc_profile=file.read(profile_bytes) if is_embedded else None,
    )  # fmt: skip


def _refuse_unless_header(head: bytes, size: int, begin: int, pixels_at: int) -> None:
    """Raise SyntaxError or `Unreadable` unless this is the whole header, of so many bytes, of a bitmap that is read."""
    if len(head) < 4 and begin < pixels_at < _UNLIKELY:
        raise Unreadable("truncated picture: its header is cut off")
    if len(head) < 4 or (not 16 <= size <= 64 and size not in (CORE_BYTES, *_WINDOWS)):
        if CORE_BYTES < size < _UNLIKELY and pixels_at < _UNLIKELY:
            raise Unreadable(f"unsupported: BMP with a header of {size} bytes")
        raise SyntaxError("no bitmap")
    if len(head) < size:
        raise Unreadable("truncated picture: its header is cut off")


def begins_bitmap(head: bytes) -> bool:
    """Return whether a file of which these are the first 16 bytes is a bitmap without the header of a file."""
    size = int.from_bytes(head[:4], "little")
    planes, bits = struct.unpack_from("<HH", head, 8 if size == CORE_BYTES else 12)
    return size in HEADERS_BYTES and planes == 1 and bits <= 64


def _refuse_unknown(bits: int, compression: int, height: int) -> None:
    """Raise `Unreadable` for kinds of bitmaps that are not read, or cannot be."""
    if compression in _REFUSED:
        raise Unreadable(f"unsupported: BMP with {_REFUSED[compression]}")
    if compression not in (_RGB, _FIELDS, _ALPHA_FIELDS, *_RUNS):
        raise Unreadable(f"unsupported: BMP with compression {compression}")
    if bits not in (1, 2, 4, 8, 16, 24, 32):
        raise Unreadable(f"unsupported: BMP with {bits} bits a pixel")
    if bits != _RUNS.get(compression, bits):
        raise Unreadable(f"damaged picture: its compression is for {_RUNS[compression]} bits a pixel, not {bits}")
    if compression in _RUNS and height < 0:
        raise Unreadable("unsupported: BMP with compressed rows from top to bottom")


def _masks(file: IO[bytes], begin: int, size: int, bits: int, compression: int) -> tuple[tuple[int, ...], int]:
    """Return the bit fields of a pixel, and the bytes that they take behind the header."""
    usual = _USUAL.get(bits, (0, 0, 0, 0))
    if compression not in (_FIELDS, _ALPHA_FIELDS):
        return usual, 0
    count = 4 if size >= 56 or compression == _ALPHA_FIELDS else 3
    file.seek(begin + 40)
    fields = file.read(4 * count)
    if len(fields) < 4 * count:
        raise Unreadable("truncated picture: its header is cut off")
    masks = (*struct.unpack(f"<{count}I", fields), 0)[:4]
    if not any(masks):  # as some programs write it
        masks = (*usual[:3], _ALPHA) if bits == 32 else usual
    if bits < 16 or sum(masks) >> bits or sum(masks) != masks[0] | masks[1] | masks[2] | masks[3]:
        raise Unreadable(f"damaged picture: its bit fields do not fit into {bits} bits a pixel")
    if not all(_is_contiguous(mask) for mask in masks) or (bits == 24 and masks != usual):
        raise Unreadable(f"unsupported: BMP with the bit fields {', '.join(f'{mask:x}' for mask in masks)}")
    return masks, 4 * count if size == 40 else 0


def _is_contiguous(mask: int) -> bool:
    lowest = mask & -mask
    return not mask & (mask + lowest)


class BmpFile(ImageFile.ImageFile):
    """A BMP file."""

    format, format_description = "BMP", "Windows or OS/2 bitmap"
    begin: ClassVar[int] = _FILE_HEADER
    """The offset of the bitmap's header."""

    def _open(self) -> None:
        assert self.fp is not None
        head = self.fp.read(self.begin)
        pixels_at = int.from_bytes(head[10:], "little") if len(head) == _FILE_HEADER else 0
        self.header = header = self._understood(read_header(self.fp, self.begin, pixels_at))
        self._size = header.width, header.height
        if any(header.dots_per_meter):
            self.info["dpi"] = tuple(dots / _INCHES for dots in header.dots_per_meter)
        if header.icc_profile:
            self.info["icc_profile"] = header.icc_profile
        self._mode, self._raw = self._kind(header)
        args = self._raw, header.row_bytes, 1 if header.is_top_down else -1
        self.tile = [ImageFile._Tile("raw", (0, 0, *self.size), header.pixels_at, args)]

    def _understood(self, header: Header) -> Header:
        """Return the header with the meaning that it has where the bitmap stands."""
        return header

    def _kind(self, header: Header) -> tuple[str, str]:
        """Return the mode of the picture, and Pillow's name for how its pixels lie; none for other bit fields."""
        if header.bits <= 8:
            size, palette, top = header.entry_bytes, header.palette, (1 << header.bits) - 1
            ramp = bytes(255 * level // top for level in range(top + 1))
            is_grey = palette[0::size] == palette[1::size] == palette[2::size] == ramp and not header.icc_profile
            if is_grey and not header.has_runs:
                return ("1", "1") if header.bits == 1 else ("L", f"L;{header.bits}".removesuffix(";8"))
            self.palette = ImagePalette.raw("BGR" if size == 3 else "BGRX", palette)
            return "P", f"P;{header.bits}".removesuffix(";8")
        usual = _WHOLE_BYTES.get((header.bits, header.masks))
        return usual or ("RGBA" if header.masks[3] else "RGB", "")

    def load(self) -> Any:
        if self.tile and self.header.has_runs:
            self._unpack()
        elif self.tile and not self._raw:
            self._separate()
        return super().load()

    def _unpack(self) -> None:
        """Put the unpacked pixels in the place of the run lengths."""
        assert self.fp is not None
        self.fp.seek(self.header.pixels_at)
        pixels = _unpack_runs(self.fp.read(), self.size, self.header.bits)
        if self._exclusive_fp:
            self.fp.close()
        self.fp, self.filename = io.BytesIO(pixels), ""  # else Pillow maps the file of that name
        raw, row_bytes = ("BGR", 3 * self.width) if self.header.bits == 24 else ("P", self.width)
        self.tile = [self.tile[0]._replace(offset=0, args=(raw, row_bytes, -1))]

    def _separate(self) -> None:
        """Decode bit fields, for which Pillow has no decoder."""
        assert self.fp is not None
        separated = _separated(self.fp, self.header)
        self.tile, self._im = [], separated.im
        self.load_end()
        if self._exclusive_fp:
            self.fp.close()

    def load_end(self) -> None:
        # An alpha that hides the whole picture is one that a program left empty: browsers take it for opaque, too.
        if self.mode == "RGBA" and self.getchannel("A").getextrema() == (0, 0):
            self._im, self._mode = self.im.convert("RGB", 0), "RGB"


class DibFile(BmpFile):
    """A bitmap without the header of a file."""

    format, format_description = "DIB", "Windows or OS/2 bitmap without a file header"
    begin = 0


def _unpack_runs(data: bytes, size: tuple[int, int], bits: int) -> bytes:
    """Unpack run-length encoded pixels, rows from the bottom; what is left out is of colour 0 (wingdi.h, BI_RLE8).

    Args:
        data: The encoded pixels.
        size: Width and height.
        bits: Bits a pixel: 4, 8 or 24. Of 4 bits, each pixel gets a byte.

    Raises:
        Unreadable: The data end before the picture does.
    """
    width, height = size
    unit = 3 if bits == 24 else 1
    rows = bytearray(width * height * unit)
    source = io.BytesIO(data)
    x = y = 0
    while y < height:
        count, code = _next(source, 2)
        if count:  # a run of one pixel, or of two in turn
            first = bytes((code, *_next(source, 2))) if bits == 24 else bytes((code,))
            pixels = (_nibbles(first) if bits == 4 else first) * count
        elif code == 0:
            x, y = 0, y + 1
            continue
        elif code == 1:
            break
        elif code == 2:
            right, up = _next(source, 2)
            x, y = x + right, y + up
            continue
        else:  # so many pixels as they are, in an even number of bytes
            count, length = code, (code * bits + 7) // 8
            stored = _next(source, length + length % 2)[:length]
            pixels = _nibbles(stored) if bits == 4 else stored
        here = (y * width + x) * unit
        pixels = pixels[: max(0, min(count, width - x)) * unit]
        rows[here : here + len(pixels)] = pixels
        x += count
        if x >= width and y == height - 1:
            break
    return bytes(rows)


def _next(source: IO[bytes], count: int) -> bytes:
    taken = source.read(count)
    if len(taken) < count:
        raise Unreadable("truncated picture: its pixels end too early")
    return taken


def _nibbles(data: bytes) -> bytes:
    """Return a byte for each half of a byte."""
    return bytes(half for byte in data for half in (byte >> 4, byte & 15))


def _separated(file: IO[bytes], header: Header) -> Image.Image:
    """Return the RGB or RGBA picture of pixels whose channels are bit fields, from some of its rows after the other."""
    made = Image.new("RGBA" if header.masks[3] else "RGB", (header.width, header.height))
    file.seek(header.pixels_at)
    for begin in range(0, header.height, _BAND):
        count = min(_BAND, header.height - begin)
        data = _next(file, count * header.row_bytes)
        args = f"I;{header.bits}", header.row_bytes, 1 if header.is_top_down else -1
        band = Image.frombytes("I", (header.width, count), data, "raw", *args)
        channels = [_channel(band, mask) for mask in header.masks[: len(made.mode)]]
        made.paste(Image.merge(made.mode, channels), (0, begin if header.is_top_down else made.height - begin - count))
    return made


def _channel(image: Image.Image, mask: int) -> Image.Image:
    if not mask:
        return Image.new("L", image.size)
    bits = mask.bit_count()
    lowest = (mask & -mask).bit_length() - 1 + max(0, bits - 16)  # 16 bits are plenty
    most = (1 << min(bits, 16)) - 1
    values = ImageMath.lambda_eval(lambda args: (args["pixel"] >> lowest) & most, pixel=image)
    assert isinstance(values, Image.Image)
    return values.point(_eight_bits(most), "L")


@lru_cache(maxsize=16)
def _eight_bits(most: int) -> list[int]:
    """Return for each of 65,536 values the nearest of 8 bits, `most` being white."""
    return [min(255, (510 * value + most) // (2 * most)) for value in range(65_536)]
