"""The record of one job on its way through an engine, and the rules for what happens to it next; no processes here.

A job may need several tries: its worker dies, a stage raises and is retried, or one branch of the tree kills the
worker while the other branches can still be completed. An `Attempt` combines all of that into one outcome.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum, auto
from types import MappingProxyType
from typing import Literal

from pipeline.messages import AnyJob, FailureKind, Handed, Job, LateFile, Outcome, Result, StageInfo, Usage
from pipeline.records import NamedTuple
from pipeline.text import shortened


class WorkerFailure(NamedTuple):
    """The reason for which a job has no outcome: its worker died, or an exception did not come from a stage."""

    kind: FailureKind
    stage: int
    """Index of the stage that was running, or NO_STAGE."""
    text: str
    """A description such as "killed by SIGKILL", to which the stage's name is appended."""
    remark: str = ""
    detail: str = ""
    output: str = ""
    is_shared: bool = False
    """True if other workers died with it, so that any of their jobs may be the guilty one."""
    seat: int | None = None
    """The number of the worker's slot; None if no worker died."""
    usage: Usage | None = None
    """When the job began that was running, and how long it had by then; None if none was."""


class NextStep(Enum):
    """The next step of an engine with an attempt."""

    DELIVER = auto()
    RUN_ALONE = auto()
    """The job is sent in a batch of its own, so that the death of its worker costs no other job."""
    RUN_LARGE = auto()
    """The job is sent in a batch of its own, once the memory that it has claimed can be had."""
    RUN_LAST = auto()
    """The job is sent while no other job is running: it has the memory of all workers, and the blame is its own."""
    RUN_LATER = auto()
    """The job is sent in a batch of its own, after the pause between retries."""


