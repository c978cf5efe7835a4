"""Tells whether a source is as recorded, and whether an output is as we left it."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.files.atomic import digest_of
from pipeline.files.digest import Reading, read
from pipeline.ledger.failures import Failure
from pipeline.ledger.origins import columns_of, kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.runs import Window
from pipeline.messages import Group, Origin, Source
from pipeline.planning.decisions import EDITED, INTERRUPTED, OUTPUT_MISSING, UP_TO_DATE, Action, Reason

if TYPE_CHECKING:
    from concurrent.futures import Future

_SECOND_NS = 1_000_000_000
# Nanoseconds: file systems and copies keep times to 2 s at worst (FAT).
SAME_TIME_NS = 2_000_000_000
# Reading is the disk's work, and hashing lets other threads go on.
_THREADS = 4
# Sources that are handed to a thread together, since handing over costs more than reading a small one; and how many of
# these groups may be read before their turn.
_GROUP = 16
_GROUPS_AHEAD = 8

Met = tuple[Source, list[OutputRecord], list[Failure]]
"""A source with its records: of outputs, and of failures."""
Note = Callable[[OutputRecord, Reading], None]
Touched = Callable[[OutputRecord, int], None]
"""Called with the record of an output whose contents are as recorded, and the time that it has now."""
_Readings = dict[bytes, Reading | OSError]


def same_origin(source: Origin, record: OutputRecord | Failure) -> bool:
    """Whether a source has the size and time that were recorded of it; whether a group has the same members."""
    if isinstance(source, Group):
        return columns_of(source)[1:] == (record.source_size, record.source_mtime_ns)
    if source.size_bytes != record.source_size or record.source_mtime_ns is None:
        return False
    if source.mtime_ns == record.source_mtime_ns:
        return True
    now, then = kept_time(source.mtime_ns), record.source_mtime_ns
    # A copy may have cut the time to whole seconds.
    cut = (now % _SECOND_NS == 0 or then % _SECOND_NS == 0) and now // _SECOND_NS == then // _SECOND_NS
    return now == then or cut


def change_by_time(source: Source, record: OutputRecord) -> Reason | None:
    """Return how a source differs from its record, by size and time; None where it does not."""
    if same_origin(source, record):
        return None
    if source.size_bytes != record.source_size:
        return Reason("source_changed", ("size", record.source_size, source.size_bytes))
    return Reason("source_changed", ("time",))


class ByTime:
    """Compares sources with their records by size and time (`changed_by: mtime`)."""

    def read_ahead(self, met: Iterable[Met]) -> Iterator[Met]:
        """Yield the sources of `met` as they come: nothing of them is read."""
        yield from met

    def change(self, source: Source, record: OutputRecord) -> Reason | None:
        """Return how a source differs from its record; None where it does not."""
        if source.mtime_ns == record.source_mtime_ns and source.size_bytes == record.source_size:
            return None
        return change_by_time(source, record)


class ByContents:
    """Compares sources with their records by contents (`changed_by: hash`).

    A source whose size, mtime and ctime are as recorded is not read. The others are read ahead by a few threads. A
    record made under `changed_by: mtime` has no digest: its source is compared by time, and read if `fill` is set, so
    that the record gets a digest.
    """

    def __init__(self, root: bytes, note: Note | None, *, fill: bool) -> None:
        self._root = os.path.join(root, b"")
        self._note = note
        self._fill = fill
        self._reading: Reading | OSError | None = None
        """The result of reading the source in hand; None where it was not read."""

    def read_ahead(self, met: Iterable[Met]) -> Iterator[Met]:
        """Yield the sources of `met` in their order, after those that must be read were read."""
        from concurrent.futures import ThreadPoolExecutor

        waiting: deque[tuple[list[Met], Future[_Readings] | None]] = deque()
        rest = iter(met)
        with ThreadPoolExecutor(_THREADS, "read") as readers:
            try:
                while group := list(islice(rest, _GROUP)):
                    paths = [source.path for source, rows, _ in group if any(self._must_read(source, r) for r in rows)]
                    waiting.append((group, readers.submit(self._read_all, paths) if paths else None))
                    if len(waiting) > _GROUPS_AHEAD:
                        yield from self._take(*waiting.popleft())
                while waiting:
                    yield from self._take(*waiting.popleft())
            finally:
                readers.shutdown(cancel_futures=True)

    def _must_read(self, source: Source, row: OutputRecord) -> bool:
        if row.status == "intended" or row.source_size != source.size_bytes:
            return False
        if row.source_digest is None:
            return self._fill and same_origin(source, row)
        if row.source_mtime_ns != kept_time(source.mtime_ns):
            return True
        try:
            return os.stat(self._root + source.path).st_ctime_ns != row.source_ctime_ns
        except OSError:
            return True

    def _read_all(self, paths: list[bytes]) -> _Readings:
        readings: _Readings = {}
        for path in paths:
            try:
                readings[path] = read(self._root + path)
            except OSError as error:
                readings[path] = error
        return readings

    def _take(self, group: list[Met], readings: Future[_Readings] | None) -> Iterator[Met]:
        found = readings.result() if readings else {}
        for met in group:
            self._reading = found.get(met[0].path)
            yield met

    def change(self, source: Source, record: OutputRecord) -> Reason | None:
        """Return how the source in hand differs from its record; None where it does not."""
        reading = self._reading
        if record.source_digest is None or source.size_bytes != record.source_size:
            change = change_by_time(source, record)
        elif reading is None or (isinstance(reading, Reading) and reading.digest == record.source_digest):
            change = None
        else:
            change = Reason("source_changed", ("contents",))
        if change and isinstance(reading, OSError):
            return Reason("source_changed", ("unreadable", reading.strerror or str(reading)))
        if not change and self._note and isinstance(reading, Reading) and _can_be_kept(reading, source):
            self._note(record, reading)
        return change


Sources = ByTime | ByContents


def _can_be_kept(reading: Reading, source: Source) -> bool:
    """Whether the file that was read is the one that the walk met, and nobody wrote to it meanwhile."""
    return reading.was_at_rest and (reading.size_bytes, reading.mtime_ns) == (source.size_bytes, source.mtime_ns)


# -- outputs -----------------------------------------------------------------------------------------------------------


class OutputFolders:
    """Tells whether an output exists; remembers the folder of the last one, since most outputs lie side by side."""

    def __init__(self) -> None:
        self._folder = b""
        self._folder_exists = False

    def has(self, path: bytes) -> bool:
        """Whether anything lies at a path, be it a dangling link."""
        folder = path[: path.rindex(b"/")]
        if folder != self._folder:
            self._folder, self._folder_exists = folder, os.path.lexists(folder)
        return self._folder_exists and os.path.lexists(path)


def digest_at(path: bytes) -> bytes | None:
    """Return the digest of a file's contents; None where it cannot be read."""
    try:
        return digest_of(path)
    except OSError:
        return None


