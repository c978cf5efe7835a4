"""Whether a source or a group is as it was when something was made of it: by its size and time, or by contents."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice

from pipeline.files.digest import Reading, read
from pipeline.ledger.failures import Failure
from pipeline.ledger.origins import columns_of, kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Group, Origin, Source

_SECOND_NS = 1_000_000_000
# Reading is the disk's work, and hashing lets other threads go on.
_THREADS = 4
# Sources that are handed to a thread together, since handing over costs more than reading a small one; and how many of
# these groups may be read before their turn.
_GROUP = 16
_GROUPS_AHEAD = 8

MEMBERS_CHANGED = "members changed"

Met = tuple[Source, list[OutputRecord], list[Failure]]
"""A source, and what is recorded of it."""
Note = Callable[[OutputRecord, Reading], None]
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


class ByTime:
    """Sources are the same if their size and time are (`changed_by: mtime`)."""

    def ahead(self, met: Iterable[Met]) -> Iterator[Met]:
        """The same, in the same order."""
        yield from met

    def is_same(self, source: Origin, row: OutputRecord) -> bool:
        """Whether a source is as a row has it."""
        return same_origin(source, row)

    def describe(self, source: Origin, row: OutputRecord) -> str:
        """How it changed."""
        if isinstance(source, Group):
            return MEMBERS_CHANGED
        if source.size_bytes != row.source_size:
            return f"source changed (size {row.source_size} -> {source.size_bytes})"
        return "source changed (its time)"


class ByContents(ByTime):
    """Sources are the same if what is in them is (`changed_by: hash`).

    One whose size and times, that of the last change of any kind among them, are as recorded is not read. Others are,
    by a few threads, before their turn. Of what was recorded under `changed_by: mtime` there is no digest: it is judged
    by its time, and gets one where it is asked to `fill`.
    """

    def __init__(self, root: bytes, note: Note | None, *, fill: bool) -> None:
        self._root = os.path.join(root, b"")
        self._note = note
        self._fill = fill
        self._reading: Reading | OSError | None = None
        """What the source in hand was read to be; None where that was not needed."""

    def ahead(self, met: Iterable[Met]) -> Iterator[Met]:
        """The same, in the same order; those that must be are read."""
        rest, waiting = iter(met), deque[tuple[list[Met], Future[_Readings] | None]]()
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

    def is_same(self, source: Origin, row: OutputRecord) -> bool:
        """Whether what is in a source is what was when the row was written."""
        if isinstance(source, Group):
            return same_origin(source, row)
        if source.size_bytes != row.source_size:
            return False
        reading = self._reading
        if row.source_digest is None:
            same = same_origin(source, row)
        else:
            same = reading is None or (isinstance(reading, Reading) and reading.digest == row.source_digest)
        if same and self._note and isinstance(reading, Reading) and reading.was_at_rest and _is_as_met(reading, source):
            self._note(row, reading)
        return same

    def describe(self, source: Origin, row: OutputRecord) -> str:
        """How it changed."""
        if isinstance(source, Group):
            return super().describe(source, row)
        if isinstance(self._reading, OSError):
            return f"source changed (cannot be read: {self._reading.strerror or self._reading})"
        if source.size_bytes == row.source_size and row.source_digest is not None:
            return "source changed (its contents)"
        return super().describe(source, row)


def _is_as_met(reading: Reading, source: Source) -> bool:
    return (reading.size_bytes, reading.mtime_ns) == (source.size_bytes, source.mtime_ns)
