"""How large a picture may be: checked from its header, before a pixel of it is decoded."""

from __future__ import annotations

from contextvars import ContextVar, Token
from typing import NamedTuple

from pipeline.errors import Unreadable


class Limits(NamedTuple):
    """What is read, and what a stage may ask for."""

    # 100 MP decode to 400 MB as RGBA, which a worker can bear.
    max_pixels: int = 100_000_000
    """Width times height times the frames that are decoded."""
    # No camera or scanner makes a longer side, JPEG cannot hold one, and decoders misbehave above it.
    max_side: int = 65_500
    """Pixels."""


DEFAULT_LIMITS = Limits()
_limits: ContextVar[Limits] = ContextVar("limits", default=DEFAULT_LIMITS)


class limited_to:
    """Lets these limits hold instead of the default ones."""

    def __init__(self, limits: Limits) -> None:
        self._wanted = limits

    def __enter__(self) -> None:
        self._token: Token[Limits] = _limits.set(self._wanted)

    def __exit__(self, *raised: object) -> None:
        _limits.reset(self._token)


def refuse_if_too_large(size: tuple[int, int], frames: int = 1) -> None:
    """Raise `Unreadable` for a picture of this width and height that is over the limits, or has no pixels."""
    width, height = size
    limits = _limits.get()
    if width < 1 or height < 1:
        raise Unreadable(f"damaged picture: its size is {width}x{height}")
    shown = f"too large: {width}x{height}" + (f" in {frames} frames" if frames > 1 else "")
    if width * height * frames > limits.max_pixels:
        raise Unreadable(f"{shown}, limit {limits.max_pixels / 1e6:g} MP")
    if max(width, height) > limits.max_side:
        raise Unreadable(f"{shown}, limit {limits.max_side} pixels a side")
