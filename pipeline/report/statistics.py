"""Adds up a run as it goes, in memory that does not grow with its files: times, sizes, failures, and a sample.

Nearly all outcomes of a run over small files come as rows, many together; these are added up column by column.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import field
from heapq import heappush, heapreplace
from itertools import compress
from typing import Any

from pipeline.engines.made_jobs import ANSWER_WIDTH, MADE_WIDTH, PEAK_BYTES, SECONDS, MadeJobs, Row
from pipeline.messages import MOVED, Group, Origin, Outcome, Result, Source
from pipeline.observer import RunObserver
from pipeline.records import NamedTuple, dataclass
from pipeline.report.whole_files import WholeFiles
from pipeline.text import in_general, shortened

# The steps of the timeline: it is drawn so many points wide at most, and a run of a second still has eight of them.
STEPS, _FIRST_STEP_S = 120, 0.125
# How many of the slowest and of the biggest jobs are kept.
_TOP = 20
# Outputs of which the pictures and texts to show are chosen at the end, so that a tenth of them gives enough.
_SAMPLED = 256
# Failures of so many kinds are told apart, each with so many files as examples.
_KINDS, _EXAMPLES = 50, 5
# Characters that are kept of each text of a failure, and of all of them together: the report stays below 1 MB.
_TEXT, _ALL_TEXTS = 3_940, 150_000
# What is kept of a text once those of other failures have taken all room.
_SCANT = 200
# What is counted together where failures are of more kinds than are told apart.
OTHERS = "other reasons"


class Made(NamedTuple):
    """One output, of the sample."""

    source: bytes
    bytes_in: int
    stage: str
    path: bytes
    bytes_out: int


class JobFigures(NamedTuple):
    """What one job took."""

    origin: Origin
    stages: tuple[str, ...]
    seconds: float
    bytes_in: int
    bytes_out: int
    peak_bytes: int | None
    seat: int | None


@dataclass
class SeatFigures:
    """What the workers of one slot did."""

    files: int = 0
    """A file counts in each pool that it passes through."""
    busy_s: float = 0.0
    peak_bytes: int = 0


@dataclass
class SizeFigures:
    """What the jobs over files of one class of sizes took."""

    files: int = 0
    total_s: float = 0.0
    slowest_s: float = 0.0

    def add(self, files: int, total_s: float, slowest_s: float) -> None:
        """Count files."""
        self.files += files
        self.total_s += total_s
        if slowest_s > self.slowest_s:
            self.slowest_s = slowest_s


class FailedOutput(NamedTuple):
    """One failed output, as an example."""

    origin: Origin
    stage: str
    kind: str
    text: str
    place: str = ""
    detail: str = ""
    output: str = ""
    seat: int | None = None
    is_new: bool = False


@dataclass
class ReportGroup:
    """Failures of one stage, of one kind, for one reason."""

    files: int = 0
    """The number of files, and groups, that failed, whatever was to be made of each."""
    last: Origin | None = None
    """The one that failed last, since the outputs of one follow each other."""
    is_new: bool = False
    """Whether any of them is new."""
    examples: list[FailedOutput] = field(default_factory=list)


GroupKey = tuple[str, str, str]
"""The stage, the kind and the reason of failures."""


class FailureGroups:
    """The failures of a run by stage, kind and reason; how many kinds and how much text is kept is bounded."""

    def __init__(self) -> None:
        self.groups: dict[GroupKey, ReportGroup] = {}
        self._room = _ALL_TEXTS

    def key_of(self, failed: FailedOutput) -> GroupKey:
        """Return the stage, the kind and the reason under which a failure is counted."""
        key = failed.stage, failed.kind, in_general(failed.text)[:_SCANT]
        return key if key in self.groups or len(self.groups) < _KINDS else ("", "", OTHERS)

    def add(self, failed: FailedOutput) -> None:
        """Count a file by one of its failed outputs."""
        group = self.groups.setdefault(self.key_of(failed), ReportGroup())
        group.is_new = group.is_new or failed.is_new
        if failed.origin == group.last:
            return
        group.files += 1
        group.last = failed.origin
        if len(group.examples) < _EXAMPLES:
            group.examples.append(self.shorten(failed))

    def mark_new(self, failed: FailedOutput) -> FailedOutput:
        """Mark a failure as new, also among the examples; return it with its details."""
        group = self.groups.get(self.key_of(failed))
        if group is None:
            return failed
        group.is_new = True
        for at, each in enumerate(group.examples):
            if (each.stage, str(each.origin)) == (failed.stage, str(failed.origin)):
                group.examples[at] = failed = each._replace(is_new=True)
        return failed

    def shorten(self, failed: FailedOutput) -> FailedOutput:
        """Return a failure with its texts cut to the room that is left for such."""
        text, detail, output = map(self._cut, (failed.text, failed.detail, failed.output))
        return failed._replace(text=text, detail=detail, output=output)

    def _cut(self, text: str) -> str:
        text = shortened(text, max(_SCANT, min(_TEXT, self._room)))
        self._room -= len(text)
        return text


class Timeline:
    """How many files ended, and how many of them failed, in each step of time; steps get longer as the run does."""

    def __init__(self) -> None:
        self.start = time.time()
        self.step_s = _FIRST_STEP_S
        self.files = [0]
        self.failed = [0]
        # The clock on the wall may be set meanwhile.
        self._began = time.monotonic()

    def add(self, files: int, failed: int = 0) -> None:
        """Count files that have just ended."""
        at = int((time.monotonic() - self._began) / self.step_s)
        while at >= STEPS:
            self.files, self.failed = _halved(self.files), _halved(self.failed)
            self.step_s *= 2
            at //= 2
        if missing := at + 1 - len(self.files):
            self.files += [0] * missing
            self.failed += [0] * missing
        self.files[at] += files
        self.failed[at] += failed


def _halved(counts: list[int]) -> list[int]:
    """Return the sums of each two counts."""
    return [sum(counts[at : at + 2]) for at in range(0, len(counts), 2)]


class Top:
    """The jobs with the largest value, of which few are looked at: nearly all are below the least that is kept."""

    def __init__(self) -> None:
        self.least = -1.0
        """A job with no more than this is none of them."""
        self._heap: list[tuple[float, int, JobFigures]] = []
        self._added = 0

    def add(self, value: float, job: JobFigures) -> None:
        """Add a job whose value is above `least`."""
        self._added += 1  # tells jobs with the same value apart
        if len(self._heap) < _TOP:
            heappush(self._heap, (value, self._added, job))
        else:
            heapreplace(self._heap, (value, self._added, job))
        if len(self._heap) == _TOP:
            self.least = self._heap[0][0]

    def jobs(self) -> list[JobFigures]:
        """Return the jobs, that with the largest value first."""
        return [job for _, _, job in sorted(self._heap, key=lambda each: (-each[0], each[1]))]


class Reservoir:
    """A sample of a stream, each element as likely as any other: Li's algorithm L, which skips most elements unseen."""

    def __init__(self, size: int, seed: str) -> None:
        self.sample: list[Made] = []
        self._size = size
        self._chance = random.Random(seed)
        self._until = 0
        """How many more elements are passed over before one is taken."""
        self._weight = 1.0

    def places(self, count: int) -> Iterator[int]:
        """Yield which of the next `count` elements are taken; `add` must be called with each."""
        at = self._until
        while at < count:
            yield at
            at += 1 + self._gap()
        self._until = at - count

    def add(self, made: Made) -> None:
        """Take an element, in the place of one of those before where there is no room."""
        if len(self.sample) < self._size:
            self.sample.append(made)
        else:
            self.sample[self._chance.randrange(self._size)] = made

    def _gap(self) -> int:
        """Return how many elements are passed over before the next one."""
        if len(self.sample) < self._size:
            return 0
        self._weight *= math.exp(math.log(1.0 - self._chance.random()) / self._size)
        return math.floor(math.log(1.0 - self._chance.random()) / math.log1p(-self._weight))


