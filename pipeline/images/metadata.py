"""Reads what an output keeps of its source beside the pixels: density, EXIF, XMP and credits."""

from __future__ import annotations

import struct
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Literal

from annotated_types import MinLen
from PIL import ExifTags, Image

from pipeline.errors import Unreadable
from pipeline.images import density, xmp
from pipeline.images.credits import read_credits
from pipeline.images.diagnosis import unreadable_if_damaged
from pipeline.images.readers import open_image

Metadata = Literal["strip"] | Annotated[frozenset[Literal["icc", "exif", "xmp", "gps", "copyright"]], MinLen(1)]
"""The kinds of metadata that an output keeps, `strip` for none.

`gps` adds positions to `exif` and `xmp`; `copyright` is who made the picture and on which terms, whatever says so.
"""

XMP_TAG = 700
# Tags that say how a TIFF lies in its file (TIFF 6.0), or that are written by other means: XMP, ICC, Photoshop's; how a
# camera's raw is to be developed (DNG 1.7); and Microsoft's padding.
_LAYOUT = frozenset([
    *range(254, 267), 273, 274, *range(277, 282), 284, 290, 291, 292, 293, 297, 301, *range(317, 326), 330, 332,
    *range(336, 344), 347, *range(512, 522), *range(529, 533), XMP_TAG, 33421, 33422, 33723, 34377, 34675, 37724, 50341,
    *range(50706, 51190), *range(52525, 52560), 59932, 59933,
])  # fmt: skip
# Tags of the camera's directory that the source's pixels and colours make true, not the output's; places in its pixels;
# and a maker's own notes, which point into the file that they were written for.
_OF_THE_SOURCE = frozenset([
    ExifTags.Base.ExifImageWidth, ExifTags.Base.ExifImageHeight, ExifTags.Base.ColorSpace, ExifTags.IFD.Interop,
    ExifTags.Base.MakerNote, 37396, ExifTags.Base.SubjectLocation, ExifTags.Base.Gamma,
    ExifTags.Base.CompressedBitsPerPixel, ExifTags.Base.ComponentsConfiguration, 59932, 59933,
])  # fmt: skip
_RESOLUTION = (ExifTags.Base.XResolution, ExifTags.Base.YResolution)
_INCH = 2
_BROKEN = (SyntaxError, ValueError, TypeError, KeyError, OSError, struct.error)


def read_metadata(file: Path, wanted: Metadata) -> dict[str, Any]:
    """Read those kinds that are in `wanted` from a file, and its density; nothing from a file that is no picture.

    Args:
        file: The source of the output.
        wanted: The option `metadata`.

    Returns:
        What is written into the output, by Pillow's names: the bytes of `exif` and `xmp`, and `dpi`, the density.
    """
    kinds: frozenset[str] = frozenset() if wanted == "strip" else wanted - {"icc"}
    if not kinds:
        with suppress(OSError):  # a group has no file, and what has vanished is said elsewhere
            is_known, dots = density.remembered(file)
            return _with_density({}, dots) if is_known else _read(file, kinds)
        return {}
    return _read(file, kinds)


def _read(file: Path, kinds: frozenset[str]) -> dict[str, Any]:
    with suppress(Unreadable), unreadable_if_damaged(), open_image(file) as image:
        dots = density.remember(file, image)
        return _with_density(_read_kinds(image, kinds, dots) if kinds else {}, dots)
    return {}


def _with_density(kept: dict[str, Any], dots: density.Density | None) -> dict[str, Any]:
    return kept | {"dpi": dots} if dots else kept


def _read_kinds(image: Image.Image, kinds: frozenset[str], dots: density.Density | None) -> dict[str, bytes]:
    packet, keeps_positions = _packet(image), "gps" in kinds
    kept = read_credits(image, packet) if "copyright" in kinds else {}
    if "exif" in kinds and (exif := _exif(image, dots, keeps_positions=keeps_positions)):
        kept["exif"] = exif
    if "xmp" in kinds and packet:
        kept["xmp"] = xmp.pruned(packet, keeps_positions=keeps_positions)
    return kept


class _Latin(str):
    """A text of EXIF that is written with the bytes that it was read from, where Pillow writes question marks."""

    __slots__ = ()

    def encode(self, encoding: str = "latin-1", errors: str = "replace") -> bytes:
        return super().encode("latin-1", "replace")


def _exif(image: Image.Image, dots: density.Density | None, *, keeps_positions: bool) -> bytes:
    """Return the EXIF without what is wrong for the output: orientation, sizes, colours, layout, previews, notes."""
    try:
        source, kept = image.getexif(), Image.Exif()
        directories = (ExifTags.IFD.Exif, *([ExifTags.IFD.GPSInfo] if keeps_positions else []))
        for tag, value in source.items():
            if tag not in _LAYOUT and tag not in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
                kept[tag] = _as_stored(value)
        for directory in directories:
            tags = source.get_ifd(directory).items()
            if true := {tag: _as_stored(value) for tag, value in tags if tag not in _OF_THE_SOURCE}:
                kept[directory] = true
        if dots and kept.keys() & set(_RESOLUTION):  # which the output says elsewhere, too
            kept[ExifTags.Base.ResolutionUnit] = _INCH
            kept.update(zip(_RESOLUTION, dots, strict=True))
        return kept.tobytes() if kept else b""
    except _BROKEN:
        return b""


def _as_stored(value: Any) -> Any:
    return _Latin(value) if isinstance(value, str) and not value.isascii() else value


def load_exif(data: bytes) -> Image.Exif:
    """Return EXIF as tags, for a format whose directory they are part of; texts have the bytes that they had."""
    exif = Image.Exif()
    exif.load(data)
    for tags in (exif, exif.get_ifd(ExifTags.IFD.Exif)):
        tags.update({tag: _as_stored(value) for tag, value in tags.items() if isinstance(value, str)})
    return exif


def _packet(image: Image.Image) -> bytes:
    """Return the XMP packet of a picture; empty where it has none."""
    packet: Any = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
    if image.format == "TIFF":
        packet = image.tag_v2.get(XMP_TAG, b"")  # type: ignore[attr-defined]
    try:
        return packet.encode() if isinstance(packet, str) else bytes(packet) if not isinstance(packet, int) else b""
    except _BROKEN:
        return b""
