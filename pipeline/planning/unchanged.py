"""Runs of sources that are as the last run left them: known by one digest, and passed over whole.

    walk   --> spans of sources, with what stat says of them and of their outputs --> digest --+
                                                                                               +-- equal: nothing to do
    ledger --> spans of rows, with what they remember, made after every run       --> digest --+

A night in which nothing changed so reads one row for a thousand files. A span that differs is judged file by file.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import FileFailure
from pipeline.files.store import NO_FILE_STAT, store_of
from pipeline.files.template import Template
from pipeline.ledger.ledger import UnchangedRange
from pipeline.ledger.origins import kept_time
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import UP_TO_DATE, Reason, without_particulars

# A span begins where the checksum of a path ends in ten zeros: after about a thousand files, and at the same ones
# whatever else comes or goes, so that a new file changes no span but its own.
_MASK = 0x3FF
# What a span says, and how: one of another format is not equal to any, and so is made anew.
_FORMAT = b"4 "
# How a span says in the ledger why nothing is to be done about an output: that it is made, or was left out and why.
_MADE, _SKIPPED = "up to date", "skipped: "
# The columns of a row on which it depends whether anything is to be done: those up to `in_flight`.
_JUDGED_COLUMNS = OutputRecord._fields.index("in_flight") + 1


@dataclass(frozen=True)
class Place:
    """One output of the tree: its stage, where it goes, and the number of its recipe."""

    stage: str
    template: Template
    recipe: int | None


def spans_of(sources: Iterable[Source]) -> Iterator[tuple[list[Source], bytes | None]]:
    """The sources in spans, each with the path at which the next one begins; None after the last."""
    span: list[Source] = []
    for source in sources:
        if span and not zlib.crc32(source.path) & _MASK:
            yield span, source.path
            span = []
        span.append(source)
    if span:
        yield span, None


class Digests:
    """The digests of spans, for one tree of stages: another template or recipe makes every one of them another."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        self._stores = [store_of(place.template.folder) for place in places]
        self._by_stage = {place.stage: number for number, place in enumerate(places)}
        # Not what the stages are called: renaming one makes no difference.
        tree = repr([(each.template.key(each.template.folder), each.template.pieces, each.recipe) for each in places])
        self._tree = _FORMAT + tree.encode()

    def found(self, span: Sequence[Source]) -> bytes:
        """The digest of sources and of their outputs as they are."""
        paths, sizes, times = map(list, zip(*span, strict=True))
        numbers = sizes + times
        for place, store in zip(self._places, self._stores, strict=True):
            numbers += store.stat_many(place.template, paths)
        return self._digest(paths, numbers)

    def recorded(self, rows: Iterable[OutputRecord]) -> UnchangedRange | None:
        """What the ledger's rows of a span come to; None where one of them leaves anything to be done."""
        known = list(rows)
        return self._span(self._by_name(known)) or self._span(self._by_target(known))

    def _by_name(self, rows: Iterable[OutputRecord]) -> list[list[OutputRecord]]:
        """The rows of each place, going by what the stages are called."""
        by_place: list[list[OutputRecord]] = [[] for _ in self._places]
        nowhere: list[OutputRecord] = []
        for row in rows:
            number = self._by_stage.get(row.stage)
            (nowhere if number is None else by_place[number]).append(row)
        return [] if nowhere else by_place

    def _by_target(self, rows: Iterable[OutputRecord]) -> list[list[OutputRecord]]:
        """The same, going by where the outputs lie: stages may have been called otherwise when they were made."""
        by_place: list[list[OutputRecord]] = [[] for _ in self._places]
        for row in rows:
            fitting = (
                number for number, place in enumerate(self._places) if _targets(place, [row.source]) == [row.target]
            )
            if (number := next(fitting, None)) is None:
                return []
            by_place[number].append(row)
        return by_place

    def _span(self, by_place: list[list[OutputRecord]]) -> UnchangedRange | None:
        """The span of these rows; looked at column by column, since row by row would cost several times as much."""
        first: tuple[tuple[Any, ...], ...] | None = None
        outputs: list[int] = []
        counts, files = Counter[str](), Counter[str]()
        for place, rows in zip(self._places, by_place, strict=False):
            columns = list(zip(*rows, strict=True))[:_JUDGED_COLUMNS]
            if not columns:
                return None
            sources, targets, _, statuses, sizes, times, recipes, _, its_sizes, its_times, in_flight = columns
            first = first or (sources, sizes, times)
            is_settled = not any(in_flight) and set(recipes) == {place.recipe} and set(statuses) <= {"done", "skipped"}
            if not is_settled or (sources, sizes, times) != first or list(targets) != _targets(place, sources):
                return None
            are_done = [status == "done" for status in statuses]
            for numbers in (its_sizes, its_times):
                outputs += [
                    (number or 0) if done else NO_FILE_STAT for number, done in zip(numbers, are_done, strict=True)
                ]
            whys = Counter({_MADE: len(rows)}) if all(are_done) else Counter(map(_why, rows))
            files = files or whys
            counts += whys
        if first is None:
            return None
        paths, all_numbers = list(first[0]), [*first[1], *first[2], *outputs]
        both = {why: (count, files[why]) for why, count in counts.items()}
        return UnchangedRange(paths[0], None, len(paths), self._digest(paths, all_numbers), both)

    def _digest(self, paths: list[bytes], numbers: list[int]) -> bytes:
        digest = hashlib.blake2b(self._tree, digest_size=16)
        digest.update(b"\0".join(paths))
        try:
            digest.update(array("q", numbers))
        except OverflowError:  # a time past the year 2262, which the ledger keeps as it can
            digest.update(array("q", map(kept_time, numbers)))
        return digest.digest()


def _why(row: OutputRecord) -> str:
    return (
        _MADE
        if row.status == "done"
        else _SKIPPED + str(without_particulars(Reason("skipped", (row.reason,))).detail[0])
    )


def reason_in_span(kept: str) -> Reason:
    """Return the reason that a span keeps."""
    return UP_TO_DATE if kept == _MADE else Reason("skipped", (kept.removeprefix(_SKIPPED),))


def _targets(place: Place, sources: Sequence[bytes]) -> list[bytes]:
    """Where the outputs of sources lie, as the ledger keeps it; none where one of them can have none."""
    try:
        return [place.template.target_of(source) for source in sources]
    except FileFailure:
        return []
