"""Animations: their frames, the duration of each, and the number of times they play."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from PIL import Image

from pipeline.images import refuse_if_too_large
from pipeline.images.several import note_others, places_of
from pipeline.notes import note
from pipeline.records import dataclass

# A TIFF's pages are no animation.
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")


@dataclass(frozen=True)
class Timing:
    """The timing of the frames of an animation."""

    durations_ms: tuple[float, ...]
    """The duration of each frame in milliseconds."""
    plays: int
    """The number of times that the animation is shown; 0 for ever."""


class Animation(Image.Image):
    """An image with further frames. Code that knows nothing of animations sees its first frame.

    Attributes:
        frames: All frames, each a whole picture of the same mode; of one size, unless a stage made them otherwise.
        timing: The durations of the frames, and the number of times they are shown.
    """

    def __init__(self, frames: Sequence[Image.Image], timing: Timing) -> None:
        super().__init__()
        modes = {frame.mode for frame in frames}
        mode = ("RGB" if modes & {"RGB", "RGBA"} else "L") + ("A" if modes & {"LA", "RGBA"} else "")
        self.frames = tuple(frame if frame.mode == mode else frame.convert(mode) for frame in frames)
        self.timing = timing
        self.__dict__ |= self.frames[0].__dict__

    def copy(self) -> Animation:
        """Return an animation with copies of all frames."""
        return Animation([frame.copy() for frame in self.frames], self.timing)


def map_frames(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Apply a function to an image, or to every frame of an `Animation`.

    Args:
        image: An image in mode L, LA, RGB or RGBA.
        change: Called with one frame; returns the frame to put in its place, in any of these modes.

    Returns:
        What `change` returned, or an `Animation` of that with the timing of `image`.
    """
    if isinstance(image, Animation):
        return Animation([change(frame) for frame in image.frames], image.timing)
    return change(image)


def still(image: Image.Image) -> Image.Image:
    """Return the first frame of an `Animation`, with a note in the report of the run; any other image as it is."""
    if not isinstance(image, Animation):
        return image
    note("first frame only", f"of {len(image.frames)}")
    return image.frames[0]


def count_frames(image: Image.Image) -> int:
    """Count the frames, pages or pictures of an image; a GIF is read through for it."""
    if isinstance(image, Animation):
        return len(image.frames)
    return len(places_of(image))


def read_frames(image: Image.Image, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Read all frames of an animation in order; of any other image the first, with a note if there are more.

    Raises `Unreadable`, before a frame is decoded, if all frames together exceed the limits.
    """
    if isinstance(image, Animation):
        return map_frames(image, read)
    count = count_frames(image)
    if count > 1 and image.format in _ANIMATED:
        refuse_if_too_large(image.size, count)
        return _read_all(image, count, read)
    return read_first(image, read)


def read_first(image: Image.Image, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Read the first frame of an image, with a note if there are more."""
    if not isinstance(image, Animation):
        note_others(image, count_frames(image))
        image.seek(0)
    elif len(image.frames) > 1:
        note("first frame only", f"of {len(image.frames)}")
    return read(image.frames[0] if isinstance(image, Animation) else image)


def _read_all(image: Image.Image, count: int, read: Callable[[Image.Image], Image.Image]) -> Animation:
    frames, durations_ms = [], []
    # The first picture of an APNG may be one for programs that know no animation, and no frame of it.
    for frame in range(1 if getattr(image, "default_image", False) else 0, count):
        image.seek(frame)
        frames.append(read(image))
        durations_ms.append(float(image.info.get("duration", 0)))
    return Animation(frames, Timing(tuple(durations_ms), _plays(image)))


def _plays(image: Image.Image) -> int:
    """Return the number of plays of an animation: a GIF stores the number of repetitions instead."""
    loop = image.info.get("loop")
    if image.format != "GIF":
        return int(loop or 0)
    return 1 if loop is None else int(loop) + 1 if loop else 0
