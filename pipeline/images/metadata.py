"""Reads EXIF and XMP for the outputs that keep them."""

from __future__ import annotations

import re
import struct
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from PIL import ExifTags, Image

from pipeline.errors import Unreadable
from pipeline.images.diagnosis import READABLE, unreadable_if_damaged
from pipeline.images.tiff import is_tiff, open_tiff

Metadata = Literal["strip"] | Annotated[frozenset[Literal["icc", "exif", "xmp"]], MinLen(1)]
"""The kinds of metadata that an output keeps; `strip` for none."""

# Where XMP says how to turn the picture (XMP part 2, tiff:Orientation), as an attribute or an element.
_XMP_ORIENTATION = re.compile(rb"(tiff:Orientation\s*(?:=\s*[\"']|>\s*))[1-8]")
XMP_TAG = 700
# Tags that say how a TIFF lies in its file (TIFF 6.0), or that are written by other means: XMP, ICC, Photoshop's.
_LAYOUT = (
    *range(254, 267), 273, 274, *range(277, 282), 284, 290, 291, 292, 293, 297, 301, *range(317, 326), 330, 332,
    *range(336, 344), 347, *range(512, 522), *range(529, 533), XMP_TAG, 33723, 34377, 34675, 37724,
)  # fmt: skip
# What is below the first directory and is kept: what the camera says, and where it was.
_DIRECTORIES = (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo)
# Tags of the camera's directory that the source's pixels and colours make true, not the output's.
_OF_THE_SOURCE = (
    ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ColorSpace, ExifTags.IFD.Interop,
)  # fmt: skip


def read_metadata(file: Path, wanted: Metadata) -> dict[str, bytes]:
    """Read those of `exif` and `xmp` that are in `wanted` from a file; nothing from a file that is no picture."""
    readers = {"exif": _exif, "xmp": _xmp}
    found: dict[str, bytes] = {}
    with (
        suppress(Unreadable),
        unreadable_if_damaged(),
        open_tiff(file) if is_tiff(file) else Image.open(file, formats=READABLE) as image,
    ):
        if image.format == "PNG":  # where both may stand after the pixels
            image.load()
        for name in readers.keys() & set(wanted):
            if data := readers[name](image):
                found[name] = data
    return found


def _exif(image: Image.Image) -> bytes:
    """Return the EXIF without tags that are wrong for the output: orientation, size, colour space, layout, preview."""
    try:
        source, kept = image.getexif(), Image.Exif()
        for tag, value in source.items():
            if tag not in (*_LAYOUT, *_DIRECTORIES):
                kept[tag] = value
        for directory in _DIRECTORIES:
            if tags := {tag: value for tag, value in source.get_ifd(directory).items() if tag not in _OF_THE_SOURCE}:
                kept[directory] = tags
        return kept.tobytes() if kept else b""
    except (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error):
        return b""


def _xmp(image: Image.Image) -> bytes:
    """Return the XMP packet with its orientation set to upright."""
    packet: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if image.format == "TIFF":
        packet = image.tag_v2.get(XMP_TAG, b"")  # type: ignore[attr-defined]
    data = packet.encode() if isinstance(packet, str) else bytes(packet)
    return _XMP_ORIENTATION.sub(rb"\g<1>1", data)
