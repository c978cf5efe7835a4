"""What jobs are expected to take: seconds, memory and bytes written, by their outputs and the size of their source.

It is learnt from the outcomes of jobs, and kept in the ledger as one fact of a few kilobytes, whatever the number of
files: for each set of stages that jobs made outputs of, and each class of sizes (powers of two), a running mean.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, field
from itertools import pairwise
from typing import Any

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import MadeRow
from pipeline.messages import Job, Origin, Outcome, Result, Source
from pipeline.records import dataclass

_FACT = "learnt"
# A mean forgets slowly: after this many jobs the latest weighs as much as all others before it together.
_REMEMBERED = 256
# Of jobs that take less only every eighth is looked at, once so many were: they are many, and much alike.
_CHEAP_S, _ENOUGH, _EVERY = 0.001, 512, 8
# The latest jobs of a class whose peaks are kept, and one in how many may need more than is expected of the class: else
# a single strange file would make all that are of its size look as large.
_PEAKS, _STRANGE = 20, 10
# How many powers of two above the largest size that is known a peak is thought to grow with the size.
_FORESEEN = 2

# The largest file that is told from others, of a terabyte.
_MOST_BITS = 41

Stages = tuple[str, ...]


@dataclass
class SizeClass:
    """What is known of the jobs with one set of outputs whose sources are within a factor of two in size."""

    jobs: int = 0
    mean_s: float = 0.0
    variance_s2: float = 0.0
    slowest_s: float = 0.0
    mean_bytes_out: float = 0.0
    peaks: list[int] = field(default_factory=list)
    """The most memory that a worker held in each of the latest jobs."""

    def add(self, seconds: float, bytes_out: int) -> None:
        """Take a job into account."""
        self.jobs += 1
        weight = 1 / min(self.jobs, _REMEMBERED)
        off = seconds - self.mean_s
        self.mean_s += weight * off
        self.variance_s2 += weight * (off * (seconds - self.mean_s) - self.variance_s2)
        self.mean_bytes_out += weight * (bytes_out - self.mean_bytes_out)
        if seconds > self.slowest_s:
            self.slowest_s = seconds

    def add_peak(self, peak_bytes: int) -> None:
        """Take the memory of a job's worker into account."""
        self.peaks.append(peak_bytes)
        del self.peaks[:-_PEAKS]

    @property
    def expected_peak_bytes(self) -> int | None:
        """The memory to which the workers of nine in ten such jobs keep; None if unknown."""
        return sorted(self.peaks)[-1 - len(self.peaks) // _STRANGE] if self.peaks else None


SizeClasses = dict[int, SizeClass]
"""The classes of one set of outputs, by the number of bits of the size."""


class Learnt:
    """Learns from the outcomes of jobs, and tells what others are expected to take."""

    def __init__(self) -> None:
        self._classes: dict[Stages, SizeClasses] = {}
        self._cheap = 0
        self.has_news = False
        """True if anything was learnt since it was loaded or saved."""
        self.busy_s = 0.0
        """The seconds that all jobs took together since it was loaded."""

    @classmethod
    def load(cls, ledger: Ledger) -> Learnt:
        """Return what earlier runs have learnt; nothing where the ledger has nothing to tell."""
        learnt = cls()
        try:
            rows: list[tuple[Sequence[str], int, dict[str, Any]]] = ledger.facts.get(_FACT) or []
            for stages, bits, fields in rows:
                learnt._class_of(tuple(stages), int(bits), SizeClass(**fields))
        except (ValueError, TypeError):  # it is no promise that a run rests on
            return cls()
        return learnt

    def save(self, ledger: Ledger) -> None:
        """Record all that is known, in place of what was, if there is anything new."""
        if not self.has_news:
            return
        self.has_news = False
        rows = [
            (stages, bits, asdict(known))
            for stages, classes in self._classes.items()
            for bits, known in sorted(classes.items())
        ]
        ledger.facts.set(_FACT, rows)

    # -- learning ------------------------------------------------------------------------------------------------------

    def add(self, outcome: Outcome) -> None:
        """Learn from the outcome of a job; called for every job."""
        seconds = outcome.seconds
        self.busy_s += seconds
        if seconds < _CHEAP_S:
            self._cheap += 1
            if self._cheap > _ENOUGH and self._cheap % _EVERY:
                return
        results = outcome.results
        if not results or outcome.environment or any(result.status == "failed" for result in results):
            return  # it may have ended early
        stages, bytes_out = _in_order(result.stage for result in results), sum(map(_bytes_of, results))
        self._add(stages, _size_of(outcome.origin), seconds, bytes_out, outcome.peak_bytes)

    def add_made(self, stages: Stages, jobs: Sequence[Job], rows: Sequence[MadeRow]) -> None:
        """Learn from jobs that made an output of each of these stages, as `add` does from each."""
        stages, cheap = _in_order(stages), self._cheap
        for job, row in zip(jobs, rows, strict=True):
            seconds = row[0]
            self.busy_s += seconds
            if seconds < _CHEAP_S:
                cheap += 1
                if cheap > _ENOUGH and cheap % _EVERY:
                    continue
            self._add(stages, job.source.size_bytes, seconds, sum(row[3::3]), row[2])
        self._cheap = cheap

    def _add(self, stages: Stages, size_bytes: int, seconds: float, bytes_out: int, peak_bytes: int | None) -> None:
        known = self._class_of(stages, size_bytes.bit_length())
        known.add(seconds, bytes_out)
        self.has_news = True
        if peak_bytes:
            known.add_peak(peak_bytes)

    def add_peak(self, stages: Stages, size_bytes: int, peak_bytes: int) -> None:
        """Learn that a job needed so much memory, or more, when its worker was killed for it."""
        self._class_of(_in_order(stages), size_bytes.bit_length()).add_peak(peak_bytes)
        self.has_news = True

    def _class_of(self, stages: Stages, bits: int, known: SizeClass | None = None) -> SizeClass:
        return self._classes.setdefault(stages, {}).setdefault(bits, known or SizeClass())

    # -- telling -------------------------------------------------------------------------------------------------------

    @property
    def is_empty(self) -> bool:
        """True if nothing is known."""
        return not self._classes

    @property
    def slowest_s(self) -> float:
        """The seconds of the slowest job that was ever met."""
        return max((known.slowest_s for classes in self._classes.values() for known in classes.values()), default=0.0)

    def seconds(self, stages: Stages, size_bytes: int) -> float | None:
        """Return the seconds that a job is expected to take; None if nothing is known of such jobs.

        Args:
            stages: The stages whose outputs it makes.
            size_bytes: The size of its source; for a group, the number of its members.
        """
        return self._sum(stages, size_bytes, _mean_s)

    def variance_s2(self, stages: Stages, size_bytes: int) -> float | None:
        """Return the variance of these seconds from job to job."""
        return self._sum(stages, size_bytes, _variance_s2)

    def bytes_out(self, stages: Stages, size_bytes: int) -> float | None:
        """Return the bytes that a job is expected to write; None if nothing is known of such jobs."""
        return self._sum(stages, size_bytes, _mean_bytes_out)

    def _sum(self, stages: Stages, size_bytes: int, value: Callable[[SizeClass], float | None]) -> float | None:
        found = [_at(each, size_bytes.bit_length(), value) for each in self._known(stages)]
        known = [each for each in found if each is not None]
        return sum(known) if known else None

    def peak_bytes(self, stages: Stages, size_bytes: int) -> int | None:
        """Return the memory that the worker of a job is expected to need; None if nothing is known of such jobs."""
        found = [_at(each, _foreseen(each, size_bytes.bit_length()), _peak) for each in self._known(stages)]
        return max((int(each) for each in found if each is not None), default=None)

    def is_foreseen(self, stages: Stages, size_bytes: int) -> bool:
        """Return whether the peaks of such jobs are known, with sources that are as large, or nearly so."""
        bits = size_bytes.bit_length()
        found = [
            max((each for each, known in classes.items() if known.peaks), default=0) for classes in self._known(stages)
        ]
        return bool(found) and bits <= min(found) + _FORESEEN

    def steps(self, stage: str, least_s: float) -> list[tuple[int, float]] | None:
        """Return the seconds of a job with an output of a stage, by the least size of a source that takes as long.

        They come with the largest size first, and those below `least_s` are left out. None if nothing is known.
        """
        if self.seconds((stage,), 0) is None:
            return None
        found: list[tuple[int, float]] = []
        for bits in range(_MOST_BITS + 1):
            seconds = self.seconds((stage,), (1 << bits) - 1) or 0.0
            if found and found[-1][1] == seconds:
                continue
            found.append((1 << bits >> 1, seconds))
        while found and found[0][1] < least_s:
            found.pop(0)
        return found[::-1]

    def seconds_of_outcome(self, outcome: Outcome) -> float | None:
        """Return the seconds that a job with this outcome was expected to take; None if nothing is known of such."""
        return self.seconds(_in_order(result.stage for result in outcome.results), _size_of(outcome.origin))

    def _known(self, stages: Stages) -> Iterator[SizeClasses]:
        """Yield the classes whose sum tells of a set of outputs.

        Where these were never made together, or in several pools, they are those of its largest parts, else those of
        the least set that has them all.
        """
        wanted = _in_order(stages)
        if exact := self._classes.get(wanted):
            yield exact
            return
        left, found = set(wanted), False
        for each in sorted(self._classes, key=len, reverse=True):
            if left.issuperset(each):
                left -= set(each)
                found = True
                yield self._classes[each]
        if not found:
            larger = [each for each in self._classes if set(wanted) <= set(each)]
            if larger:
                yield self._classes[min(larger, key=len)]


def _mean_s(known: SizeClass) -> float | None:
    return known.mean_s if known.jobs else None


def _variance_s2(known: SizeClass) -> float | None:
    return known.variance_s2 if known.jobs else None


def _mean_bytes_out(known: SizeClass) -> float | None:
    return known.mean_bytes_out if known.jobs else None


def _peak(known: SizeClass) -> float | None:
    return known.expected_peak_bytes


def _foreseen(classes: SizeClasses, bits: int) -> int:
    """Return a class of sizes, or the largest of which what is known tells: a file far beyond that is best tried."""
    return min(bits, max((each for each, known in classes.items() if known.peaks), default=bits) + _FORESEEN)


def _at(classes: SizeClasses, bits: int, value: Callable[[SizeClass], float | None]) -> float | None:
    """Return the value of a class of sizes, or what those that are known suggest; None if nothing is known.

    Between two of them, and above the largest two, it grows with the size; below the least it is that one's.
    """
    if (own := classes.get(bits)) and (exact := value(own)) is not None:
        return exact
    known = sorted((each, found) for each in classes if (found := value(classes[each])) is not None)
    if not known:
        return None
    if bits < known[0][0] or len(known) == 1:
        return known[0][1]
    (lower, less), (upper, more) = next((pair for pair in pairwise(known) if bits < pair[1][0]), known[-2:])
    line = less + (more - less) * (2.0**bits - 2.0**lower) / (2.0**upper - 2.0**lower)
    return max(line, more) if bits > upper else line


def _bytes_of(result: Result) -> int:
    return sum(part.size_bytes for part in result.parts) if result.parts else result.size_bytes


def _in_order(stages: Iterable[str]) -> Stages:
    return tuple(sorted(set(stages)))


def _size_of(origin: Origin) -> int:
    return origin.size_bytes if isinstance(origin, Source) else origin.members
