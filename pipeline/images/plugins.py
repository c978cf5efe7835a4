"""Opens pictures with Pillow's readers and with plug-ins, those that a user registers and those of filemill's extras.

A plug-in is any reader that `Image.register_open` was given from outside Pillow. Pillow's own readers are chosen by a
list (`diagnosis.READABLE`), since those of EPS, PDF and WMF start other programs.
"""

from __future__ import annotations

import importlib
import io
import struct
from collections.abc import Sequence
from functools import cache
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from pipeline.errors import Unreadable
from pipeline.images.costs import claim_decoding, refuse_if_format_too_costly
from pipeline.images.encodings import numbered_profile
from pipeline.images.endings import ends_early
from pipeline.images.extras import HEAD_BYTES, Extra, extra_for
from pipeline.images.jpeg_xl import is_jpeg_xl, size_of
from pipeline.notes import note

# The curve of sRGB in ITU-T H.273, and those of video, which phones write into HEIC and mean sRGB by.
_SRGB, _SHOWN_AS_SRGB = 13, (1, 6, 14, 15)
# Pillow's name of JPEG XL.
_JPEG_XL = "JXL"
# The box of a HEIF that names colours by numbers, three of 16 bits; the matrices that H.273 knows, and the number that
# leaves colours unspecified.
_NCLX, _MATRICES, _UNSPECIFIED = b"colrnclx", (0, 1, 2, *range(4, 15)), 2


def is_plugin(name: str) -> bool:
    """Return whether the reader of a format, by Pillow's name, is neither Pillow's nor filemill's own."""
    factory = Image.OPEN[name][0]
    return str(getattr(factory, "__module__", "")).partition(".")[0] not in ("PIL", "pipeline")


def with_plugins(built_in: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the formats that are read, in the order in which their readers are asked.

    Plug-ins stand before TIFF, since many a camera's raw format begins as one, and after the formats before it, whose
    first bytes no other format has.
    """
    at = next(at for at, name in enumerate(built_in) if name.endswith("TIFF"))
    plugins = [name for name in Image.OPEN if name not in built_in and is_plugin(name)]
    return (*built_in[:at], *plugins, *built_in[at:])


def open_image(file: Path | bytes, built_in: Sequence[str]) -> Image.Image:
    """Open a picture by its content with Pillow's readers of `built_in` and all plug-ins, without decoding it.

    Args:
        file: A file, or the bytes of one.
        built_in: The formats for which Pillow's own readers are asked.

    Returns:
        The image, still to be loaded.

    Raises:
        UnidentifiedImageError: No reader recognises the file.
        Unreadable: It is of a format whose reader is not installed, or too large.
        OSError: The file cannot be opened.
    """
    formats = [name for name in with_plugins(built_in) if name != _JPEG_XL]
    try:
        return _open(file, formats)
    except UnidentifiedImageError:
        head = _head_of(file)
        if (extra := extra_for(head)) is None:
            raise
    if not (is_jpeg_xl(head) and _JPEG_XL in Image.OPEN):  # which any plug-in may read
        _load(extra)
    return _open_jpeg_xl(file) if is_jpeg_xl(head) else _open_heif(file, with_plugins(built_in))


def profile_of(image: Image.Image) -> bytes | None:
    """Return the ICC profile of an opened image; of a HEIF that has none, one of the colours that its numbers name."""
    profile: bytes | None = image.info.get("icc_profile")
    numbers = image.info.get("nclx_profile")
    if profile or image.format != "HEIF" or not numbers:
        return profile
    transfer = numbers["transfer_characteristics"]
    return numbered_profile(
        numbers["color_primaries"], _SRGB if transfer in _SHOWN_AS_SRGB else transfer, grey=image.mode == "L"
    )


def _open(file: Path | bytes, formats: Sequence[str]) -> Image.Image:
    return Image.open(io.BytesIO(file) if isinstance(file, bytes) else file, formats=list(formats))


def _open_jpeg_xl(file: Path | bytes) -> Image.Image:
    """Open a JPEG XL, which its reader decodes at once, once its size was compared with the limits."""
    if size := size_of(file):
        refuse_if_format_too_costly(_JPEG_XL, size)
        claim_decoding(size, 8, 0)
    try:
        image = _open(file, [_JPEG_XL])
    except (OSError, MemoryError):
        raise
    except Exception:  # its reader says nothing but "Generic Error", in three lines
        is_cut_off = ends_early(file if isinstance(file, bytes) else file.read_bytes(), _JPEG_XL)
        if is_cut_off:
            raise Unreadable("truncated picture: its boxes end too early") from None
        unsaid = ", or it ends too early" if is_cut_off is None else ""
        raise Unreadable(f"damaged picture: libjxl cannot decode it{unsaid}") from None
    _take_high_bytes(image)
    return image


def _take_high_bytes(image: Image.Image) -> None:
    """Make 8 bits of the 16 that greys with alpha have in a JPEG XL, which its reader takes for twice as many of 8."""
    samples = getattr(image, "_data", None)
    if image.mode != "LA" or not isinstance(samples, bytes):
        return
    sample_bytes = len(samples) // (2 * image.width * image.height)
    if sample_bytes > 2:
        raise Unreadable("unsupported: JPEG XL, grey and alpha of floats")
    image._data = samples[sample_bytes - 1 :: sample_bytes]  # type: ignore[attr-defined]


def _open_heif(file: Path | bytes, formats: Sequence[str]) -> Image.Image:
    """Open a HEIF, in sRGB with a note if it names colours by numbers that libheif refuses since they are reserved."""
    try:
        return _open(file, formats)
    except UnidentifiedImageError:
        data = bytearray(file if isinstance(file, bytes) else file.read_bytes())
        if (at := data.find(_NCLX)) < 0:
            raise
    primaries, transfer = struct.unpack_from(">HH", data.ljust(at + 12, b"\0"), at + len(_NCLX))
    while 0 <= at <= len(data) - len(_NCLX) - 6:
        (matrix,) = struct.unpack_from(">H", data, at + len(_NCLX) + 4)
        known = matrix if matrix in _MATRICES else _UNSPECIFIED
        struct.pack_into(">HHH", data, at + len(_NCLX), _UNSPECIFIED, _UNSPECIFIED, known)
        at = data.find(_NCLX, at + 1)
    image = _open(bytes(data), formats)
    note("its colours cannot be told: read as sRGB", f"unknown colours {primaries}/{transfer}")
    return image


def _head_of(file: Path | bytes) -> bytes:
    if isinstance(file, bytes):
        return file[:HEAD_BYTES]
    with open(file, "rb", buffering=0) as opened:
        return opened.read(HEAD_BYTES)


@cache
def _load(extra: Extra) -> None:
    """Register the reader of an extra; once a process. Raises Unreadable if it is missing."""
    try:
        module = importlib.import_module(extra.module)
    except ImportError as error:
        why = extra.missing if error.name == extra.module else f"{extra.shown} cannot be read: {error}"
        raise Unreadable(f"unsupported: {why}") from error
    if extra.register:
        getattr(module, extra.register)()
