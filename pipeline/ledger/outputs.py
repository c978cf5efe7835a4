"""The table of outputs: what each was made of, by which recipe, and with which file."""

from __future__ import annotations

import os
import sqlite3
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain, compress, repeat
from typing import Any, Literal

from pipeline.ledger.failures import between
from pipeline.ledger.intents import RESEAL, Intents
from pipeline.ledger.origins import ARE_FILES, kept_time, kept_times
from pipeline.ledger.schema import AT_WORK, RECORD_COLUMNS, SUM_FORMAT, packed, row_sum
from pipeline.messages import Job, Outcome, Result
from pipeline.records import NamedTuple

_COLUMNS = f"{RECORD_COLUMNS}, crc"
_STATISTICS = "crc, run, seat, seconds, peak_bytes, bytes_in, bytes_out, annotations"
_ALL_COLUMNS = f"{RECORD_COLUMNS}, {_STATISTICS}"
_INSERT = f"INSERT OR REPLACE INTO outputs ({_ALL_COLUMNS}) VALUES (?{', ?' * _ALL_COLUMNS.count(',')})"
# Most rows are of an output in one file with nothing before it, and differ in these columns only: to bind a NULL takes
# as long as to bind a number, and all of them together a third of the whole.
_MADE_COLUMNS = (
    "source", "target", "stage", "source_size", "source_mtime_ns", "recipe", "size", "mtime_ns", "digest",
    "source_digest", "recorded", "crc", "run", "seat", "seconds", "peak_bytes",
)  # fmt: skip
_CONSTANTS = {"status": "'done'", "reason": "''", "at_work": "0"}
# What was read is the source, and what was written is the file.
_SAME = {"bytes_in": "source_size", "bytes_out": "size"}
# So many such rows are inserted by one statement, whose beginning and end take a sixth of the time of a row.
_ROWS_TOGETHER = 8
# "0" is the character after "/".
_DONE_BELOW = "FROM outputs WHERE target >= ? AND target < ? AND status = 'done'"
# Bytes of a digest, and how many of earlier contents are kept.
_DIGEST_BYTES, _EARLIER = 16, 3
# Rows that are looked up by one statement.
_TOGETHER = 500


TargetKey = Callable[[str, bytes], bytes]
"""Gives the key under which the ledger keeps an output, for a stage and a path."""
MadeRow = tuple[Any, ...]
"""The seconds, the source's digest and the peak of memory of a job, and size, time and digest of each file it made."""
OutputStatus = Literal["intended", "done", "skipped"]
"""The state of an output; one that is only intended was handed out, and its end is not recorded."""


def _insert_made(rows: int) -> str:
    """Return the statement that inserts so many rows, of which it takes `_MADE_COLUMNS` one after the other."""

    def value(column: str, row: int) -> str:
        column = _SAME.get(column, column)
        if column not in _MADE_COLUMNS:
            return _CONSTANTS.get(column, "NULL")
        return f"?{row * len(_MADE_COLUMNS) + _MADE_COLUMNS.index(column) + 1}"

    columns = _ALL_COLUMNS.split(", ")
    values = (f"({', '.join(value(column, row) for column in columns)})" for row in range(rows))
    return f"INSERT OR REPLACE INTO outputs ({_ALL_COLUMNS}) VALUES {', '.join(values)}"


_INSERT_MADE, _INSERT_MADE_TOGETHER = _insert_made(1), _insert_made(_ROWS_TOGETHER)


class DamagedRow(sqlite3.DatabaseError):
    """A row is not what was written: its checksum is another."""

    sqlite_errorname = "SQLITE_CORRUPT"


