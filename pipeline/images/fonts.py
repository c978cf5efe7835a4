"""Fonts, and the letters that a font lacks."""

from __future__ import annotations

import unicodedata
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
"""A font with which Pillow's `ImageDraw` draws text."""


def load_font(file: Path | None, size: float) -> Font:
    """Load a font.

    Args:
        file: A TrueType or OpenType file; None for the one that Pillow brings, which has the letters of English.
        size: The height of a line in pixels.

    Raises:
        ValueError: The file is no font, or cannot be read.
    """
    if file is None:
        return ImageFont.load_default(size)
    try:
        return ImageFont.truetype(str(file), size)
    except OSError as error:
        raise ValueError(f"the font {file} cannot be read: {error}") from None


def missing_glyphs(text: str, font: Font) -> list[str]:
    """Return the characters of a text for which a font has no glyph, each once and in order.

    A font draws the glyph ".notdef" for them, usually a box (OpenType, "Recommendations": glyph 0). It is known by
    drawing U+10FFFF, which no font has.
    """
    box = bytes(font.getmask("\U0010ffff"))
    return [each for each in dict.fromkeys(text) if bytes(font.getmask(each)) == box and not each.isspace()]


def refuse_missing_glyphs(text: str, font: Font) -> None:
    """Check that a font can draw a text.

    Raises:
        ValueError: The font lacks some of its characters, which the message names.
    """
    if letters := missing_glyphs(text, font):
        raise ValueError(f"the font has no {', '.join(map(repr, letters))}; name one that has with 'font'")


def replace_missing_glyphs(text: str, font: Font) -> str:
    """Return a text that a font can draw: accents it lacks are left out, other missing characters become "?".

    Accents are distinguished from letters by Unicode's compatibility decomposition (NFKD, Unicode annex 15).
    """
    for letter in missing_glyphs(text, font):
        plain = "".join(each for each in unicodedata.normalize("NFKD", letter) if not unicodedata.combining(each))
        text = text.replace(letter, "?" if not plain or missing_glyphs(plain, font) else plain)
    return text
