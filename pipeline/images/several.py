"""Files of several pictures: how many there are, which one is taken, and the notes that say what is left out.

frames    GIF, PNG, WebP and AVIF: the picture moves
pages     TIFF
pictures  HEIF, in which one is marked as the main one; MPO, two or more JPEGs in one file; formats of plug-ins
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

from PIL import Image, JpegImagePlugin

from pipeline.errors import Unreadable
from pipeline.images import Size
from pipeline.images.diagnosis import unreadable_if_damaged
from pipeline.images.plugins import is_plugin
from pipeline.notes import note

_ANIMATED = ("GIF", "WEBP", "PNG", "AVIF")
# What an entry of an MPO is (CIPA DC-007, 5.2.3.3), in Pillow's words: previews are no pictures of their own; what is
# undefined is one if it has the size of the first, else a gain map, a depth map or the like.
_OF_SEVERAL, _UNDEFINED = "Multi-Frame", "Undefined"
# Where in a JPEG it is said that a gain map follows (Ultra HDR, ISO 21496-1, Apple's), by its segment.
_GAIN_MAPS = (
    ("APP1", b"hdrgm:Version"), ("APP1", b"HDRGainMap"), ("APP2", b"urn:iso:std:iso:ts:21496"),
)  # fmt: skip


def places_of(image: Image.Image) -> Sequence[int]:
    """Return the places of a file's pictures, frames or pages, as `seek` takes them; previews and maps are left out."""
    if image.format == "MPO":
        return _places_in_mpo(image)
    has_several = image.format in (*_ANIMATED, "TIFF") or (image.format in Image.OPEN and is_plugin(image.format))
    return range(int(getattr(image, "n_frames", 1)) if has_several else 1)  # no list: an APNG may promise billions


def _places_in_mpo(image: Any) -> list[int]:
    kinds = [entry["Attribute"]["MPType"] for entry in image.mpinfo[0xB002]]
    first = _size_in_mpo(image, 0)
    places = [0]
    for place, kind in enumerate(kinds[1:], 1):
        # One whose header is cut off may be a picture: it is reported when all are asked for.
        if kind.startswith(_OF_SEVERAL) or (kind == _UNDEFINED and _size_in_mpo(image, place) in (first, None)):
            places.append(place)
    return places


def _size_in_mpo(image: Any, place: int) -> Size | None:
    """Return the size of a picture in an MPO by a reader of its own, since `seek` undoes what the image has decoded.

    None for one whose header cannot be read.
    """
    with suppress(Unreadable), unreadable_if_damaged():
        image._fp.seek(vars(image)["_MpoImageFile__mpoffsets"][place])
        return JpegImagePlugin.JpegImageFile(image._fp).size
    return None


def is_as_opened(image: Image.Image) -> bool:
    """Return whether an image is at the frame, page or picture at which its file is opened: whether none was sought."""
    return bool(image.info.get("primary", image.tell() == 0))  # which HEIF says


def note_others(image: Image.Image, count: int) -> None:
    """Note which of a file's pictures is taken, if it has more than one, and that a gain map is not used."""
    if count > 1:
        which = {"TIFF": "first page", "HEIF": "main picture"}.get(image.format or "", "first picture")
        note(f"{'first frame' if image.format in _ANIMATED else which} only", f"of {count}")
    if has_gain_map(image):
        note("its HDR gain map is left out")


def has_gain_map(image: Image.Image) -> bool:
    """Return whether a second picture in a file says how the first is shown brighter on an HDR screen."""
    segments = getattr(image, "applist", ())
    auxiliary = image.info.get("aux") or () if image.format == "HEIF" else ()
    in_jpeg = any(name == where and telling in data for name, data in segments for where, telling in _GAIN_MAPS)
    return in_jpeg or any("gainmap" in str(kind).lower() for kind in auxiliary)