class OutputRecord(NamedTuple):
    """One row of the table. It is a tuple because a run that changes nothing makes one for each output."""

    source: bytes
    target: bytes
    stage: str
    status: OutputStatus
    source_size: int
    source_mtime_ns: int
    recipe: int
    reason: str
    """The reason why the output was skipped."""
    size: int | None
    """Size and time of the file that was written; None where none was. A skip keeps those of the file before it."""
    mtime_ns: int | None
    in_flight: int
    """When a job was handed out that is not known to have ended, or 0: the file may be newer than the record."""
    digest: bytes | None = None
    """The digest of the contents of the file as it was written."""
    source_digest: bytes | None = None
    """The digest of the source; None for a large one that was never in doubt, unless sources are hashed."""
    source_ctime_ns: int | None = None
    override: int | None = None
    """The number of the override that set the record; None if a run did."""
    part: str | None = None
    """The name of a fan-out's part; empty in the record that stands for all parts of an output."""
    recorded_ns: int | None = None
    """When the record was written."""
    earlier: bytes | None = None
    """The digests of the contents before these, one after the other."""

    @property
    def digests(self) -> tuple[bytes, ...]:
        """The digests of the last versions that we made, the newest first."""
        return split_digests(self.joined_digests)

    @property
    def joined_digests(self) -> bytes:
        """Return `digests` one after the other."""
        return (self.digest or b"") + (self.earlier or b"")


def split_digests(joined: bytes) -> tuple[bytes, ...]:
    """Return the digests that stand one after the other."""
    return tuple(joined[at : at + _DIGEST_BYTES] for at in range(0, len(joined), _DIGEST_BYTES))


def _checked(rows: Iterable[tuple[Any, ...]]) -> Iterator[OutputRecord]:
    """Yield the records of rows that were read with their checksums. Raises DamagedRow."""
    make, crc32 = OutputRecord._make, zlib.crc32
    for row in rows:
        if crc32(packed(row[:AT_WORK] + row[AT_WORK + 1 : -1], SUM_FORMAT)) != row[-1]:
            raise DamagedRow(f"the row of {row[1]!r} is not what was written")
        yield make(row[:-1])


