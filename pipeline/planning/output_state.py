"""Tells whether an output's file is as we left it."""

from __future__ import annotations

import os
import stat

from pipeline.files.atomic import digest_of
from pipeline.ledger.origins import kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.decisions import EDITED, UP_TO_DATE, Action, Reason

# Nanoseconds: file systems and copies keep times to 2 s at worst (FAT).
_SAME_TIME_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000


class Folders:
    """Remembers of the folder that was asked for last whether it is there: most outputs lie beside the one before."""

    def __init__(self) -> None:
        self._last: tuple[bytes, bool] = b"", False

    def may_hold(self, path: bytes) -> bool:
        """Whether the folder of a path is there."""
        folder = path[: path.rindex(b"/")]
        if folder != self._last[0]:
            self._last = folder, os.path.lexists(folder)
        return self._last[1]


class OutputFile:
    """What lies at the path of an output, looked at only when that is asked."""

    __slots__ = ("_folders", "path")

    def __init__(self, path: bytes, folders: Folders | None = None) -> None:
        self.path = path
        self._folders = folders

    def exists(self) -> bool:
        """Whether anything lies there, be it a link that leads nowhere."""
        return (self._folders is None or self._folders.may_hold(self.path)) and os.path.lexists(self.path)

    def look(self) -> os.stat_result | None:
        """Return what is behind the path; None where there is nothing."""
        try:
            return os.stat(self.path)
        except OSError:
            return None

    def mtime_ns(self) -> int | None:
        """Return when what lies there itself was modified last; None where there is nothing."""
        found = look(self.path)
        return found.st_mtime_ns if found else None

    def holds(self, digest: bytes) -> bool:
        """Whether the contents are those of a digest."""
        try:
            return digest_of(self.path) == digest
        except OSError:
            return False


def compare_file(record: OutputRecord, found: os.stat_result | None) -> tuple[Action, Reason]:
    """Decide about an output that is recorded as made, by what lies in its place."""
    if found is None:
        return "make", Reason("output_missing")
    if found.st_size == record.size and found.st_mtime_ns == record.mtime_ns:
        return "up-to-date", UP_TO_DATE
    if not stat.S_ISREG(found.st_mode):
        return "refuse", Reason("not_a_file")
    is_near = _is_near(found, record.mtime_ns)
    if found.st_size == record.size and is_near:
        return "up-to-date", UP_TO_DATE
    # A time in whole seconds may be the recorded one, cut; any other that differs is an edit's.
    is_same_time = is_near and (found.st_mtime_ns == record.mtime_ns or found.st_mtime_ns % _SECOND_NS == 0)
    if is_same_time or found.st_size == 0:
        return "make", Reason("output_torn", (record.size, found.st_size))
    return "up-to-date", EDITED


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
