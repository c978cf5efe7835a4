"""Describes the defect of a picture file, in one sentence that begins with the class of the defect.

empty file         the file has no byte
not a picture      the file is of no known format
unsupported        a picture of a format, or of a kind of one, that is not read
truncated picture  the file ends too early
damaged picture    what is in it is wrong
too large          see `refuse_if_too_large`
"""

from __future__ import annotations

import errno
import io
import re
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.errors import FileFailure, Unreadable
from pipeline.images.endings import ends_early
from pipeline.images.kinds import foreign, is_wbmp, raw_in_tiff, unread_kind
from pipeline.images.plugins import is_plugin
from pipeline.text import one_line

# Pillow's own readers that are asked. Never those of EPS, PDF and WMF, which start Ghostscript or ask the system. TGA
# is asked last, since it has no telling bytes: an icon looks like one.
READABLE = (
    "JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "BMP", "DIB", "JPEG2000", "PPM", "ICO", "PCX", "PSD", "QOI", "SGI",
    "TGA",
)  # fmt: skip
# Those of them that begin with so many telling bytes that no text or other data does so by chance.
_UNMISTAKABLE = ("JPEG", "PNG", "WEBP", "AVIF", "GIF", "TIFF", "JPEG2000", "PSD", "QOI", "ICO")

# Bytes: an SVG may begin with comments; whatever begins a picture stands in the first of them.
_HEAD = 4096
# Bytes of a file that is read once more, to see why it cannot be decoded.
_LARGEST_BYTES = 1 << 28
# What the second version of TGA, which begins like many a file, ends with.
_TGA_END = b"TRUEVISION-XFILE.\0"
# How what is said begins, of a file that ends too early and of one that is wrong.
_TRUNCATED, _DAMAGED = "truncated picture: ", "damaged picture: "
# What Pillow's readers say of a file that ends too early, where the format itself does not say whether it does, and of
# one that they cannot read.
_CUT_OFF = (
    "truncated", "eof", "end of file", "not enough", "not large enough", "buffer of at least", "out of range",
    "ends within",
)  # fmt: skip
_UNSUPPORTED = (
    "unsupported", "not supported", "not available", "not installed", "not been built in", "cannot handle",
    "unable to determine", "unknown pixel mode", "unknown tga", "unknown pcx", "unknown filter category",
)  # fmt: skip
# Numbers of the system's errors for what cannot be, such as to seek before the begin: a decoder asked for it.
_OF_DECODERS = (errno.EINVAL, errno.EOVERFLOW, errno.EFBIG, errno.EDOM, errno.ERANGE, errno.EILSEQ)


@contextmanager
def unreadable_if_damaged(file: Path | bytes | None = None, name: str | None = None) -> Iterator[None]:
    """Turn the many exceptions with which Pillow's readers meet a damaged file into one `Unreadable`.

    Pillow's warnings are silenced: they name no file, and are either harmless or raised as well. So is its own check
    for pixel bombs, which only warns up to 179 MP, and never lets more pass: `refuse_if_too_large` checks.

    Args:
        file: The file that is read, so that one that was cut off can be told from one that is damaged.
        name: Pillow's name of its format, where it is known.
    """
    limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
    try:
        with warnings.catch_warnings(action="ignore"):
            yield
    except Unreadable as error:  # by one of our readers
        said = str(error)
        if file and said.startswith(_DAMAGED):
            data = _contents(file)
            if (name := name or _recognised(data[:_HEAD])) and ends_early(data, name):
                raise Unreadable(_TRUNCATED + said.removeprefix(_DAMAGED)) from error
        raise
    except (FileFailure, MemoryError):
        raise
    except Exception as error:
        if isinstance(error, OSError) and _is_of_the_machine(error):
            raise
        raise Unreadable(_verdict(error, file, name)) from error
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def _is_of_the_machine(error: OSError) -> bool:
    """Return whether an error is of the disk or the system, and no code that a decoder uses for its own."""
    return error.errno in errno.errorcode and error.errno not in _OF_DECODERS


