"""Compares sources and outputs on the disk with their records."""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, TypeGuard

from pipeline.files.atomic import digest_of
from pipeline.files.digest import Reading, read
from pipeline.ledger.failures import Failure
from pipeline.ledger.origins import columns_of, kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.runs import Window
from pipeline.messages import Group, Origin, Source
from pipeline.planning.decisions import DOUBTFUL, EDITED, INTERRUPTED, OUTPUT_MISSING, UP_TO_DATE, Action, Reason
from pipeline.planning.same_time import Comparison, compare_times, is_no_edit

if TYPE_CHECKING:
    from concurrent.futures import Future

# Reading is the disk's work, and hashing lets other threads go on.
_THREADS = 4
# Sources that are handed to a thread together, since handing over costs more than reading a small one; and how many of
# these groups may be read before their turn.
_GROUP = 16
_GROUPS_AHEAD = 8

Met = tuple[Source, list[OutputRecord], list[Failure]]
"""A source with its records: of outputs, and of failures."""
Note = Callable[[OutputRecord, int, Reading | None], None]
"""Called with the record of an output whose source is as recorded, the time that the source has now, and its contents
where they were read.
"""
Touched = Callable[[OutputRecord, int], None]
"""Called with the record of an output whose contents are as recorded, and the time that it has now."""
_Readings = dict[bytes, Reading | OSError]


def same_origin(source: Origin, record: OutputRecord | Failure) -> bool:
    """Return whether a source has the size and time that were recorded of it; whether a group has the same members."""
    if isinstance(source, Group):
        return columns_of(source)[1:] == (record.source_size, record.source_mtime_ns)
    return source.size_bytes == record.source_size and is_no_edit(record.source_mtime_ns, source.mtime_ns)


def change_by_time(source: Source, record: OutputRecord) -> Reason | None:
    """Return how a source differs from its record, by size and time; None where it does not."""
    if same_origin(source, record):
        return None
    if source.size_bytes != record.source_size:
        return Reason("source_changed", ("size", record.source_size, source.size_bytes))
    is_cut = compare_times(record.source_mtime_ns, source.mtime_ns) == "cut"
    return DOUBTFUL if is_cut else Reason("source_changed", ("time",))


def change_by_contents(reading: Reading | OSError, record: OutputRecord) -> Reason | None:
    """Return how what was read of a source differs from the recorded contents; None where it does not."""
    if isinstance(reading, OSError):
        return Reason("source_changed", ("unreadable", reading.strerror or str(reading)))
    return None if reading.digest == record.source_digest else Reason("source_changed", ("contents",))


def _read_or_error(path: bytes) -> Reading | OSError:
    try:
        return read(path)
    except OSError as error:
        return error


class ByTime:
    """Compares sources with their records by size and time (`changed_by: mtime`).

    A source whose time may have been cut is read, if its digest is recorded.
    """

    def __init__(self, root: bytes, note: Note | None) -> None:
        self._root = os.path.join(root, b"")
        self._note = note
        self._last_read: tuple[bytes, Reading | OSError] | None = None
        """The path of the source that was read last, and the result: its outputs are compared one after the other."""

    def read_ahead(self, met: Iterable[Met]) -> Iterator[Met]:
        """Yield the sources of `met` as they come: nothing of them is read."""
        yield from met

    def change(self, source: Source, record: OutputRecord) -> Reason | None:
        """Return how a source differs from its record; None where it does not."""
        if source.mtime_ns == record.source_mtime_ns and source.size_bytes == record.source_size:
            return None
        change, reading = change_by_time(source, record), None
        if change == DOUBTFUL and record.source_digest is not None:
            reading = self._read(source.path)
            change = change_by_contents(reading, record)
        if not change and self._note and (reading is None or _can_be_kept(reading, source)):
            self._note(record, source.mtime_ns, reading)
        return change

    def _read(self, path: bytes) -> Reading | OSError:
        if self._last_read is None or self._last_read[0] != path:
            self._last_read = path, _read_or_error(self._root + path)
        return self._last_read[1]


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
        return {path: _read_or_error(self._root + path) for path in paths}

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
            if change and isinstance(reading, OSError):
                change = change_by_contents(reading, record)
        else:
            change = change_by_contents(reading, record) if reading else None
        if not change and self._note and reading and _can_be_kept(reading, source):
            self._note(record, source.mtime_ns, reading)
        return change


