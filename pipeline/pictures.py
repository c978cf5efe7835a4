"""How a picture is opened and decoded, upright and in sRGB: the rules every picture obeys, in one place.

Worked at the small size wherever a consumer says what size it wants: the decoder leaves out what it can, the rest is
resampled as stored, and only then come the colours and the turn.
"""

from __future__ import annotations

import io
import math
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import BinaryIO

from PIL import Image, ImageCms, ImageFile, UnidentifiedImageError

from pipeline.errors import FileFailure, Unreadable
from pipeline.types import Picture

Size = tuple[int, int]
Box = tuple[float, float, float, float]

# Everything Pillow reads by itself. Never EPS, PDF or WMF: for those it starts Ghostscript or the system.
READABLE = (
    "JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "PSD",
    "QOI", "SGI",
)  # fmt: skip

# Pixels, width times height: 100 MP decode to 400 MB as RGBA, which a worker can bear.
MAX_PIXELS = 100_000_000
# Pixels: no camera or scanner makes a longer side, JPEG cannot hold one, and decoders misbehave above it.
MAX_SIDE = 65_500

# EXIF orientation -> (how to turn the stored picture upright, are the axes swapped, mirrored in x, mirrored in y);
# the last three take a point of the upright picture back to the stored one. Exif 2.32, tag 0x0112.
_TURNS = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: (Image.Transpose.ROTATE_180, False, True, True),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: (Image.Transpose.TRANSPOSE, True, False, False),
    6: (Image.Transpose.ROTATE_270, True, False, True),
    7: (Image.Transpose.TRANSVERSE, True, True, True),
    8: (Image.Transpose.ROTATE_90, True, True, False),
}
_ORIENTATION = 0x0112


