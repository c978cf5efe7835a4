"""What the ledger holds of the pipeline as a whole: facts about it, and decrees of its owner.

A fact is what a run found, such as where the outputs lie. A decree is what a person had the ledger take as true, such
as by `accept` or `adopt`; it stays on record, and the rows that say what they do because of it carry its number.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from typing import Any, NamedTuple


class Facts:
    """The ledger's table of facts: any plain data, by name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Any:
        """A fact; None where there is none of that name."""
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def set(self, name: str, value: Any) -> None:
        """Remember a fact, in place of the one of that name."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def forget(self, name: str) -> None:
        """Forget a fact."""
        self._connection.execute("DELETE FROM facts WHERE name = ?", (name,))


class Decree(NamedTuple):
    """What a person had the ledger take as true."""

    number: int
    at: float
    """Seconds since 1970."""
    verb: str
    said: dict[str, Any]


class Decrees:
    """The ledger's table of decrees."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, verb: str, said: dict[str, Any]) -> int:
        """Put one on record; gives its number."""
        values = (time.time(), verb, json.dumps(said))
        cursor = self._connection.execute("INSERT INTO decrees (at, verb, said) VALUES (?, ?, ?)", values)
        return int(cursor.lastrowid or 0)

    def all(self) -> Iterator[Decree]:
        """Every one, the oldest first."""
        for number, at, verb, said in self._connection.execute("SELECT * FROM decrees ORDER BY id"):
            yield Decree(number, at, verb, json.loads(said))
