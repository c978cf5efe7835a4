"""Leaves out pictures that are too small: a filter that reads no more than their headers."""

from __future__ import annotations

from typing import Annotated

from annotated_types import Gt

from pipeline import Picture, Skip

# Bumped when the same options let other pictures through.
RECIPE = 1


class LargerThan:
    """Leaves out pictures that are too small.

    A picture must be larger than all that is named. `width` and `height` are in pixels of the upright picture,
    `megapixels` in millions of them; one of exactly that size is left out. Only the header is read, so that a folder of
    small pictures costs next to nothing.
    """

    def __init__(
        self,
        *,
        width: Annotated[int, Gt(0)] | None = None,
        height: Annotated[int, Gt(0)] | None = None,
        megapixels: Annotated[float, Gt(0)] | None = None,
    ) -> None:
        self._width, self._height, self._pixels = width or 0, height or 0, (megapixels or 0) * 1e6

    @staticmethod
    def check(**options: float | None) -> None:
        """Refuse a filter that would let everything through. Raises ValueError."""
        if not any(options.values()):
            raise ValueError("larger_than needs a 'width', a 'height' or 'megapixels'")

    def __call__(self, picture: Picture) -> bool:
        width, height = picture.size
        if width > self._width and height > self._height and width * height > self._pixels:
            return True
        raise Skip(f"too small: {width}x{height}")  # a mere False would do, but says less