def _verdict(error: Exception, file: Path | bytes | None, name: str | None) -> str:
    message = _message(error)
    words = message.lower()
    if isinstance(error, UnidentifiedImageError) or "invalid literal" in words:  # a text that begins as a PPM does
        return "not a picture"
    data = _contents(file) if file else b""
    name = name or _recognised(data[:_HEAD])
    kind = unread_kind(data, name) if data and name else None
    if kind or isinstance(error, NotImplementedError) or any(word in words for word in _UNSUPPORTED):
        return "unsupported: " + ": ".join(part for part in (kind or name, message) if part)
    is_cut_off = ends_early(data, name) if data and name else None
    if is_cut_off is None:
        is_cut_off = isinstance(error, EOFError) or any(word in words for word in _CUT_OFF)
    return f"{_TRUNCATED if is_cut_off else _DAMAGED}{message}"


def _message(error: Exception) -> str:
    """Return what a reader said, in words and on one line."""
    cause = error.args[0] if len(error.args) == 1 else None
    if isinstance(cause, Exception):
        return _message(cause)
    if isinstance(error, OSError) and isinstance(cause, int):
        return f"its decoder failed with code {cause}"
    said = one_line(cause.decode("latin-1") if isinstance(cause, bytes) else str(error))
    if isinstance(error, KeyError):
        return f"its reader does not know the value {said}"
    if isinstance(error, OSError | ValueError | SyntaxError | EOFError | NotImplementedError) and re.search(
        "[a-z]{3}", said
    ):
        return said
    return f"its reader failed with {type(error).__name__}" + (f" ({said})" if said else "")


def refuse_raw(image: Image.Image) -> None:
    """Raise `Unreadable` for a TIFF that holds a camera's raw, of which its first page is only a part or a preview."""
    with unreadable_if_damaged():
        kind = raw_in_tiff(image.tag_v2)  # type: ignore[attr-defined]
    if kind:
        raise Unreadable(f"unsupported: {kind}")


def refuse_unread_kind(image: Image.Image, file: Path | bytes) -> None:
    """Raise `Unreadable` for a PSD of a kind that Pillow would read wrongly."""
    if image.format == "PSD" and (kind := unread_kind(_head(file), "PSD")):
        raise Unreadable(f"unsupported: {kind}, is not read")


def unidentified(file: Path | bytes) -> Unreadable:
    """Return the error for a file that no reader recognised."""
    head = _head(file)
    if name := foreign(head):
        return Unreadable(f"unsupported: {name} is not read")
    if b"<svg" in head.lower() and b"<html" not in head.lower():
        return Unreadable("unsupported: SVG is not read")
    Image.init()
    for name in Image.ID:
        _, accept = Image.OPEN[name]
        if name == "XBM" and b"_width" not in head:  # whose reader takes every C program for its own
            continue
        if name == "CUR":  # which is read, and begins as many a TGA does
            continue
        accepted = accept and _accepted(accept, head)
        if accepted is True and is_plugin(name):
            return Unreadable(_why_not(name, file))
        if isinstance(accepted, str) or (accepted and name not in READABLE):
            return Unreadable(f"unsupported: {name} is not read" + (" by this Pillow" if name in READABLE else ""))
        if accepted and name in _UNMISTAKABLE:
            return Unreadable(_why_not(name, file))
    data = _contents(file)
    if data.endswith(_TGA_END):
        return Unreadable(_why_not("TGA", file))
    return Unreadable("unsupported: WBMP is not read" if is_wbmp(data) else "not a picture")


def _recognised(head: bytes) -> str | None:
    """Return Pillow's name of the format that is read and whose files begin like this."""
    names = [name for name in Image.OPEN if name in READABLE or is_plugin(name)]
    names.sort(key="TGA".__eq__)  # last, since many a file begins like one
    openers = ((name, Image.OPEN[name][1]) for name in names)
    return next((name for name, accept in openers if accept and _accepted(accept, head) is True), None)


def _contents(file: Path | bytes) -> bytes:
    """Return a whole file; nothing of one that is too large to be read once more."""
    if isinstance(file, bytes):
        return file
    return file.read_bytes() if file.stat().st_size <= _LARGEST_BYTES else b""


def _head(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:_HEAD]
    with open(file, "rb") as opened:
        return opened.read(_HEAD)


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
            unreadable_if_damaged(file, name),
            io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as opened,
        ):
            Image.OPEN[name][0](opened, "")
    except Unreadable as refused:
        return refused.text
    return "damaged picture: its size is 0"
