"""Resizes pictures: the reference stage."""

from __future__ import annotations

from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le
from PIL import Image, ImageColor

from pipeline import FitBox, Picture
from pipeline.images import (
    Box,
    Color,
    Position,
    Size,
    color_in,
    map_frames,
    position_fractions,
    refuse_if_too_large,
    rounded_side,
    to_mode,
)
from pipeline.types import Fit

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 2

# libjpeg writes no longer side.
Pixels = Annotated[int, Gt(0), Le(65_500)]
Filter = Literal["lanczos", "bicubic", "hamming", "bilinear", "box", "nearest"]


class Resize:
    """Resizes a picture.

    `width` and `height`, of which one is enough, are in pixels of the upright picture. `fit` says what to do when both
    are given and the shape differs, with the names of CSS's object-fit: `inside` keeps the whole picture within the
    box, `outside` covers the box and lets the picture extend beyond it, `cover` does so and cuts off what does,
    `contain` pads with `background` (a CSS colour), `fill` distorts. `position` is the side or corner that `cover`
    keeps, and to which `contain` moves the picture. A picture is never made larger unless `enlarge` says so.

    Sides are rounded half up, as browsers and sharp do. `filter` is how pixels are averaged, in Pillow's words. To save
    time, a JPEG is decoded to less than its full size, and any picture averaged in whole steps, before it is filtered,
    but to no less than `gap` times the wanted size: 1 is as near to a filter over every pixel as sharp comes, or
    nearer; 2 is nearer still and takes longer.

    `frames: all` resizes every frame of a GIF, WebP, PNG or AVIF that moves; an output in GIF or WebP moves as well.
    """

    def __init__(
        self,
        *,
        width: Pixels | None = None,
        height: Pixels | None = None,
        fit: Fit = "inside",
        position: Position = "centre",
        background: Color = "white",
        enlarge: bool = False,
        filter: Filter = "lanczos",
        gap: Annotated[float, Ge(1), Le(100)] = 1.0,
        frames: Literal["first", "all"] = "first",
    ) -> None:
        self._width, self._height, self._fit, self._enlarge = width, height, fit, enlarge
        self._at, self._background = position_fractions(position), background
        self._resample, self._gap, self._frames = Image.Resampling[filter.upper()], gap, frames

    @staticmethod
    def check(
        *, width: int | None, height: int | None, fit: Fit, position: str, background: str, **others: object
    ) -> None:
        """Refuse options that do not go together, when the pipeline is loaded. Raises ValueError."""
        if width is None and height is None:
            raise ValueError("resize needs a 'width', a 'height' or both")
        if fit in ("cover", "contain", "fill") and not (width and height):
            raise ValueError(f"fit '{fit}' needs a 'width' and a 'height'")
        if fit not in ("cover", "contain") and position_fractions(position) != (0.5, 0.5):
            raise ValueError(f"'position' is for fit 'cover' and 'contain', not '{fit}'")
        if fit != "contain" and background != "white":
            raise ValueError(f"'background' is for fit 'contain', not '{fit}'; what transparency is laid on when a "
                             "picture is saved is said under output.save")  # fmt: skip

    @staticmethod
    def fit_box(*, width: int | None, height: int | None, fit: Fit, gap: float, **others: object) -> FitBox:
        """Return the box into which the stage fits its pictures."""
        return FitBox(width, height, fit, gap)

    def __call__(self, picture: Picture) -> Image.Image:
        size, box = fit_to(picture.size, self._width, self._height, self._fit, self._enlarge, self._at)
        image = picture.load(size, box=box, resample=self._resample, gap=self._gap, frames=self._frames)
        if self._fit == "contain" and self._width and self._height:
            whole = self._width, self._height
            return map_frames(image, lambda frame: pad(frame, whole, self._background, self._at))
        return image


def fit_to(
    source: Size,
    width: int | None,
    height: int | None,
    fit: Fit,
    enlarge: bool,
    at: tuple[float, float] = (0.5, 0.5),
) -> tuple[Size, Box]:
    """Return the size of the result, and the box of the source that it shows, both in pixels of the upright picture.

    No side of the size is 0, and only `cover` has a box that is not the whole source.
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
        return _cover(source, (width, height), max(scale_x, scale_y), enlarge, at)
    scale = max(scale_x, scale_y) if fit == "outside" else min(scale_x, scale_y)
    return _scaled(source, scale, scale, enlarge), full


def _scaled(source: Size, scale_x: float, scale_y: float, enlarge: bool) -> Size:
    if not enlarge and (scale_x > 1 or scale_y > 1):
        return source
    return rounded_side(source[0] * scale_x), rounded_side(source[1] * scale_y)


def _cover(source: Size, box: Size, scale: float, enlarge: bool, at: tuple[float, float]) -> tuple[Size, Box]:
    """Return the size and the box for `cover`; a side on which the source is too small keeps its length."""
    scale = scale if enlarge else min(scale, 1.0)
    size = min(box[0], rounded_side(source[0] * scale)), min(box[1], rounded_side(source[1] * scale))
    (left, right), (top, bottom) = (_part(source[axis], size[axis] / scale, at[axis]) for axis in (0, 1))
    return size, (left, top, right, bottom)


def _part(side: int, part: float, at: float) -> tuple[float, float]:
    """Return where a part of a side begins and ends; it begins on a whole pixel if its length is whole."""
    begin = max(0.0, (side - part) * at)
    begin = float(int(begin)) if part == int(part) else begin
    return begin, min(float(side), begin + part)


def pad(image: Image.Image, size: Size, background: str, at: tuple[float, float] = (0.5, 0.5)) -> Image.Image:
    """Paste an image on a background of this size, by default in its middle. Raises `Unreadable` if it is huge."""
    refuse_if_too_large(size)
    grey = image.mode in ("L", "LA") and len(set(ImageColor.getrgb(background)[:3])) == 1
    alpha = image.mode in ("LA", "RGBA") or len(ImageColor.getrgb(background)) == 4
    image = to_mode(image, ("L" if grey else "RGB") + ("A" if alpha else ""))
    pixel = Image.new("RGBA", (1, 1), color_in(image, background)).convert(image.mode)
    ground = pixel.resize(size, Image.Resampling.NEAREST)
    ground.paste(image, (int((size[0] - image.width) * at[0]), int((size[1] - image.height) * at[1])))
    ground.info = dict(image.info)
    return ground
