"""Tells from SQLite's write-ahead log alone whether its end was lost, or its writer was killed.

    header | frame | frame ...      a frame: a header, with the checksum of all up to here, and a page of the file

A transaction counts once its last frame says so. What follows is no part of the ledger; a writer that was killed leaves
there the first frames of one that it was about to commit. See https://www.sqlite.org/fileformat2.html#walformat.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Literal

LogStanding = Literal["whole", "empty", "lost"]
"""Whether a log has all that was committed; of an empty one nobody can tell, since it is emptied in order, too."""

PAGE_BYTES = 4096
_HEADER_BYTES, _FRAME_HEADER_BYTES = 32, 24
_FRAME_BYTES = _FRAME_HEADER_BYTES + PAGE_BYTES
# The first word of a log; with the last bit its checksums are of words that begin with the highest byte.
_MAGIC = 0x377F0682

_Sum = tuple[int, int]


def standing_of_log(log: Path, committed_frames: int) -> LogStanding:
    """Tell how a log ends in which SQLite has found so many frames of transactions that were committed."""
    try:
        with open(log, "rb") as opened:
            header = opened.read(_HEADER_BYTES)
            if not header:
                return "empty"
            if len(header) < _HEADER_BYTES or struct.unpack_from(">I", header)[0] & ~1 != _MAGIC:
                return "lost"
            order = ">" if header[3] & 1 else "<"
            if committed_frames:
                opened.seek(_HEADER_BYTES + (committed_frames - 1) * _FRAME_BYTES)
                before = _said(opened.read(_FRAME_BYTES)[16:24])
            else:
                before = _said(header[24:32])
                if before != _sum(order, header[:24], (0, 0)):
                    return "lost"
            while frame := opened.read(_FRAME_BYTES):
                if frame[8:16] != header[16:24]:
                    return "lost"
                if len(frame) == _FRAME_HEADER_BYTES:  # it is written before its page is
                    break
                before = _sum(order, frame[_FRAME_HEADER_BYTES:], _sum(order, frame[:8], before))
                if len(frame) < _FRAME_BYTES or before != _said(frame[16:24]):
                    return "lost"
            return "whole"
    except FileNotFoundError:
        return "lost"


def _said(data: bytes) -> _Sum:
    first, second = struct.unpack(">II", data)
    return first, second


def _sum(order: str, data: bytes, before: _Sum) -> _Sum:
    """Return the checksum of data whose length is a multiple of eight, or of what is whole of it, given that before."""
    first, second = before
    words = struct.unpack_from(f"{order}{len(data) // 8 * 2}I", data)
    for even, odd in zip(words[::2], words[1::2], strict=True):
        first = (first + even + second) & 0xFFFFFFFF
        second = (second + odd + first) & 0xFFFFFFFF
    return first, second
