"""Reads PNG as its standard says (PNG, third edition): the colours it names, and pixels whatever is wrong beside them.

Pillow's reader is given a file without the ancillary chunks that are damaged or misplaced, and with an ICC profile for
colours that are named by numbers (cICP, gAMA, cHRM). A file that has neither is given as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from itertools import dropwhile
from typing import IO, Any

from PIL import Image, ImageChops, ImageMath, PngImagePlugin

from pipeline.errors import Unreadable
from pipeline.images import refuse_if_too_large
from pipeline.images.encodings import (
    Colors,
    Curve,
    build_profile,
    is_coarse,
    note_tone_mapping,
    numbered_colors,
    power,
    srgb_curve,
    srgb_levels,
)
from pipeline.images.png_chunks import (
    TEXTS,
    Chunk,
    encoded,
    end_of_sound_pixels,
    left_out,
    lost_end,
    note_left_out,
    read_chunks,
    rewritten,
    walk,
)
from pipeline.notes import note

# Colour types, and the depths of each (PNG 3, table 8).
_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Rows of 16 bits a channel that are converted at a time.
_ROWS = 64
# How far a gamma and a coordinate may be off and be meant to be sRGB's: 0.45 is, and libpng allows as much for the
# other. Then the gammas that a display may have had.
_SRGB_GAMMA, _GAMMA_SLACK, _XY_SLACK = 0.45455, 0.005, 0.01
_GAMMAS = (0.1, 10)
_Box = tuple[int, int, int, int]


class PngFile(PngImagePlugin.PngImageFile):
    """A PNG whose 16 bits a channel count where 8 would not do."""

    transparent16: tuple[int, int, int] | None = None
    """The red, green and blue, of 16 bits, of the pixels that are transparent."""
    curve16: Curve | None = None
    """The curve of values of 16 bits that become those of sRGB, where 8 bits of the curve would be too few."""

    def _open(self) -> None:
        super()._open()
        self._stored = self.tile[0]

    def getexif(self) -> Image.Exif:
        """Return the EXIF, which is there without decoding the pixels that it may follow."""
        return Image.Image.getexif(self)

    @property
    def bytes_a_pixel(self) -> int:
        """The bytes that a pixel takes while it is decoded: of 16 bits, those that are taken from and those made."""
        is_transparent = "transparency" in self.info
        if self._stored.args == "LA;16B":
            return 8
        if self.transparent16 or (self.curve16 and self.mode != "I;16"):
            return 9  # the high bytes, the low bytes and the alpha
        if self.mode == "P":  # its indices, and its colours
            return 5
        return {"I;16": 7, "RGB": 8, "L": 5, "1": 5}.get(self.mode, 4) if is_transparent else 4

    def load_prepare(self) -> None:
        if self.curve16 and self._stored.args == "LA;16B":  # whose four bytes are wanted, not Pillow's choice of them
            self.tile = [self._stored._replace(args="RGBA")]
        super().load_prepare()
        assert self.fp is not None
        self._tail, self._end_of_pixels = b"", end_of_sound_pixels(self.fp)

    def load_read(self, read_bytes: int) -> bytes:
        """Read pixels, and the last byte of their checksum by itself, so that only what is too little is checked.

        The checksum of the unpacked pixels (Adler-32; RFC 1950, 2.2) says nothing where those of the chunks are right,
        and the faster decoder (`fast_png`) does not look at it. Its other bytes are given: zlib hands out the last
        pixels only while it has some input.
        """
        assert self.fp is not None
        data, self._tail = self._tail or super().load_read(read_bytes), b""
        if self.fp.tell() == self._end_of_pixels and len(data) > 1:
            data, self._tail = data[:-1], data[-1:]
        return data

    def load_end(self) -> None:
        super().load_end()
        raw = str(self._stored.args)
        if raw == "LA;16B" and self.curve16:
            self._become("LA", self._grey_and_alpha)
        elif raw == "LA;16B" and not self.is_animated:  # which Pillow reads as RGBA
            self._become("LA", lambda box: self.crop(box).convert("LA"))
        elif self.mode == "I;16" and self.curve16:
            self._become("LA" if "transparency" in self.info else "L", self._grey)
            self.info.pop("transparency", None)
        elif self.transparent16 or self.curve16:
            self._recode(self._low_bytes(raw.replace("16B", "16L")))

    def _become(self, mode: str, make: Callable[[_Box], Image.Image]) -> None:
        """Become an image of what `make` returns for the part in each box; all at once would take more memory."""
        made = Image.new(mode, self.size)
        for box in self._boxes():
            made.paste(make(box), box)
        self._im, self._mode = made.im, mode

    def _boxes(self) -> Iterator[_Box]:
        for top in range(0, self.height, _ROWS):
            yield (0, top, self.width, min(self.height, top + _ROWS))

    def _low_bytes(self, raw: str) -> Image.Image:
        """Decode the pixels once more, into the low bytes of their 16 bits."""
        assert self.fp is not None
        self.fp.seek(0)
        low = PngFile(self.fp)
        low.tile = [self._stored._replace(args=raw)]
        return low

    def _recode(self, low: Image.Image) -> None:
        """Bring RGB or RGBA to the curve of sRGB, and make one colour transparent, by its high and its low bytes."""
        alpha = Image.new("L", self.size) if self.transparent16 else None
        for box in self._boxes():
            high_part, low_part = self.crop(box), low.crop(box)
            if alpha and self.transparent16:
                alpha.paste(_alpha16(high_part, low_part, self.transparent16), box)
            if self.curve16:
                bands, levels = list(high_part.split()), srgb_levels(self.curve16)
                for channel, low_band in enumerate(low_part.split()[:3]):
                    bands[channel] = _joined(bands[channel], low_band).point(levels, "L")
                self.im.paste(Image.merge(self.mode, bands).im, box)
        if alpha:
            self.putalpha(alpha)

    def _grey(self, box: _Box) -> Image.Image:
        """Return 16-bit greys as 8-bit ones, with an alpha if one of them is transparent."""
        assert self.curve16
        deep = self.crop(box).convert("I")
        grey, transparent = deep.point(srgb_levels(self.curve16), "L"), self.info.get("transparency")
        if transparent is not None:
            grey.putalpha(deep.point([255 * (value != transparent) for value in range(65_536)], "L"))
        return grey

    def _grey_and_alpha(self, box: _Box) -> Image.Image:
        """Return greys and alphas of 8 bits, of pixels that have the two bytes of each as their red to alpha."""
        assert self.curve16
        high, low, alpha, _ = self.crop(box).split()
        return Image.merge("LA", (_joined(high, low).point(srgb_levels(self.curve16), "L"), alpha))


def _joined(high: Image.Image, low: Image.Image) -> Image.Image:
    """Return values of 16 bits, in mode I, by their bytes."""
    deep = ImageMath.lambda_eval(lambda args: args["high"] * 256 + args["low"], high=high, low=low)
    assert isinstance(deep, Image.Image)
    return deep


def _alpha16(high: Image.Image, low: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """Return the alpha of pixels of which one colour of 16 bits is transparent."""
    bands = [*zip(high.split(), [value >> 8 for value in color], strict=True),
             *zip(low.split(), [value & 255 for value in color], strict=True)]  # fmt: skip
    differs = (band.point([255 * (level != value) for level in range(256)]) for band, value in bands)
    return reduce(ImageChops.lighter, differs)


def open_png(file: IO[bytes], filename: str | bytes = "") -> PngFile:
    """Open a PNG; what is left out of it is noted.

    Raises:
        Unreadable: It is cut off, too large or of no known kind, or a chunk that its pixels need is damaged or missing.
        SyntaxError: Pillow's reader cannot make sense of it.
    """
    chunks = read_chunks(file)
    amended, sound = left_out(file, chunks)
    depth, color_type = _kind(chunks[0].data(file))
    if color_type == _PALETTE:
        amended |= _palette(sound)
    is_still = not any(chunk.kind == b"acTL" and chunk not in amended for chunk in chunks)
    chunk, colors = _named_colors(file, sound) or (None, Colors())
    is_deep = is_still and depth == 16 and is_coarse(colors.curve)
    if chunk:
        amended |= {sound[b"iCCP"]: b""} if b"iCCP" in sound else {}
        shown = colors._replace(curve=srgb_curve) if is_deep else colors
        if profile := build_profile(shown, color_type in (_GREY, _GREY_ALPHA)):
            amended[chunk] = encoded(b"iCCP", b"numbers\0\0" + zlib.compress(profile))
    replaced, transparent16 = _transparency(file, sound.get(b"tRNS"), depth, color_type)
    amended |= replaced | lost_end(file, chunks)
    if transparent16 and not is_still:
        raise Unreadable("unsupported: an animated PNG with 16 bits a channel and a transparent colour")
    late_texts = _late_texts(file, [chunk for chunk in chunks if chunk not in amended])
    image = PngFile(rewritten(file, amended), filename)
    image.transparent16, image.curve16 = transparent16, colors.curve if is_deep else None
    image.info |= late_texts
    return image


def _kind(header: bytes) -> tuple[int, int]:
    """Return the depth and the colour type that a header names. Raises `Unreadable` if there is no such PNG."""
    width, height, depth, color_type, *methods = struct.unpack(">IIBBBBB", header)
    refuse_if_too_large((width, height))
    if depth not in _DEPTHS.get(color_type, ()):
        raise Unreadable(f"damaged picture: there is no PNG of {depth} bits and colour type {color_type}")
    if methods[0] or methods[1] or methods[2] > 1:
        raise Unreadable("unsupported: PNG with the methods {}, {} and {}".format(*methods))
    return depth, color_type


def add_late_texts(image: Image.Image) -> None:
    """Add the EXIF and XMP that follow the pixels to the info of a PNG that a stage opened.

    Raises:
        SyntaxError, ValueError: A text cannot be read.
    """
    file: IO[bytes] | None = getattr(image, "fp", None)
    if file and not isinstance(image, PngFile):  # otherwise they are there already
        here = file.tell()
        image.info |= _late_texts(file, list(walk(file)))
        file.seek(here)


def _late_texts(file: IO[bytes], chunks: Sequence[Chunk]) -> dict[str | tuple[int, int], Any]:
    """Return what the texts after the first pixels say, by Pillow's names, which reads them as it decodes.

    It never does those behind the frames of an animation (PNG 3, 5.6, allows all of them).
    """
    stream = PngImagePlugin.PngStream(file)
    for chunk in dropwhile(lambda chunk: chunk.kind != b"IDAT", chunks):
        if chunk.kind in TEXTS:
            file.seek(chunk.begin + 8)
            stream.call(chunk.kind, chunk.begin + 8, chunk.size_bytes)
    return stream.im_info


def _palette(sound: dict[bytes, Chunk]) -> dict[Chunk, bytes]:
    """Check that there is a palette, and leave out the transparency of colours that it has not."""
    palette, transparency = sound.get(b"PLTE"), sound.get(b"tRNS")
    if palette is None or palette.size_bytes % 3 or not 0 < palette.size_bytes <= 768:
        raise Unreadable("damaged picture: its palette is missing, or has a wrong number of colours")
    if transparency is None or 3 * transparency.size_bytes <= palette.size_bytes:
        return {}
    note_left_out(sound.pop(b"tRNS"), "it has more entries than the palette")
    return {transparency: b""}


def _transparency(
    file: IO[bytes], chunk: Chunk | None, depth: int, color_type: int
) -> tuple[dict[Chunk, bytes], tuple[int, int, int] | None]:
    """Return what is to be read in place of a tRNS chunk, and a transparent colour that Pillow cannot compare.

    Only the bits of a sample count (PNG 3, 11.3.1.1). Pillow compares greys of 2 and 4 bits once they have 8.
    """
    if chunk is None or color_type not in (_GREY, _RGB):
        return {}, None
    data, count = chunk.data(file), 1 if color_type == _GREY else 3
    if len(data) != 2 * count:
        note_left_out(chunk, f"it is too {'short' if len(data) < 2 * count else 'long'}")
        return {chunk: b""}, None
    values = [value & ((1 << depth) - 1) for value in struct.unpack(f">{count}H", data)]
    if (depth, color_type) == (16, _RGB):
        return {chunk: b""}, (values[0], values[1], values[2])
    scale = {2: 85, 4: 17}.get(depth, 1)
    scaled = struct.pack(f">{count}H", *(scale * value for value in values))
    return ({} if scaled == data else {chunk: encoded(b"tRNS", scaled)}), None


# -- colours -----------------------------------------------------------------------------------------------------------


def _named_colors(file: IO[bytes], sound: dict[bytes, Chunk]) -> tuple[Chunk, Colors] | None:
    """Return the colours that numbers name, by cICP, iCCP, sRGB, or gAMA and cHRM, and the chunk that names them.

    The first of them that is there counts (PNG 3, table 18); None if that is a profile or sRGB, or there is none.
    """
    if chunk := sound.get(b"cICP"):
        try:
            return chunk, _colors_by_numbers(chunk.data(file))
        except ValueError as error:
            note_left_out(chunk, str(error))
    chunk = sound.get(b"gAMA") or sound.get(b"cHRM")
    if b"iCCP" in sound or b"sRGB" in sound or not chunk:
        return None
    gamma, chromaticities = (sound[kind].data(file) if kind in sound else b"" for kind in (b"gAMA", b"cHRM"))
    try:
        return chunk, _colors_by_gamma(gamma, chromaticities)
    except ValueError as error:
        note("its colours cannot be told: read as sRGB", str(error))
        return None


def _colors_by_numbers(numbers: bytes) -> Colors:
    """Return the colours that a cICP chunk names (PNG 3, 11.3.2.6)."""
    primaries, transfer, matrix, full_range = numbers
    if matrix:
        raise ValueError(f"its matrix is {matrix}, not 0")
    colors = numbered_colors(primaries, transfer, bool(full_range))
    note_tone_mapping(transfer)
    return colors


def _colors_by_gamma(gamma: bytes, chromaticities: bytes) -> Colors:
    """Return the colours that a gAMA and a cHRM chunk name, of which one may be empty.

    Without chromaticities they are those of sRGB, and without gamma the curve is that of sRGB. So it is with a gamma of
    1/2.2 and sRGB's chromaticities, or none, by which sRGB is meant (PNG 3, 11.3.2.5).
    """
    colors = Colors()
    if chromaticities:
        stored = tuple(value / 100_000 for value in struct.unpack(">8i", chromaticities))
        if max(abs(a - b) for a, b in zip(stored, colors.primaries, strict=True)) > _XY_SLACK:
            colors = Colors(stored)
            build_profile(colors)  # which raises ValueError if they make no sense
    if gamma:
        value = int.from_bytes(gamma) / 100_000
        if not _GAMMAS[0] <= value <= _GAMMAS[1]:
            raise ValueError(f"gamma {value:g}")
        if colors != Colors() or abs(value - _SRGB_GAMMA) > _GAMMA_SLACK:
            colors = colors._replace(curve=power(1 / value))
    return colors
