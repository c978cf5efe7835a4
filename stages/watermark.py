"""Lays a logo or a text on pictures: a class, whose constructor loads once in each worker what all files need."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Gt, Le, Lt, MaxLen
from PIL import Image, ImageColor, ImageDraw

from pipeline import Picture, Unreadable
from pipeline.images import (
    Color,
    Position,
    in_colors_of,
    load_font,
    map_frames,
    open_picture,
    position_fractions,
    refuse_missing_glyphs,
    to_mode,
)

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 1

# Pixels: a text is drawn so high, once, and made smaller for each picture.
_TEXT_HEIGHT = 200


class Watermark:
    """Lays a mark on a picture: a logo, or a text.

    `logo` is a picture file, best with transparency; its outputs are redone when it is replaced. `text` is drawn in
    `color`, with a thin outline so that it is seen on any ground, and in `font`, a TrueType or OpenType file; without
    that, in Pillow's own font, which has the letters of English and "©". A letter that the font has not is refused.

    `position` is the side or corner in which the mark stands, `margin` its distance from there as a share of the
    picture's shorter side. `scale` is the share of the picture's width and height into which the mark is fitted, and
    `opacity` how much of it is seen, from 0 to 1. What is transparent in the picture stays so where the mark is not. A
    mark in colour makes a grey picture RGB.

    `frames` says what becomes of a GIF, WebP, PNG or AVIF that moves: with `all` every frame is marked, with `first`
    only that one is read.
    """

    def __init__(
        self,
        *,
        logo: Path | None = None,
        text: Annotated[str, MaxLen(200)] | None = None,
        color: Color = "white",
        font: Path | None = None,
        position: Position = "bottom right",
        margin: Annotated[float, Ge(0), Lt(0.5)] = 0.02,
        scale: Annotated[float, Gt(0), Le(1)] = 0.2,
        opacity: Annotated[float, Gt(0), Le(1)] = 0.5,
        frames: Literal["all", "first"] = "all",
    ) -> None:
        mark = load(logo) if logo else draw(text or "", color, font)
        mark.putalpha(mark.getchannel("A").point([round(alpha * opacity) for alpha in range(256)]))
        red, green, blue, _ = (channel.tobytes() for channel in mark.convert("RGBa").split())
        self._mark, self._is_grey = mark, red == green == blue
        self._position, self._margin, self._scale, self._frames = position, margin, scale, frames

    @staticmethod
    def check(*, logo: Path | None, text: str | None, color: str, font: Path | None, **others: object) -> None:
        """Refuse options that do not go together, when the pipeline is loaded. Raises ValueError."""
        if logo is None and not (text or "").strip():
            raise ValueError("watermark needs a 'logo' or a 'text'")
        if logo is not None and text is not None:
            raise ValueError("watermark takes a 'logo' or a 'text', not both; two stages lay both")
        if logo is not None and (font or color != "white"):
            raise ValueError(f"'{'font' if font else 'color'}' is for a 'text', not for a 'logo'")
        if text is not None and font is None:
            refuse_missing_glyphs(text, load_font(None, _TEXT_HEIGHT))

    def __call__(self, picture: Picture) -> Image.Image:
        return map_frames(picture.load(frames=self._frames), self._lay)

    def _lay(self, image: Image.Image) -> Image.Image:
        """Lay the mark on one frame; where it is not, the frame's pixels are not touched."""
        if not self._is_grey:
            image = to_mode(image, {"L": "RGB", "LA": "RGBA"}.get(image.mode, image.mode))
        width, height, left, top = self._place(image.size)
        mark = in_colors_of(image, self._mark.resize((width, height), Image.Resampling.LANCZOS))
        below = image.crop((left, top, left + width, top + height)).convert("RGBA")
        below.alpha_composite(mark)
        image.paste(below.convert(image.mode), (left, top))
        return image

    def _place(self, size: tuple[int, int]) -> tuple[int, int, int, int]:
        """Return the width and height of the mark on a picture of this size, and then its left and upper edge."""
        margin = int(min(size) * self._margin)
        room = size[0] - 2 * margin, size[1] - 2 * margin
        scale = min(min(size[axis] * self._scale, room[axis]) / self._mark.size[axis] for axis in (0, 1))
        width, height = (max(1, round(self._mark.size[axis] * scale)) for axis in (0, 1))
        across, down = position_fractions(self._position)
        return width, height, margin + int((room[0] - width) * across), margin + int((room[1] - height) * down)


def load(logo: Path) -> Image.Image:
    """Read a logo, upright and in sRGB."""
    try:
        picture = open_picture(logo)
        mark = picture.load().convert("RGBA")
    except Unreadable as error:
        raise Unreadable(f"the logo {logo}: {error.text}") from None
    picture.close()
    return mark


def draw(text: str, color: str, font_file: Path | None) -> Image.Image:
    """Draw a text on nothing: its outline is black or white, whichever differs more, and within it is its colour.

    Raises ValueError for a letter that the font does not have.
    """
    font = load_font(font_file, _TEXT_HEIGHT)
    refuse_missing_glyphs(text, font)
    stroke, (red, green, blue) = _TEXT_HEIGHT // 25, ImageColor.getrgb(color)[:3]
    box = ImageDraw.Draw(Image.new("L", (1, 1))).textbbox((0, 0), text, font, stroke_width=stroke)
    mark = Image.new("RGBA", (math.ceil(box[2] - box[0]), math.ceil(box[3] - box[1])))
    outline = (0, 0, 0) if red + green + blue > 3 * 127 else (255, 255, 255)
    for ink, around in ((outline, 255), ((red, green, blue), 0)):
        alpha, layer = Image.new("L", mark.size), Image.new("RGBA", mark.size, ink)
        ImageDraw.Draw(alpha).text((-box[0], -box[1]), text, 255, font, stroke_width=stroke, stroke_fill=around)
        layer.putalpha(alpha)
        mark.alpha_composite(layer)
    return mark
