"""The outcomes of jobs that made all that they were to make, as rows: nearly all outcomes of a run over small files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

from pipeline.messages import Job, Outcome, Result, Source

Row = tuple[Any, ...]

# A row has seconds, source_digest and peak_bytes, and for each result size_bytes, mtime_ns and digest.
ANSWER_WIDTH, MADE_WIDTH = 3, 3
NAMES, MADE = slice(0, 2), slice(6, 9)
BEFORE_MADE, AFTER_MADE = slice(2, 6), slice(9, None)
_done: Row = tuple(Result("", b"", "done"))
DONE, NOTHING_ELSE = _done[BEFORE_MADE], _done[AFTER_MADE]
# What an outcome has between its seconds and its source_digest, and between that and its peak_bytes.
SAID, MORE = slice(3, 6), slice(7, 13)
_plain: Row = tuple(Outcome(Source(b"", 0, 0), ()))
NOTHING_SAID, NO_MORE = _plain[SAID], _plain[MORE]

# Does what `_make` of a named tuple does, in a third of its time.
made: Any = tuple.__new__


class MadeBatch(NamedTuple):
    """The jobs of one batch, the row of what each of them made, and the number of the worker's slot."""

    jobs: Sequence[Job]
    rows: Sequence[Row]
    seat: int


class MadeJobs(Sequence[Outcome]):
    """The outcomes of jobs that made a file of each target, and of which there is nothing else to be said.

    They are recorded by their rows, many together; an outcome is made of a row only for who goes through them singly.
    """

    def __init__(self, batches: Iterable[MadeBatch]) -> None:
        self.batches = tuple(batches)

    def __len__(self) -> int:
        return sum(len(batch.rows) for batch in self.batches)

    def __iter__(self) -> Iterator[Outcome]:
        for jobs, rows, seat in self.batches:
            for job, row in zip(jobs, rows, strict=True):
                yield outcome_of(job, row, seat)

    def __getitem__(self, index: Any) -> Any:
        return list(self)[index]

    @cached_property
    def by_stages(self) -> dict[tuple[str, ...], list[tuple[Source, Row]]]:
        """The source and the row of each job, by the stages of which it made outputs."""
        found: dict[tuple[str, ...], list[tuple[Source, Row]]] = {}
        for jobs, rows, _ in self.batches:
            stages = [tuple([target.stage for target in job.targets]) for job in jobs]
            sources = zip([job.source for job in jobs], rows, strict=True)
            if stages.count(stages[0]) == len(stages):  # as nearly always
                found.setdefault(stages[0], []).extend(sources)
                continue
            for of_job, each in zip(stages, sources, strict=True):
                found.setdefault(of_job, []).append(each)
        return found


def outcome_of(job: Row, row: Row, seat: int) -> Outcome:
    """Return the outcome of a job that is answered by a row."""
    targets: Sequence[Row] = job[1]
    at, results = ANSWER_WIDTH, []
    for target in targets:
        results.append(made(Result, target[NAMES] + DONE + row[at : at + MADE_WIDTH] + NOTHING_ELSE))
        at += MADE_WIDTH
    seconds, source_digest, peak_bytes = row[:ANSWER_WIDTH]
    outcome: Outcome = made(
        Outcome, (job[0], tuple(results), seconds, *NOTHING_SAID, source_digest, *NO_MORE, peak_bytes, seat)
    )
    return outcome
