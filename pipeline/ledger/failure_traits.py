"""What failing files may have in common, and how many of all sources of a stage have that too."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Literal

from pipeline.ledger.failures import Failure
from pipeline.ledger.origins import is_group
from pipeline.records import NamedTuple

_MOST_BYTES = 2**62
_QUARTER_S = 900
# Folders of a path that are told apart, the outermost: nobody has telling ones below so many.
_MOST_FOLDERS = 20


class Trait(NamedTuple):
    """A folder, a suffix, a range of sizes in bytes, the seat of a worker, or a range of times in nanoseconds."""

    what: Literal["folder", "suffix", "size", "worker", "night"]
    first: bytes | int
    """The folder with its slash, the suffix with its dot, or the least number."""
    after: int = 0
    """What comes after the greatest number."""

    def covers(self, other: Trait) -> bool:
        """Return whether whatever is in another range is in this one."""
        first, theirs = self.first, other.first
        return isinstance(first, int) and isinstance(theirs, int) and first <= theirs and other.after <= self.after


def traits_of(failure: Failure) -> Iterator[Trait]:
    """Yield what a failing file may share with others; of a size its power of ten, of a group only worker and night."""
    if failure.seat is not None:
        yield Trait("worker", failure.seat, failure.seat + 1)
    if failure.first_failed_at is not None:
        yield night_of(failure.first_failed_at)
    if is_group(failure.source):
        return
    *folders, name = failure.source.split(b"/")
    folder = b""
    for each in folders[:_MOST_FOLDERS]:
        folder += each + b"/"
        yield Trait("folder", folder)
    dot = name.rfind(b".")
    if dot > 0:
        yield Trait("suffix", name[dot:].lower())
    if failure.source_size is not None:
        yield size_class(len(str(failure.source_size)) - 1 if failure.source_size else -1)


def size_class(power: int) -> Trait:
    """Return the sizes from a power of ten up to the next; from -1 that of nothing alone."""
    return Trait("size", 10**power, 10 ** (power + 1)) if power >= 0 else Trait("size", 0, 1)


def joined_sizes(classes: Sequence[Trait]) -> Iterator[Trait]:
    """Yield each range of sizes that begins or ends with one of these classes, and is open at its other end."""
    for each in classes:
        yield Trait("size", each.first, _MOST_BYTES)
        yield Trait("size", 0, each.after)


def night_of(at_ns: int) -> Trait:
    """Return the local day of a time."""
    return Trait("night", *_day_of(at_ns // (_QUARTER_S * 10**9)))


@lru_cache(4096)
def _day_of(quarter: int) -> tuple[int, int]:
    """Return the bounds of the local day of a quarter of an hour, since no day begins within one."""
    day = time.localtime(quarter * _QUARTER_S)[:3]
    begin, end = (time.mktime((*day[:2], day[2] + each, 0, 0, 0, 0, 0, -1)) for each in (0, 1))
    return int(begin) * 10**9, int(end) * 10**9


def count_having(connection: sqlite3.Connection, stage: str, traits: Sequence[Trait]) -> tuple[int, list[int]]:
    """Return the number of sources of a stage, with an output on record or failing, and of those with each trait.

    Of a source with an output its night is the one in which that was recorded. It costs a pass over the records.
    """
    sums, values = [], list[bytes | str | int]()
    for each in traits:
        condition, of_trait = _condition(each)
        sums.append(f"total({condition})")
        values += of_trait
    counts = ", ".join(["count(*)", *sums])
    # What stands for all parts of a source is one row.
    made = "(SELECT source, source_size, seat, recorded AS at FROM outputs WHERE stage = ?"
    made += " AND coalesce(part, '') = '' AND status != 'intended')"
    failing = "(SELECT source, source_size, seat, first_failed_at AS at FROM failures WHERE stage = ? AND NOT EXISTS"
    failing += " (SELECT 1 FROM outputs WHERE outputs.source = failures.source AND outputs.stage = failures.stage"
    failing += " AND coalesce(part, '') = '' AND status != 'intended'))"
    rows = [
        connection.execute(f"SELECT {counts} FROM {table}", (*values, stage)).fetchone() for table in (made, failing)
    ]
    total, *having = (int(one + other) for one, other in zip(*rows, strict=True))
    return total, having


def _condition(trait: Trait) -> tuple[str, tuple[bytes | str | int, ...]]:
    """Return the condition for a trait, and its parameters."""
    what, first, after = trait
    if isinstance(first, int):
        column = {"size": "source_size", "worker": "seat", "night": "at"}[what]
        return f"{column} >= ? AND {column} < ?", (first, after)
    if what == "folder":  # "0" is what comes after "/"
        return "source >= ? AND source < ?", (first, first[:-1] + b"0")
    return "lower(CAST(substr(source, ?) AS TEXT)) = CAST(? AS TEXT)", (-len(first), first)
