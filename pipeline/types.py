"""The types that authors of stages import: Item, Part, Skip, Picture and FitBox. Cheap to import."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

from pipeline.records import NamedTuple, dataclass
from pipeline.text import as_json, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from PIL import Image

T = TypeVar("T")


class Skip(Exception):
    """Raised by a stage to leave the file out of the stages below it.

    Args:
        reason: The reason for leaving the file out; it is recorded, and counted in the summary.
    """


@dataclass(frozen=True)
class Item(Generic[T]):
    """A value with its source, for stages that need to know where it comes from.

    With the annotation `Item[bytes]` or `Item[Image.Image]` the value is converted; a bare `Item` takes any value.
    """

    value: T
    source: str
    """The source's path relative to the input root; bytes that are not UTF-8 are surrogate-escaped."""
    scratch: Path
    """A temporary folder for this job alone, on the machine's disk; removed at the end of the job."""
    part: str | None = None
    """The name of the part, in stages below a fan-out; else None."""
    output: str | None = None
    """The path of a gathered file, relative to the folder of pipeline.yaml if it lies there; else None."""


@dataclass(frozen=True)
class Part(Generic[T]):
    """A value that a fan-out stage yields under a name of its own: letters, digits, "_", "." and "-"."""

    value: T
    name: str


Fit = Literal["inside", "outside", "cover", "contain", "fill"]
"""The way to fit a picture into a box, in the words of CSS's object-fit; `outside` covers the box and exceeds it."""


class FitBox(NamedTuple):
    """A box in pixels into which a stage fits every picture."""

    width: int | None
    height: int | None
    fit: Fit = "inside"
    gap: float = 1.0
    """The decoder delivers at least `gap` times the size of the fitted picture, for the resampling."""

    def whole(self, size: tuple[int, int]) -> tuple[float, float]:
        """Return the least width and height in pixels to which a whole picture of this size must be decoded."""
        scales = [limit / side for limit, side in zip((self.width, self.height), size, strict=True) if limit]
        scale = self.gap * (min(scales) if self.fit in ("inside", "contain") else max(scales))
        return size[0] * scale, size[1] * scale


class Picture(ABC):
    """A picture that is opened but not decoded, for the stages that decide how to decode.

    All sizes and boxes are in pixels of the *upright* picture, whatever the file's orientation tag says.
    """

    size: tuple[int, int]
    """Width and height of the upright picture, in pixels."""
    format: str | None
    """Pillow's name of the format found in the file's content, such as "JPEG"; None for a value made by a stage."""
    frames: int
    """The number of frames, pages or pictures of the file; 1 for a still picture."""

    @abstractmethod
    def load(
        self,
        size: tuple[int, int] | None = None,
        *,
        box: tuple[float, float, float, float] | None = None,
        resample: int | None = None,
        gap: float = 1.0,
        frames: Literal["first", "all"] = "first",
    ) -> Image.Image:
        """Decode the picture: upright, in sRGB, in mode L, LA, RGB or RGBA with 8 bits a channel.

        Args:
            size: The width and height to resample to, in pixels; by default the picture's or the box's own.
            box: The region to decode, as (left, upper, right, lower) in upright pixels; by default all of it.
            resample: One of Pillow's `Image.Resampling`; by default LANCZOS.
            gap: The decoder, and averaging in whole steps, reduce to no less than `gap` times `size` before `resample`
                has its turn, as Pillow's `reducing_gap`; at least 1.
            frames: With "all" an animation comes as a `pipeline.images.Animation`, an image that is its first frame and
                has all of them in `.frames`; `pipeline.images.map_frames` changes each. With "first" no other is read.

        Returns:
            An image that belongs to the caller.

        Raises:
            Unreadable: The file is truncated or damaged, or its frames together are too large.
            ValueError: The box does not lie in the picture, the size has no pixels, or `gap` is less than 1.
        """

    @abstractmethod
    def load_each(self) -> Iterator[Image.Image]:
        """Decode every frame, page or picture of the file, one at a time, each as `load` does.

        Yields:
            Images that belong to the caller, in the file's order; pages and pictures may differ in size.

        Raises:
            Unreadable: One of them is truncated, damaged or too large.
        """


def printable_path(path: str | Path) -> str:
    """Return a path as one line that can be printed, drawn or written into a text.

    Args:
        path: A path as `Item.source` has it, with bytes that are not UTF-8 surrogate-escaped.

    Returns:
        The path; bytes that are not UTF-8 and characters that are not printable are written as `\\xNN` and the like.
    """
    return shown(os.fsencode(path))


def path_as_json(path: str | Path, key: str) -> dict[str, str]:
    """Return a path as members of a JSON object, without loss even where it is not UTF-8.

    Args:
        path: A path as `Item.source` has it, with bytes that are not UTF-8 surrogate-escaped.
        key: The name of the member.

    Returns:
        `{key: path}`. For a path that is not UTF-8 its bytes that are not are written as `\\xNN`, and a second member
        `{key}_b64` has all of its bytes in base 64.
    """
    return as_json(os.fsencode(path), key)
