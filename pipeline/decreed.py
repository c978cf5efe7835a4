"""What a person has the ledger take as true of outputs: that they are made, or made by the recipe as it is now."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from pipeline.ledger import Ledger, kept_time
from pipeline.messages import Source


class Made(NamedTuple):
    """An output that is there, as made from a source by a recipe."""

    source: Source
    target: bytes
    """Its key."""
    stage: str
    recipe: int
    size_bytes: int
    mtime_ns: int


def adopt(ledger: Ledger, outputs: Iterable[Made], decree: int) -> None:
    """Record outputs as done, by a decree."""
    for each in outputs:
        source, size_bytes, mtime_ns = each.source, each.size_bytes, kept_time(each.mtime_ns)
        values = (each.target, source.path, each.stage, source.size_bytes, kept_time(source.mtime_ns), each.recipe)
        ledger.connection.execute(
            "INSERT OR REPLACE INTO outputs (target, source, stage, status, source_size, source_mtime_ns, recipe, size,"
            " mtime_ns, at_work, decree) VALUES (?, ?, ?, 'done', ?, ?, ?, ?, ?, 0, ?)",
            (*values, size_bytes, mtime_ns, decree),
        )
        ledger.failed.forget([(source.path, each.stage)])


def accept(ledger: Ledger, outputs: Iterable[tuple[bytes, int]], decree: int) -> None:
    """Record outputs, by their keys, as made by the recipes of these numbers, by a decree."""
    statement = "UPDATE outputs SET recipe = ?, decree = ? WHERE target = ?"
    ledger.connection.executemany(statement, ((recipe, decree, target) for target, recipe in outputs))
    ledger.forget_spans([(b"", None)])
