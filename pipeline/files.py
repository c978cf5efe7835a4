"""What the ledger has of the output files themselves: counted, moved, forgotten."""

from __future__ import annotations

import sqlite3


class Files:
    """The files in the ledger's table of outputs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def count(self) -> int:
        """How many are recorded as made."""
        return int(self._connection.execute("SELECT count(*) FROM outputs WHERE size IS NOT NULL").fetchone()[0])

    def move(self, target: bytes, to: bytes, stage: str) -> None:
        """Say that an output has another path by now, and is of this stage."""
        self._connection.execute("DELETE FROM outputs WHERE target = ?", (to,))
        self._connection.execute("UPDATE outputs SET target = ?, stage = ? WHERE target = ?", (to, stage, target))

    def take_over(self, target: bytes, source: bytes, stage: str, size: int, mtime_ns: int, part: bytes) -> None:
        """Say of a part that a killed run has made it; of what, and how, only that knew."""
        self._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, recipe, size, mtime_ns, at_work, part)"
            " VALUES (?, ?, ?, 'done', 0, ?, ?, 0, ?) ON CONFLICT (target) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns WHERE source = excluded.source",
            (target, source, stage, size, mtime_ns, part.decode()),
        )

    def leave_out(self, target: bytes) -> None:
        """Say of an output that it is not made any more, though its file is there."""
        self._connection.execute("UPDATE outputs SET status = 'skipped' WHERE target = ?", (target,))

    def forget(self, target: bytes) -> None:
        """Say that there is no file of an output that is left out by now."""
        forget = "UPDATE outputs SET size = NULL, mtime_ns = NULL, digest = NULL WHERE target = ?"
        self._connection.execute(forget, (target,))
