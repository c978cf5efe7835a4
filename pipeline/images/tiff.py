"""Reads TIFF as the tags of a page say that it is laid out (TIFF 6.0, Adobe's technical notes, BigTIFF).

Pillow reads common layouts fast, some others as noise, and most not at all. A page's tags are looked at before
a pixel is decoded: what Pillow reads right is left to it, others are decoded here to 8 bits a channel, some strips or
one tile at a time, and what neither can is refused by its name.
"""

from __future__ import annotations

import io
import math
import struct
import sys
from array import array
from collections import ChainMap
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import IO, Any

from PIL import Image, ImageFile, ImagePalette, TiffImagePlugin, TiffTags

from pipeline.errors import Unreadable
from pipeline.images import Size, refuse_if_too_large
from pipeline.images.color import floats_to_eight_bits, guessed_range, to_plain, to_srgb
from pipeline.images.kinds import raw_in_tiff
from pipeline.records import dataclass

# Pages of one file. Scanners and microscopes stay below; finding a page takes time in proportion to those before it.
MAX_PAGES = 10_000
# Channels of one page. Pictures from satellites have hundreds.
_MAX_SAMPLES, _MAX_BITS = 1_000, 64
# Bytes a pixel that a decoder has to go through, or has in memory, for a picture to count once against the limits: four
# floats, and RGBA.
_PASSED_BYTES, _HELD_BYTES = 16, 4
# Bytes of samples that are decoded together: many strips of one row are slow one by one.
_GROUP_BYTES = 4_000_000
# Pixels of a tile of a small picture: its decoder takes memory for all of them, however few the picture has.
_TILE_PIXELS = 4_000_000

_BITS, _COMPRESSION, _PHOTOMETRIC, _FILL_ORDER, _ORIENTATION, _SAMPLES, _PLANAR = 258, 259, 262, 266, 274, 277, 284
_PREDICTOR, _COLOR_MAP, _INK_SET, _EXTRA, _FORMAT, _LOWEST, _HIGHEST = 317, 320, 332, 338, 339, 340, 341
_WIDTH, _LENGTH, _ROWS, _TILE_WIDTH, _TILE_LENGTH, _SUBSAMPLING = 256, 257, 278, 322, 323, 530
# Where strips and tiles are, and how long they are.
_STRIPS, _TILES = (273, 279), (324, 325)
_ICC = "icc_profile"
# Tags without whose values a page would be read wrongly: also the ICC profile, and what JPEG and YCbCr need.
_DECISIVE = (
    _BITS, *_STRIPS, *_TILES, _COLOR_MAP, _EXTRA, _FORMAT, _LOWEST, _HIGHEST, _SUBSAMPLING, 347, 529, 532, 34675,
)  # fmt: skip

# PhotometricInterpretation: the mode of the colours that are stored.
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _CMYK, _YCBCR, _CIELAB, _ICCLAB = 0, 1, 2, 3, 5, 6, 8, 9
_MODES = {
    _WHITE_IS_ZERO: "L", _BLACK_IS_ZERO: "L", _RGB: "RGB", _PALETTE: "P", _CMYK: "CMYK", _YCBCR: "YCbCr",
    _CIELAB: "LAB", _ICCLAB: "LAB",
}  # fmt: skip
_OTHER_COLORS = {
    4: "a transparency mask in place of a picture", 10: "colours in ITULAB", 32844: "colours in LogL",
    32845: "colours in LogLuv",
}  # fmt: skip
# Compressions that give back the bytes that were put in: any layout can be decoded from them.
_UNCOMPRESSED, _JPEG_OLD, _JPEG = 1, 6, 7
_LOSSLESS = (_UNCOMPRESSED, 5, 8, 32773, 32946, 34925, 50000)
# Compressions that know what they compress: the first three for one bit a sample, NeXT for 2, ThunderScan for 4.
_FAX = (2, 3, 4, 32771)
_OTHER_COMPRESSIONS = {
    9: "JBIG", 10: "JBIG", 32908: "PixarFilm", 32909: "PixarLog", 33003: "JPEG 2000", 33004: "JPEG 2000",
    33005: "JPEG 2000", 34661: "JBIG", 34676: "SGILog", 34677: "SGILog", 34712: "JPEG 2000", 34887: "LERC",
    34892: "lossy JPEG of a camera's raw", 34933: "PNG", 34934: "JPEG XR", 22610: "JPEG XR", 50001: "WebP",
    50002: "JPEG XL", 52546: "JPEG XL",
}  # fmt: skip
# Those of them behind a predictor.
_PREDICTED = (5, 8, 32946, 34925, 50000)
_CODECS = (*_LOSSLESS, *_FAX, _JPEG_OLD, _JPEG, 32766, 32809)
_INTEGERS, _SIGNED, _FLOATS, _UNDEFINED, _COMPLEX = 1, 2, 3, 4, (5, 6)
# Pillow's raw modes for samples of a SampleFormat and BitsPerSample, with {} for the byte order; else struct's codes.
_RAW = {
    (_SIGNED, 8): "F;8S", (_INTEGERS, 16): "F;16{}", (_SIGNED, 16): "F;16{}S", (_INTEGERS, 32): "F;32{}",
    (_SIGNED, 32): "F;32{}S", (_FLOATS, 32): "F;32{}F", (_FLOATS, 64): "F;64{}F",
}  # fmt: skip
_CODES = {(_FLOATS, 16): "e", (_INTEGERS, 64): "Q", (_SIGNED, 64): "q"}
# Two samples in three bytes, and samples that Pillow scales by itself.
_PACKED, _NARROW = (_INTEGERS, 12), (1, 2, 4, 8)
# The typecodes of unsigned words of array, by their bytes.
_WORDS = {array(code).itemsize: code for code in "BHIQ"}
_KNOWN = (*((_INTEGERS, bits) for bits in _NARROW), _PACKED, *_RAW, *_CODES)
# ExtraSamples: alpha by which the colours are multiplied, or by which they are not, also as Corel Draw spells it.
_ASSOCIATED, _UNASSOCIATED = 1, (2, 999)
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_INVERTED = [255 - value for value in range(256)]
_HEADER_BYTES = 8
# What Canon's raw has behind the header of a TIFF.
_CR2, _RAW_MARK_END = b"CR\2", 11
# What Pillow sets up, with the size and everything beside the pixels, for a page whose samples are decoded here.
_GREY = {
    _BITS: (8,), _COMPRESSION: 1, _PHOTOMETRIC: _BLACK_IS_ZERO, _FILL_ORDER: 1, _SAMPLES: 1, _PLANAR: 1, _EXTRA: (),
    _FORMAT: (_INTEGERS,),
}  # fmt: skip


