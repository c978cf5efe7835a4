"""What pictures cost: refuses those that cost more than their size suggests, and claims the memory of all others."""

from __future__ import annotations

import io
import struct
from contextlib import suppress
from typing import IO

from PIL import Image, ImageFile

from pipeline.allowance import allowance
from pipeline.errors import Unreadable
from pipeline.images import Size, refuse_if_too_large
from pipeline.images.endings import jpeg_markers
from pipeline.images.jpeg_2000 import Jpeg2000File, read_codestream
from pipeline.images.png import PngFile

# Bytes that a pixel takes while it is decoded, with Pillow 13: by format, or by mode for deep greys and palettes. Every
# other one takes the 4 to 8 of Pillow's own storage, which count as one pixel.
_BYTES_A_PIXEL = {"WEBP": 16, "AVIF": 10, "HEIF": 7, "JXL": 8}
_BYTES_OF_A_MODE = {"I;16": 7, "I;16B": 7, "I;16L": 7, "I;16N": 7, "I": 10, "F": 12, "P": 5}
USUAL_BYTES = 4
# Bytes that a pixel of a canvas takes on which frames are composed, besides.
_BYTES_OF_A_CANVAS = 4
# Bytes that a pixel takes of what is made of a decoded picture, while its colours are converted or it is turned.
_BYTES_OF_A_COPY = 8
# OpenJPEG has every channel of a tile in 32 bits, and Pillow a copy. Deep ones are decoded twice, one after the other.
_BYTES_OF_A_TILE = 5
# Tiles of a JPEG 2000: each takes 12 kB before it is decoded, however small it is.
_MOST_TILES = 10_000
# Pixels that one counts as whose decoder is written in Python: a million take up to 1.3 seconds, ten times the next.
_SLOW = 10
# Bytes that a coefficient of a JPEG takes in libjpeg.
_COEFFICIENT_BYTES = 2
# Scans of a JPEG: each takes as long as the first, however few bytes it has. Encoders write 10, and optimisers 30.
_MOST_SCANS, _START_OF_SCAN = 100, 0xDA


def refuse_if_too_costly(image: Image.Image) -> float:
    """Raise `Unreadable` for a picture whose decoder takes more than `inputs.max_pixels` usual pixels do.

    Args:
        image: A picture of a permitted size that is opened, but not decoded.

    Returns:
        The bytes that a pixel takes while it is decoded.
    """
    file: IO[bytes] | None = getattr(image, "fp", None)
    if file is None:
        return USUAL_BYTES
    here = file.tell()
    try:
        counted, why = _counted(image, file)
        if counted > 1:
            refuse_if_too_large(image.size, counted=counted, why=why)
        return counted * USUAL_BYTES
    finally:
        file.seek(here)


def claim_decoding(stored: Size, bytes_a_pixel: float, made: float, scale: int = 1) -> None:
    """Claim the memory for decoding a picture, before that is taken. Raises MoreMemoryNeeded.

    Args:
        stored: The size of the stored picture.
        bytes_a_pixel: The bytes that a stored pixel takes while it is decoded.
        made: The number of pixels of what is made of the picture.
        scale: The factor by which the decoder reduces it; what it takes beside Pillow's storage stays the same.
    """
    decoded = stored[0] * stored[1] * (bytes_a_pixel - USUAL_BYTES + USUAL_BYTES / scale**2)
    allowance.claim(decoded + made * _BYTES_OF_A_COPY)


def refuse_if_format_too_costly(name: str, size: Size) -> None:
    """Raise `Unreadable` for a picture of this size in a format, by Pillow's name, that is decoded on opening."""
    bytes_a_pixel = _BYTES_A_PIXEL[name]
    refuse_if_too_large(size)
    refuse_if_too_large(size, counted=bytes_a_pixel / USUAL_BYTES, why=_why(bytes_a_pixel))


