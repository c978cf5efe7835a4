"""Finds the rows of a table by target, in any case and Unicode form of it."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from typing import Literal

from pipeline.files.naming import fold


class Targets:
    """The targets of the ledger's outputs that were made, or of the outputs of a plan."""

    def __init__(
        self, connection: sqlite3.Connection, table: Literal["outputs", "plan"], flush: Callable[[], None]
    ) -> None:
        """`flush` is called before the table is read, to write what is still to be written to it."""
        self._connection = connection
        self._rows = "outputs WHERE status = 'done'" if table == "outputs" else "plan WHERE TRUE"
        self._folded = f"folded_{table}"
        self._flush = flush
        self._is_folded = False

    def at(self, target: bytes) -> list[tuple[bytes, bytes]]:
        """Return target and source of the outputs at a target."""
        self._flush()
        return self._connection.execute(f"SELECT target, source FROM {self._rows} AND target = ?", (target,)).fetchall()

    def like(self, target: bytes) -> list[tuple[bytes, bytes]]:
        """Return target and source of the outputs at a target, or at one of other case or form.

        The first call reads the whole table, and knows nothing of what is added to it later.
        """
        if not self._is_folded:
            self._fold_all()
        among = f"{self._folded} WHERE name = ? ORDER BY target"
        return self._connection.execute(f"SELECT target, source FROM {among}", (_fold(target),)).fetchall()

    def read_again(self) -> None:
        """Have the next call of `like` read the whole table again."""
        if self._is_folded:
            self._connection.execute(f"DROP TABLE temp.{self._folded}")
            self._is_folded = False

    def _fold_all(self) -> None:
        self._flush()
        self._connection.execute(f"CREATE TEMP TABLE {self._folded} (name BLOB, target BLOB, source BLOB)")
        rows = self._connection.execute(f"SELECT target, source FROM {self._rows}")
        named = ((_fold(target), target, source) for target, source in rows)
        self._connection.executemany(f"INSERT INTO {self._folded} VALUES (?, ?, ?)", named)
        self._connection.execute(f"CREATE INDEX temp.{self._folded}_by_name ON {self._folded} (name)")
        self._is_folded = True


def _fold(target: bytes) -> bytes:
    return os.fsencode(fold(target))