Samples = bytes | bytearray
"""Rows of samples as they are stored, without compression."""
Kind = tuple[int, float, float]
"""A sample's SampleFormat, and the values of it that become 0 and 255."""


@dataclass(frozen=True)
class Layout:
    """How the samples of a page lie in its file."""

    size: tuple[int, int]
    photometric: int
    bits: int
    samples: int
    extra: tuple[int, ...]
    """ExtraSamples: what each sample behind the colours is."""
    planar: bool
    """True if each sample has strips or tiles of its own."""
    compression: int
    predictor: int
    fill_order: int
    order: str
    """The byte order, as struct spells it."""
    chunk: tuple[int, int]
    """Width and height of a tile, or of a strip, which is as wide as the picture."""
    is_tiled: bool
    kinds: tuple[Kind, ...]
    """The kind of each sample."""
    has_usual_range: bool
    """True if all samples are whole numbers, of which 0 and the greatest are the ends of the range."""

    @property
    def colors(self) -> int:
        """The number of samples that are colour."""
        return self.samples - len(self.extra)

    @property
    def alpha(self) -> int | None:
        """The number of the sample that is alpha; None without one."""
        kinds = (_ASSOCIATED, *_UNASSOCIATED)
        return next((self.colors + at for at, kind in enumerate(self.extra) if kind in kinds), None)

    @property
    def is_multiplied(self) -> bool:
        """True if the colours are multiplied by the alpha; the indices of a palette cannot be."""
        at = self.alpha
        return at is not None and self.extra[at - self.colors] == _ASSOCIATED and self.photometric != _PALETTE

    @property
    def mode(self) -> str:
        """The mode of the picture that is decoded here."""
        mode = _MODES[self.photometric]
        if mode == "CMYK" and self.alpha is None:
            return mode
        return ("L" if mode == "L" else "RGB") + ("" if self.alpha is None else "A")

    @property
    def interleaved(self) -> int:
        """The number of samples that stand side by side for each pixel."""
        return 1 if self.planar else self.samples

    @property
    def row_bytes(self) -> int:
        """The number of bytes of a row of a strip or tile."""
        return (self.chunk[0] * self.interleaved * self.bits + 7) // 8

    def is_read_by_pillow(self) -> bool:
        """Return whether Pillow decodes this layout, and right."""
        if self.compression not in _LOSSLESS or self.photometric == _YCBCR:
            return True
        if self.fill_order != 1 or self.planar or not self.has_usual_range:
            return False
        if self.samples == 1:
            return self.bits in _NARROW or (self.bits, self.photometric) == (16, _BLACK_IS_ZERO)
        if self.photometric == _RGB:
            return len(self.extra) < 2 if self.bits == 8 else self.bits == 16 and self.extra in ((), (2,))
        return self.photometric == _CMYK and self.bits in (8, 16) and not self.extra


