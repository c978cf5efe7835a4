"""Places on a picture, fonts, and the letters that a font lacks."""

from __future__ import annotations

import unicodedata
from pathlib import Path
from typing import Literal

from PIL import ImageFont

Position = Literal[
    "centre", "center", "top", "right", "bottom", "left",
    "top left", "top right", "bottom left", "bottom right", "left top", "right top", "left bottom", "right bottom",
]  # fmt: skip


def position_fractions(position: str) -> tuple[float, float]:
    """Which part of what is over lies to the left and above: 0 at the left or top, 1 at the right or bottom."""
    words = position.split()
    across = 0.0 if "left" in words else 1.0 if "right" in words else 0.5
    return across, 0.0 if "top" in words else 1.0 if "bottom" in words else 0.5


Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def load_font(file: Path | None, size: float) -> Font:
    """Give the font in a file, or Pillow's own, so many pixels high. Raises ValueError for what is no font."""
    if file is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(file), size)
    except OSError as error:
        raise ValueError(f"the font {file} cannot be read: {error}") from None


def missing_glyphs(text: str, font: Font) -> list[str]:
    """The letters that would come out as the box by which a font says that it has not got them."""
    box = bytes(font.getmask("\U0010ffff"))
    return [each for each in dict.fromkeys(text) if bytes(font.getmask(each)) == box and not each.isspace()]


def refuse_missing_glyphs(text: str, font: Font) -> None:
    """Raise ValueError for letters that a font has not."""
    if letters := missing_glyphs(text, font):
        raise ValueError(f"the font has no {', '.join(map(repr, letters))}; name one that has with 'font'")


def replace_missing_glyphs(text: str, font: Font) -> str:
    """The same text without the accents that a font has not, and with a question mark for other letters."""
    for letter in missing_glyphs(text, font):
        plain = "".join(each for each in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(each))
        text = text.replace(letter, "?" if not plain or missing_glyphs(plain, font) else plain)
    return text
