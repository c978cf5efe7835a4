"""The tables of outputs: what each was made of, by which recipe, and with which file; and which are being made.

A row for each output that is handed out would cost as much as making a small file does. So they are noted as intents,
many in one row, before they are handed out, and become rows of their own only when a run has ended without knowing what
became of them. Until then whatever lies in their place is ours.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any, Literal, NamedTuple

from pipeline.ledger.failures import between
from pipeline.ledger.origins import ARE_FILES, kept_time
from pipeline.messages import Outcome, Result

_UPSERT = """
INSERT INTO outputs
    (target, source, stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, digest,
    source_digest, source_ctime_ns, part, at_work)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (target) DO UPDATE SET
    source = excluded.source, stage = excluded.stage, status = excluded.status,
    source_size = excluded.source_size, source_mtime_ns = excluded.source_mtime_ns,
    source_digest = excluded.source_digest, source_ctime_ns = excluded.source_ctime_ns,
    recipe = excluded.recipe, reason = excluded.reason, at_work = 0, decree = NULL,
    size = coalesce(excluded.size, size), mtime_ns = coalesce(excluded.mtime_ns, mtime_ns),
    digest = coalesce(excluded.digest, digest), part = excluded.part
"""
_COLUMNS = (
    "source, target, stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, at_work,"
    " digest, source_digest, source_ctime_ns, decree, part"
)
_INSERT_RECORD = """
INSERT OR IGNORE INTO outputs (target, source, stage, status, at_work) VALUES (?, ?, ?, 'intended', 1)
"""
# "0" is the character after "/".
_DONE_BELOW = "FROM outputs WHERE target >= ? AND target < ? AND status = 'done'"


OutputStatus = Literal["intended", "done", "skipped"]
"""The state of an output; one that is only intended was handed out, and its end is not recorded."""


class Intent(NamedTuple):
    """One output that is about to be made, and of what."""

    target: bytes
    source: bytes
    stage: str


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
    """Whether a run was stopped while it made the output: the file may then be newer than the record."""
    digest: bytes | None = None
    """The digest of the contents of the file as it was written."""
    source_digest: bytes | None = None
    """This and `source_ctime_ns` are set under `changed_by: hash` only."""
    source_ctime_ns: int | None = None
    override: int | None = None
    """The number of the override that set the record; None if a run did."""
    part: str | None = None
    """The name of a fan-out's part; empty in the record that stands for all parts of an output."""


