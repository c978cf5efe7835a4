"""The time limit of a run: which jobs may still be started, so that what is in hand has ended when the time is up."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

from pipeline.engines import Engine
from pipeline.engines.made_jobs import SECONDS, MadeJobs
from pipeline.ledger.origins import key_of
from pipeline.messages import AnyJob, Job, Outcome
from pipeline.planning.learnt import Learnt
from pipeline.records import dataclass
from pipeline.text import counted, format_duration

# Seconds of work for each worker that are handed out ahead of time: what waits in the engine can only be taken back all
# at once, and what is in hand at the limit takes as long as it takes.
_AHEAD_S = 2.0
# How many files are named of those that fit into no run.
_NAMED = 3


@dataclass(frozen=True)
class MaxTime:
    """How long a run may take, and until when that is."""

    text: str
    """As a person has said it, such as `55m`."""
    deadline: float
    """By time.monotonic()."""
    most_s: float = math.inf
    """The seconds from the start of the run to that; infinite if that is not known."""


class TimeLimit:
    """Decides for a loop of jobs what may be handed out before the time is up."""

    def __init__(self, most: MaxTime, engine: Engine, learnt: Learnt, workers: int, grace_s: float) -> None:
        self._most, self._engine, self._learnt, self._workers = most, engine, learnt, workers
        self._grace_s = grace_s
        self._expected_s: dict[bytes, float] = {}
        """The seconds that each job which was handed out, and has not ended, is expected to take."""
        self._sum_s = 0.0
        self._slowest_s = 0.0
        """The seconds of the slowest job that has ended."""
        self.has_passed_over = False
        """True if a job was not started since it would have taken too long."""
        self._fits_no_run: list[tuple[str, float]] = []
        """The first jobs that take longer than a whole run may, each with the seconds that it is expected to take."""
        self._fit_no_run = 0

    @property
    def is_over(self) -> bool:
        """True once no more jobs may be started."""
        return time.monotonic() >= self._most.deadline

    @property
    def is_late(self) -> bool:
        """True once the jobs in hand have had their time, too."""
        return self.late_s >= 0

    @property
    def late_s(self) -> float:
        """The seconds since the jobs in hand should have ended; negative before."""
        return time.monotonic() - self._most.deadline - self._grace_s

    @property
    def has_room(self) -> bool:
        """True if another job would be started soon enough that it may be judged now whether it will end in time."""
        if not self._engine.busy:  # it may have dropped some
            self._expected_s.clear()
            self._sum_s = 0.0
        return len(self._expected_s) < self._workers or self._ahead_s() < _AHEAD_S

    def judge(self, job: AnyJob) -> Literal["start", "wait", "leave"]:
        """Decide whether a job starts now, waits for room, or is left out because it would end too late.

        A job that starts is counted as in hand.
        """
        expected_s = self._seconds(job)
        left_s = self._most.deadline - time.monotonic() - (expected_s or 0.0)
        if left_s < 0:
            self._pass_over(job, expected_s)
            return "leave"
        if len(self._expected_s) >= self._workers and self._ahead_s() > left_s:
            return "wait"
        # Until anything is known, one job for each worker is enough.
        self._expected_s[key_of(job.origin)] = counts_s = _AHEAD_S if expected_s is None else expected_s
        self._sum_s += counts_s
        return "start"

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from outcomes which jobs have ended, and how long jobs take here."""
        if isinstance(outcomes, MadeJobs):
            for jobs, rows, *_ in outcomes.batches:
                for job, row in zip(jobs, rows, strict=True):
                    self._end(job.source.path, row[SECONDS])
            return
        for outcome in outcomes:
            if not outcome.goes_on:
                self._end(key_of(outcome.origin), outcome.seconds)

    def _pass_over(self, job: AnyJob, expected_s: float | None) -> None:
        self.has_passed_over = True
        if expected_s is not None and expected_s > self._most.most_s:
            self._fit_no_run += 1
            if len(self._fits_no_run) < _NAMED:
                self._fits_no_run.append((str(job.origin), expected_s))

    def describe_misfits(self) -> str:
        """Return which files are left by each run with this limit, in words that are the same each time; or nothing.

        What they take is rounded, since what is learnt of other files changes it a little.
        """
        if not self._fits_no_run:
            return ""
        those = ", ".join(f"{name} needs about {format_duration(_rounded(each))}" for name, each in self._fits_no_run)
        more = self._fit_no_run - len(self._fits_no_run)
        rest = f", and {counted(more, 'other file')}" if more else ""
        return f"{those}{rest}: longer than --max-time {self._most.text}, so that no run with it does that"

    def describe(self, files_left: int | None, *, is_cut: bool = False, is_well: bool = True) -> str:
        """Return why the run ends, in words; the number of files is unknown while they are still looked for."""
        well = ", all well so far" if is_well else ""
        cut = ", what was in hand was cut off" if is_cut else ""
        left = "" if files_left is None else f"; {counted(files_left, 'file')} left"
        return f"by its time limit of {self._most.text}{well}{cut}{left}; the same line resumes"

    def _seconds(self, job: AnyJob) -> float | None:
        """Return the mean of what a job takes and one standard deviation more; None if nothing tells."""
        stages = tuple(target.stage for target in job.targets)
        size = job.source.size_bytes if isinstance(job, Job) else job.group.members
        if (seconds := self._learnt.seconds(stages, size)) is None:
            return self._slowest_s or None
        return seconds + math.sqrt(self._learnt.variance_s2(stages, size) or 0.0)

    def _ahead_s(self) -> float:
        """Return the seconds until a worker has done what is handed out."""
        ahead_s = self._sum_s / self._workers
        if ahead_s < _AHEAD_S:
            return max(0.0, ahead_s)
        done_s = 0.0
        for each in self._engine.in_hand():
            done_s += min(each.seconds, self._expected_s.get(key_of(each.job.origin), 0.0))
        return max(0.0, (self._sum_s - done_s) / self._workers)

    def _end(self, key: bytes, seconds: float) -> None:
        self._slowest_s = max(self._slowest_s, seconds)
        with suppress(KeyError):  # one that an earlier loop had handed out
            self._sum_s -= self._expected_s.pop(key)


def _rounded(seconds: float) -> float:
    """Return a time rounded up to one digit."""
    step: float = 10.0 ** math.floor(math.log10(max(seconds, 1.0)))
    return math.ceil(seconds / step) * step