class OpenedPicture(Picture):
    """A Picture over an image of Pillow's that may not be decoded yet."""

    def __init__(
        self, image: Image.Image, *, upright: bool = False, reopen: Callable[[], Image.Image] | None = None
    ) -> None:
        self._image = image
        self._reopen = reopen
        self._reduced = False
        with unreadable_if_damaged():
            self._turn = None if upright else _TURNS.get(_orientation(image))
        width, height = image.size
        self.size = (height, width) if self._turn and self._turn[1] else (width, height)
        self.format = image.format

    @property
    def frames(self) -> int:  # type: ignore[override]
        """How many frames or pages the file has; counted when asked, since a GIF must be read through for it."""
        with unreadable_if_damaged():
            return getattr(self._image, "n_frames", 1)

    def load(
        self, size: Size | None = None, *, box: Box | None = None, resample: int | None = None, gap: float = 1.0
    ) -> Image.Image:
        self._refuse_impossible(size, box, gap)
        with unreadable_if_damaged():
            if self._reduced and self._reopen:  # a decoder cannot be asked twice
                self.close()
                self._image, self._reduced = self._reopen(), False
            stored_size = size[::-1] if size and self._turn and self._turn[1] else size
            image = self._resampled(stored_size, self._stored_box(box), resample, gap)
            image = _to_srgb(image, self._image.info.get("icc_profile"))
            if self._turn:
                image = image.transpose(self._turn[0])
        if image is self._image:
            image = image.copy()
        image.info = {}
        return image

    def close(self) -> None:
        """Let go of the file; an image that a stage made is left alone, others may still want it."""
        if self._reopen:
            self._image.close()

    def _refuse_impossible(self, size: Size | None, box: Box | None, gap: float) -> None:
        """Raise ValueError for what a stage cannot mean, before Pillow's complaint is taken for the file's."""
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
        """Where a region of the upright picture lies in the picture as stored."""
        width, height = self._image.size
        if box is None:
            return (0, 0, width, height)
        if not self._turn:
            return box
        _, swapped, mirrored_x, mirrored_y = self._turn
        left, top, right, bottom = (box[1], box[0], box[3], box[2]) if swapped else box
        if mirrored_x:
            left, right = width - right, width - left
        if mirrored_y:
            top, bottom = height - bottom, height - top
        return (left, top, right, bottom)

    def _resampled(self, size: Size | None, box: Box, resample: int | None, gap: float) -> Image.Image:
        if size is None:
            image = to_plain(self._image)
            region = (round(box[0]), round(box[1]), round(box[2]), round(box[3]))
            return image if region == (0, 0, *image.size) else image.crop(region)
        reduction = self._draft(size, box, gap)
        left, top, right, bottom = (each / reduction for each in box)
        filtered = Image.Resampling.LANCZOS if resample is None else Image.Resampling(resample)
        # Pillow premultiplies by the alpha, so that the colour behind transparent pixels does not bleed.
        return to_plain(self._image).resize(size, filtered, (left, top, right, bottom), reducing_gap=gap)

    def _draft(self, size: Size, box: Box, gap: float) -> float:
        """Ask the decoder for no more than `gap` times the size; gives the factor by which it reduces.

        Asked with the size that the whole picture would have, not with the box it must fit: that is what makes a
        JPEG decode at 1/2, 1/4 or 1/8. The decoder rounds up, so a size that was rounded up costs nothing either.
        """
        width, height = self._image.size
        wanted = (
            math.floor(width * size[0] / (box[2] - box[0]) * gap),
            math.floor(height * size[1] / (box[3] - box[1]) * gap),
        )
        fitting = [n for n in (8, 4, 2) if -(-width // n) >= wanted[0] and -(-height // n) >= wanted[1]]
        if not fitting or not isinstance(self._image, ImageFile.ImageFile):
            return 1.0
        told = self._image.draft(None, (max(1, width // fitting[0]), max(1, height // fitting[0])))
        self._reduced = told is not None
        return width / told[1][2] if told else 1.0


def open_picture(file: Path | bytes) -> OpenedPicture:
    """Open a picture by its content, without decoding it. Raises `Unreadable` for what is none or is too large."""
    size_bytes = len(file) if isinstance(file, bytes) else file.stat().st_size
    if size_bytes == 0:
        raise Unreadable("empty file")

    def reopen() -> Image.Image:
        return _open_without_bomb_check(io.BytesIO(file) if isinstance(file, bytes) else file)

    with unreadable_if_damaged():
        image = reopen()
    try:
        refuse_if_too_large(image.size)
        return OpenedPicture(image, reopen=reopen)
    except BaseException:
        image.close()
        raise


def refuse_if_too_large(size: Size) -> None:
    """Raise `Unreadable` from a picture's size alone, before a byte of it is decoded."""
    width, height = size
    if width < 1 or height < 1:
        raise Unreadable(f"damaged picture: its size is {width}x{height}")
    if width * height > MAX_PIXELS:
        raise Unreadable(f"too large: {width}x{height}, limit {MAX_PIXELS // 1_000_000} MP")
    if max(width, height) > MAX_SIDE:
        raise Unreadable(f"too large: {width}x{height}, limit {MAX_SIDE} pixels a side")


def _open_without_bomb_check(file: BinaryIO | Path) -> Image.Image:
    """Image.open, less Pillow's own check for pixel bombs, which only warns up to 179 MP; ours follows."""
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        return Image.open(file, formats=READABLE)
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation; 1, upright, where there is none and where the EXIF is broken."""
    if image.format == "TIFF":  # Pillow turns it while loading, and gives the size as it will be then
        return 1
    if image.format == "PNG":  # its EXIF may stand after the pixels, and a damaged file must not pass for a broken EXIF
        image.load()
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return 1


# What Pillow's readers say of a file that ends too early.
_CUT_OFF = ("truncated", "data stream", "eof", "not enough image data")


@contextmanager
def unreadable_if_damaged() -> Iterator[None]:
    """Turn the many exceptions with which Pillow's readers meet a damaged file into one `Unreadable`.

    Its warnings are silenced: they name no file, and what they say is either harmless or raised as well.
    """
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (FileFailure, MemoryError):
        raise
    except UnidentifiedImageError:
        raise Unreadable("not a picture, or cut off in its header") from None
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        said = str(error) or type(error).__name__
        if isinstance(error, EOFError) or any(word in said.lower() for word in _CUT_OFF):
            raise Unreadable(f"truncated picture: {said}") from error
        raise Unreadable(f"damaged picture: {said}") from error


# -- modes and colours -------------------------------------------------------------------------------------------------


def to_plain(image: Image.Image) -> Image.Image:
    """Decode into L, LA, RGB, RGBA or CMYK, nothing lost that the eye can see: the modes that resample well."""
    image.load()
    mode = image.mode
    if mode in ("LA", "RGBA", "CMYK"):
        return image
    if mode.startswith("I") or mode == "F":
        return _to_eight_bits(image)
    if mode == "LAB":
        return _from_lab(image)
    plain = "L" if mode in ("1", "L", "La") else "RGB"
    if mode in ("PA", "La", "RGBa") or _has_transparent_colour(image):
        return image.convert(plain + "A")
    return image if mode == plain else image.convert(plain)


def _has_transparent_colour(image: Image.Image) -> bool:
    """Whether one of its colours is transparent, as in a GIF, or its palette has alpha."""
    if image.mode == "P" and image.palette is not None and image.palette.mode == "RGBA":
        return True
    return image.mode in ("1", "L", "RGB", "P") and "transparency" in image.info


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Scale greys of 16 or 32 bits, or floats, to 8 bits; `convert("L")` would clip them to white."""
    deep = image if image.mode == "F" else image.convert("I")
    high = deep.getextrema()[1]
    assert isinstance(high, (int, float))
    if deep.mode == "I" and high <= 65_535:
        grey = deep.point([(value + 128) // 257 for value in range(65_536)], "L")
        transparent = image.info.get("transparency")
        if isinstance(transparent, int):
            grey.putalpha(deep.point([255 * (value != transparent) for value in range(65_536)], "L"))
        return grey
    top = next((top for top in (1, 255, 65_535) if high <= top), high) if deep.mode == "F" else 2_147_483_647
    # Half a step up, because the last conversion rounds down.
    return deep.convert("F").point(lambda value: value * (255 / top) + 0.5).convert("L")


def _from_lab(image: Image.Image) -> Image.Image:
    lab = ImageCms.createProfile("LAB")
    converted = ImageCms.profileToProfile(image, lab, _srgb(), outputMode="RGB")
    assert converted is not None
    return converted


@lru_cache(maxsize=1)
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


# A camera roll has a handful of profiles; building a transform takes longer than applying it to a small picture.
@lru_cache(maxsize=16)
def _transform_to_srgb(icc_profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the transform from an embedded profile; None if it is sRGB already, or broken, which is read as sRGB."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc_profile))
        if ImageCms.getProfileDescription(profile).startswith("sRGB"):
            return None
        return ImageCms.buildTransform(profile, _srgb(), mode, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None


def _to_srgb(image: Image.Image, icc_profile: bytes | None) -> Image.Image:
    """Convert an L, LA, RGB, RGBA or CMYK image to sRGB, keeping greys grey and the alpha as it is."""
    opaque = {"LA": "L", "RGBA": "RGB"}.get(image.mode, image.mode)
    transform = _transform_to_srgb(icc_profile, opaque) if icc_profile else None
    if transform is None:
        return image.convert("RGB") if image.mode == "CMYK" else image
    converted = ImageCms.applyTransform(image.convert(opaque), transform)
    assert converted is not None
    if opaque == "L":
        converted = converted.convert("L")
    if image.mode != opaque and opaque != "CMYK":
        converted.putalpha(image.getchannel("A"))
    return converted


def as_plain(image: Image.Image) -> Image.Image:
    """What a stage made, in mode L, LA, RGB or RGBA and with nothing beside the pixels that a format would write."""
    if isinstance(image, ImageFile.ImageFile):  # opened by the stage itself and given on as stored
        return OpenedPicture(image).load()
    plain = _to_srgb(to_plain(image), image.info.get("icc_profile"))
    if plain.info:
        plain = plain.copy()
        plain.info = {}
    return plain
