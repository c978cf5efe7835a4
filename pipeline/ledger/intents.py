"""The tables of intents: which outputs were handed out to be made and are not known to have ended.

A row for each output that is handed out would cost as much as making a small file does. So they are noted many in one
row, before they are handed out, and become rows of their own only when a run has ended without knowing what became of
them. Until then whatever lies in their place is ours. Of a fan-out nobody knows yet which parts there will be: what
surrounds a part's name in its path is noted.
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence

from pipeline.ledger.schema import SUMMED_COLUMNS
from pipeline.records import NamedTuple

_INSERT_RECORD = """
INSERT OR IGNORE INTO outputs (target, source, stage, status, at_work) VALUES (?, ?, ?, 'intended', ?)
"""
RESEAL_WHERE = f"UPDATE outputs SET crc = row_sum({SUMMED_COLUMNS}) WHERE"
RESEAL = f"{RESEAL_WHERE} target = ?"
"""Gives a row its checksum after it was changed."""


class Intent(NamedTuple):
    """One output that is about to be made, and of what."""

    target: bytes
    source: bytes
    stage: str
    since_ns: int = 1
    """When it was handed out, in nanoseconds since 1970."""


class PartIntent(NamedTuple):
    """One fan-out that is about to be made, and what comes before and after the name of a part in its path."""

    target: bytes
    """The key that stands for all parts."""
    source: bytes
    stage: str
    prefix: bytes
    suffix: bytes
    since_ns: int


class Intents:
    """The ledger's tables of intents."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # The row in which an output stands, until the output has ended.
        self._row_of: dict[bytes, int] = {}
        # How many outputs of each row have not ended.
        self._open: dict[int, int] = {}
        self._ended_rows: list[tuple[int]] = []
        self._of_other_runs: dict[bytes, Intent] | None = None
        self._has_parts = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM part_intents)").fetchone()[0])

    def add(self, fields: Sequence[bytes]) -> None:
        """Record that outputs are ours to write, before they are written.

        They are given by target, source and stage of the first, then those of the second, and so on.
        """
        targets = fields[::3]
        insert = "INSERT INTO intents (outputs, since) VALUES (?, ?)"
        cursor = self._connection.execute(insert, (b"\0".join(fields), time.time_ns()))
        row = int(cursor.lastrowid or 0)
        self._row_of.update(dict.fromkeys(targets, row))
        self._open[row] = len(targets)

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

    def keep_all(self) -> None:
        """Keep every row until the end of the run, since what was recorded of some of their outputs is lost."""
        self._row_of.clear()
        self._open.clear()
        self._ended_rows.clear()

    def record(self, intents: Iterable[Intent]) -> None:
        """Give intents records of their own among the outputs: nobody knows how far their worker came."""
        for intent in intents:
            values = intent.target, intent.source, intent.stage, intent.since_ns
            if self._connection.execute(_INSERT_RECORD, values).rowcount:
                self._connection.execute(RESEAL, (intent.target,))

    def record_open(self) -> None:
        """Give records to all intents that have not ended, and empty the table: no run could end them now."""
        self.delete_ended()
        self.record(self._stored())
        self._connection.execute("DELETE FROM intents")
        self.keep_all()

    def get(self, target: bytes) -> Intent | None:
        """Return the intent for an output of a run that was killed, or is running."""
        if self._of_other_runs is None:
            self._of_other_runs = {intent.target: intent for intent in self._stored()}
        return self._of_other_runs.get(target)

    def _stored(self) -> Iterator[Intent]:
        for packed, since in self._connection.execute("SELECT outputs, since FROM intents").fetchall():
            fields = packed.split(b"\0")
            for target, source, stage in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
                yield Intent(target, source, stage.decode(), since)

    # -- fan-outs ------------------------------------------------------------------------------------------------------

    def add_parts(self, intents: Iterable[PartIntent]) -> None:
        """Record that parts are ours to write; one that is recorded keeps its time."""
        for intent in intents:
            self._has_parts = True
            self._connection.execute("INSERT OR IGNORE INTO part_intents VALUES (?, ?, ?, ?, ?, ?)", intent)

    def end_parts(self, target: bytes) -> None:
        """Record that the parts of an output are recorded."""
        if self._has_parts:
            self._connection.execute("DELETE FROM part_intents WHERE target = ?", (target,))

    def move_folder(self, folder: bytes, to: bytes) -> None:
        """Give the fan-outs below a folder the paths that they have below another."""
        below = os.path.join(folder, b"")
        for intent in self.parts():
            if intent.prefix.startswith(below):
                target, prefix = (
                    os.path.join(to, each[len(below) :]) if each.startswith(below) else each
                    for each in (intent.target, intent.prefix)
                )
                self.end_parts(intent.target)
                self.add_parts([intent._replace(target=target, prefix=prefix)])

    def parts(self) -> list[PartIntent]:
        """Return the fan-outs that are not known to have ended."""
        if not self._has_parts:
            return []
        columns = "target, source, stage, prefix, suffix, since"
        return list(map(PartIntent._make, self._connection.execute(f"SELECT {columns} FROM part_intents")))