class Intents:
    """The ledger's table of intents; each of its rows holds those that were handed out together."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # The row in which an output stands, until the output has ended.
        self._row_of: dict[bytes, int] = {}
        # How many outputs of each row have not ended.
        self._open: dict[int, int] = {}
        self._ended_rows: list[tuple[int]] = []
        self._of_other_runs: dict[bytes, Intent] | None = None

    def add(self, intents: list[Intent]) -> None:
        """Record that these outputs are ours to write, before they are written."""
        fields = (each for intent in intents for each in (intent.target, intent.source, intent.stage.encode()))
        cursor = self._connection.execute("INSERT INTO intents (outputs) VALUES (?)", (b"\0".join(fields),))
        row = int(cursor.lastrowid or 0)
        self._row_of.update(dict.fromkeys((intent.target for intent in intents), row))
        self._open[row] = len(intents)

    def end(self, targets: Iterable[bytes]) -> None:
        """Note that outputs have ended, and that the ledger says how."""
        for target in targets:
            row = self._row_of.pop(target, None)
            if row is not None:
                self._open[row] -= 1
                if not self._open[row]:
                    del self._open[row]
                    self._ended_rows.append((row,))

    def delete_ended(self) -> None:
        """Delete the rows of which all outputs have ended."""
        if self._ended_rows:
            self._connection.executemany("DELETE FROM intents WHERE id = ?", self._ended_rows)
            self._ended_rows.clear()

    def record(self, intents: Iterable[Intent]) -> None:
        """Give intents records of their own among the outputs: nobody knows how far their worker came."""
        self._connection.executemany(_INSERT_RECORD, intents)

    def record_open(self) -> None:
        """Give records to all intents that have not ended, and empty the table: no run is on that could end them."""
        self.delete_ended()
        self.record(self._stored())
        self._connection.execute("DELETE FROM intents")
        self._row_of.clear()
        self._open.clear()

    def get(self, target: bytes) -> Intent | None:
        """Return the intent for an output of a run that was killed, or is on."""
        if self._of_other_runs is None:
            self._of_other_runs = {intent.target: intent for intent in self._stored()}
        return self._of_other_runs.get(target)

    def _stored(self) -> Iterator[Intent]:
        for (packed,) in self._connection.execute("SELECT outputs FROM intents").fetchall():
            fields = packed.split(b"\0")
            for target, source, stage in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
                yield Intent(target, source, stage.decode())


class Outputs:
    """The ledger's table of outputs, in byte order of their sources."""

    def __init__(self, connection: sqlite3.Connection, intents: Intents) -> None:
        self._connection = connection
        self._intents = intents
        # While the table was empty when the ledger was opened, no output needs to be looked up.
        self._was_empty = not connection.execute("SELECT EXISTS (SELECT 1 FROM outputs)").fetchone()[0]
        # Rows are inserted together, which costs a third of inserting each by itself.
        self.pending: list[tuple[Any, ...]] = []
        """Rows that are written by the next `flush`."""

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
            return map(OutputRecord._make, self._connection.execute(f"SELECT {_COLUMNS} FROM {among}"))
        which = f"{between(after)}{f' AND {ARE_FILES}' if of_files else ''}"
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM outputs {which} ORDER BY source", (first, after))
        return map(OutputRecord._make, found)

    def of_source(self, source: bytes) -> list[OutputRecord]:
        """Return the records of one source."""
        return list(self.all(source, source + b"\0"))

    def get(self, target: bytes) -> OutputRecord | None:
        """Return the record of one output."""
        self.flush()
        found = self._connection.execute(f"SELECT {_COLUMNS} FROM outputs WHERE target = ?", (target,)).fetchone()
        return OutputRecord._make(found) if found else None

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
        self.pending.append(
            (
                target, source, result.stage, result.status, source_size, source_mtime_ns, recipe,
                result.text or result.noted,
                result.size_bytes if has_file else None, kept_time(result.mtime_ns) if has_file else None,
                result.digest or None, outcome.source_digest or None, outcome.source_ctime_ns,
                "" if result.parts else part,
            )
        )  # fmt: skip

    def flush(self) -> None:
        """Write the records that `add` has collected."""
        if self.pending:
            self._connection.executemany(_UPSERT, self.pending)
            self._intents.end(row[0] for row in self.pending)
            self._intents.delete_ended()
            self.pending.clear()

    def set_in_flight(self, targets: Iterable[bytes]) -> None:
        """Mark outputs as handed out; what is recorded of them stays."""
        if not self._was_empty:
            statement = "UPDATE outputs SET at_work = 1 WHERE target = ?"
            self._connection.executemany(statement, ((target,) for target in targets))

    def clear_in_flight(self, target: bytes) -> None:
        """Mark an output as ended without a change to what is recorded of it."""
        self._connection.execute("UPDATE outputs SET at_work = 0 WHERE target = ? AND at_work", (target,))

    def move(self, target: bytes, to: bytes, stage: str) -> None:
        """Give an output another path, and the stage that has it now."""
        self._connection.execute("DELETE FROM outputs WHERE target = ?", (to,))
        self._connection.execute("UPDATE outputs SET target = ?, stage = ? WHERE target = ?", (to, stage, target))

    def add_part(self, target: bytes, source: bytes, stage: str, size: int, mtime_ns: int, part: bytes) -> None:
        """Record a part that a killed run has made; its recipe and its source's state are unknown."""
        self._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, recipe, size, mtime_ns, at_work, part)"
            " VALUES (?, ?, ?, 'done', 0, ?, ?, 0, ?) ON CONFLICT (target) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns WHERE source = excluded.source",
            (target, source, stage, size, mtime_ns, part.decode()),
        )

    def set_skipped(self, target: bytes) -> None:
        """Record that an output is not made any more, although its file is still there."""
        self._connection.execute("UPDATE outputs SET status = 'skipped' WHERE target = ?", (target,))

    def forget_file(self, target: bytes) -> None:
        """Record that the file of a skipped output is gone."""
        statement = "UPDATE outputs SET size = NULL, mtime_ns = NULL, digest = NULL WHERE target = ?"
        self._connection.execute(statement, (target,))

    def delete(self, targets: Iterable[bytes]) -> None:
        """Delete the records of outputs."""
        self._connection.executemany("DELETE FROM outputs WHERE target = ?", ((target,) for target in targets))
