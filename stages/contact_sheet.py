"""Lays small pictures of many on one sheet, with their names: a stage that gathers."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Annotated

from annotated_types import Ge, Le
from PIL import Image, ImageColor, ImageDraw

from pipeline import FileFailure, FitBox, Item, Picture, Unreadable, printable_path
from pipeline.images import (
    Color,
    in_srgb,
    load_font,
    refuse_if_too_large,
    replace_missing_glyphs,
    rounded_side,
)

# Bumped when the same options give other pixels, so that the outputs are redone.
RECIPE = 2


class ContactSheet:
    """Lays small pictures on one sheet, each with its name.

    They stand row by row in the order of their paths. `columns` is how many stand in a row, `cell` how many pixels each
    may be wide and high; none is made larger than it is. `gap` is the distance between two, in pixels, and `background`
    what is between them, as a CSS colour.

    `captions: false` leaves the names out. They are written in `font`, a TrueType or OpenType file, or in Pillow's own
    font, which has the letters of English: of others the accents are left out, or "?" stands for them.
    """

    def __init__(
        self,
        *,
        columns: Annotated[int, Ge(1), Le(100)] = 6,
        cell: Annotated[int, Ge(16), Le(4096)] = 240,
        gap: Annotated[int, Ge(0), Le(1000)] = 12,
        background: Color = "white",
        captions: bool = True,
        font: Path | None = None,
    ) -> None:
        self._columns, self._cell, self._gap, self._background = columns, cell, gap, ImageColor.getrgb(background)[:3]
        self._font = load_font(font, max(10, cell / 16))
        # As high as the highest and the lowest letter need it.
        self._caption = round(sum(self._font.getbbox("Äg|")[1::2])) if captions else 0
        self._ink = "black" if sum(self._background) > 3 * 127 else "white"

    def __call__(self, items: Iterator[Item[Picture]]) -> Image.Image:
        rows: list[Image.Image] = []
        while row := [self._draw(item) for item in islice(items, self._columns)]:
            rows.append(self._join(row))
            self._refuse_if_too_large(rows)
        return self._stack(rows)

    def _draw(self, item: Item[Picture]) -> Image.Image:
        """Draw one picture with its name, in the middle of its cell."""
        picture = item.value
        across, down = FitBox(self._cell, self._cell).whole(picture.size)
        width, height = (
            min(side, rounded_side(small)) for side, small in zip(picture.size, (across, down), strict=True)
        )
        small = in_srgb(picture.load((width, height)))
        drawn = Image.new("RGB", (self._cell, self._cell + self._caption), self._background)
        at = (self._cell - width) // 2, (self._cell - height) // 2
        drawn.paste(small, at, small.getchannel("A") if small.mode in ("LA", "RGBA") else None)
        if self._caption:
            text = self._shortened(replace_missing_glyphs(_name(item), self._font))
            pen = ImageDraw.Draw(drawn)
            pen.text(
                (round((self._cell - pen.textlength(text, self._font)) / 2), self._cell), text, self._ink, self._font
            )
        return drawn

    def _shortened(self, name: str) -> str:
        """Return a name that fits below a picture, with its middle left out if need be."""
        kept, text = len(name), name
        while kept and self._font.getlength(text) > self._cell:
            kept -= 1
            text = f"{name[: (kept + 1) // 2]}...{name[len(name) - kept // 2 :]}"
        return text

    def _join(self, row: list[Image.Image]) -> Image.Image:
        strip = Image.new("RGB", (self._step * len(row) + self._gap, row[0].height + self._gap), self._background)
        for place, drawn in enumerate(row):
            strip.paste(drawn, (self._gap + place * self._step, 0))
        return strip

    @property
    def _step(self) -> int:
        """Return the distance between the left edges of two neighbours, in pixels."""
        return self._cell + self._gap

    def _stack(self, rows: list[Image.Image]) -> Image.Image:
        """Paste the rows below each other; each is released once it is pasted, to save memory."""
        sheet, down = Image.new("RGB", self._size(rows), self._background), self._gap
        while rows:
            row = rows.pop(0)
            sheet.paste(row, (0, down))
            down += row.height
        return sheet

    def _size(self, rows: list[Image.Image]) -> tuple[int, int]:
        return rows[0].width, self._gap + len(rows) * rows[0].height

    def _refuse_if_too_large(self, rows: list[Image.Image]) -> None:
        try:
            refuse_if_too_large(self._size(rows))
        except Unreadable as error:
            more = "more columns, smaller cells or a 'group' make it smaller"
            raise FileFailure(f"the sheet is {error.text}; {more}") from None


def _name(item: Item[Picture]) -> str:
    """Return the caption of a picture: the name of its source, and its part if it has one."""
    name = printable_path(PurePosixPath(item.source).name)
    return f"{name} {item.part}" if item.part else name
