"""Fonts for what is written on pictures, and the letters that a font has not."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def load_font(file: Path | None, size: float) -> Font:
    """Give the font in a file, or Pillow's own, so many pixels high. Raises ValueError for what is no font."""
    if file is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(file), size)
    except OSError as error:
        raise ValueError(f"the font {file} cannot be read: {error}") from None


def missing(text: str, font: Font) -> list[str]:
    """The letters that would come out as the box by which a font says that it has not got them."""
    box = bytes(font.getmask("\U0010ffff"))
    return [each for each in dict.fromkeys(text) if bytes(font.getmask(each)) == box and not each.isspace()]


def refuse_missing(text: str, font: Font) -> None:
    """Raise ValueError for letters that a font has not."""
    if letters := missing(text, font):
        raise ValueError(f"the font has no {', '.join(map(repr, letters))}; name one that has with 'font'")


def with_what_there_is(text: str, font: Font) -> str:
    """The same text without the accents that a font has not, and with a question mark for other letters."""
    for letter in missing(text, font):
        plain = "".join(each for each in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(each))
        text = text.replace(letter, "?" if not plain or missing(plain, font) else plain)
    return text
