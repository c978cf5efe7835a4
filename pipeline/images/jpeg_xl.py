"""Reads the size of a JPEG XL from its header (ISO 18181-1, 18181-2), since its plug-in decodes it on opening."""

from __future__ import annotations

import io
from pathlib import Path
from typing import IO

from pipeline.images import Size

_BARE, _BOXED = b"\xff\x0a", b"\0\0\0\x0cJXL \r\n\x87\n"
# Bytes of a codestream in which its size stands.
_SIZE_BYTES = 12
# Width by height, for each number that may stand in place of a width.
_RATIOS = {1: (1, 1), 2: (12, 10), 3: (4, 3), 4: (3, 2), 5: (16, 9), 6: (5, 4), 7: (2, 1)}
# How many bits a number has, by the two bits before it.
_LENGTHS = (9, 13, 18, 30)


def is_jpeg_xl(head: bytes) -> bool:
    """Return whether a file begins as a JPEG XL, with or without boxes around it."""
    return head.startswith((_BARE, _BOXED))


def size_of(file: Path | bytes) -> Size | None:
    """Return the stored width and height of a JPEG XL in pixels; None where its header is cut off."""
    with io.BytesIO(file) if isinstance(file, bytes) else open(file, "rb") as opened:
        codestream = _codestream(opened)
    return _size(codestream) if codestream.startswith(_BARE) else None


def _codestream(file: IO[bytes]) -> bytes:
    """Return the first bytes of the codestream, which is the file or lies in boxes; empty if there is none."""
    head = file.read(len(_BOXED))
    if head != _BOXED:
        return head + file.read(_SIZE_BYTES)
    while len(head := file.read(8)) == 8:
        size_bytes, kind = int.from_bytes(head[:4], "big") - 8, head[4:]
        if size_bytes == 1 - 8:
            size_bytes = int.from_bytes(file.read(8), "big") - 16
        if kind in (b"jxlc", b"jxlp"):
            file.seek(4 if kind == b"jxlp" else 0, io.SEEK_CUR)  # a part begins with its number
            return file.read(_SIZE_BYTES)
        if size_bytes < 0:
            break
        file.seek(size_bytes, io.SEEK_CUR)
    return b""


def _size(codestream: bytes) -> Size:
    bits, at = int.from_bytes(codestream[2:], "little"), 0

    def read(count: int) -> int:
        nonlocal at
        at += count
        return bits >> at - count & (1 << count) - 1

    is_small = read(1)

    def side() -> int:
        return 8 * (1 + read(5)) if is_small else 1 + read(_LENGTHS[read(2)])

    height = side()
    ratio = _RATIOS.get(read(3))
    return (height * ratio[0] // ratio[1] if ratio else side(), height)
