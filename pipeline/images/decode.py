"""Opens and decodes pictures, upright and in sRGB.

If a consumer names a size, most of the work is done at that size: the decoder reduces the picture as far as it can,
the stored pixels are resampled, and colours are converted and the picture is turned last.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import IO, Literal, TypeVar

from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.errors import Unreadable
from pipeline.images import Box, Size, refuse_if_too_large, rounded_side
from pipeline.images.allocation import keep_freed_memory
from pipeline.images.animation import Animation, count_frames, map_frames, read_first, read_frames
from pipeline.images.color import in_own_colors, in_srgb, to_plain, to_srgb
from pipeline.images.costs import USUAL_BYTES, claim_decoding, is_affordable, refuse_if_too_costly
from pipeline.images.density import remember as remember_density
from pipeline.images.diagnosis import refuse_raw, refuse_unread_kind, unidentified, unreadable_if_damaged
from pipeline.images.endings import ends_early
from pipeline.images.fast_png import FAST_BYTES_A_PIXEL, read_png
from pipeline.images.frames import with_composed_frames
from pipeline.images.orientation import Turn, turn_of
from pipeline.images.plugins import profile_of
from pipeline.images.pnm import with_fast_pnm
from pipeline.images.readers import open_image
from pipeline.images.resample import least_gap, resample
from pipeline.images.scans import without_ac_scans
from pipeline.images.several import is_as_opened, note_others, places_of
from pipeline.images.tiff import as_stated
from pipeline.notes import note
from pipeline.records import dataclass
from pipeline.types import FitBox, Picture

Side = TypeVar("Side", int, float)

# Formats whose first frame or page must be sought; of others, the picture that is taken is there when they are opened.
_SOUGHT = ("GIF", "WEBP", "PNG", "AVIF", "TIFF")
# Formats whose decoder can leave out what a smaller picture does not need; MPO is a JPEG with others after it.
_REDUCIBLE = ("JPEG", "MPO")
# How many times the size of a reader's picture that of the largest is at least, if the one is made from the other: what
# comes out is then as near to Lanczos of the whole picture as from a decoder that averages.
_LEAST_SHRINK = 2.0
# Pixels of a side of that picture: of fewer, two filters in a row make something else than one.
_LEAST_SIDE = 32


@dataclass(frozen=True)
class _Pixels:
    """A stored picture's pixels, as many as a reader needs, kept for others that need no finer ones."""

    image: Image.Image
    across: float = 1.0
    """How many times the stored picture is as wide as this image."""
    down: float = 1.0
    """How many times it is as high."""
    scale: int = 1
    """The factor by which the decoder was asked to reduce."""

    def resampled(self, size: Size, box: Box, how: Image.Resampling, gap: float) -> Image.Image:
        """Return a box of the stored picture in this size."""
        inner = (box[0] / self.across, box[1] / self.down, box[2] / self.across, box[3] / self.down)
        # Six digits, so that no error of a float puts an edge beside or out of the image.
        left, top, right, bottom = (round(edge, 6) for edge in inner)
        return resample(self.image, size, how, (left, top, right, bottom), gap)


