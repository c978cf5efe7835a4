"""Pictures that move: their frames, how long each is shown, and how often they play."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.images.limits import refuse_if_too_large
from pipeline.notes import note

# Formats whose further frames are the same picture in motion, or further pages; in others they are previews or layers.
_WITH_FRAMES = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")
# A TIFF's pages are no animation.
_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")

# How a viewer goes on from one frame to the next (GIF89a, 23.c.iv): what is drawn stays, or is cleared away.
_KEEP, _CLEAR, _RESTORE = 1, 2, 3
# GIF and WebP have 16 bits for how often.
_MOST_TIMES = 65_535


@dataclass(frozen=True)
class Timing:
    """How the frames follow each other."""

    durations_ms: tuple[float, ...]
    plays: int
    """How often the whole is shown; 0 for ever."""
    disposals: tuple[int, ...]
    """What a GIF said becomes of each frame when the next one comes."""


class Animation(Image.Image):
    """An image that has further frames; for all who do not ask, it is its first one."""

    def __init__(self, frames: Sequence[Image.Image], timing: Timing) -> None:
        super().__init__()
        modes = {frame.mode for frame in frames}
        mode = ("RGB" if modes & {"RGB", "RGBA"} else "L") + ("A" if modes & {"LA", "RGBA"} else "")
        self.frames = tuple(frame if frame.mode == mode else frame.convert(mode) for frame in frames)
        self.timing = timing
        self.__dict__ |= self.frames[0].__dict__

    def copy(self) -> Animation:
        """A copy of all frames."""
        return Animation([frame.copy() for frame in self.frames], self.timing)


def map_frames(image: Image.Image, change: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Change an image, or every frame of one that moves."""
    if isinstance(image, Animation):
        return Animation([change(frame) for frame in image.frames], image.timing)
    return change(image)


def still(image: Image.Image) -> Image.Image:
    """The image itself, or the first frame of one that moves, which is noted."""
    if not isinstance(image, Animation):
        return image
    note("first frame only", f"of {len(image.frames)}")
    return image.frames[0]


def count_frames(image: Image.Image) -> int:
    """How many frames or pages a file has. A GIF must be read through for it."""
    if isinstance(image, Animation):
        return len(image.frames)
    return getattr(image, "n_frames", 1) if image.format in _WITH_FRAMES else 1


def read_frames(image: Image.Image, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Read all frames of an animation, each in turn; of anything else the first one, noted if there are more.

    Raises `Unreadable`, before any is decoded, if together they are over the limits.
    """
    if isinstance(image, Animation):
        return map_frames(image, read)
    count = count_frames(image)
    if count > 1 and image.format in _ANIMATED:
        refuse_if_too_large(image.size, count)
        return _read_all(image, count, read)
    return read_first(image, read)


def read_first(image: Image.Image, read: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """Read the first frame, and note it if there are more."""
    count = count_frames(image)
    if count > 1:
        note(f"first {'page' if image.format == 'TIFF' else 'frame'} only", f"of {count}")
        image.seek(0)
    return read(image.frames[0] if isinstance(image, Animation) else image)


def _read_all(image: Image.Image, count: int, read: Callable[[Image.Image], Image.Image]) -> Animation:
    frames, durations_ms, disposals = [], [], []
    # The first picture of an APNG may be one for programs that know no animation, and no frame of it.
    for frame in range(1 if getattr(image, "default_image", False) else 0, count):
        image.seek(frame)
        refuse_if_too_large(image.size, count)  # a GIF's canvas may grow
        frames.append(read(image))
        durations_ms.append(float(image.info.get("duration", 0)))
        disposals.append(int(getattr(image, "disposal_method", 0)))
    return Animation(frames, Timing(tuple(durations_ms), _plays(image), tuple(disposals)))


def _plays(image: Image.Image) -> int:
    """How often it is shown: a GIF says how often it is repeated, the others how often it is played."""
    loop = image.info.get("loop")
    if image.format != "GIF":
        return int(loop or 0)
    return 1 if loop is None else int(loop) + 1 if loop else 0


# -- what Pillow's writers want to be told -----------------------------------------------------------------------------


def webp_options(image: Image.Image) -> dict[str, Any]:
    """For a WebP: nothing unless the image moves."""
    if not isinstance(image, Animation):
        return {}
    durations_ms = [round(each) for each in image.timing.durations_ms]
    return {**_frames_after(image), "duration": durations_ms, "loop": min(image.timing.plays, _MOST_TIMES)}


def gif_options(image: Image.Image) -> dict[str, Any]:
    """For a GIF: nothing unless the image moves."""
    if not isinstance(image, Animation):
        return {}
    plays = image.timing.plays
    loop = {} if plays == 1 else {"loop": min(plays - 1, _MOST_TIMES) if plays else 0}
    # Optimised, Pillow mistakes which index is transparent in frames that have other palettes than the first.
    optimize = {"optimize": False} if any(_has_transparency(frame) for frame in image.frames) else {}
    durations_ms = _in_hundredths(image.timing.durations_ms)
    return {**_frames_after(image), **loop, **optimize, "duration": durations_ms, "disposal": _disposals(image)}


def _in_hundredths(durations_ms: Sequence[float]) -> list[int]:
    """Durations in whole hundredths of a second, as a GIF has them: none becomes 0, and together they last as long."""
    rounded, due_ms, said_ms = [], 0.0, 0
    for duration_ms in durations_ms:
        due_ms += duration_ms
        rounded.append(max(10, 10 * round((due_ms - said_ms) / 10)) if duration_ms else 0)
        said_ms += rounded[-1]
    return rounded


def _frames_after(image: Animation) -> dict[str, Any]:
    return {"save_all": True, "append_images": image.frames[1:]}


def _disposals(image: Animation) -> list[int]:
    """The source's own, as far as they are right for frames that are whole pictures.

    Where a pixel may become transparent again, what was drawn must be cleared away; to restore what was before the
    frame is to keep what the frame shows, when the next one is a whole picture.
    """
    if any(_has_transparency(frame) for frame in image.frames):
        return [_CLEAR] * len(image.frames)
    return [_KEEP if each == _RESTORE else each for each in image.timing.disposals]


def _has_transparency(frame: Image.Image) -> bool:
    lowest, _ = frame.getchannel("A").getextrema() if frame.mode in ("LA", "RGBA") else (255, 255)
    return lowest != 255
