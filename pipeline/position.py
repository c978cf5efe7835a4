"""Sides and corners of pictures, as the stages' options name them."""

from __future__ import annotations

from typing import Literal

Position = Literal[
    "centre", "center", "top", "right", "bottom", "left",
    "top left", "top right", "bottom left", "bottom right", "left top", "right top", "left bottom", "right bottom",
]  # fmt: skip


def fractions(position: str) -> tuple[float, float]:
    """Which part of what is over lies to the left and above: 0 at the left or top, 1 at the right or bottom."""
    words = position.split()
    across = 0.0 if "left" in words else 1.0 if "right" in words else 0.5
    return across, 0.0 if "top" in words else 1.0 if "bottom" in words else 0.5
