"""Resamples pictures: Lanczos by cykooz-resizer where it is installed (extra `fast`), everything else by Pillow.

Both compute the same filter and round it differently. cykooz-resizer is four to ten times as fast, so that no pixels
need be averaged beforehand.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable
from functools import lru_cache

from PIL import Image

from pipeline.images import Box, Size

FastLanczos = Callable[[Image.Image, Size, Box], Image.Image]
"""Resamples a box of an image to a size."""

# Lanczos's radius in pixels of the result, or of the source where that is smaller.
_REACH = 3
# Pillow averages pixels in whole steps down to no less than this many times the size before Lanczos has its turn. At 2,
# libvips's figure, what comes out is no further from Lanczos alone than what libvips makes; at 1.5 it often is.
_LEAST_GAP = 2.0
# A JPEG's decoder averages, too: for the fast Lanczos to no less than this many times the size.
_FAST_GAP = 1.5
# Bytes between pixels that have the same place in a processor's first cache, and how many such it holds at least.
_COLLISION_BYTES, _WAYS = 4096, 8
# Columns of a band whose rows, of 4 bytes a pixel or of 1, are no multiple of a good part of that.
_BAND_COLUMNS = 1000
# Multiplied by the alpha, so that the colour behind transparent pixels does not bleed into those beside them.
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
# Rows of a picture with alpha that are premultiplied at a time: small beside the picture, large beside a call.
_BAND_ROWS = 32
# Pixels that are resampled at a time: their copies are small beside the picture, and soon to be had again.
_BAND_PIXELS = 1 << 20


def resample(image: Image.Image, size: Size, how: Image.Resampling, box: Box, gap: float) -> Image.Image:
    """Resample a box of an L, LA, RGB, RGBA or CMYK image, first averaging pixels to no less than `gap` times `size`.

    What lies behind transparent pixels does not count. A box of whole pixels and of that size is cut out as it is.
    """
    left, top, right, bottom = map(int, box)
    if (left, top, right, bottom) == box and size == (right - left, bottom - top):
        return image.crop((left, top, right, bottom))
    if how is not Image.Resampling.LANCZOS:
        return image.resize(size, how, box, reducing_gap=gap)
    if fast := fast_lanczos():
        return fast(image, size, box)
    return _pillows_lanczos(image, size, box, max(gap, _LEAST_GAP))


def least_gap(reduction: int) -> float:
    """Return how many times the size of the result a decoder that averages 2, 4 or 8 pixels a side delivers at least.

    What more is worth depends on the time that Lanczos takes. For Pillow's it is what sharp has: a decoder averages
    fewer pixels than the whole part of the scale.
    """
    return _FAST_GAP if fast_lanczos() else 1 + 1 / reduction


def _reached(image: Image.Image, box: Box, scales: tuple[float, float]) -> tuple[int, int, int, int]:
    """Return the box in whole pixels that Lanczos reads for a box."""
    across, down = (_REACH * max(1, scale) for scale in scales)
    left, top = max(0, int(box[0] - across)), max(0, int(box[1] - down))
    return left, top, min(image.width, math.ceil(box[2] + across)), min(image.height, math.ceil(box[3] + down))


# -- by Pillow ---------------------------------------------------------------------------------------------------------


def _pillows_lanczos(image: Image.Image, size: Size, box: Box, gap: float) -> Image.Image:
    scales = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
    across, down = (int(scale / gap) or 1 for scale in scales)
    left, top, right, bottom = _reached(image, box, scales)
    reduced = _averaged(image, (left, top, right, bottom), across, down)
    inner = ((box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down)
    if scales[1] > 1:
        # From top to bottom first, as libvips and cykooz-resizer do, which leaves text sharper.
        reduced = _shortened(reduced, size[1], inner[1], inner[3])
        inner = inner[0], 0, inner[2], size[1]
    made = reduced.resize(size, Image.Resampling.LANCZOS, inner)
    return made if made.mode == image.mode else made.convert(image.mode)  # which would copy it


def _shortened(image: Image.Image, rows: int, top: float, bottom: float) -> Image.Image:
    """Resample an image from top to bottom only, in bands of columns where that takes less time."""

    def shorten(columns: Image.Image) -> Image.Image:
        return columns.resize((columns.width, rows), Image.Resampling.LANCZOS, (0, top, columns.width, bottom))

    row_bytes = image.width if image.mode == "L" else 4 * image.width
    if row_bytes % _COLLISION_BYTES or 2 * _REACH * (bottom - top) / rows <= _WAYS:
        return shorten(image)
    # The pixels of a column that are read together have one place in the cache and push each other out: it takes half
    # as long again, and with greys three times as long. In narrower rows they lie elsewhere.
    shortened = Image.new(image.mode, (image.width, rows))
    for left in range(0, image.width, _BAND_COLUMNS):
        band = image.crop((left, 0, min(image.width, left + _BAND_COLUMNS), image.height))
        shortened.paste(shorten(band), (left, 0))
    return shortened


def _averaged(image: Image.Image, part: tuple[int, int, int, int], across: int, down: int) -> Image.Image:
    """Average so many pixels across and down in a part of an image, premultiplied, without a copy of all of them."""
    if across == down == 1:
        whole = image if part == (0, 0, *image.size) else image.crop(part)
        return whole.convert(_PREMULTIPLIED[image.mode]) if image.mode in _PREMULTIPLIED else whole
    if image.mode not in _PREMULTIPLIED:
        return image.reduce((across, down), part)
    left, top, right, bottom = part
    reduced = Image.new(_PREMULTIPLIED[image.mode], (-(-(right - left) // across), -(-(bottom - top) // down)))
    rows = down * max(1, _BAND_ROWS // down)
    for begin in range(top, bottom, rows):
        band = image.crop((left, begin, right, min(bottom, begin + rows))).convert(reduced.mode)
        reduced.paste(band.reduce((across, down)), (0, (begin - top) // down))
    return reduced


# -- by cykooz-resizer -------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1)
def fast_lanczos() -> FastLanczos | None:
    """Return Lanczos by cykooz-resizer; None where it is not installed."""
    try:
        library = importlib.import_module("cykooz_resizer")
    except ImportError:
        return None
    kinds = [library.PixelType[name] for name in ("U8", "U8x2", "U8x3", "U8x4")]
    resizer, lanczos = library.Resizer(), library.ResizeAlg.convolution(library.FilterType.lanczos3)

    def resize_band(band: Image.Image, size: Size, box: Box) -> bytes:
        # Through bytes, since its way into Pillow's own memory takes the layout for granted.
        kind = kinds[len(band.getbands()) - 1]
        source = library.ImageData(band.width, band.height, kind, band.tobytes())
        made = library.ImageData(*size, kind)
        crop = library.CropBox(box[0], box[1], box[2] - box[0], box[3] - box[1])
        resizer.resize(source, made, library.ResizeOptions(lanczos, band.mode in _PREMULTIPLIED, crop))
        return bytes(made.get_buffer())

    def resize(image: Image.Image, size: Size, box: Box) -> Image.Image:
        scales = (box[2] - box[0]) / size[0], (box[3] - box[1]) / size[1]
        rows = max(1, int(_BAND_PIXELS / (box[2] - box[0]) / scales[1]))
        made = []
        for begin in range(0, size[1], rows):
            end = min(size[1], begin + rows)
            part = (box[0], box[1] + begin * scales[1], box[2], min(box[3], box[1] + end * scales[1]))
            left, top, right, bottom = _reached(image, part, scales)
            inner = (part[0] - left, part[1] - top, part[2] - left, part[3] - top)
            made.append(resize_band(image.crop((left, top, right, bottom)), (size[0], end - begin), inner))
        return Image.frombytes(image.mode, size, b"".join(made))

    return resize
