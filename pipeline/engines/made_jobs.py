"""The outcomes of jobs that made all that they were to make, as rows: nearly all outcomes of a run over small files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from itertools import repeat
from typing import Any

from pipeline.messages import Job, Outcome, Result, Source, Usage
from pipeline.records import NamedTuple
from pipeline.worker.usage_meter import UsageRow

Row = tuple[Any, ...]

# A row has seconds, source_digest and peak_bytes, and for each result size_bytes, mtime_ns and digest.
ANSWER_WIDTH, MADE_WIDTH = 3, 3
SECONDS, PEAK_BYTES = 0, 2
NAMES, MADE = slice(0, 2), slice(6, 9)
BEFORE_MADE, AFTER_MADE = slice(2, 6), slice(9, None)
_done: Row = tuple(Result("", b"", "done"))
DONE, NOTHING_ELSE = _done[BEFORE_MADE], _done[AFTER_MADE]
# What an outcome has between its seconds and its source_digest, and between that and its peak_bytes.
SAID, MORE = slice(3, 6), slice(7, Outcome._fields.index("peak_bytes"))
_plain: Row = tuple(Outcome(Source(b"", 0, 0), ()))
NOTHING_SAID, NO_MORE = _plain[SAID], _plain[MORE]

# Does what `_make` of a named tuple does, in a third of its time.
made: Any = tuple.__new__


class MadeBatch(NamedTuple):
    """The jobs of one batch, the row of what each of them made, and the number of the worker's slot."""

    jobs: Sequence[Job]
    rows: Sequence[Row]
    seat: int
    usages: Sequence[UsageRow] = ()
    """What each job used; empty where no trace is written."""


class MadeGroup(NamedTuple):
    """Jobs of one batch that made outputs of the same stages, as MadeBatch has them."""

    stages: tuple[str, ...]
    jobs: Sequence[Job]
    rows: Sequence[Row]
    seat: int


class MadeJobs(Sequence[Outcome]):
    """The outcomes of jobs that made a file of each target, and of which there is nothing else to be said.

    They are recorded by their rows, many together; an outcome is made of a row only for who goes through them singly.
    """

    def __init__(self, batches: Iterable[MadeBatch]) -> None:
        self.batches = tuple(batches)
        self._count = sum([len(batch.rows) for batch in self.batches])

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Outcome]:
        for jobs, rows, seat, usages in self.batches:
            for job, row, usage in zip(jobs, rows, usages or repeat(None, len(jobs)), strict=True):
                yield outcome_of(job, row, seat, usage)

    def __getitem__(self, index: Any) -> Any:
        return self._outcomes[index]

    @cached_property
    def _outcomes(self) -> list[Outcome]:
        return list(self)

    @cached_property
    def groups(self) -> list[MadeGroup]:
        """The jobs of each batch that made outputs of the same stages; nearly always these are all of a batch."""
        found = []
        for jobs, rows, seat, _ in self.batches:
            only = [job.targets[0].stage for job in jobs if len(job.targets) == 1]
            if only and only.count(only[0]) == len(jobs):
                found.append(MadeGroup((only[0],), jobs, rows, seat))
                continue
            by_stages: dict[tuple[str, ...], list[tuple[Job, Row]]] = {}
            for job, row in zip(jobs, rows, strict=True):
                by_stages.setdefault(tuple([target.stage for target in job.targets]), []).append((job, row))
            for stages, those in by_stages.items():
                found.append(MadeGroup(stages, [job for job, _ in those], [row for _, row in those], seat))
        return found


def outcome_of(job: Row, row: Row, seat: int, usage: UsageRow | None) -> Outcome:
    """Return the outcome of a job that is answered by a row."""
    targets: Sequence[Row] = job[1]
    at, results = ANSWER_WIDTH, []
    for target in targets:
        results.append(made(Result, target[NAMES] + DONE + row[at : at + MADE_WIDTH] + NOTHING_ELSE))
        at += MADE_WIDTH
    seconds, source_digest, peak_bytes = row[:ANSWER_WIDTH]
    head = job[0], tuple(results), seconds, *NOTHING_SAID, source_digest, *NO_MORE, peak_bytes, seat
    outcome: Outcome = made(Outcome, (*head, usage and Usage(*usage, seat)))
    return outcome