def read_layout(tags: Mapping[int, Any], order: str) -> Layout:
    """Return the layout of a page by its tags.

    Raises:
        Unreadable: The layout is one that is not decoded, or its tags contradict each other.
    """
    size = _number(tags, _WIDTH), _number(tags, _LENGTH)
    refuse_if_too_large(size)
    compression, samples = _number(tags, _COMPRESSION, _UNCOMPRESSED), _number(tags, _SAMPLES, 0)
    if compression not in _CODECS:
        raise _unsupported(f"compressed as {_OTHER_COMPRESSIONS.get(compression, f'number {compression}')}")
    photometric = _photometric(tags, compression, samples)
    colors = len(Image.getmodebands(_MODES[photometric]) * " ")
    samples = samples or (colors if compression == _JPEG else 1)
    if samples > _MAX_SAMPLES:
        raise _unsupported(f"with {samples} channels, limit {_MAX_SAMPLES}")
    bits, formats = _numbers(tags, _BITS, 1)[:samples], _numbers(tags, _FORMAT, _INTEGERS)[:samples]
    if len({*bits}) > 1 or len({*formats}) > 1:
        raise _unsupported("whose channels are of different types")
    if not 1 <= bits[0] <= _MAX_BITS:
        raise _unsupported(f"with {bits[0]} bits a channel")
    extra = _extra(tags, samples - colors, photometric)
    kinds = _kinds(tags, photometric, bits[0], _INTEGERS if formats[0] == _UNDEFINED else formats[0], colors, extra)
    usual = (_INTEGERS, 0, 2 ** bits[0] - 1)
    tiled = _TILE_WIDTH in tags
    layout = Layout(
        size=size, photometric=photometric, bits=bits[0], samples=samples, extra=extra,
        planar=samples > 1 and _number(tags, _PLANAR, 1) == 2, compression=compression,
        predictor=_number(tags, _PREDICTOR, 1) if compression in _PREDICTED else 1,
        fill_order=_number(tags, _FILL_ORDER, 1), order=order, is_tiled=tiled,
        chunk=(_number(tags, _TILE_WIDTH), _number(tags, _TILE_LENGTH)) if tiled
        else (size[0], min(size[1], _number(tags, _ROWS, size[1]))), kinds=kinds,
        has_usual_range=all(kind == usual for kind in kinds) and photometric not in (_CIELAB, _ICCLAB),
    )  # fmt: skip
    _refuse_unless_decoded(layout, tags)
    return layout


def _photometric(tags: Mapping[int, Any], compression: int, samples: int) -> int:
    """Return what the colours of a page are; where it does not say, what libtiff takes for the number of samples."""
    guess = _WHITE_IS_ZERO if compression in _FAX else _RGB if samples >= 3 else _BLACK_IS_ZERO
    photometric = _YCBCR if compression == _JPEG_OLD else _number(tags, _PHOTOMETRIC, guess)
    if photometric not in _MODES:
        raise _unsupported(f"with {_OTHER_COLORS.get(photometric, f'colours of the unknown kind {photometric}')}")
    if photometric == _CMYK and _number(tags, _INK_SET, 1) != 1:
        raise _unsupported("with inks other than CMYK")
    return photometric


def _extra(tags: Mapping[int, Any], count: int, photometric: int) -> tuple[int, ...]:
    """Return what each of the samples behind the colours is; the first that grey or RGB does not explain is alpha."""
    if count < 0:
        raise Unreadable("damaged picture: it has fewer channels than its colours need")
    unexplained = _UNASSOCIATED[:1] if photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB) else ()
    stated = _numbers(tags, _EXTRA, 0) if _EXTRA in tags else unexplained
    return (*stated, *[0] * count)[:count]


def _kinds(
    tags: Mapping[int, Any], photometric: int, bits: int, format: int, colors: int, extra: tuple[int, ...]
) -> tuple[Kind, ...]:
    """Return the kind of each sample: its range is that of the tags, or of its type, or guessed and noted."""
    if format not in (_INTEGERS, _SIGNED, _FLOATS):
        raise _unsupported("with complex numbers" if format in _COMPLEX else f"of the unknown sample format {format}")
    whole = {_INTEGERS: (0, 2**bits - 1), _SIGNED: (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1), _FLOATS: (0, 1)}[format]
    if photometric == _CIELAB and format != _FLOATS:
        signed = (_SIGNED, -(2 ** (bits - 1)), 2 ** (bits - 1) - 2 ** (bits - 8))
        kinds = [(_INTEGERS, 0, 2**bits - 1), signed, signed]
    elif photometric == _ICCLAB and format != _FLOATS:
        kinds = [(_INTEGERS, 0, 2**bits - 2 ** (bits - 8))] * 3
    elif (bits > 8 or format != _INTEGERS) and (stated := _stated_ranges(tags, colors)):
        kinds = [(format, *each) for each in stated]
    else:
        kinds = [(format, *(whole if format == _INTEGERS else guessed_range(*whole)))] * colors
    return (*kinds, *[(format, *whole)] * len(extra))