Sources = ByTime | ByContents


def _can_be_kept(reading: Reading | OSError, source: Source) -> TypeGuard[Reading]:
    """Return whether the file that was read is the one that the walk met, and nobody wrote to it meanwhile."""
    if isinstance(reading, OSError):
        return False
    return reading.was_at_rest and (reading.size_bytes, reading.mtime_ns) == (source.size_bytes, source.mtime_ns)


# -- outputs -----------------------------------------------------------------------------------------------------------


class OutputFolders:
    """The test for existing outputs; remembers the last one's folder, since most outputs lie side by side."""

    def __init__(self) -> None:
        self._folder = b""
        self._folder_exists = False

    def has(self, path: bytes) -> bool:
        """Return whether anything lies at a path, be it a dangling link."""
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
    if found is None:  # or there is a link that leads nowhere, which a run does not replace
        return ("make", OUTPUT_MISSING) if look(path) is None else ("refuse", Reason("not_a_file"))
    if not stat.S_ISREG(found.st_mode):
        return "refuse", Reason("not_a_file")
    time = compare_times(record.mtime_ns, found.st_mtime_ns)
    is_left = found.st_size == record.size and time == "same"
    is_doubtful = window is not None and window.doubts(record.recorded_ns, found.st_ctime_ns)
    if is_left and not (is_doubtful and record.digest):
        return "up-to-date", UP_TO_DATE
    digest = digest_at(path) if record.earlier or found.st_size == record.size or is_doubtful else None
    if digest is not None and digest == record.digest:
        if touched and not is_left:
            touched(record, found.st_mtime_ns)
        return "up-to-date", UP_TO_DATE
    if is_left or (record.digest is None and found.st_size == record.size and time == "cut"):
        return "make", INTERRUPTED
    return _compare_other(record, found, digest, time, is_doubtful=is_doubtful)


def _compare_other(
    record: OutputRecord, found: os.stat_result, digest: bytes | None, time: Comparison, *, is_doubtful: bool
) -> tuple[Action, Reason]:
    """Decide about a file that is not what is recorded."""
    if found.st_size == 0:
        return "make", Reason("output_torn", (record.size, found.st_size))
    if digest is not None and digest in record.digests:
        return "make", Reason("output_older")
    if is_doubtful:
        return "make", INTERRUPTED
    if time == "same":
        return "make", Reason("output_torn", (record.size, found.st_size))
    # A time that was cut is no earlier one; a torn file is of another size, and may be an edit: it is set aside.
    if time == "cut" and found.st_size == record.size:
        return "up-to-date", EDITED
    # Nobody edits a file before it is made.
    is_older = time == "cut" or found.st_mtime_ns < (record.mtime_ns or 0)
    return ("make", Reason("output_older")) if is_older else ("up-to-date", EDITED)


def is_as_left(
    path: bytes, found: os.stat_result, size: int | None, mtime_ns: int | None, digest: bytes | None
) -> bool:
    """Return whether a file is the one that we wrote, unchanged since; one whose time may be cut is read."""
    if not stat.S_ISREG(found.st_mode) or found.st_size != size:
        return False
    time = compare_times(mtime_ns, found.st_mtime_ns)
    return time == "same" or (time == "cut" and digest is not None and digest_at(path) == digest)


def is_ours(
    path: bytes, found: os.stat_result, size: int | None, mtime_ns: int | None, digests: tuple[bytes, ...]
) -> bool:
    """Return whether a file is one of the last versions that we wrote, of which a backup may have brought back any."""
    if is_as_left(path, found, size, mtime_ns, digests[0] if digests else None):
        return True
    # An earlier version may have had another size; without one, a file of another size need not be read.
    may_be = len(digests) > 1 or (bool(digests) and found.st_size == size)
    return may_be and stat.S_ISREG(found.st_mode) and digest_at(path) in digests


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
    """Return whether a file has the recorded time to the nanosecond, as one moved by a run that was killed then has."""
    is_same_time = compare_times(mtime_ns, found.st_mtime_ns) == "same"
    return stat.S_ISREG(found.st_mode) and found.st_size == size and is_same_time
