"""Reads how many pixels of a picture make an inch, for the outputs that can say it: JFIF, PNG's pHYs, TIFF and EXIF."""

from __future__ import annotations

import os
import struct
from contextlib import suppress
from pathlib import Path
from typing import Any

from PIL import ExifTags, Image

from pipeline.images.orientation import turn_of

Density = tuple[float, float]
"""Pixels an inch across and down, of the upright picture."""
# Centimetres to an inch; EXIF and TIFF count either by their unit 3 or 2 (Exif 2.32, tag 0x0128).
_CM = 2.54
# JFIF has 16 bits; more than that is no density but damage.
_MOST = 65_535
# A worker writes the outputs of a file after it has opened it, so that the last few are enough.
_REMEMBERED = 8
_of_files: dict[tuple[str, int, int], Density | None] = {}


def density_of(image: Image.Image) -> Density | None:
    """Return the density of an image as it was opened; None where the file states none that can be."""
    stored = _stored_density(image)
    if stored is None or stored[0] == stored[1]:
        return stored
    turn = turn_of(image)
    return stored[::-1] if turn and turn.swaps_axes else stored


def _stored_density(image: Image.Image) -> Density | None:
    info = image.info
    with suppress(SyntaxError, ValueError, TypeError, KeyError, OSError, ZeroDivisionError, struct.error):
        if "jfif" in info:  # where Pillow takes one without a unit for the EXIF's
            unit = {1: 1.0, 2: _CM}.get(info.get("jfif_unit", 0))
            return _possible(*(side * unit for side in info["jfif_density"])) if unit else _of_exif(image)
        if image.format == "TIFF" and ExifTags.Base.XResolution not in image.tag_v2:  # type: ignore[attr-defined]
            return None
        if "dpi" in info and image.format not in ("JPEG", "MPO"):
            return _possible(*info["dpi"])
        return _of_exif(image)
    return None


def _of_exif(image: Image.Image) -> Density | None:
    if image.format in ("PNG", "TIFF", "GIF"):  # which say it themselves, or would be read through for it
        return None
    exif: Any = Image.Image.getexif(image)
    across, down = exif.get(ExifTags.Base.XResolution), exif.get(ExifTags.Base.YResolution)
    unit = {2: 1.0, 3: _CM}.get(exif.get(ExifTags.Base.ResolutionUnit, 2))
    return _possible(float(across) * unit, float(down or across) * unit) if across and unit else None


def _possible(across: float, down: float) -> Density | None:
    return (float(across), float(down)) if 0 < across <= _MOST and 0 < down <= _MOST else None


def remember(file: Path, image: Image.Image) -> Density | None:
    """Return the density of a file that has been opened, and keep it, so that its outputs need not open it again."""
    if len(_of_files) >= _REMEMBERED:
        del _of_files[next(iter(_of_files))]
    found = _of_files[_key(file)] = density_of(image)
    return found


def remembered(file: Path) -> tuple[bool, Density | None]:
    """Return whether the density of a file is known, and the density."""
    key = _key(file)
    return key in _of_files, _of_files.get(key)


def _key(file: Path) -> tuple[str, int, int]:
    found = os.stat(file)
    return os.fspath(file), found.st_size, found.st_mtime_ns