def _stated_ranges(tags: Mapping[int, Any], colors: int) -> list[tuple[float, float]]:
    """Return SMinSampleValue and SMaxSampleValue of each colour; nothing if they are not there, or no range."""
    lowest, highest = tags.get(_LOWEST), tags.get(_HIGHEST)
    lows, highs = ([*each] if isinstance(each, tuple) else [each] for each in (lowest, highest))
    ranges = list(zip(lows * colors, highs * colors, strict=False))[:colors]
    if all(isinstance(end, int | float) and math.isfinite(end) for each in ranges for end in each):
        return ranges if all(low < high for low, high in ranges) else []
    return []


def _refuse_unless_decoded(layout: Layout, tags: Mapping[int, Any]) -> None:
    """Raise `Unreadable` for a layout that would cost much, or that neither Pillow nor this module decodes right."""
    width, height = layout.chunk
    if min(width, height) < 1:
        raise Unreadable(f"damaged picture: its strips or tiles are {width}x{height}")
    if layout.is_tiled and width * height > max(_TILE_PIXELS, 4 * layout.size[0] * layout.size[1]):
        raise Unreadable(f"too large: tiles of {width}x{height}, limit {_TILE_PIXELS / 1e6:g} MP in a small picture")
    pixel_bytes = -(-layout.samples * layout.bits // 8)
    _refuse_if_costly(layout, layout.size, -(-pixel_bytes // _PASSED_BYTES))
    if layout.compression in _LOSSLESS and layout.photometric != _YCBCR:
        if layout.compression != _UNCOMPRESSED:
            # `_Decoder` has a strip or tile three times: where libtiff unpacks it, in Pillow's picture, and as bytes.
            held_bytes = pixel_bytes if layout.is_read_by_pillow() else 3 * pixel_bytes
            _refuse_if_costly(layout, layout.chunk, -(-held_bytes // _HELD_BYTES))
        _refuse_unknown_samples(layout, tags)
        _refuse_unknown_predictor(layout)
    else:
        _refuse_unknown_codec(layout, tags)


def _refuse_if_costly(layout: Layout, size: Size, times: int) -> None:
    """Raise `Unreadable` if a picture, or strip or tile, of a size exceeds the limits where it counts several times."""
    refuse_if_too_large(size)
    try:
        refuse_if_too_large(size, times)
    except Unreadable:
        shown = f"{size[0]}x{size[1]} with {layout.samples} channels of {layout.bits} bits"
        raise Unreadable(f"too large: {shown}, which count {times} times against max_pixels") from None


def _refuse_unknown_samples(layout: Layout, tags: Mapping[int, Any]) -> None:
    bits, mode, formats = layout.bits, _MODES[layout.photometric], {format for format, *_ in layout.kinds}
    known = all((format, bits) in _KNOWN for format in formats)
    if mode in ("P", "LAB"):
        known = _FLOATS not in formats and bits in ((*_NARROW, 16) if mode == "P" else (8, 16))
    if not known:
        raise _unsupported(f"with {bits} bits a channel{' of floats' if _FLOATS in formats else ''}, mode {mode}")
    if mode == "P" and len(_numbers(tags, _COLOR_MAP, 0)) < 3 * 2**bits:
        raise Unreadable(f"damaged picture: its palette has no {2**bits} colours")
    if mode in ("CMYK", "LAB") and _ASSOCIATED in layout.extra:
        raise _unsupported(f"with colours multiplied by their alpha, mode {mode}")


def _refuse_unknown_predictor(layout: Layout) -> None:
    known = {1: True, 2: layout.bits in (8, 16, 32), 3: {format for format, *_ in layout.kinds} == {_FLOATS}}
    if not known.get(layout.predictor):
        raise _unsupported(f"with predictor {layout.predictor} on {layout.bits} bits a channel")


def _refuse_unknown_codec(layout: Layout, tags: Mapping[int, Any]) -> None:
    """Raise `Unreadable` for what Pillow does not decode right, where the samples are not for this module to decode."""
    mode, channels = _MODES[layout.photometric], f"{layout.samples} channels of {layout.bits} bits"
    if layout.compression in _FAX and (layout.bits, layout.samples, mode) != (1, 1, "L"):
        raise _unsupported(f"with {channels} compressed as a fax")
    apart = layout.planar or mode == "CMYK" or layout.compression == _JPEG_OLD
    if layout.compression in (_JPEG, _JPEG_OLD) and (layout.bits != 8 or len(layout.extra) > (0 if apart else 1)):
        raise _unsupported(f"with {channels} compressed as JPEG, mode {mode}")
    if mode == "YCbCr" and ((layout.bits, layout.extra) != (8, ()) or (
        layout.planar and {*_numbers(tags, _SUBSAMPLING, 2)} != {1}
    )):  # fmt: skip
        raise _unsupported(f"with {channels}{' apart' * layout.planar}, mode {mode}")


def _number(tags: Mapping[int, Any], tag: int, default: int | None = None) -> int:
    """Return the number that a tag holds, or the first of several. Raises `Unreadable` if it holds none."""
    if (value := tags.get(tag, default)) is None:
        raise Unreadable(f"damaged picture: it has no {TiffTags.lookup(tag).name}")
    return _as_numbers(tag, value)[0]


def _numbers(tags: Mapping[int, Any], tag: int, default: int) -> tuple[int, ...]:
    return _as_numbers(tag, tags.get(tag, default))


def _as_numbers(tag: int, value: object) -> tuple[int, ...]:
    numbers = value if isinstance(value, tuple) else (value,)
    if not numbers or not all(isinstance(number, int) for number in numbers):
        raise Unreadable(f"damaged picture: its {TiffTags.lookup(tag).name} is no whole number")
    return numbers


def _unsupported(what: str) -> Unreadable:
    return Unreadable(f"unsupported: TIFF {what}")


def begins_tiff(head: bytes) -> bool:
    """Return whether a file begins as a TIFF does, and not as a camera's raw in the clothes of one."""
    return head.startswith(tuple(TiffImagePlugin.PREFIXES)) and not head[:_RAW_MARK_END].endswith(_CR2)


def as_stated(image: ImageFile.ImageFile) -> ImageFile.ImageFile:
    """Return a TIFF that was opened by Pillow, and is not decoded, as one that is decoded as its tags say."""
    if image.format != "TIFF" or isinstance(image, TiffFile) or not image.tile or image.fp is None:
        return image
    again = TiffFile(image.fp)
    again.seek(image.tell())
    return again


class TiffFile(TiffImagePlugin.TiffImageFile):
    """A TIFF of which each page is decoded as its tags say.

    Raises `Unreadable` when it is opened, or another page is sought, for a layout that is not decoded.
    """

    _layout: Layout
    _is_strange = False
    """True for a BigTIFF in the byte order of which Pillow knows no BigTIFF."""

    def _open(self) -> None:
        assert self.fp is not None
        # First, since the tags that Pillow finds on a page that is cut off are some of those that it had.
        (self._first_page, self._is_big), self._n_frames = _find_pages(self.fp)
        super()._open()

    def _seek(self, frame: int) -> None:
        directory: Any = self.tag_v2
        if self._is_big and not directory._bigtiff:
            directory._bigtiff = self._is_strange = True
            vars(self)["_TiffImageFile__next"] = vars(self)["_TiffImageFile__first"] = self._first_page
        super()._seek(frame)

    def getexif(self) -> Image.Exif:
        if self._is_strange:  # of which Pillow cannot read the tags as EXIF: it gets those that count
            exif = Image.Exif()
            if _ORIENTATION in self.tag_v2:
                exif[_ORIENTATION] = self.tag_v2[_ORIENTATION]
            self.info["exif"] = exif.tobytes()
        return super().getexif()

    def _setup(self) -> None:
        tags = self.tag_v2
        if kind := raw_in_tiff(tags):
            raise Unreadable(f"unsupported: {kind}")
        self._refuse_cut_values()
        self._layout = layout = read_layout(tags, "<" if tags.prefix == b"II" else ">")
        pillows: dict[int, Any] = {
            _PHOTOMETRIC: layout.photometric, _FORMAT: (_INTEGERS,), _EXTRA: layout.extra,
            _PLANAR: 2 if layout.planar else 1,
            _FILL_ORDER: 1,
        }  # fmt: skip
        if (layout.photometric, layout.compression) == (_YCBCR, _UNCOMPRESSED):
            pillows[_COMPRESSION] = _LOSSLESS[1]  # as which it is left to libtiff
        self._set_up_as(pillows if layout.is_read_by_pillow() else _GREY)
        self._size = layout.size  # as it is stored, whatever the orientation
        if not layout.is_read_by_pillow():
            self._mode, self.palette = layout.mode, None
        elif self.mode == "P":
            self.palette = ImagePalette.raw("RGB;L", b"".join(_palette(tags, layout.bits)))
        if _MODES[layout.photometric] == "LAB":
            self.info.pop(_ICC, None)  # Lab is defined without one
        if isinstance(self.info.get("xmp"), str):  # as Pillow has a text, and seeks an orientation in bytes
            self.info["xmp"] = self.info["xmp"].encode()

    def _refuse_cut_values(self) -> None:
        """Raise `Unreadable` if the file ends before the value of a tag does, which Pillow takes for a missing one."""
        assert self.fp is not None
        order = "<" if self.tag_v2.prefix == b"II" else ">"
        count, entry, word = ("Q", "HHQQ", 8) if self._is_big else ("H", "HHII", 4)
        entry_bytes = struct.calcsize(order + entry)
        (entries,) = struct.unpack(order + count, _read(self.fp, self.tag_v2.offset, struct.calcsize(order + count)))
        directory = self.fp.read(entries * entry_bytes)
        file_bytes = self.fp.seek(0, io.SEEK_END)
        for tag, kind, number, place in struct.iter_unpack(order + entry, directory):
            value_bytes, _ = self.tag_v2._load_dispatch.get(kind, (0, None))
            if tag in _DECISIVE and number * value_bytes > word and place + number * value_bytes > file_bytes:
                raise Unreadable(f"truncated picture: its {TiffTags.lookup(tag).name} is cut off")

    def _set_up_as(self, others: Mapping[int, Any]) -> None:
        """Let Pillow set up the page, as if some of its tags were others."""
        tags = self.tag_v2
        posed: Any = ChainMap(dict(others), tags)
        posed.prefix, posed.offset = tags.prefix, tags.offset
        self.tag_v2 = posed
        try:
            super()._setup()
        finally:
            self.tag_v2 = tags

    def load(self) -> Any:
        if self.tile and not self._layout.is_read_by_pillow():
            assert self.fp is not None
            image = _Decoder(self.fp, self._layout, self.tag_v2, self.info.get(_ICC)).decode()
            self.im, self._mode, self.tile = image.im, image.mode, []
            self.load_end()
            if self.mode in ("RGB", "RGBA", "LA") and _MODES[self._layout.photometric] == "CMYK":
                self.info.pop(_ICC, None)  # as it is in sRGB now
        return super().load()

    def load_end(self) -> None:
        """Leave the page as it is stored, where Pillow turns it: `decode` turns the pictures of all formats."""
        self._close_exclusive_fp_after_loading = not self.is_animated


def _find_pages(file: IO[bytes]) -> tuple[tuple[int, bool], int]:
    """Return where the first page is and whether it is a BigTIFF's, and the number of pages.

    Raises `Unreadable` if they are too many, or one of them is not in the file.
    """
    file.seek(0)
    head = file.read(2 * _HEADER_BYTES)
    order = "<" if head[:2] == b"II" else ">"
    is_big = 43 in head[2:4]
    # The number of entries, the entries, and where the next page is.
    count, entry_bytes, link = (f"{order}Q", 20, f"{order}Q") if is_big else (f"{order}H", 12, f"{order}I")
    (first,) = struct.unpack_from(link, head.ljust(2 * _HEADER_BYTES, b"\0"), struct.calcsize(link))
    page, seen = first, set[int]()
    while page and page not in seen:
        seen.add(page)
        if len(seen) > MAX_PAGES:
            raise Unreadable(f"too large: more than {MAX_PAGES} pages, which is the limit")
        try:
            (entries,) = struct.unpack(count, _read(file, page, struct.calcsize(count)))
            behind = page + struct.calcsize(count) + entries * entry_bytes
            (page,) = struct.unpack(link, _read(file, behind, struct.calcsize(link)))
        except Unreadable:
            raise Unreadable(f"truncated picture: its page {len(seen)} is cut off") from None
    file.seek(0)
    return (first, is_big), len(seen)


def _read(file: IO[bytes], place: int, size_bytes: int) -> bytes:
    """Read bytes at a place. Raises `Unreadable` if the file ends before them."""
    if place + size_bytes > file.seek(0, io.SEEK_END):
        raise Unreadable("truncated picture: it ends within its pixels")
    file.seek(place)
    return file.read(size_bytes)


class _Decoder:
    """Decodes a page to 8 bits a channel, some strips or one tile at a time."""

    def __init__(self, file: IO[bytes], layout: Layout, tags: Mapping[int, Any], icc_profile: bytes | None) -> None:
        self._file, self._layout, self._icc_profile = file, layout, icc_profile
        (width, height), (across, self._rows) = layout.size, layout.chunk
        self._across, self._planes = -(-width // across), layout.samples if layout.planar else 1
        self._places, sizes = (_numbers(tags, tag, 0) for tag in (_TILES if layout.is_tiled else _STRIPS))
        count = self._across * -(-height // self._rows) * self._planes
        if layout.compression == _UNCOMPRESSED:
            sizes = (self._rows * layout.row_bytes,) * len(self._places)
        if min(len(self._places), len(sizes)) < count:
            raise Unreadable(f"damaged picture: it has {len(self._places)} strips or tiles of {count}")
        self._sizes_bytes = sizes
        if layout.compression == _UNCOMPRESSED and not layout.is_tiled:
            self._take_each_row_for_a_strip()
        palette = _palette(tags, layout.bits) if layout.photometric == _PALETTE else []
        # The number of each sample that is wanted, and how its values become 8 bits.
        self._wanted: list[tuple[int, Kind | bytes]] = [(0, table) for table in palette]
        self._wanted = self._wanted or list(enumerate(layout.kinds[: layout.colors]))
        if layout.alpha is not None:
            self._wanted.append((layout.alpha, layout.kinds[layout.alpha]))

    def _take_each_row_for_a_strip(self) -> None:
        """Cut the strips of what is not compressed into rows, so that no large one is in memory."""
        rows, height, row_bytes = self._rows, self._layout.size[1], self._layout.row_bytes
        strips = -(-height // rows)
        self._places = tuple(
            self._places[plane * strips + row // rows] + row % rows * row_bytes
            for plane in range(self._planes)
            for row in range(height)
        )
        self._rows, self._sizes_bytes = 1, (row_bytes,) * len(self._places)

    def decode(self) -> Image.Image:
        layout, row_bytes = self._layout, self._layout.row_bytes
        (width, height), across = layout.size, layout.chunk[0]
        whole = Image.new(layout.mode, layout.size)
        count = self._across * -(-height // self._rows)
        together = 1 if layout.is_tiled else max(1, _GROUP_BYTES // (self._rows * row_bytes))
        band = max(1, _GROUP_BYTES // row_bytes)
        for first in range(0, count, together):
            left, top = first % self._across * across, first // self._across * self._rows
            rows = min(self._rows * min(together, count - first), height - top)
            stored = self._rows if layout.is_tiled else rows
            chunks = range(first, min(first + together, count))
            planes = [
                self._unpacked([plane * count + chunk for chunk in chunks], stored) for plane in range(self._planes)
            ]
            for begin in range(0, rows, band):
                size = across, min(band, rows - begin)
                part = slice(begin * row_bytes, (begin + size[1]) * row_bytes)
                plain = self._plain([(data[part], order) for data, order in planes], size)
                whole.paste(plain.crop((0, 0, min(across, width - left), size[1])), (left, top + begin))
        return whole

    # -- bytes ---------------------------------------------------------------------------------------------------------

    def _unpacked(self, chunks: list[int], rows: int) -> tuple[Samples, str]:
        """Return the samples of strips, or a tile, of so many rows together, and their byte order."""
        layout = self._layout
        packed = [_read(self._file, self._places[chunk], self._sizes_bytes[chunk]) for chunk in chunks]
        if layout.fill_order == 2:
            packed = [data.translate(_REVERSED) for data in packed]
        if layout.compression == _UNCOMPRESSED:
            return b"".join(packed), layout.order
        if layout.predictor == 1:
            return self._unpacked_by_libtiff(packed, rows, 8), layout.order
        if layout.interleaved == 1 and layout.bits in (8, 16) and layout.predictor == 2:
            return self._unpacked_by_libtiff(packed, rows, layout.bits), layout.order
        if layout.interleaved == 1 and layout.bits == 32 and (layout.order == "<" or layout.predictor == 3):
            return self._unpacked_by_libtiff(packed, rows, 32), "="
        return _summed(self._unpacked_by_libtiff(packed, rows, 8), layout)

    def _unpacked_by_libtiff(self, packed: list[bytes], rows: int, bits: int) -> bytearray:
        """Unpack strips as those of a grey picture of so many bits, whose bytes they are; with 8 bits as they are."""
        layout = self._layout
        predictor = layout.predictor if bits == layout.bits and layout.interleaved == 1 else 1
        form = _FLOATS if predictor == 3 else _SIGNED if bits == 32 else _INTEGERS
        order = "<" if predictor == 3 else layout.order  # whose bytes have no order
        *places, _ = accumulate(map(len, packed), initial=_HEADER_BYTES)
        tags = {
            _WIDTH: [layout.row_bytes * 8 // bits], _LENGTH: [rows], _BITS: [bits], _COMPRESSION: [layout.compression],
            _PHOTOMETRIC: [_BLACK_IS_ZERO], _STRIPS[0]: places, _SAMPLES: [1], _ROWS: [self._rows],
            _STRIPS[1]: [*map(len, packed)], _PREDICTOR: [predictor], _FORMAT: [form],
        }  # fmt: skip
        try:
            with Image.open(_tiff_of(tags, packed, order), formats=("TIFF",)) as grey:
                # Piece by piece, since `tobytes` needs room for three pictures.
                data, band = bytearray(), max(1, _GROUP_BYTES // layout.row_bytes)
                for top in range(0, rows, band):
                    data += grey.crop((0, top, grey.width, min(rows, top + band))).tobytes()
                return data
        except (OSError, ValueError) as error:
            raise Unreadable(f"damaged picture: its strips or tiles cannot be unpacked: {error}") from None

    # -- pixels --------------------------------------------------------------------------------------------------------

    def _plain(self, planes: list[tuple[Samples, str]], size: Size) -> Image.Image:
        """Make a part of the picture of the bytes of its planes, or of all samples in one."""
        layout, step = self._layout, self._layout.interleaved
        channels, scaled = [], {}
        for sample, scale in self._wanted:
            plane, at = (sample, 0) if layout.planar else (0, sample)
            if (plane, scale) not in scaled:
                scaled[plane, scale] = self._scaled(*planes[plane], scale, (size[0] * step, size[1]))
            channels.append(Image.frombytes("L", size, scaled[plane, scale][at::step]))
        return self._merged(channels)

    def _scaled(self, data: Samples, order: str, scale: Kind | bytes, size: Size) -> bytes:
        """Return samples scaled to a byte each, or looked up in one column of a palette."""
        bits, suffix = self._layout.bits, {"<": "", ">": "B", "=": "N"}[order]
        if isinstance(scale, bytes):
            if bits == 16:
                return Image.frombytes("I", size, data, "raw", f"I;16{suffix}").point([*scale], "L").tobytes()
            indices = Image.frombytes("P", size, data, "raw", f"P;{bits}" if bits < 8 else "P").tobytes()
            return indices.translate(scale.ljust(256, b"\0"))
        format, low, high = scale
        if format == _INTEGERS and bits in _NARROW:
            if bits == 1:
                return Image.frombytes("1", size, data, "raw", "1").convert("L").tobytes()
            return Image.frombytes("L", size, data, "raw", f"L;{bits}" if bits < 8 else "L").tobytes()
        return floats_to_eight_bits(_as_floats(data, format, bits, order, suffix, size), low, high).tobytes()

    def _merged(self, channels: list[Image.Image]) -> Image.Image:
        layout, stored = self._layout, _MODES[self._layout.photometric]
        alpha = channels.pop() if layout.alpha is not None else None
        mode = "RGB" if stored == "P" else stored
        colors = channels[0] if mode == "L" else Image.merge(mode, channels)
        if mode == "LAB":
            colors = to_plain(colors)
        if mode == "CMYK" and alpha:  # for which Pillow has no mode
            colors = to_srgb(colors, self._icc_profile)
        if alpha and layout.is_multiplied:
            multiplied = Image.merge(f"{mode}a", (*colors.split(), alpha))
            colors = multiplied.convert(f"{mode}A").convert(mode)
        if layout.photometric == _WHITE_IS_ZERO:
            colors = colors.point(_INVERTED)
        if alpha:
            colors.putalpha(alpha)
        return colors


def _tiff_of(tags: Mapping[int, Sequence[int]], strips: Sequence[bytes], order: str) -> IO[bytes]:
    """Return a TIFF of one page, with its strips behind its header, of which there is one copy since they are large."""
    file, entries = io.BytesIO(), []
    file.write(bytes(_HEADER_BYTES))
    file.writelines(strips)
    file.write(bytes(file.tell() % 2))
    for tag, values in sorted(tags.items()):
        packed = struct.pack(f"{order}{len(values)}I", *values)
        if len(values) > 1:
            place = file.tell()
            file.write(packed)
            packed = struct.pack(f"{order}I", place)
        entries.append(struct.pack(f"{order}HHI", tag, 4, len(values)) + packed)
    directory = file.tell()
    file.write(b"".join((struct.pack(f"{order}H", len(entries)), *entries, bytes(4))))
    file.seek(0)
    file.write((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, directory))
    file.seek(0)
    return file


def _summed(data: Samples, layout: Layout) -> tuple[Samples, str]:
    """Undo a predictor (TIFF 6.0, section 14; Adobe's technical note 3): return the samples and their byte order."""
    step, size_bytes, floats = layout.interleaved, layout.bits // 8, layout.predictor == 3
    words = array(_WORDS[1 if floats else size_bytes], data)
    if (layout.order == ">") == (sys.byteorder == "little"):
        words.byteswap()
    row, parts = len(words) * layout.row_bytes // len(data), 8 // words.itemsize
    low = 0 if sys.byteorder == "little" else parts - 1
    for first in range(0, len(words), row):
        for sample in range(first, first + step):
            sums = array("Q", accumulate(words[sample : first + row : step]))  # of which the low part counts
            words[sample : first + row : step] = array(words.typecode, sums.tobytes())[low::parts]
    if not floats:
        return words.tobytes(), "="
    # The bytes of one weight stand side by side, the greatest first.
    summed, samples = words.tobytes(), bytearray(len(data))
    for first in range(0, len(data), row):
        for weight in range(size_bytes):
            part = summed[first + weight * row // size_bytes :][: row // size_bytes]
            samples[first + weight : first + row : size_bytes] = part
    return bytes(samples), ">"


def _as_floats(data: Samples, format: int, bits: int, order: str, suffix: str, size: Size) -> Image.Image:
    """Return deep samples as an image of floats."""
    if (format, bits) == _PACKED:
        return Image.frombytes("I;16", size, data, "raw", "I;12").convert("I").convert("F")
    if code := _CODES.get((format, bits)):
        count = size[0] * size[1]
        return Image.frombytes(
            "F", size, array("f", struct.unpack(f"{order}{count}{code}", data)).tobytes(), "raw", "F;32NF"
        )
    return Image.frombytes("F", size, data, "raw", _RAW[format, bits].format(suffix))


def _palette(tags: Mapping[int, Any], bits: int) -> list[bytes]:
    """Return the red, green and blue of the entries of a palette, of which some writers store only 8 bits."""
    values = _numbers(tags, _COLOR_MAP, 0)
    deep, count = max(values) > 255, 2**bits
    eight = bytes((value + 128) // 257 if deep else value for value in values)
    return [eight[first : first + count] for first in (0, count, 2 * count)]