def is_affordable(size: Size, bytes_a_pixel: float) -> bool:
    """Return whether a decoder that takes so much memory keeps the limits."""
    try:
        refuse_if_too_large(size, counted=bytes_a_pixel / USUAL_BYTES)
    except Unreadable:
        return False
    return True


def _why(bytes_a_pixel: float) -> str:
    return f"which takes {bytes_a_pixel:.0f} bytes a pixel"


def _counted(image: Image.Image, file: IO[bytes]) -> tuple[float, str]:
    """Return as how many pixels each counts, and why."""
    if any(_is_slow(tile) for tile in getattr(image, "tile", ())):
        return _SLOW, "which is decoded slowly"
    if image.format in ("JPEG", "MPO"):
        bytes_a_pixel = _bytes_of_jpeg(image, file)
    elif image.format == "JPEG2000":
        bytes_a_pixel = _bytes_of_jpeg2000(image, file)
    elif isinstance(image, PngFile):
        bytes_a_pixel = image.bytes_a_pixel
    else:
        mode = image.mode if isinstance(image, ImageFile.ImageFile) else "RGBA"  # in which frames are composed
        bytes_a_pixel = _BYTES_A_PIXEL.get(image.format or "") or _BYTES_OF_A_MODE.get(mode, USUAL_BYTES)
    if not isinstance(image, ImageFile.ImageFile):
        bytes_a_pixel += _BYTES_OF_A_CANVAS
    return bytes_a_pixel / USUAL_BYTES, _why(bytes_a_pixel)


def _is_slow(tile: ImageFile._Tile) -> bool:
    decoder = Image.DECODERS.get(tile[0])
    return (
        isinstance(decoder, type)
        and issubclass(decoder, ImageFile.PyDecoder)
        and not getattr(decoder, "is_fast", False)
    )


def _bytes_of_jpeg2000(image: Image.Image, file: IO[bytes]) -> float:
    """Return the bytes a pixel takes, by the size of the tiles; raise `Unreadable` if they are of a larger picture."""
    codestream = read_codestream(file)
    if codestream is None:
        return USUAL_BYTES
    (width, height), (across, down) = codestream.size, codestream.tile_size
    refuse_if_too_large(codestream.size)
    tiles = -(-width // across) * -(-height // down)
    if tiles > _MOST_TILES:
        raise Unreadable(f"too large: a JPEG 2000 of {tiles} tiles, limit {_MOST_TILES}")
    part = min(1.0, min(across, width) * min(down, height) / (image.width * image.height))
    decoded = 2 if isinstance(image, Jpeg2000File) and image.is_deep else 1
    return float(USUAL_BYTES * decoded + _BYTES_OF_A_TILE * len(codestream.bits) * part)


def _bytes_of_jpeg(image: Image.Image, file: IO[bytes]) -> float:
    """Return the bytes a pixel takes in a JPEG; one of several scans has all its coefficients in memory besides.

    There can be several in a progressive one, and in one whose channels come apart. Raises `Unreadable` if there are
    many. Pillow has stopped behind the header of the first scan, which says its number of channels (T.81, B.2.3).
    """
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    length = 6 + 2 * len(layers)
    file.seek(-min(file.tell(), length + 2), io.SEEK_CUR)
    if not image.info.get("progressive") and file.read(length + 2).startswith(b"\xff\xda" + struct.pack(">H", length)):
        return USUAL_BYTES
    file.seek(2)
    scans = 0
    with suppress(struct.error, IndexError):  # it is cut off, as its decoder will say
        for marker in jpeg_markers(file.read(), 0):
            scans += marker == _START_OF_SCAN
            if scans > _MOST_SCANS:
                raise Unreadable(f"too large: a JPEG of more than {_MOST_SCANS} scans, which is the limit")
    samples = sum(across * down for _, across, down, _ in layers)
    whole = max((layer[1] for layer in layers), default=1) * max((layer[2] for layer in layers), default=1)
    return USUAL_BYTES + _COEFFICIENT_BYTES * samples / max(1, whole)
