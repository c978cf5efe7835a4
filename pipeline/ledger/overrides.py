"""The table of overrides: what a person had the ledger take as true, such as by `accept` and `adopt`.

An override stays on record, and the outputs whose records it set carry its number.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.ledger.intents import RESEAL
from pipeline.ledger.origins import columns_of, kept_time
from pipeline.messages import Origin
from pipeline.records import NamedTuple

_INSERT_ADOPTED = """
INSERT OR REPLACE INTO outputs
    (target, source, stage, status, source_size, source_mtime_ns, source_digest, source_ctime_ns, recipe, size,
    mtime_ns, digest, at_work, decree, recorded)
VALUES (?, ?, ?, 'done', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?, ?)
"""


class Override(NamedTuple):
    """One thing that a person had the ledger take as true."""

    number: int
    at: float
    """Seconds since 1970."""
    verb: str
    """The command that set it."""
    details: dict[str, Any]
    """Plain data, to be shown."""


class AdoptedOutput(NamedTuple):
    """An output that somebody else made, taken as made from a source or a group by a recipe."""

    origin: Origin
    target: bytes
    stage: str
    recipe: int
    size_bytes: int
    mtime_ns: int
    digest: bytes | None
    """The digest of its contents; None if they cannot be read."""
    source_digest: bytes | None
    """This and `source_ctime_ns` are set under `changed_by: hash` only."""
    source_ctime_ns: int | None


class Overrides:
    """The ledger's table of overrides."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def add(self, verb: str, details: dict[str, Any]) -> int:
        """Record an override, and return its number."""
        values = (time.time(), verb, json.dumps(details))
        cursor = self._connection.execute("INSERT INTO decrees (at, verb, said) VALUES (?, ?, ?)", values)
        return int(cursor.lastrowid or 0)

    def all(self) -> Iterator[Override]:
        """Yield the overrides, the oldest first."""
        for number, at, verb, details in self._connection.execute("SELECT * FROM decrees ORDER BY id"):
            yield Override(number, at, verb, json.loads(details))

    def get(self, number: int) -> Override | None:
        """Return one override."""
        return next((each for each in self.all() if each.number == number), None)

    def adopt(self, outputs: Iterable[AdoptedOutput], override: int) -> None:
        """Record outputs as done, by an override, and forget their failures."""
        for each in outputs:
            source, source_size, source_mtime_ns = columns_of(each.origin)
            self._connection.execute(
                _INSERT_ADOPTED,
                (
                    each.target, source, each.stage, source_size, source_mtime_ns,
                    each.source_digest, each.source_ctime_ns, each.recipe, each.size_bytes, kept_time(each.mtime_ns),
                    each.digest, override, time.time_ns(),
                ),
            )  # fmt: skip
            self._connection.execute(RESEAL, (each.target,))
            forget = "DELETE FROM failures WHERE source = ? AND stage = ?"
            self._connection.execute(forget, (source, each.stage))

    def accept(self, outputs: Iterable[tuple[bytes, int]], override: int) -> None:
        """Record outputs, each given by its target, as made by the recipe of a number, by an override."""
        statement = "UPDATE outputs SET recipe = ?, decree = ? WHERE target = ?"
        for target, recipe in outputs:
            self._connection.execute(statement, (recipe, override, target))
            self._connection.execute(RESEAL, (target,))
        self._connection.execute("DELETE FROM spans")
