"""Resizes pictures: the reference stage."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt
from PIL import Image, ImageColor

from pipeline import Picture
from pipeline.formats import Colour

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 1

Fit = Literal["inside", "outside", "cover", "contain", "fill"]
Pixels = Annotated[int, Gt(0)]
Size = tuple[int, int]
Box = tuple[float, float, float, float]


class Resize:
    """Makes a picture smaller, to a width, a height or both, in pixels of the upright picture.

    `fit` says what to do when both are given and the shape differs, with the names of CSS's object-fit: `inside`
    keeps the whole picture within the box, `outside` covers the box and lets the picture stand over, `cover` does
    so and cuts off what stands over, evenly, `contain` pads with `background` (a CSS colour), `fill` distorts. A
    picture is never made larger unless `enlarge` says so.
    """

    @staticmethod
    def check(*, width: int | None, height: int | None, **others: object) -> None:
        """Refuse options that make no size, when the pipeline is loaded."""
        if width is None and height is None:
            raise ValueError("resize needs a 'width', a 'height' or both")

    def __init__(
        self,
        *,
        width: Pixels | None = None,
        height: Pixels | None = None,
        fit: Fit = "inside",
        enlarge: bool = False,
        background: Colour = "white",
        gap: Annotated[float, Ge(1)] = 1.0,
    ) -> None:
        self._width, self._height, self._fit = width, height, fit
        self._enlarge, self._background, self._gap = enlarge, background, gap

    def __call__(self, picture: Picture) -> Image.Image:
        size, box = fit_to(picture.size, self._width, self._height, self._fit, self._enlarge)
        image = picture.load(size, box=box, gap=self._gap)
        if self._fit == "contain" and self._width and self._height:
            return pad(image, (self._width, self._height), self._background)
        return image


def fit_to(source: Size, width: int | None, height: int | None, fit: Fit, enlarge: bool) -> tuple[Size, Box]:
    """The size to make, and the part of the source to make it of, both in upright pixels. Never 0, never cut but by
    `cover`.
    """
    full = (0.0, 0.0, float(source[0]), float(source[1]))
    scale_x = width / source[0] if width else None
    scale_y = height / source[1] if height else None
    if scale_x is None or scale_y is None:
        scale = scale_x or scale_y
        assert scale is not None
        return _scaled(source, scale, scale, enlarge), full
    if fit == "fill":
        if not enlarge:
            scale_x, scale_y = min(scale_x, 1.0), min(scale_y, 1.0)
        return _scaled(source, scale_x, scale_y, True), full
    if fit == "cover":
        assert width and height
        return _cover(source, (width, height), max(scale_x, scale_y), enlarge)
    scale = max(scale_x, scale_y) if fit == "outside" else min(scale_x, scale_y)
    return _scaled(source, scale, scale, enlarge), full


def _scaled(source: Size, scale_x: float, scale_y: float, enlarge: bool) -> Size:
    if not enlarge and (scale_x > 1 or scale_y > 1):
        return source
    return max(1, round(source[0] * scale_x)), max(1, round(source[1] * scale_y))


def _cover(source: Size, box: Size, scale: float, enlarge: bool) -> tuple[Size, Box]:
    """Cut evenly what stands over; a source too small to cover the box keeps its size where it falls short."""
    scale = scale if enlarge else min(scale, 1.0)
    size = min(box[0], max(1, round(source[0] * scale))), min(box[1], max(1, round(source[1] * scale)))
    (left, right), (top, bottom) = (_middle(source[axis], size[axis] / scale) for axis in (0, 1))
    return size, (left, top, right, bottom)


def _middle(side: int, part: float) -> tuple[float, float]:
    """Where the middle part of a side begins and ends; on whole pixels where that many whole pixels are wanted."""
    begin = max(0.0, (side - part) / 2)
    begin = float(int(begin)) if part == int(part) else begin
    return begin, min(float(side), begin + part)


def pad(image: Image.Image, size: Size, background: str) -> Image.Image:
    """Lay an image in the middle of a ground of this size."""
    grey = image.mode in ("L", "LA") and len(set(ImageColor.getrgb(background)[:3])) == 1
    alpha = image.mode in ("LA", "RGBA") or len(ImageColor.getrgb(background)) == 4
    mode = ("L" if grey else "RGB") + ("A" if alpha else "")
    ground = Image.new(mode, size, ImageColor.getcolor(background, mode))
    ground.paste(image.convert(mode), ((size[0] - image.width) // 2, (size[1] - image.height) // 2))
    return ground
