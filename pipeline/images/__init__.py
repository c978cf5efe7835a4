"""Pictures: opened by content, decoded upright and in sRGB, resampled, and encoded. Authors of stages import from here.

A picture is a Pillow `Image.Image` in mode L, LA, RGB or RGBA with 8 bits a channel; sizes and boxes are in pixels,
width before height, with (0, 0) at the top left.

    decode     a Picture over a file: opening, turning, reducing
    resample   the filters, by SIMD instructions where cykooz-resizer is installed
    readers    which reader opens a file: one of ours or Pillow's
    png        PNG by its standard: transparency, colours named by numbers
    png_chunks the chunks of a PNG, and damage beside its pixels
    fast_png   another decoder for ordinary PNGs, where it is installed
    orientation how a stored picture is turned upright
    scans      the scans of a progressive JPEG that a small picture does not need
    tiff       how the pages of a TIFF are laid out, and those that Pillow does not decode right
    bmp        BMP of every header, bit field and compression
    avif       AVIF: its colours, its clean aperture, what does no harm in it
    pcx        PCX whose palette is not at its end
    sgi        SGI whose rows have no end mark
    psd        PSD, some of a channel at a time
    jpeg_2000  JPEG 2000: channels of less or more than 8 bits
    icon       ICO and CUR: the best of their pictures
    encodings  ICC profiles for colours that are named by numbers
    allocation the memory that one picture leaves to the next
    diagnosis  the formats that are read, and the defects of files that cannot be
    endings    whether a file was cut off
    kinds      the names of formats, and kinds of them, that are not read
    costs      pictures that cost more than their size lets expect
    pnm        fast decoding of PBM, PGM and PPM
    animation  an image with further frames
    frames     how the frames of an animation are composed
    delays     how long the frames of an output are shown
    color      modes, ICC profiles, sRGB
    fonts      fonts, and the letters that a font lacks
    plugins    readers beside Pillow's own; extras and jpeg_xl, what is known of formats before one is loaded
    several    files of several pictures, and the notes on what is left out
    metadata   what an output keeps of its source; density, credits and xmp, the parts of it
    encode     one function for each output format

The names defined in this file need no Pillow; any other public name loads its module when it is first used, so that the
workers of a pipeline without pictures stay light.
"""

from __future__ import annotations

import importlib
import math
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Literal

from pipeline.errors import Unreadable
from pipeline.records import NamedTuple

if TYPE_CHECKING:
    from pipeline.images.animation import Animation, Timing, map_frames, still
    from pipeline.images.color import color_in, in_colors_of, in_srgb, to_mode
    from pipeline.images.decode import open_picture
    from pipeline.images.encode import Color, flatten
    from pipeline.images.fonts import (
        Font,
        load_font,
        missing_glyphs,
        refuse_missing_glyphs,
        replace_missing_glyphs,
    )

__all__ = [
    "Animation", "Box", "Color", "Font", "Position", "Size", "Timing", "color_in", "flatten", "in_colors_of", "in_srgb",
    "load_font", "map_frames", "missing_glyphs", "open_picture", "position_fractions", "refuse_if_too_large",
    "refuse_missing_glyphs", "replace_missing_glyphs", "rounded_side", "still", "to_mode",
]  # fmt: skip

# Where each public name is defined that needs Pillow.
_DEFINED_IN = {
    "Animation": "animation",
    "Color": "encode",
    "Font": "fonts",
    "Timing": "animation",
    "color_in": "color",
    "flatten": "encode",
    "in_colors_of": "color",
    "in_srgb": "color",
    "load_font": "fonts",
    "map_frames": "animation",
    "missing_glyphs": "fonts",
    "open_picture": "decode",
    "refuse_missing_glyphs": "fonts",
    "replace_missing_glyphs": "fonts",
    "still": "animation",
    "to_mode": "color",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'pipeline.images' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.images.{_DEFINED_IN[name]}"), name)


Size = tuple[int, int]
"""Width and height in pixels."""
Box = tuple[float, float, float, float]
"""Left, upper, right and lower edge in pixels, in Pillow's order; fractions of pixels are allowed."""

# -- positions ---------------------------------------------------------------------------------------------------------

Position = Literal[
    "centre", "center", "top", "right", "bottom", "left",
    "top left", "top right", "bottom left", "bottom right", "left top", "right top", "left bottom", "right bottom",
]  # fmt: skip
"""A place in a picture, in the words of CSS's `background-position`."""


def position_fractions(position: str) -> tuple[float, float]:
    """Return the fractions of the spare room to the left of and above an object at a position.

    Args:
        position: One of `Position`.

    Returns:
        The horizontal and the vertical fraction: 0 at the left or top, 0.5 in the middle, 1 at the right or bottom, as
        the percentages of CSS's `background-position`.
    """
    words = position.split()
    across = 0.0 if "left" in words else 1.0 if "right" in words else 0.5
    return across, 0.0 if "top" in words else 1.0 if "bottom" in words else 0.5


def rounded_side(length: float) -> int:
    """Round the length of a picture's side half up, as browsers and sharp do, to at least 1 pixel."""
    # Scaled by a quotient of sides, no length is so near to a half that six digits do not tell, but by a float's error.
    return max(1, math.floor(round(length, 6) + 0.5))


# -- limits ------------------------------------------------------------------------------------------------------------


class Limits(NamedTuple):
    """The limits of the size of a picture that is read, or that a stage asks for."""

    # 100 MP decode to 400 MB as RGBA, which a worker can bear.
    max_pixels: int = 100_000_000
    """The greatest product of width, height and number of decoded frames."""
    # No camera or scanner makes a longer side, libjpeg writes none, and decoders misbehave above it.
    max_side: int = 65_500
    """The greatest length of a side in pixels."""


DEFAULT_LIMITS = Limits()
_limits: ContextVar[Limits] = ContextVar("limits", default=DEFAULT_LIMITS)


class limited_to:
    """Context manager that sets the limits of this thread."""

    def __init__(self, limits: Limits) -> None:
        self._wanted = limits

    def __enter__(self) -> None:
        self._token: Token[Limits] = _limits.set(self._wanted)

    def __exit__(self, *raised: object) -> None:
        _limits.reset(self._token)


def refuse_if_too_large(size: Size, frames: int = 1, *, counted: float = 1.0, why: str = "") -> None:
    """Check a picture's size against the limits of the pipeline, before its pixels take any memory.

    Args:
        size: Width and height in pixels.
        frames: The number of frames that are in memory together.
        counted: How many usual pixels each of its pixels counts as, where decoding costs more than usual.
        why: What decoding costs, for the error.

    Raises:
        Unreadable: The picture has no pixels, counts as more than `inputs.max_pixels` (default 100 million, all frames
            together), or a side is longer than `inputs.max_side` (default 65,500).
    """
    width, height = size
    limits = _limits.get()
    if width < 1 or height < 1:
        raise Unreadable(f"damaged picture: its size is {width}x{height}")
    shown = f"too large: {width}x{height}" + (f" in {frames} frames" if frames > 1 else "")
    if width * height * frames * counted > limits.max_pixels:
        limit = limits.max_pixels / counted / 1e6
        kind = f" for a picture {why}" if why else ""
        raise Unreadable(
            f"{shown}, limit {round(limit, 1) if limit > 1 else limit:g} MP{kind}; inputs.max_pixels raises it"
        )
    if max(width, height) > limits.max_side:
        raise Unreadable(f"{shown}, limit {limits.max_side} pixels a side; inputs.max_side raises it")
