"""Reads PNG as its standard says (PNG, third edition): the colours it names, and pixels whatever is wrong beside them.

Pillow's reader is given a file without the ancillary chunks that are damaged or misplaced, and with an ICC profile for
colours that are named by numbers (cICP, gAMA, cHRM). A file that has neither is given as it is.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from functools import reduce
from typing import IO

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
    left_out,
    note_left_out,
    read_chunks,
    rewritten,
    walk,
)
from pipeline.notes import note

# Colour types, and the depths of each (PNG 3, table 8).
_GREY, _RGB, _PALETTE, _GREY_ALPHA = 0, 2, 3, 4
_DEPTHS = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}
# Depths and colour types whose 16 bits can be decoded, and rows of which that is done at a time.
_DEEP, _ROWS = ((16, 0), (16, 2), (16, 6)), 64
# How far a gamma and a coordinate may be off and be meant to be sRGB's: 0.45 is, and libpng allows as much for the
# other. Then the gammas that a display may have had.
_SRGB_GAMMA, _GAMMA_SLACK, _XY_SLACK = 0.45455, 0.005, 0.01
_GAMMAS = (0.1, 10)


class PngFile(PngImagePlugin.PngImageFile):
    """A PNG whose 16 bits a channel count where 8 would not do."""

    transparent16: tuple[int, int, int] | None = None
    """The red, green and blue, of 16 bits, of the pixels that are transparent."""
    curve16: Curve | None = None
    """The curve of values of 16 bits that become those of sRGB, where 8 bits of the curve would be too few."""
    text_follows = False
    """Whether EXIF or XMP may follow the pixels (PNG 3, 5.6), where Pillow reads them with the pixels."""

    def _open(self) -> None:
        super()._open()
        self._stored = self.tile[0]

    def load_end(self) -> None:
        super().load_end()
        raw = self._stored.args
        if raw == "LA;16B" and not self.is_animated:  # which Pillow reads as RGBA
            self._become(self.convert("LA"))
        elif self.mode == "I;16" and self.curve16:
            self._become(self._grey(srgb_levels(self.curve16)))
        elif self.transparent16 or self.curve16:
            low = self._low_bytes(str(raw).replace("16B", "16L"))
            alpha = self._alpha16(low, self.transparent16) if self.transparent16 else None
            if self.curve16:
                self._become(_recoded(self, low, srgb_levels(self.curve16)))
            if alpha:
                self.putalpha(alpha)

    def _become(self, image: Image.Image) -> None:
        self._im, self._mode = image.im, image.mode

    def _low_bytes(self, raw: str) -> Image.Image:
        """Decode the pixels once more, into the low bytes of their 16 bits."""
        assert self.fp is not None
        self.fp.seek(0)
        low = PngImagePlugin.PngImageFile(self.fp)
        low.tile = [self._stored._replace(args=raw)]
        return low

    def _alpha16(self, low: Image.Image, color: tuple[int, int, int]) -> Image.Image:
        """Return the alpha of pixels of which one colour is transparent."""
        bands = [*zip(self.split(), [value >> 8 for value in color], strict=True),
                 *zip(low.split(), [value & 255 for value in color], strict=True)]  # fmt: skip
        differs = (band.point([255 * (level != value) for level in range(256)]) for band, value in bands)
        return reduce(ImageChops.lighter, differs)

    def _grey(self, levels: list[int]) -> Image.Image:
        """Return 16-bit greys as 8-bit ones, with an alpha if one of them is transparent."""
        deep = self.convert("I")
        grey, transparent = deep.point(levels, "L"), self.info.pop("transparency", None)
        if transparent is not None:
            grey.putalpha(deep.point([255 * (value != transparent) for value in range(65_536)], "L"))
        return grey


def _recoded(high: Image.Image, low: Image.Image, levels: list[int]) -> Image.Image:
    """Return RGB or RGBA of 16 bits, given by their bytes, as 8 bits; alpha keeps its high byte."""
    made = high.copy()
    for top in range(0, high.height, _ROWS):
        box = (0, top, high.width, min(high.height, top + _ROWS))
        bands = list(high.crop(box).split())
        for channel, low_band in enumerate(low.crop(box).split()[:3]):
            deep = ImageMath.lambda_eval(
                lambda args: args["high"] * 256 + args["low"], high=bands[channel], low=low_band
            )
            assert isinstance(deep, Image.Image)
            bands[channel] = deep.point(levels, "L")
        made.paste(Image.merge(high.mode, bands), box)
    return made


def open_png(file: IO[bytes], filename: str | bytes = "") -> PngFile:
    """Open a PNG; what is left out of it is noted.

    Raises:
        Unreadable: It is cut off, too large or of no known kind, or a chunk that its pixels need is damaged or missing.
        SyntaxError: Pillow's reader cannot make sense of it.
    """
    chunks = read_chunks(file)
    kinds = {chunk.kind for chunk in chunks}
    amended, sound = left_out(file, chunks)
    depth, color_type = _kind(chunks[0].data(file))
    if color_type == _PALETTE:
        amended |= _palette(sound)
    is_still = b"acTL" not in kinds
    chunk, colors = _named_colors(file, sound) or (None, Colors())
    is_deep = is_still and (depth, color_type) in _DEEP and is_coarse(colors.curve)
    if chunk:
        amended |= {sound[b"iCCP"]: b""} if b"iCCP" in sound else {}
        shown = colors._replace(curve=srgb_curve) if is_deep else colors
        if profile := build_profile(shown, color_type in (_GREY, _GREY_ALPHA)):
            amended[chunk] = encoded(b"iCCP", b"numbers\0\0" + zlib.compress(profile))
    replaced, transparent16 = _transparency(file, sound.get(b"tRNS"), depth, color_type)
    amended |= replaced
    if transparent16 and not is_still:
        raise Unreadable("unsupported: an animated PNG with 16 bits a channel and a transparent colour")
    source = rewritten(file, amended)
    image = PngFile(source, filename)
    image.transparent16, image.curve16 = transparent16, colors.curve if is_deep else None
    image.text_follows = _text_follows([chunk.kind for chunk in chunks if amended.get(chunk) != b""])
    if source is not file:
        file.close()
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


def has_text_after_pixels(image: Image.Image) -> bool:
    """Return whether the EXIF or XMP of a PNG may follow its pixels; also of one that a stage opened."""
    if isinstance(image, PngFile):
        return image.text_follows
    file: IO[bytes] | None = getattr(image, "fp", None)
    if not file:  # it is decoded already
        return False
    here = file.tell()
    text_follows = _text_follows([chunk.kind for chunk in walk(file)])
    file.seek(here)
    return text_follows


def _text_follows(kinds: Sequence[bytes]) -> bool:
    return b"IDAT" in kinds and not set(kinds[kinds.index(b"IDAT") :]).isdisjoint(TEXTS)


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
    if len(data) < 2 * count:
        note_left_out(chunk, "it is too short")
        return {chunk: b""}, None
    values = [value & ((1 << depth) - 1) for value in struct.unpack(f">{count}H", data[: 2 * count])]
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
        return chunk, _colors_by_gamma(gamma[:4], chromaticities[:32])
    except ValueError as error:
        note("its colours cannot be told: read as sRGB", str(error))
        return None


def _colors_by_numbers(numbers: bytes) -> Colors:
    """Return the colours that a cICP chunk names (PNG 3, 11.3.2.6)."""
    primaries, transfer, matrix, full_range = numbers[:4]
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
