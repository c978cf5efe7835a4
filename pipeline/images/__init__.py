"""Pictures: decoded upright and in sRGB, resampled, and encoded; what authors of stages import is here.

A name is loaded when it is used: a module that imports this package does not import Pillow with it.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.images.animation import Animation, Timing, map_frames, still
    from pipeline.images.color import color_in, in_colors_of, in_srgb, to_mode
    from pipeline.images.decode import Box, Size, open_picture
    from pipeline.images.drawing import (
        Font,
        Position,
        load_font,
        missing_glyphs,
        position_fractions,
        refuse_missing_glyphs,
        replace_missing_glyphs,
    )
    from pipeline.images.encode import Color, flatten
    from pipeline.images.limits import refuse_if_too_large

__all__ = [
    "Animation", "Box", "Color", "Font", "Position", "Size", "Timing", "color_in", "flatten", "in_colors_of", "in_srgb",
    "load_font", "map_frames", "missing_glyphs", "open_picture", "position_fractions", "refuse_if_too_large",
    "refuse_missing_glyphs", "replace_missing_glyphs", "still", "to_mode",
]  # fmt: skip

# Where each public name is defined.
_DEFINED_IN = {
    "Animation": "animation",
    "Box": "decode",
    "Color": "encode",
    "Font": "drawing",
    "Position": "drawing",
    "Size": "decode",
    "Timing": "animation",
    "color_in": "color",
    "flatten": "encode",
    "in_colors_of": "color",
    "in_srgb": "color",
    "load_font": "drawing",
    "map_frames": "animation",
    "missing_glyphs": "drawing",
    "open_picture": "decode",
    "position_fractions": "drawing",
    "refuse_if_too_large": "limits",
    "refuse_missing_glyphs": "drawing",
    "replace_missing_glyphs": "drawing",
    "still": "animation",
    "to_mode": "color",
}


def __getattr__(name: str) -> Any:
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'pipeline.images' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.images.{_DEFINED_IN[name]}"), name)