def ctime_of(path: bytes) -> int | None:
    """Return when a file, or the link at its path, was last changed in any way; None where there is nothing."""
    found = look(path)
    return found.st_ctime_ns if found else None


def compare_file(
    record: OutputRecord, path: bytes, window: Window | None = None, touched: Touched | None = None
) -> tuple[Action, Reason]:
    """Decide about an output that is recorded as made, by what lies in its place.

    It is ours if it has the digest of one of the last versions that we made there: the last one is up to date, an older
    one is made anew, as is an empty or a torn one. Any other is an edit, which is kept. What may not be as the ledger
    has it, by `window`, is read; `touched` is called with what has our contents and another time.
    """
    found = stat_of(path)
    if found is None:
        return "make", OUTPUT_MISSING
    if not stat.S_ISREG(found.st_mode):
        return "refuse", Reason("not_a_file")
    is_left = is_as_left(found, record.size, record.mtime_ns)
    is_doubtful = window is not None and window.doubts(record.recorded_ns, found.st_ctime_ns)
    if is_left and not (is_doubtful and record.digest):
        return "up-to-date", UP_TO_DATE
    digest = digest_at(path) if record.earlier or found.st_size == record.size or is_doubtful else None
    if digest is not None and digest == record.digest:
        if touched and not is_left:
            touched(record, found.st_mtime_ns)
        return "up-to-date", UP_TO_DATE
    if is_left:
        return "make", INTERRUPTED
    return _compare_other(record, found, digest, is_doubtful=is_doubtful)


def _compare_other(
    record: OutputRecord, found: os.stat_result, digest: bytes | None, *, is_doubtful: bool
) -> tuple[Action, Reason]:
    """Decide about a file that is not what is recorded."""
    if found.st_size == 0:
        return "make", Reason("output_torn", (record.size, found.st_size))
    if digest is not None and digest in record.digests:
        return "make", Reason("output_older")
    if is_doubtful:
        return "make", INTERRUPTED
    if _is_near(found, record.mtime_ns):
        # A time in whole seconds may be the recorded one, cut; any other that differs is an edit's.
        is_same_time = found.st_mtime_ns == record.mtime_ns or found.st_mtime_ns % _SECOND_NS == 0
        return ("make", Reason("output_torn", (record.size, found.st_size))) if is_same_time else ("up-to-date", EDITED)
    # Nobody edits a file before it is made.
    return ("make", Reason("output_older")) if found.st_mtime_ns < (record.mtime_ns or 0) else ("up-to-date", EDITED)


def is_as_left(found: os.stat_result, size: int | None, mtime_ns: int | None) -> bool:
    """Whether a file is the one that we wrote, and nobody changed it since."""
    return stat.S_ISREG(found.st_mode) and found.st_size == size and _is_near(found, mtime_ns)


def _is_near(found: os.stat_result, mtime_ns: int | None) -> bool:
    return abs(kept_time(found.st_mtime_ns) - (mtime_ns or 0)) <= SAME_TIME_NS


def stat_of(path: bytes) -> os.stat_result | None:
    """Return stat of a path; None where there is nothing."""
    try:
        return os.stat(path)
    except OSError:
        return None


def look(path: bytes) -> os.stat_result | None:
    """Return lstat of a path; None where there is nothing."""
    try:
        return os.lstat(path)
    except OSError:
        return None


def is_the_same(found: os.stat_result, size: int | None, mtime_ns: int | None) -> bool:
    """Whether a file has the recorded time to the nanosecond, as one moved by a run that was killed then has."""
    return is_as_left(found, size, mtime_ns) and kept_time(found.st_mtime_ns) == mtime_ns
