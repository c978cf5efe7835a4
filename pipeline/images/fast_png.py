"""Decodes ordinary PNGs by pyspng where it is installed (extra `fast`), in half of Pillow's time.

pyspng checks no CRC and takes some files that are cut off, so a file is checked before. Whatever is not ordinary, and
whatever pyspng stumbles over, is left to Pillow, whose words then say what is wrong. Neither looks at the Adler-32 of
the inflated data where all CRCs are right.
"""

from __future__ import annotations

import importlib
import io
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import lru_cache
from typing import IO, Any

from PIL import Image

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# The colour types that are decoded (PNG 3, 11.2.1), and Pillow's mode for each.
_MODES = {2: "RGB", 6: "RGBA"}
FAST_BYTES_A_PIXEL = 7
"""What a pixel takes beside its part of the file: 3 where pyspng puts it, and 4 in Pillow's storage."""
# Depth, compression, filter and interlace methods of an ordinary PNG.
_EIGHT_BITS, _METHODS = 8, b"\0\0\0"
# The chunks that a decoder must know, the bit in the name of every other (PNG 3, 5.4), and those of the others that add
# to the pixels: a transparent colour, and frames.
_CRITICAL, _ANCILLARY = (b"IHDR", b"PLTE", b"IDAT", b"IEND"), 0x20
_MEANINGFUL = (b"tRNS", b"acTL", b"fcTL", b"fdAT")


@lru_cache(maxsize=1)
def fast_decoder() -> Callable[[bytes], Any] | None:
    """Return pyspng's function from the bytes of a PNG to an array of its pixels; None where it is not installed."""
    try:
        decode: Callable[[bytes], Any] = importlib.import_module("pyspng").load
    except ImportError:
        return None
    return decode


def read_png(file: IO[bytes]) -> Image.Image | None:
    """Decode an RGB or RGBA PNG of 8 bits; None for any other, for a damaged one, and without the extra `fast`.

    The file is left at the place where it was.
    """
    decode = fast_decoder()
    if decode is None:
        return None
    here = file.tell()
    file_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    data = file.read(file_bytes)  # of a size that is known, there is one copy
    file.seek(here)
    mode = _ordinary_mode(data)
    if mode is None:
        return None
    try:
        pixels = decode(data)
    except RuntimeError:
        return None
    height, width, _ = pixels.shape
    return Image.frombuffer(mode, (width, height), pixels, "raw", mode, 0, 1)


def _ordinary_mode(data: bytes) -> str | None:
    """Return the mode of a PNG if it is an ordinary one and whole; None otherwise."""
    try:
        chunks = list(_chunks(data))
        (first, header), (last, _) = chunks[0], chunks[-1]
        _, _, bits, color, methods = struct.unpack(">IIBB3s", header)
    except (struct.error, ValueError, IndexError):
        return None
    is_ordinary = (first, last, bits, methods) == (b"IHDR", b"IEND", _EIGHT_BITS, _METHODS)
    is_plain = all(kind in _CRITICAL or (kind[0] & _ANCILLARY and kind not in _MEANINGFUL) for kind, _ in chunks)
    return _MODES.get(color) if is_ordinary and is_plain else None


def _chunks(data: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """Yield the kind and the content of each chunk up to IEND. Raises ValueError if a CRC is wrong (PNG 3, 5.3)."""
    view, place, kind = memoryview(data), len(_SIGNATURE), b""
    while kind != b"IEND":
        size_bytes, kind = struct.unpack_from(">I4s", data, place)
        end = place + 8 + size_bytes
        if zlib.crc32(view[place + 4 : end]) != struct.unpack_from(">I", data, end)[0]:
            raise ValueError(f"CRC of {kind!r}")
        yield kind, view[place + 8 : end]
        place = end + 4
