"""Finds ranges of sources that are unchanged since the last run, by one digest each, to pass over them whole.

    walk   --> ranges of sources, with stat of them and of their outputs --> digest --+
                                                                                      +-- equal: nothing to do
    ledger --> the records of a range, after every run                   --> digest --+

So a run without changes reads one row of the ledger per thousand files. A changed range is compared file by file.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.errors import FileFailure
from pipeline.files.store import NO_FILE_STAT
from pipeline.files.template import Template
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.decisions import UP_TO_DATE, Reason, without_particulars
from pipeline.planning.ranges import DiskDigests, RangeOutput
from pipeline.planning.recipe import OutputSpec

Range = tuple[bytes, bytes | None]
"""The first path of a range of sources, and the first after it; None where the range has no end."""

# The reasons why an output is up to date, as the ledger keeps them with a range.
_MADE, _SKIPPED = "up to date", "skipped: "
# The fields of a record that decide whether its output is up to date: those through `in_flight`.
_COMPARED_FIELDS = OutputRecord._fields.index("in_flight") + 1


def settled_ranges(ledger: Ledger, specs: Iterable[OutputSpec], ranges: Iterable[Range]) -> Iterator[UnchangedRange]:
    """Yield the ranges in which a run has left every output up to date."""
    digests = RangeDigests(spec for spec in specs if not spec.gathers)
    for first, after in ranges:
        has_failed = next(ledger.failures.all(first, after, of_files=True), None) is not None
        settled = None if has_failed else digests.recorded(ledger.outputs.all(first, after, of_files=True))
        if settled:
            yield settled._replace(after=after)


class RangeDigests(DiskDigests):
    """The digests of ranges, by their files on disk and by their records."""

    def __init__(self, specs: Iterable[OutputSpec]) -> None:
        super().__init__([
            RangeOutput(spec.stage, spec.template, spec.number) for spec in specs if isinstance(spec.template, Template)
        ])  # fmt: skip
        self._by_stage = {output.stage: number for number, output in enumerate(self.outputs)}

    def recorded(self, records: Iterable[OutputRecord]) -> UnchangedRange | None:
        """Return the range of these records; None where an output of any of them is not up to date."""
        known = list(records)
        return self._range(self._by_name(known)) or self._range(self._by_target(known))

    def _by_name(self, records: Iterable[OutputRecord]) -> list[list[OutputRecord]]:
        """Return the records of each output, found by the names of their stages; none if a stage is unknown."""
        by_output: list[list[OutputRecord]] = [[] for _ in self.outputs]
        for record in records:
            number = self._by_stage.get(record.stage)
            if number is None:
                return []
            by_output[number].append(record)
        return by_output

    def _by_target(self, records: Iterable[OutputRecord]) -> list[list[OutputRecord]]:
        """Return the records of each output, found by their targets, since a stage may have been renamed."""
        by_output: list[list[OutputRecord]] = [[] for _ in self.outputs]
        for record in records:
            fitting = (
                number for number, output in enumerate(self.outputs)
                if _targets(output, [record.source]) == [record.target]
            )  # fmt: skip
            if (number := next(fitting, None)) is None:
                return []
            by_output[number].append(record)
        return by_output

    def _range(self, by_output: list[list[OutputRecord]]) -> UnchangedRange | None:
        """Return the range of these records; None where an output is not up to date.

        The records are compared column by column, since one by one takes several times as long.
        """
        first: tuple[tuple[Any, ...], ...] | None = None
        stats: list[int] = []
        counts, files = Counter[str](), Counter[str]()
        for output, records in zip(self.outputs, by_output, strict=False):
            columns = list(zip(*records, strict=True))[:_COMPARED_FIELDS]
            if not columns:
                return None
            first = first or (columns[0], columns[4], columns[5])
            if not _is_settled(output, columns, first):
                return None
            are_done = [status == "done" for status in columns[3]]
            for numbers in (columns[8], columns[9]):
                stats += [
                    (number or 0) if done else NO_FILE_STAT for number, done in zip(numbers, are_done, strict=True)
                ]
            reasons = Counter({_MADE: len(records)}) if all(are_done) else Counter(map(_kept_reason, records))
            files = files or reasons
            counts += reasons
        if first is None:
            return None
        paths, numbers_of_all = list(first[0]), [*first[1], *first[2], *stats]
        both = {reason: (count, files[reason]) for reason, count in counts.items()}
        return UnchangedRange(paths[0], None, len(paths), self.of(paths, numbers_of_all), both)


def _is_settled(output: RangeOutput, columns: Sequence[tuple[Any, ...]], first: tuple[tuple[Any, ...], ...]) -> bool:
    """Return whether all records of an output are final, have its recipe, and have the sources of the first output."""
    sources, targets, _, statuses, sizes, times, recipes, *_, in_flight = columns
    return (
        not any(in_flight)
        and set(recipes) == {output.recipe}
        and set(statuses) <= {"done", "skipped"}
        and (sources, sizes, times) == first
        and list(targets) == _targets(output, sources)
    )


def _kept_reason(record: OutputRecord) -> str:
    """Return why an output is up to date, as the ledger keeps it with a range."""
    if record.status == "done":
        return _MADE
    return _SKIPPED + str(without_particulars(Reason("skipped", (record.reason,))).detail[0])


def reason_in_range(kept: str) -> Reason:
    """Return the reason that the ledger keeps with a range."""
    return UP_TO_DATE if kept == _MADE else Reason("skipped", (kept.removeprefix(_SKIPPED),))


def _targets(output: RangeOutput, sources: Sequence[bytes]) -> list[bytes]:
    """Return the targets of an output of these sources; none where one of them has no valid path."""
    try:
        return [output.template.target_of(source) for source in sources]
    except FileFailure:
        return []