class OpenedPicture(Picture):
    """A Picture over a Pillow image that may not be decoded yet."""

    least: FitBox | None = None
    """The largest box into which a stage fits this picture, so that one decoding is fine enough for all stages."""
    own_colors = False
    """True if the picture is loaded in its own colours, with their profile in its info, instead of in sRGB."""

    def __init__(
        self,
        image: Image.Image,
        *,
        upright: bool = False,
        reopen: Callable[[], Image.Image] | None = None,
        file: Path | bytes | None = None,
        bytes_a_pixel: float = USUAL_BYTES,
    ) -> None:
        self._bytes_a_pixel = bytes_a_pixel
        self._image = image
        self._reopen = reopen
        self._file = file
        self._is_used = False
        self._is_still = True
        self._decoded: _Pixels | None = None
        self._shared: _Pixels | None = None
        self._stored = image.size
        self._turn: Turn | None = None
        if not upright:
            with unreadable_if_damaged(file, image.format):
                self._turn = turn_of(image)
        self.size = self._turned(image.size)
        self.format = image.format

    def decode_for(self, box: FitBox | None, *, own_colors: bool) -> None:
        """Prepare the picture for a reader that fits it into at most this box and may want it in its own colors."""
        self.least, self.own_colors = box, own_colors

    @property
    def frames(self) -> int:  # type: ignore[override]
        """The number of frames, pages or pictures of the file; a GIF is read through for it, once."""
        if isinstance(self._image, Animation):
            return len(self._image.frames)
        with self._reading():
            return len(self._places)

    @cached_property
    def _places(self) -> Sequence[int]:
        """The places of the file's frames, pages or pictures, which can be found only before any is decoded."""
        return places_of(self._image)

    def load(
        self,
        size: Size | None = None,
        *,
        box: Box | None = None,
        resample: int | None = None,
        gap: float = 1.0,
        frames: Literal["first", "all"] = "first",
    ) -> Image.Image:
        self._refuse_impossible(size, box, gap)
        how = Image.Resampling.LANCZOS if resample is None else Image.Resampling(resample)
        stored_size, stored_box = size and self._turned(size), self._stored_box(box)
        read = read_frames if frames == "all" else read_first

        def make(frame: Image.Image) -> Image.Image:
            return self._make(frame, stored_size, stored_box, how, gap)

        with self._reading():
            is_animation = isinstance(self._image, Animation)
            self._is_still = not is_animation and (len(self._places) == 1 or self.format not in _SOUGHT)
            if not self._is_still:
                if frames == "all" and not is_animation and self.format != "TIFF":  # whose pages are no frames
                    made = len(self._places) * math.prod(stored_size or self._stored)
                    claim_decoding(self._stored, self._bytes_a_pixel, made)
                return read(self._image, make)
            note_others(self._image, len(self._places))
            return make(self._image)

    def close(self) -> None:
        """Release the file; an image that a stage made stays open, since others may still use it."""
        self._decoded = self._shared = None
        if self._reopen:
            self._image.close()

    def load_each(self) -> Iterator[Image.Image]:
        if isinstance(self._image, Animation):
            yield from (frame.copy() for frame in self._image.frames)
            return
        if self.frames == 1:
            yield self.load()
            return
        with self._reading():
            self._renew()
        here, places = self._image.tell(), self._places
        # The first picture of an APNG may be one for programs that know no animation, and no frame of it.
        for place in places[1:] if getattr(self._image, "default_image", False) else places:
            with self._reading():
                self._image.seek(place)
                refuse_if_too_large(self._image.size)
                loaded = _load_here(self._image, own_colors=self.own_colors)
            yield loaded
        self._image.seek(here)

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Open the file again after damage: a reader that failed may take the part that it read for the whole."""
        try:
            with unreadable_if_damaged(self._file, self.format):
                yield
        except Unreadable:
            if self._reopen:
                self.close()
                with unreadable_if_damaged():
                    self._image, self._is_used = self._reopen(), False
            raise

    def _turned(self, sides: tuple[Side, Side]) -> tuple[Side, Side]:
        """Convert the upright width and height to the stored ones, or back."""
        return (sides[1], sides[0]) if self._turn and self._turn.swaps_axes else sides

    def _refuse_impossible(self, size: Size | None, box: Box | None, gap: float) -> None:
        """Raise ValueError for impossible arguments, whose error from Pillow would be blamed on the file."""
        width, height = self.size
        left, top, right, bottom = box or (0, 0, width, height)
        if not (0 <= left < right <= width and 0 <= top < bottom <= height):
            raise ValueError(f"box {box} does not lie in the picture of {width}x{height}")
        if gap < 1:
            raise ValueError(f"gap {gap} is less than 1")
        if size:
            if min(size) < 1:
                raise ValueError(f"size {size} has no pixels")
            refuse_if_too_large(size)

    def _stored_box(self, box: Box | None) -> Box:
        """Return the box in the stored picture of a region of the upright one."""
        width, height = self._stored
        if box is None:
            return (0, 0, width, height)
        if not self._turn:
            return box
        left, top, right, bottom = (box[1], box[0], box[3], box[2]) if self._turn.swaps_axes else box
        if self._turn.mirrors_x:
            left, right = width - right, width - left
        if self._turn.mirrors_y:
            top, bottom = height - bottom, height - top
        return (left, top, right, bottom)

    def _make(self, frame: Image.Image, size: Size | None, box: Box, how: Image.Resampling, gap: float) -> Image.Image:
        """Decode and resample the stored picture, then convert its colours and turn it, which costs less when small."""
        pixels = self._decode(frame, size, box, gap)
        source = pixels.image
        if size:
            if pixels is self._decoded and how is Image.Resampling.LANCZOS:
                pixels = self._from_least(pixels, size, box, gap)
            image = pixels.resampled(size, box, how, gap)
        else:
            region = (round(box[0]), round(box[1]), round(box[2]), round(box[3]))
            image = source if region == (0, 0, *source.size) else source.crop(region)
        profile = profile_of(self._image)
        image = in_own_colors(image, profile) if self.own_colors else to_srgb(image, profile)
        if self._turn:
            image = image.transpose(self._turn.how)
        kept = image.info.get("icc_profile") if self.own_colors else None
        if image is source:  # others may want it too
            image = image.copy()
        image.info = {"icc_profile": kept} if kept else {}
        return image

    # -- decoding ------------------------------------------------------------------------------------------------------

    def _decode(self, frame: Image.Image, size: Size | None, box: Box, gap: float) -> _Pixels:
        """Decode a frame; the first frame of a file is kept for later readers that need no finer one."""
        made = math.prod(size or self._stored)
        # A file of several frames has one place for their pixels.
        if frame is not self._image or not self._is_still:
            claim_decoding(self._stored, self._bytes_a_pixel, made)
            return _Pixels(to_plain(frame))
        scale = self._scale(size, box, gap) if size else 1
        # Where it cannot be decoded once more, what there is must do.
        if self._decoded is None or (self._decoded.scale != scale and self._reopen):
            self._decoded = self._shared = None
            bytes_a_pixel = max(self._bytes_a_pixel, self._fast_png_bytes or 0)
            claim_decoding(self._stored, bytes_a_pixel, made, scale)
            self._decoded = self._decode_at(scale)
        return self._decoded

    def _from_least(self, pixels: _Pixels, size: Size, box: Box, gap: float) -> _Pixels:
        """Return the picture as it fits `least` instead of the decoded one, where that is fine enough for a reader.

        Whether it is depends on the pipeline only, not on which of its stages run today.
        """
        if not self.least:
            return pixels
        width, height = self._turned(self.least._replace(gap=1).whole(self.size))
        largest = rounded_side(width), rounded_side(height)
        if min(largest) < _LEAST_SIDE or largest[0] >= self._stored[0] or largest[1] >= self._stored[1]:
            return pixels
        fitted = self._fitted(size, box)
        # A side may have been rounded by half a pixel.
        is_enough = all(have + 1 >= max(_LEAST_SHRINK, gap) * need for have, need in zip(largest, fitted, strict=True))
        if fitted != largest and not is_enough:
            return pixels
        if self._shared is None:
            whole = (0, 0, *self._stored)
            image = pixels.resampled(largest, whole, Image.Resampling.LANCZOS, self.least.gap)
            self._shared = _Pixels(image, self._stored[0] / largest[0], self._stored[1] / largest[1])
        return self._shared

    def _fitted(self, size: Size, box: Box) -> tuple[float, float]:
        """Return the size that the whole stored picture has where its box has this size."""
        return self._stored[0] * size[0] / (box[2] - box[0]), self._stored[1] * size[1] / (box[3] - box[1])

    def _scale(self, size: Size, box: Box, gap: float) -> int:
        """Return the factor by which the decoder may reduce the picture for a reader of this size, and for the least.

        It is computed from the size that the whole picture would have, not from the box that it must fit.
        """
        if self._image.format not in _REDUCIBLE:
            return 1
        needs = [(self._fitted(size, box), gap)]
        if self.least:
            needs.append((self._turned(self.least._replace(gap=1).whole(self.size)), self.least.gap))
        return next((n for n in (8, 4, 2) if all(_is_enough(self._stored, n, *need) for need in needs)), 1)

    def _renew(self) -> None:
        """Open the file again if it was decoded, since a decoder cannot be asked twice."""
        if self._is_used and self._reopen:
            self._decoded = self._shared = None
            self._image.close()
            self._image = self._reopen()
        self._is_used = True

    def _decode_at(self, scale: int) -> _Pixels:
        image = self._decode_faster(scale)
        if image is None:
            self._renew()
            image = self._image
        width, height = self._stored
        draft = None
        if scale > 1:
            draft = image.draft(None, (max(1, width // scale), max(1, height // scale)))
        reduction = width / draft[1][2] if draft else 1.0
        return _Pixels(to_plain(image), reduction, reduction, scale)

    def _decode_faster(self, scale: int) -> Image.Image | None:
        """Return the same pixels from another decoder, or from less of the file; None if there is no faster way."""
        # None where it is decoded already. What a stage opened is closed by decoding it.
        file: IO[bytes] | None = getattr(self._image, "fp", None) if self._reopen else None
        faster = None
        if file and self._fast_png_bytes:
            faster = read_png(file)
        elif file and self._image.format == "JPEG" and "progressive" in self._image.info and scale == 8:
            file.seek(0)
            if shorter := without_ac_scans(file.read()):
                faster = Image.open(io.BytesIO(shorter), formats=("JPEG",))
        if file and faster:
            file.close()  # as decoding does
            self._is_used = True
        return faster

    @property
    def _fast_png_bytes(self) -> float | None:
        """The bytes that a pixel takes in the faster decoder, which has the whole file in memory besides.

        None where it is not used, since it would not keep the limits or the picture is of another kind.
        """
        file: IO[bytes] | None = getattr(self._image, "fp", None) if self._reopen else None
        if file is None or self._image.format != "PNG":
            return None
        here = file.tell()
        file_bytes = file.seek(0, io.SEEK_END)
        file.seek(here)
        needed = FAST_BYTES_A_PIXEL + file_bytes / math.prod(self._stored)
        return needed if is_affordable(self._stored, needed) else None


def open_picture(file: Path | bytes) -> OpenedPicture:
    """Open a picture by its content, without decoding it.

    Args:
        file: A file, or the bytes of one.

    Returns:
        A `Picture`. Call its `close` when it is no longer needed.

    Raises:
        Unreadable: The file is empty, no picture, of a format that is not read, damaged in its header, or too large.
        OSError: The file cannot be opened.
    """
    keep_freed_memory()
    size_bytes = len(file) if isinstance(file, bytes) else file.stat().st_size
    if size_bytes == 0:
        raise Unreadable("empty file")

    def reopen() -> Image.Image:
        return with_composed_frames(with_fast_pnm(open_image(file)))

    with unreadable_if_damaged(file):
        try:
            image = reopen()
        except UnidentifiedImageError:
            raise unidentified(file) from None
    try:
        if image.format == "GIF":
            _note_missing_end(image.fp)  # type: ignore[attr-defined]
        refuse_if_too_large(image.size)
        bytes_a_pixel = refuse_if_too_costly(image)
        if image.format == "TIFF":
            refuse_raw(image)
        refuse_unread_kind(image, file)
        opened = OpenedPicture(image, reopen=reopen, file=file, bytes_a_pixel=bytes_a_pixel)
        if isinstance(file, Path):
            remember_density(file, image)
        return opened
    except BaseException:
        image.close()
        raise


def _note_missing_end(file: IO[bytes]) -> None:
    """Add a note if a GIF lacks its end mark, since one cut between two frames reads like a whole one."""
    here = file.tell()
    file.seek(0)
    if ends_early(file.read(), "GIF"):
        note("its end mark is missing: frames may be lost")
    file.seek(here)


def as_plain(image: Image.Image, *, own_colors: bool = False) -> Image.Image:
    """Convert a stage's image to mode L, LA, RGB or RGBA, without metadata that a format would write.

    The result is in sRGB, or with `own_colors` in the colours of the profile in its info.
    """
    if isinstance(image, ImageFile.ImageFile):  # opened by the stage itself and given on as stored
        with unreadable_if_damaged():
            image = with_composed_frames(as_stated(image))
            plain = _load_here(image, own_colors=own_colors)
            if is_as_opened(image):  # else the stage has chosen; counted last, for which Pillow goes to and fro
                note_others(image, count_frames(image))
        return plain

    def settle(frame: Image.Image) -> Image.Image:
        plain = to_plain(frame)
        return in_own_colors(plain, plain.info.get("icc_profile")) if own_colors else in_srgb(plain)

    return map_frames(image, settle) if isinstance(image, Animation) else settle(image)


def _load_here(image: Image.Image, *, own_colors: bool) -> Image.Image:
    """Load, upright, the frame, page or picture at which an image is."""
    here = OpenedPicture(image)
    here.decode_for(None, own_colors=own_colors)
    return here._make(image, None, (0, 0, *image.size), Image.Resampling.LANCZOS, 1.0)


def _is_enough(stored: Size, reduction: int, fitted: tuple[float, float], gap: float) -> bool:
    """Return whether a decoder that reduces the stored picture still delivers enough to fit it to a width and height.

    One of these may have been rounded up by half a pixel, which the decoder, rounding up too, need not make good.
    """
    gap = max(gap, least_gap(reduction))
    sides = list(zip(stored, fitted, strict=True))
    return any(side >= least * gap * reduction for side, least in sides) and all(
        -(-side // reduction) >= math.floor(least * gap) for side, least in sides
    )
