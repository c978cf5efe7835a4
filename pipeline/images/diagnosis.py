"""Describes the defect of a picture file, in one sentence that begins with the class of the defect.

empty file         the file has no byte
not a picture      the file is of no known format
unsupported        a picture of a format or a flavour that is not read
truncated picture  the file ends too early
damaged picture    a decoder failed for any other reason
too large          see `refuse_if_too_large`
"""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.errors import FileFailure, Unreadable
from pipeline.images.plugins import is_plugin

# Pillow's own readers that are asked. Never those of EPS, PDF and WMF, which start Ghostscript or ask the system.
READABLE = (
    "JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "TGA", "ICO", "PCX", "PSD",
    "QOI", "SGI",
)  # fmt: skip
# Those of them that begin with so many telling bytes that no text or other data does so by chance.
_UNMISTAKABLE = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "JPEG2000", "PSD", "QOI")

# Formats that Pillow knows nothing of: where in the file which bytes stand.
_FOREIGN = (
    (0, b"%PDF", "PDF"), (4, b"ftypcrx", "CR3, a camera's raw"),
    (0, b"FUJIFILMCCD-RAW", "RAF, a camera's raw"), (0, b"IIU\0", "RW2, a camera's raw"),
    (0, b"IIRO", "ORF, a camera's raw"), (8, b"CR\2", "CR2, a camera's raw"),
)  # fmt: skip
# Bytes: an SVG may begin with comments; whatever begins a picture stands in the first of them.
_HEAD = 4096

# What Pillow's readers say of a file that ends too early, and of one that they cannot read.
_CUT_OFF = (
    "truncated", "data stream", "eof", "end of file", "decoder object", "not enough image data", "buffer of at least",
    "out of range",
)  # fmt: skip
_UNSUPPORTED = (
    "unsupported", "not supported", "not available", "not installed", "not been built in",
    "unknown pixel mode", "unknown tga", "unknown pcx",
)  # fmt: skip


@contextmanager
def unreadable_if_damaged() -> Iterator[None]:
    """Turn the many exceptions with which Pillow's readers meet a damaged file into one `Unreadable`.

    Pillow's warnings are silenced: they name no file, and are either harmless or raised as well. So is its own check
    for pixel bombs, which only warns up to 179 MP, and never lets more pass: `refuse_if_too_large` checks.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except (FileFailure, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise Unreadable(_verdict(error)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _verdict(error: Exception) -> str:
    message = str(error).strip() or type(error).__name__
    words = message.lower()
    if isinstance(error, UnidentifiedImageError) or "invalid literal" in words:  # a text that begins as a PPM does
        return "not a picture"
    if isinstance(error, NotImplementedError) or any(word in words for word in _UNSUPPORTED):
        return f"unsupported picture: {message}"
    if isinstance(error, EOFError) or any(word in words for word in _CUT_OFF):
        return f"truncated picture: {message}"
    return f"damaged picture: {message}"


def refuse_raw(image: Image.Image) -> None:
    """Raise `Unreadable` for a TIFF whose first page is marked as a preview, since a camera's raw data follow it."""
    with unreadable_if_damaged():
        tags = image.tag_v2  # type: ignore[attr-defined]
        kind = tags.get(254, 0)
    if isinstance(kind, int) and kind & 1 and 330 in tags:
        raise Unreadable("unsupported: a camera's raw; its first page is only a preview")


def unidentified(file: Path | bytes) -> Unreadable:
    """Return the error for a file that no reader recognised."""
    if isinstance(file, bytes):
        head = file[:_HEAD]
    else:
        with open(file, "rb") as opened:
            head = opened.read(_HEAD)
    for offset, telling, name in _FOREIGN:
        if head.startswith(telling, offset):
            return Unreadable(f"unsupported: {name} is not read")
    if b"<svg" in head.lower() and b"<html" not in head.lower():
        return Unreadable("unsupported: SVG is not read")
    Image.init()
    for name, (_, accept) in Image.OPEN.items():
        if name == "XBM" and b"_width" not in head:  # whose reader takes every C program for its own
            continue
        accepted = accept and _accepted(accept, head)
        if accepted is True and is_plugin(name):
            return Unreadable(_why_not(name, file))
        if isinstance(accepted, str) or (accepted and name not in READABLE):
            return Unreadable(f"unsupported: {name} is not read" + (" by this Pillow" if name in READABLE else ""))
        if accepted and name in _UNMISTAKABLE:
            return Unreadable(_why_not(name, file))
    return Unreadable("not a picture")


def _accepted(accept: Callable[[bytes], bool | str], head: bytes) -> bool | str:
    """Return whether a reader recognises a file by its beginning; a text if Pillow lacks a library for it."""
    try:
        return accept(head)
    except (struct.error, IndexError):
        return False


def _why_not(name: str, file: Path | bytes) -> str:
    """Return the error of the reader of a format, since Pillow only reports that no reader recognised the file."""
    try:
        with (
            warnings.catch_warnings(action="ignore"),
            io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as opened,
        ):
            Image.OPEN[name][0](opened, "")
    except Exception as error:
        verdict = _verdict(error)
        if verdict.startswith("unsupported"):
            return verdict
    return "truncated picture: its header is cut off or damaged"
