"""What a person has the ledger take as true of outputs: that they are made, or made by the recipe as it is now."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import columns_of, kept_time
from pipeline.messages import Origin
from pipeline.text import counted, planned_reason


class Tally:
    """How many outputs a decree is to be about, by stage, and how many it cannot be about, with why not."""

    def __init__(self, found: Iterable[tuple[str, str]]) -> None:
        counts = Counter((stage, planned_reason("make", why)) for stage, why in found)
        self.fit = {stage: count for (stage, why), count in counts.items() if not why}
        self.left = {key: count for key, count in counts.items() if key[1]}

    @property
    def total(self) -> int:
        """How many it is to be about."""
        return sum(self.fit.values())

    def lines(self, *, some: str, none: str, left: str) -> Iterator[str]:
        """What is shown of it: the count with what is said of `some`, or that there are `none`; and what is `left`."""
        yield f"{counted(self.total, 'output')} {some}" if self.fit else f"no outputs {none}"
        yield from (f"  {count:>9,}  {stage}" for stage, count in self.fit.items())
        if self.left:
            yield f"{counted(sum(self.left.values()), 'output')} left, {left}"
        yield from (f"  {count:>9,}  {stage}: {why}" for (stage, why), count in self.left.items())


class Made(NamedTuple):
    """An output that is there, as made from a source or a group by a recipe."""

    origin: Origin
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
        source, source_size, source_mtime_ns = columns_of(each.origin)
        ledger.connection.execute(
            f"INSERT OR REPLACE INTO outputs ({columns}) VALUES (?, ?, ?, 'done', ?, ?, ?, ?, ?, ?, ?, ?, 0, ?)",
            (
                each.target, source, each.stage, source_size, source_mtime_ns,
                each.source_digest, each.source_ctime_ns, each.recipe, each.size_bytes, kept_time(each.mtime_ns),
                each.digest, decree,
            ),
        )  # fmt: skip
        ledger.failed.forget([(source, each.stage)])


def accept(ledger: Ledger, outputs: Iterable[tuple[bytes, int]], decree: int) -> None:
    """Record outputs, by their keys, as made by the recipes of these numbers, by a decree."""
    statement = "UPDATE outputs SET recipe = ?, decree = ? WHERE target = ?"
    for target, recipe in outputs:
        ledger.connection.execute(statement, (recipe, decree, target))
    ledger.forget_spans([(b"", None)])
