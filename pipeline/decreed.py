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
    digest: bytes | None
    """Of what is in it; None where it cannot be read."""
    source_digest: bytes | None
    source_ctime_ns: int | None
    """These two under `changed_by: hash` only."""


def adopt(ledger: Ledger, outputs: Iterable[Made], decree: int) -> None:
    """Record outputs as done, by a decree."""
    columns = (
        "target, source, stage, status, source_size, source_mtime_ns, source_digest, source_ctime_ns, recipe, size,"
        " mtime_ns, digest, at_work, decree"
    )
    for each in outputs:
        source = each.source
        ledger.connection.execute(
            f"INSERT OR REPLACE INTO outputs ({columns}) VALUES (?, ?, ?, 'done', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (
                each.target, source.path, each.stage, source.size_bytes, kept_time(source.mtime_ns),
                each.source_digest, each.source_ctime_ns, each.recipe, each.size_bytes, kept_time(each.mtime_ns),
                each.digest, decree,
            ),
        )  # fmt: skip
        ledger.failed.forget([(source.path, each.stage)])


def accept(ledger: Ledger, outputs: Iterable[tuple[bytes, int]], decree: int) -> None:
    """Record outputs, by their keys, as made by the recipes of these numbers, by a decree."""
    statement = "UPDATE outputs SET recipe = ?, decree = ? WHERE target = ?"
    ledger.connection.executemany(statement, ((recipe, decree, target) for target, recipe in outputs))
    ledger.forget_spans([(b"", None)])
