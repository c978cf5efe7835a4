"""Whether an output's file is as we left it."""

from __future__ import annotations

import os
import stat

from pipeline.files.atomic import digest_of
from pipeline.ledger.origins import kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.decisions import Action
from pipeline.text import NO_FILE

# Nanoseconds: file systems and copies keep times to 2 s at worst (FAT).
_SAME_TIME_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000
UP_TO_DATE: tuple[Action, str] = ("up-to-date", "up to date")


def holds(path: bytes, digest: bytes) -> bool:
    """Whether a file's contents are those of a digest."""
    try:
        return digest_of(path) == digest
    except OSError:
        return False


def time_of(path: bytes) -> int | None:
    """When a file was modified last; None where there is none."""
    try:
        return os.lstat(path).st_mtime_ns
    except OSError:
        return None


def judge_file(row: OutputRecord, path: bytes) -> tuple[Action, str]:
    """Whether the output is as we left it."""
    try:
        found = os.stat(path)
    except OSError:
        return "make", "output missing"
    if found.st_size == row.size and found.st_mtime_ns == row.mtime_ns:
        return UP_TO_DATE
    if not stat.S_ISREG(found.st_mode):
        return "refuse", NO_FILE
    near = _is_near(found, row.mtime_ns)
    if found.st_size == row.size and near:
        return UP_TO_DATE
    # A time in whole seconds may be the recorded one, cut; any other that differs is an edit's.
    same_time = near and (found.st_mtime_ns == row.mtime_ns or found.st_mtime_ns % _SECOND_NS == 0)
    if same_time or found.st_size == 0:
        return "make", f"output torn (size {row.size} -> {found.st_size})"
    return "up-to-date", "edited by someone else: kept"


def is_as_left(found: os.stat_result, size: int | None, mtime_ns: int | None) -> bool:
    """Whether a file is the one that we wrote, and nobody changed it since."""
    return stat.S_ISREG(found.st_mode) and found.st_size == size and _is_near(found, mtime_ns)


def _is_near(found: os.stat_result, mtime_ns: int | None) -> bool:
    return abs(kept_time(found.st_mtime_ns) - (mtime_ns or 0)) <= _SAME_TIME_NS


def look(path: bytes) -> os.stat_result | None:
    """What lies there itself, if anything does."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def is_the_same(found: os.stat_result, size: int | None, mtime_ns: int | None) -> bool:
    """Whether a file was moved there by a run that was killed before it could say so."""
    return is_as_left(found, size, mtime_ns) and kept_time(found.st_mtime_ns) == mtime_ns