class Statistics(RunObserver):
    """The figures of a run, from the outcomes of its jobs."""

    def __init__(self, seed: str) -> None:
        self.files = 0
        """The number of files, and groups, that have ended."""
        self.bytes_in = 0
        """The size of what the jobs read that made anything, each source once."""
        self.bytes_out = 0
        self._whole_files = WholeFiles()
        self.timeline = Timeline()
        self.seats: dict[int, SeatFigures] = {}
        self.sizes: dict[int, SizeFigures] = {}
        """By the number of bits of the size."""
        self.failures = FailureGroups()
        self.slowest = Top()
        self.biggest = Top()
        self.sampled = Reservoir(_SAMPLED, seed)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        if not isinstance(outcomes, MadeJobs):
            super().on_outcomes(outcomes)
            return
        self.files += len(outcomes)
        self.timeline.add(len(outcomes))
        for stages, jobs, rows, seat in outcomes.groups:
            self._add_rows(stages, jobs, rows, seat)

    def _add_rows(self, stages: tuple[str, ...], jobs: Sequence[Any], rows: Sequence[Row], seat: int) -> None:
        """Add jobs that made an output of each of these stages."""
        columns = list(zip(*rows, strict=True))
        seconds, peaks = columns[SECONDS], columns[PEAK_BYTES]
        sizes = [job[0][1] for job in jobs]
        self.bytes_in += sum(sizes)
        self.bytes_out += sum(map(sum, columns[ANSWER_WIDTH::MADE_WIDTH]))
        self._add_to_seat(seat, len(rows), sum(seconds), max(filter(None, peaks), default=0))
        self._add_sizes(sizes, seconds)
        for top, values in (self.slowest, seconds), (self.biggest, sizes):
            if max(values) > top.least:
                self._add_to_top(top, values, stages, jobs, rows, seat)
        for at in self.sampled.places(len(rows) * len(stages)):
            place, which = divmod(at, len(stages))
            source, target = jobs[place][0], jobs[place][1][which]
            written = rows[place][ANSWER_WIDTH + MADE_WIDTH * which]
            self.sampled.add(Made(source[0], source[1], target[0], target[1], written))

    def _add_sizes(self, sizes: Sequence[int], seconds: Sequence[float]) -> None:
        bits = list(map(int.bit_length, sizes))
        for each in set(bits):
            those = seconds if bits.count(each) == len(bits) else list(compress(seconds, map(each.__eq__, bits)))
            self._size_class(each).add(len(those), sum(those), max(those))

    def _add_to_top(
        self,
        top: Top,
        values: Sequence[float],
        stages: tuple[str, ...],
        jobs: Sequence[Any],
        rows: Sequence[Row],
        seat: int,
    ) -> None:
        for value, job, row in zip(values, jobs, rows, strict=True):
            if value > top.least:
                written = sum(row[ANSWER_WIDTH::MADE_WIDTH])
                top.add(value, JobFigures(job[0], stages, row[SECONDS], job[0][1], written, row[PEAK_BYTES], seat))

    def _size_class(self, bits: int) -> SizeFigures:
        return self.sizes.get(bits) or self.sizes.setdefault(bits, SizeFigures())

    def _add_to_seat(self, seat: int | None, files: int, busy_s: float, peak_bytes: int) -> None:
        figures = self.seats.get(seat or 0) or self.seats.setdefault(seat or 0, SeatFigures())
        figures.files += files
        figures.busy_s += busy_s
        if peak_bytes > figures.peak_bytes:
            figures.peak_bytes = peak_bytes

    def on_outcome(self, outcome: Outcome) -> None:
        self._add_to_seat(outcome.seat, 1, outcome.seconds, outcome.peak_bytes or 0)
        for lost in outcome.lost:
            self._add_to_seat(lost.seat, 0, lost.seconds, 0)
        for each in outcome.results:
            if each.is_failure:
                self.failures.add(failure_of(outcome, each))
        if whole := self._whole_files.add(outcome):
            self._add_file(whole)

    def on_jobs_ended(self) -> None:
        for each in self._whole_files.take_rest():
            self._add_file(each)

    def _add_file(self, outcome: Outcome) -> None:
        """Add what all pools have done for a file, or a group."""
        origin, results = outcome.origin, outcome.results
        self.files += 1
        self.timeline.add(1, any(each.is_failure for each in results))
        size_bytes = origin.size_bytes if isinstance(origin, Source) else outcome.bytes_in
        written = sum(map(_bytes_of, results))
        if any(each.status == "done" for each in results):
            self.bytes_in += size_bytes
            self.bytes_out += written
        self._size_class(size_bytes.bit_length()).add(1, outcome.spent_s, outcome.spent_s)
        self._add_job(outcome, size_bytes, written)
        if not isinstance(origin, Group):
            made = [(result.stage, *file) for result in results for file in _files_of(result)]
            for at in self.sampled.places(len(made)):
                stage, path, size = made[at]
                self.sampled.add(Made(origin.path, size_bytes, stage, path, size))

    def _add_job(self, outcome: Outcome, size_bytes: int, written: int) -> None:
        stages = tuple(dict.fromkeys(each.stage for each in outcome.results))
        seconds = outcome.spent_s
        job = JobFigures(outcome.origin, stages, seconds, size_bytes, written, outcome.peak_bytes, outcome.seat)
        if seconds > self.slowest.least:
            self.slowest.add(seconds, job)
        if size_bytes > self.biggest.least:
            self.biggest.add(size_bytes, job)


def failure_of(outcome: Outcome, result: Result) -> FailedOutput:
    """Return a failed result as an example."""
    return FailedOutput(
        outcome.origin, result.stage, result.kind or "error", result.text, result.place, result.detail, outcome.output,
        outcome.seat, is_new=result.kind in MOVED,
    )  # fmt: skip


def _files_of(result: Result) -> list[tuple[bytes, int]]:
    """Return path and size of the files that a result has made."""
    if result.parts:
        return [(part.path, part.size_bytes) for part in result.parts]
    return [(result.path, result.size_bytes)] if result.digest else []


def _bytes_of(result: Result) -> int:
    return sum(size for _, size in _files_of(result))