class Outputs:
    """The ledger's table of outputs, in byte order of their sources."""

    def __init__(self, connection: sqlite3.Connection, intents: Intents) -> None:
        self._connection = connection
        self._intents = intents
        # While the table was empty when the ledger was opened, no output needs to be looked up.
        self._was_empty = not connection.execute("SELECT EXISTS (SELECT 1 FROM outputs)").fetchone()[0]
        # Rows are inserted together, which costs a third of inserting each by itself.
        self.pending: list[tuple[tuple[Any, ...], tuple[Any, ...]]] = []
        """Records that are written by the next `flush`, each with what it cost to make the output."""
        self._made: list[tuple[Any, ...]] = []
        """Values of `_MADE_COLUMNS`, written so, too..."""
        self._made_targets: list[bytes] = []
        """...and the target of each."""
        self.run: int | None = None
        """The number of the run that is running."""

    # -- reading -------------------------------------------------------------------------------------------------------

    def all(
        self, first: bytes = b"", after: bytes | None = None, *, listed: bool = False, of_files: bool = False
    ) -> Iterator[OutputRecord]:
        """Yield the records in byte order of their sources.

        Args:
            first: The first source of the range.
            after: The first source after the range; None for no end.
            listed: Whether only sources in the table `listed` are wanted; the range is then ignored.
            of_files: Whether records of groups are left out.
        """
        self.flush()
        if listed:
            among = "listed CROSS JOIN outputs ON source = path ORDER BY path"
            return _checked(self._connection.execute(f"SELECT {_COLUMNS} FROM {among}"))
        which = f"{between(after)}{f' AND {ARE_FILES}' if of_files else ''}"
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM outputs {which} ORDER BY source", (first, after))
        return _checked(found)

    def of_source(self, source: bytes) -> list[OutputRecord]:
        """Return the records of one source."""
        return list(self.all(source, source + b"\0"))

    def parts_between(self, before: bytes, after: bytes) -> list[OutputRecord]:
        """Return the records of parts by what surrounds the part's name in the target."""
        self.flush()
        which = f"SELECT {_COLUMNS} FROM outputs WHERE target > ? AND target < ? AND part != ''"
        rows = _checked(self._connection.execute(which, (before, before + b"\xff")))
        return [row for row in rows if row.target.endswith(after)]

    def get(self, target: bytes) -> OutputRecord | None:
        """Return the record of one output."""
        self.flush()
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM outputs WHERE target = ?", (target,)).fetchone()
        return next(_checked([found])) if found else None

    def recipe_of(self, target: bytes) -> int | None:
        """Return the number of the recipe by which an output was made."""
        found = self._connection.execute("SELECT recipe FROM outputs WHERE target = ?", (target,)).fetchone()
        return found[0] if found else None

    def owner(self, target: bytes) -> tuple[bytes, OutputStatus] | None:
        """Return source and status of an output on record, or of one that is only intended."""
        self.flush()
        if not self._was_empty:
            found = self._connection.execute("SELECT source, status FROM outputs WHERE target = ?", (target,))
            if row := found.fetchone():
                return row[0], row[1]
        intent = self._intents.get(target)
        return (intent.source, "intended") if intent else None

    def last_made(self, stage: str, recipe: int | None) -> int:
        """Return when an output of a stage was made by a recipe last, or 0. Costs a pass over the table."""
        self.flush()
        made = "SELECT max(recorded) FROM outputs WHERE stage = ? AND recipe = ? AND status != 'intended'"
        return self._connection.execute(made, (stage, recipe)).fetchone()[0] or 0

    def is_blank(self) -> bool:
        """Return whether no output was ever made or intended."""
        either = "SELECT 1 FROM outputs UNION ALL SELECT 1 FROM intents LIMIT 1"
        return self._connection.execute(either).fetchone() is None

    def count_files(self) -> int:
        """Count the outputs for which a file was written."""
        return int(self._connection.execute("SELECT count(*) FROM outputs WHERE size IS NOT NULL").fetchone()[0])

    def done_below(self, folder: bytes, limit: int = 20) -> list[bytes]:
        """Return the first targets that were made below a folder, whose key ends in a slash."""
        values = (folder, folder[:-1] + b"0", limit)
        return [target for (target,) in self._connection.execute(f"SELECT target {_DONE_BELOW} LIMIT ?", values)]

    def count_done_below(self, folder: bytes) -> int:
        """Count the outputs that were made below a folder, whose key ends in a slash."""
        found = self._connection.execute(f"SELECT count(*) {_DONE_BELOW}", (folder, folder[:-1] + b"0"))
        return int(found.fetchone()[0])

    def count_sources(self, excluded_folders: tuple[bytes, ...] = ()) -> int:
        """Count the files that have an output on record, done or skipped, and lie outside some folders."""
        which = f"SELECT DISTINCT source FROM outputs WHERE status != 'intended' AND {ARE_FILES}"
        return sum(not source.startswith(excluded_folders) for (source,) in self._connection.execute(which))

    # -- writing -------------------------------------------------------------------------------------------------------

    def add(
        self,
        origin: tuple[bytes, int, int],
        outcome: Outcome,
        result: Result,
        target: bytes,
        recipe: int,
        part: str | None = None,
    ) -> None:
        """Record an output as done or skipped; `origin` are the columns of what it was made of."""
        has_file = bool(result.digest)
        source, source_size, source_mtime_ns = origin
        record = (
            source, target, result.stage, result.status, source_size, source_mtime_ns, recipe,
            result.text or result.noted,
            result.size_bytes if has_file else None, kept_time(result.mtime_ns) if has_file else None,
            0, result.digest or None, outcome.source_digest or None, outcome.source_ctime_ns, None,
            "" if result.parts else part,
        )  # fmt: skip
        bytes_out = sum(each.size_bytes for each in result.parts) if result.parts else result.size_bytes
        bytes_in = outcome.bytes_in if outcome.source is None else source_size
        # What a job took is told once, in the row that stands for all its parts.
        cost = (outcome.seat, outcome.spent_s, outcome.peak_bytes, bytes_in) if part is None else (None,) * 4
        self.pending.append((record, (*cost, bytes_out if has_file or result.parts else None, None)))

    def add_made(
        self,
        stages: Sequence[str],
        jobs: Sequence[Job],
        rows: Sequence[MadeRow],
        seat: int,
        key: TargetKey,
        recipes: dict[str, int],
    ) -> None:
        """Record outputs of jobs as done, one of each stage; they are written together with the next `flush`.

        They are put together column by column, which takes half the time of row by row. What is bytes is copied into
        bytearrays: for each value of bytes, and for none of these, the sqlite3 module looks for an adapter, which takes
        three times as long as the copy.
        """
        paths, sizes, times = zip(*[job.source for job in jobs], strict=True)
        sources, times = list(map(bytearray, paths)), kept_times(times)
        seconds, of_sources, peaks, *files = zip(*rows, strict=True)
        source_digests = [bytearray(each) if each else None for each in of_sources]
        now, run, of_worker, none = repeat(time.time_ns()), repeat(self.run), repeat(seat), repeat(None)
        for at, name in enumerate(stages):
            written, written_at, of_files = files[3 * at : 3 * at + 3]
            written_at = kept_times(written_at)
            if not all(of_files):  # as of a stage that leaves no file
                files_made = zip(written, written_at, of_files, strict=True)
                kept = [each if each[2] else (None,) * 3 for each in files_made]
                written, written_at, of_files = zip(*kept, strict=True)
            digests = [bytearray(each) if each else None for each in of_files]
            made_targets = [key(name, job.targets[at].path) for job in jobs]
            self._made_targets += made_targets
            targets = list(map(bytearray, made_targets))
            stage, recipe = repeat(name), repeat(recipes[name])
            summed = zip(
                sources, targets, stage, repeat("done"), sizes, times, recipe, repeat(""), written, written_at, digests,
                source_digests, none, none, none, now, none,
                strict=False,
            )  # fmt: skip
            sums = map(zlib.crc32, map(packed, summed, repeat(SUM_FORMAT)))
            self._made += zip(
                sources, targets, stage, sizes, times, recipe, written, written_at, digests, source_digests, now, sums,
                run, of_worker, seconds, peaks,
                strict=False,
            )  # fmt: skip

    def flush(self) -> None:
        """Write the records that `add` and `add_made` have collected."""
        if self._made:
            self._write_made()
        if not self.pending:
            return
        which = (record for record, _ in self.pending if record[3] == "skipped" or not self._was_empty)
        before = self._files_of([record[1] for record in which])
        now = time.time_ns()
        rows = []
        for record, costs in self.pending:
            rows.append(row := _row(record, before.get(record[1]), now, self.run, costs))
            before[record[1]] = (row[8], row[9], row[11], row[17])
        self._connection.executemany(_INSERT, rows)
        self._intents.end(record[1] for record, _ in self.pending)
        self._intents.delete_ended()
        self.pending.clear()

    def _write_made(self) -> None:
        """Write what `add_made` has collected; of what has a record, the digests before are kept."""
        made, self._made = self._made, []
        targets, self._made_targets = self._made_targets, []
        if not self._was_empty and (before := self._files_of(targets)):
            known = [target in before for target in targets]
            self.pending += map(_as_pending, compress(made, known))
            new = [not each for each in known]
            made, targets = list(compress(made, new)), list(compress(targets, new))
        whole = len(made) // _ROWS_TOGETHER * _ROWS_TOGETHER
        together = (made[at : at + _ROWS_TOGETHER] for at in range(0, whole, _ROWS_TOGETHER))
        self._connection.executemany(_INSERT_MADE_TOGETHER, map(tuple, map(chain.from_iterable, together)))
        self._connection.executemany(_INSERT_MADE, made[whole:])
        self._intents.end(targets)
        self._intents.delete_ended()

    def _files_of(self, targets: list[bytes]) -> dict[bytes, tuple[Any, ...]]:
        """Return what is recorded of the files of outputs: size, mtime_ns, digest, and the digests before."""
        found: dict[bytes, tuple[Any, ...]] = {}
        for at in range(0, len(targets), _TOGETHER):
            some = targets[at : at + _TOGETHER]
            which = f"target IN ({', '.join('?' * len(some))})"
            columns = "target, size, mtime_ns, digest, earlier"
            for target, *file in self._connection.execute(f"SELECT {columns} FROM outputs WHERE {which}", some):
                found[target] = tuple(file)
        return found

    def expect_rows(self) -> None:
        """Look outputs up from now on, although the table was empty when the ledger was opened."""
        self.flush()
        self._was_empty = False

    def set_in_flight(self, targets: Iterable[bytes]) -> None:
        """Mark outputs as handed out; what is recorded of them stays."""
        if not self._was_empty:
            statement = f"UPDATE outputs SET at_work = {time.time_ns()} WHERE target = ? AND NOT at_work"
            self._connection.executemany(statement, ((target,) for target in targets))

    def clear_in_flight(self, target: bytes) -> None:
        """Mark an output as ended without a change to what is recorded of it."""
        self._connection.execute("UPDATE outputs SET at_work = 0 WHERE target = ? AND at_work", (target,))

    def move(self, target: bytes, to: bytes, stage: str, source: bytes | None = None) -> None:
        """Give an output another path, the stage that has it now, and the path that its source has, if that is new."""
        if to != target:
            self._connection.execute("DELETE FROM outputs WHERE target = ?", (to,))
        columns = "target = ?, stage = ?, source = coalesce(?, source)"
        self._connection.execute(f"UPDATE outputs SET {columns} WHERE target = ?", (to, stage, source, target))
        self._connection.execute(RESEAL, (to,))

    def move_folder(self, folder: bytes, to: bytes) -> None:
        """Give all outputs below a folder the paths that they have below another; what is recorded there is kept."""
        self.flush()
        below = os.path.join(folder, b"")
        values = below, below[:-1] + b"0"
        rows = self._connection.execute("SELECT target, stage FROM outputs WHERE target >= ? AND target < ?", values)
        for target, stage in rows.fetchall():
            self.move(target, os.path.join(to, target[len(below) :]), stage)

    def add_part(self, target: bytes, source: bytes, stage: str, size: int, mtime_ns: int, part: bytes) -> None:
        """Record a part that a killed run has made; its recipe and its source's state are unknown."""
        self._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, recipe, size, mtime_ns, at_work, part)"
            " VALUES (?, ?, ?, 'done', 0, ?, ?, 0, ?) ON CONFLICT (target) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns WHERE source = excluded.source",
            (target, source, stage, size, kept_time(mtime_ns), part.decode()),
        )
        self._connection.execute(RESEAL, (target,))

    def set_mtime(self, target: bytes, mtime_ns: int) -> None:
        """Record that an output has another time, and the contents that we wrote."""
        self._set(target, "mtime_ns = ?", kept_time(mtime_ns))

    def set_skipped(self, target: bytes) -> None:
        """Record that an output is not made any more, although its file is still there."""
        self._set(target, "status = 'skipped'")

    def forget_file(self, target: bytes) -> None:
        """Record that the file of a skipped output is gone."""
        self._set(target, "size = NULL, mtime_ns = NULL, digest = NULL")

    def _set(self, target: bytes, columns: str, *values: object) -> None:
        self._connection.execute(f"UPDATE outputs SET {columns} WHERE target = ?", (*values, target))
        self._connection.execute(RESEAL, (target,))

    def delete(self, targets: Iterable[bytes]) -> None:
        """Delete the records of outputs."""
        self._connection.executemany("DELETE FROM outputs WHERE target = ?", ((target,) for target in targets))


def _as_pending(made: tuple[Any, ...]) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the values of `_MADE_COLUMNS` as `add` would have collected them."""
    source, target, source_size, size = bytes(made[0]), bytes(made[1]), made[3], made[6]
    record = (source, target, made[2], "done", *made[3:6], "", *made[6:8], 0, *made[8:10], None, None, None)
    return record, (*made[13:], source_size, size, None)


def _row(
    record: tuple[Any, ...], before: tuple[Any, ...] | None, now_ns: int, run: int | None, costs: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return a row of the table, with what is kept of the file before it."""
    size, mtime_ns, digest, earlier = before or (None, None, None, None)
    if before and record[11] is None:  # a skip: the file before it is still there
        record = (*record[:8], size, mtime_ns, *record[10:11], digest, *record[12:])
    elif digest and digest != record[11]:
        earlier = (digest + (earlier or b""))[: _DIGEST_BYTES * _EARLIER]
    record = (*record, now_ns, earlier)
    return (*record, row_sum(*record[:AT_WORK], *record[AT_WORK + 1 :]), run, *costs)
