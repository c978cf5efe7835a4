"""Making a decoded picture smaller: as Pillow does, and with less memory where there is transparency."""

from __future__ import annotations

import math

from PIL import Image

# Multiplied by the alpha, so that the colour behind transparent pixels does not bleed into those beside them.
_PREMULTIPLIED = {"LA": "La", "RGBA": "RGBa"}
# Rows of a picture with alpha that are premultiplied at a time: small beside the picture, large beside a call.
_BAND = 32
# Pixels of the result, from the middle of its outermost, that Lanczos reaches beyond the box.
_REACH = 2.5

Size = tuple[int, int]
Box = tuple[float, float, float, float]


def resample(image: Image.Image, size: Size, how: Image.Resampling, box: Box, gap: float) -> Image.Image:
    """Make the box of an L, LA, RGB, RGBA or CMYK image this size, averaging first down to `gap` times it."""
    if image.mode in _PREMULTIPLIED and how is Image.Resampling.LANCZOS:
        return _with_alpha(image, size, box, gap)
    return image.resize(size, how, box, reducing_gap=gap)


def _with_alpha(image: Image.Image, size: Size, box: Box, gap: float) -> Image.Image:
    """Do what Pillow's own `resize` does, to the bit, less the premultiplied copy of the whole picture."""
    scales = [(box[axis + 2] - box[axis]) / size[axis] for axis in (0, 1)]
    across, down = (int(scale / gap) or 1 for scale in scales)
    if across == down == 1:
        return image.resize(size, Image.Resampling.LANCZOS, box)
    left, top = (max(0, int(box[axis] - _REACH * scales[axis])) for axis in (0, 1))
    right, bottom = (min(image.size[axis], math.ceil(box[axis + 2] + _REACH * scales[axis])) for axis in (0, 1))
    reduced = Image.new(_PREMULTIPLIED[image.mode], (-(-(right - left) // across), -(-(bottom - top) // down)))
    rows = down * max(1, _BAND // down)
    for begin in range(top, bottom, rows):
        band = image.crop((left, begin, right, min(bottom, begin + rows))).convert(reduced.mode)
        reduced.paste(band.reduce((across, down)), (0, (begin - top) // down))
    inner = ((box[0] - left) / across, (box[1] - top) / down, (box[2] - left) / across, (box[3] - top) / down)
    return reduced.resize(size, Image.Resampling.LANCZOS, inner).convert(image.mode)
