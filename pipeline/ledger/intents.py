"""Outputs that were handed out to be made and are not known to have ended: ours, whatever lies in their place.

A row for each would cost as much as making a small file does. So they are noted many together before they are handed
out, and become rows only when a run has ended without knowing what became of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from typing import NamedTuple

_AS_ROW = "INSERT OR IGNORE INTO outputs (target, source, stage, status, at_work) VALUES (?, ?, ?, 'intended', 1)"


class Intent(NamedTuple):
    """One output that is about to be made, and of what."""

    target: bytes
    source: bytes
    stage: str


class Intents:
    """The ledger's table of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._open: dict[bytes, int] = {}
        """The number of the note in which an output stands, until it has ended."""
        self._left: dict[int, int] = {}
        """How many of each note have not ended."""
        self._over: list[tuple[int]] = []
        self._of_others: dict[bytes, Intent] | None = None

    def note(self, intents: list[Intent]) -> None:
        """Say that these are ours to write, before they are."""
        fields = (each for intent in intents for each in (intent.target, intent.source, intent.stage.encode()))
        cursor = self._connection.execute("INSERT INTO intents (outputs) VALUES (?)", (b"\0".join(fields),))
        number = int(cursor.lastrowid or 0)
        self._open.update(dict.fromkeys((intent.target for intent in intents), number))
        self._left[number] = len(intents)

    def end(self, target: bytes) -> None:
        """An output has ended, and the ledger says how."""
        number = self._open.pop(target, None)
        if number is not None:
            self._left[number] -= 1
            if not self._left[number]:
                del self._left[number]
                self._over.append((number,))

    def forget_ended(self) -> None:
        """Forget the notes of which all have ended."""
        if self._over:
            self._connection.executemany("DELETE FROM intents WHERE id = ?", self._over)
            self._over.clear()

    def keep(self, intents: Iterable[Intent]) -> None:
        """Give these rows of their own: a worker died over them, and nobody knows how far it came."""
        self._connection.executemany(_AS_ROW, intents)

    def settle(self) -> None:
        """Give rows to all that are noted still and have none: no run is on that could tell of them."""
        self.forget_ended()
        self.keep(self._noted())
        self._connection.execute("DELETE FROM intents")
        self._open.clear()
        self._left.clear()

    def find(self, target: bytes) -> Intent | None:
        """What is noted of an output by a run that was killed, or is on."""
        if self._of_others is None:
            self._of_others = {intent.target: intent for intent in self._noted()}
        return self._of_others.get(target)

    def _noted(self) -> Iterator[Intent]:
        for (packed,) in self._connection.execute("SELECT outputs FROM intents").fetchall():
            fields = packed.split(b"\0")
            for target, source, stage in zip(fields[::3], fields[1::3], fields[2::3], strict=True):
                yield Intent(target, source, stage.decode())
