"""Reads how a stored picture is turned upright: by EXIF, else by XMP, as its format has it."""

from __future__ import annotations

import struct

from PIL import ExifTags, Image

from pipeline.images.png import add_late_texts
from pipeline.images.tiff import TiffFile
from pipeline.records import dataclass


@dataclass(frozen=True)
class Turn:
    """How a stored picture is turned upright."""

    how: Image.Transpose
    """What Pillow's `transpose` is asked for."""
    swaps_axes: bool
    """With the next two, what takes a point of the upright picture back to the stored one."""
    mirrors_x: bool
    mirrors_y: bool


# By the EXIF orientation (Exif 2.32, tag 0x0112).
_TURNS = {
    2: Turn(Image.Transpose.FLIP_LEFT_RIGHT, False, True, False),
    3: Turn(Image.Transpose.ROTATE_180, False, True, True),
    4: Turn(Image.Transpose.FLIP_TOP_BOTTOM, False, False, True),
    5: Turn(Image.Transpose.TRANSPOSE, True, False, False),
    6: Turn(Image.Transpose.ROTATE_270, True, False, True),
    7: Turn(Image.Transpose.TRANSVERSE, True, True, True),
    8: Turn(Image.Transpose.ROTATE_90, True, True, False),
}


def turn_of(image: Image.Image) -> Turn | None:
    """Return how an image is turned upright; None if it is, if nothing says so, or if the EXIF is broken.

    XMP's tiff:Orientation counts where EXIF has none, as Pillow reads it, but not in HEIF, AVIF and JPEG XL: what is
    beside the pixels there turns nothing (ISO 23000-22, 7.3.9; 18181-2, 9.4), and their readers obey their own turns.
    """
    if image.format == "HEIF" or (image.format == "JXL" and not getattr(image, "jpeg", False)):
        return None  # its reader turns it while loading, and gives the size as it will be then
    if image.format == "TIFF" and not isinstance(image, TiffFile):
        return None  # as is a TIFF by Pillow's reader, which a stage has decoded
    if image.format == "AVIF" and not image.info.get("exif"):
        return None
    if image.format == "PNG":
        add_late_texts(image)
    try:
        # Not the method of Pillow's PNG, which decodes whatever there is.
        exif = Image.Image.getexif(image) if image.format == "PNG" else image.getexif()
        return _TURNS.get(int(exif.get(ExifTags.Base.Orientation, 1)))
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return None