class Attempt:
    """One submitted job: the part of it that remains to be done, and its results so far.

    Nearly every job succeeds at its first try, so the constructor sets only what that needs.
    """

    first_outcome: Outcome | None = None
    """The outcome of the first try. Its source is as first read, so a later change makes the record stale."""
    seconds: float = 0.0
    environment: str = ""
    refused: Literal["", "source", "folder"] = ""
    output: str = ""
    has_failed_once: bool = False
    """True if the remaining targets have cost a worker, or run out of memory, once."""
    needs_memory: bool = False
    """True if a try ran out of memory, or was killed for what it took."""
    claimed_bytes: int = 0
    """The memory beyond what a worker holds anyway that the job is known to take; 0 if nothing was claimed."""
    is_suspect: bool = False
    """True if several workers died together, one of them with this job."""
    tries: int = 0
    retries_taken: int = 0
    handed: tuple[Handed, ...] = ()
    changed_code: str = ""
    late_code: tuple[LateFile, ...] = ()
    seat: int | None = None
    """The process id of the worker that tried it last."""
    peak_bytes: int | None = None
    """The most of all tries."""

    usage: Usage | None = None
    """What all tries used."""

    results: Mapping[str, list[Result]] = MappingProxyType({})
    """The latest results of each stage."""
    retries_left = 0

    def __init__(self, job: AnyJob, retries_left: int = 0) -> None:
        self.job = self.remaining = job
        if retries_left:
            self.retries_left = retries_left

    def is_settled_by(self, outcome: Outcome) -> bool:
        """Return whether `outcome` can be delivered unchanged: true for nearly every job, and therefore fast."""
        for result in outcome.results:
            if result.status == "failed":
                return False
        return not (self.tries or outcome.claimed_bytes)

    def add_outcome(self, outcome: Outcome) -> NextStep:
        """Merge in the outcome of the remaining targets."""
        has_claimed = bool(outcome.claimed_bytes and not outcome.environment)
        # A stage has caught what ended its call, and may have made anything of that: nothing that was made counts.
        is_void = has_claimed and not any(result.kind == "memory" for result in outcome.results)
        lost: set[str] = set()
        if has_claimed:
            self.claimed_bytes = max(self.claimed_bytes, outcome.claimed_bytes)
            lost = {result.stage for result in outcome.results if result.kind in ("memory", "error")}
        self.first_outcome = self.first_outcome or outcome
        self.seat = outcome.seat
        self.peak_bytes = max(self.peak_bytes or 0, outcome.peak_bytes or 0) or None
        self.seconds += outcome.seconds
        self._add_usage(outcome.usage)
        self.environment, self.refused = outcome.environment, outcome.refused
        self.changed_code = outcome.changed_code
        self.late_code += outcome.late_code
        self._add_output(outcome.output)
        self.tries += 1
        if is_void:
            self.mark_again()
            return NextStep.RUN_LARGE
        self.handed += outcome.handed
        latest: dict[str, list[Result]] = {}
        for result in outcome.results:
            if result.stage not in lost:
                latest.setdefault(result.stage, []).append(result)
        self.results = {**self.results, **latest}
        if lost:
            self._keep_only(lost)
            return NextStep.RUN_LARGE
        return self._next_step({result.stage: result.kind for result in outcome.results if result.status == "failed"})

    def add_failure(self, failure: WorkerFailure, stages: Sequence[StageInfo]) -> NextStep:
        """Record that the remaining targets killed a worker: forgiven once, then that stage and all below it fail."""
        self._add_output(failure.output)
        self._add_usage(failure.usage)
        self.seat = self.seat if failure.seat is None else failure.seat
        self.tries += 1
        self.mark_again()
        is_first = not (self.needs_memory if failure.kind == "memory" else self.has_failed_once)
        if failure.kind in ("crashed", "memory") and is_first:
            self.has_failed_once = True
            self.needs_memory = self.needs_memory or failure.kind == "memory"
            self.is_suspect = self.is_suspect or failure.is_shared
            return self.next_try
        guilty = with_descendants(failure.stage, stages)
        lost = [target for target in self.remaining.targets if target.stage in guilty] or self.remaining.targets
        text = failure_text(failure, stages)
        for target in lost:
            failed = Result(target.stage, target.path, "failed", text, failure.kind, failure.detail)
            self.results = {**self.results, target.stage: [failed]}
        self.has_failed_once = self.needs_memory = self.is_suspect = False
        kept = {target.stage for target in self.remaining.targets} - {target.stage for target in lost}
        if not kept:
            return NextStep.DELIVER
        self._keep_only(kept)
        return self.next_try

    @property
    def next_try(self) -> NextStep:
        """Return how the job is tried again after it has cost a worker, or run out of memory."""
        return NextStep.RUN_LAST if self.needs_memory or self.is_suspect else NextStep.RUN_ALONE

    def mark_again(self) -> None:
        """Mark the remaining targets as possibly made in part, by a worker that died with them."""
        self.remaining = self.remaining._replace(is_again=True)

    def outcome(self) -> Outcome:
        """Combine all results into the one outcome that is delivered."""
        results = [result for found in self.results.values() for result in found]
        first = self.first_outcome or Outcome(self.job.origin, ())
        return first._replace(
            results=tuple(results),
            seconds=self.seconds,
            environment=self.environment,
            refused=self.refused,
            output=self.output,
            handed=self.handed,
            changed_code=self.changed_code,
            late_code=self.late_code,
            claimed_bytes=0,
            peak_bytes=self.peak_bytes,
            seat=self.seat,
            usage=self.usage,
        )

    def _next_step(self, failed: dict[str, FailureKind | None]) -> NextStep:
        if self.environment:
            return NextStep.DELIVER
        memory = {stage for stage, kind in failed.items() if kind == "memory"}
        errors = {stage for stage, kind in failed.items() if kind == "error"}
        if memory and not self.needs_memory:
            self.mark_again()
            self.has_failed_once = self.needs_memory = True
            self._keep_only(memory | errors)
            return self.next_try
        if errors and self.retries_left:
            self.retries_left -= 1
            self.retries_taken += 1
            self._keep_only(errors)
            return NextStep.RUN_LATER
        return NextStep.DELIVER

    def _keep_only(self, stages: set[str]) -> None:
        if not isinstance(self.remaining, Job):  # a group has one target
            return
        left = tuple(target for target in self.remaining.targets if target.stage in stages)
        if left != self.remaining.targets:
            self.remaining = self.remaining._replace(targets=left)

    def _add_usage(self, usage: Usage | None) -> None:
        self.usage = self.usage.merged(usage) if self.usage else usage

    def _add_output(self, output: str) -> None:
        if output:
            self.output = shortened(self.output + output)


def with_descendants(stage: int, stages: Sequence[StageInfo]) -> set[str]:
    """Return the names of a stage and all stages below it; none for NO_STAGE. Parents come first in `stages`."""
    found: set[int] = set()
    for index, info in enumerate(stages):
        if index == stage or info.parent in found:
            found.add(index)
    return {stages[index].name for index in found}


def failure_text(failure: WorkerFailure, stages: Sequence[StageInfo]) -> str:
    """Describe a failure in one line, with the stage in which it happened."""
    where = f" in stage '{stages[failure.stage].name}'" if 0 <= failure.stage < len(stages) else ""
    return f"{failure.text}{where}" + (f", {failure.remark}" if failure.remark else "")
