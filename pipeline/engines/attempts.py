"""What is known of one job on its way through the pool, and what is to be done with it next; no process in
sight.

A job may take several attempts: its worker dies, a stage raises and is retried, or one branch of the tree
kills the worker while the other branches can still be done. A case gathers all of it into one outcome.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import Enum, auto
from typing import NamedTuple

from pipeline.engines import output_capture
from pipeline.messages import AnyJob, Handed, Job, Kind, Outcome, Result, StageInfo


class Fall(NamedTuple):
    """How a job ended without an outcome of its own: its worker died of it, or something flew out of it."""

    kind: Kind
    stage: int
    """Index of the stage in hand, or NO_STAGE."""
    text: str
    """What happened, such as "killed by SIGKILL"; the stage's name is put after it."""
    remark: str = ""
    detail: str = ""
    output: str = ""


class Next(Enum):
    """What is to be done with a case."""

    DELIVER = auto()
    RUN_ALONE = auto()
    """Hand it out in a batch of its own, so that it takes nobody with it."""
    RUN_LATER = auto()
    """The same, after the pause between retries."""


class Case:
    """One submitted job, what is still to be done of it, and the results so far.

    Nearly every job is done at its first attempt, so making a case sets no more than that needs.
    """

    first: Outcome | None = None
    """It says what the source was then: if that changed before another attempt, the record is to be out of date."""
    seconds: float = 0.0
    environment: str = ""
    output: str = ""
    has_fallen: bool = False
    """Whether the rest, as it is now, has cost a worker once."""
    attempts: int = 0
    retries_taken: int = 0
    handed: tuple[Handed, ...] = ()

    def __init__(self, job: AnyJob, retries_left: int = 0) -> None:
        self.job = self.rest = job
        self.retries_left = retries_left
        self.results: dict[str, list[Result]] = {}
        """The latest results of each stage."""

    def is_settled_by(self, outcome: Outcome) -> bool:
        """Whether this is all there is to say: the way of nearly every job, and so a short one."""
        for result in outcome.results:
            if result.status == "failed":
                return False
        return not self.attempts

    def learn(self, outcome: Outcome) -> Next:
        """Take in what a worker says of the rest."""
        self.first = self.first or outcome
        self.seconds += outcome.seconds
        self.environment = outcome.environment
        self.handed += outcome.handed
        self._note_output(outcome.output)
        self.attempts += 1
        latest: dict[str, list[Result]] = {}
        for result in outcome.results:
            latest.setdefault(result.stage, []).append(result)
        self.results.update(latest)
        return self._after({result.stage: result.kind for result in outcome.results if result.status == "failed"})

    def fall(self, fall: Fall, stages: Sequence[StageInfo]) -> Next:
        """Take in that the rest has cost a worker: forgiven once, then its stage fails with all below."""
        self._note_output(fall.output)
        self.attempts += 1
        if fall.kind in ("crashed", "memory") and not self.has_fallen:
            self.has_fallen = True
            return Next.RUN_ALONE
        guilty = below(fall.stage, stages)
        doomed = [target for target in self.rest.targets if target.stage in guilty] or self.rest.targets
        text = verdict(fall, stages)
        for target in doomed:
            failed = Result(target.stage, target.path, "failed", text, fall.kind, fall.detail)
            self.results[target.stage] = [failed]
        self.has_fallen = False
        kept = {target.stage for target in self.rest.targets} - {target.stage for target in doomed}
        if not kept:
            return Next.DELIVER
        self._keep_only(kept)
        return Next.RUN_ALONE

    def outcome(self) -> Outcome:
        results = [result for found in self.results.values() for result in found]
        first = self.first or Outcome(self.job.origin, ())
        return first._replace(
            results=tuple(results),
            seconds=self.seconds,
            environment=self.environment,
            output=self.output,
            handed=self.handed,
        )

    @property
    def is_answered(self) -> bool:
        """Whether each target has a result, if only one that was to be retried."""
        return all(target.stage in self.results for target in self.job.targets)

    def _after(self, failed: dict[str, Kind | None]) -> Next:
        if self.environment:
            return Next.DELIVER
        memory = {stage for stage, kind in failed.items() if kind == "memory"}
        errors = {stage for stage, kind in failed.items() if kind == "error"}
        if memory and not self.has_fallen:
            self.has_fallen = True
            self._keep_only(memory | errors)
            return Next.RUN_ALONE
        if errors and self.retries_left:
            self.retries_left -= 1
            self.retries_taken += 1
            self._keep_only(errors)
            return Next.RUN_LATER
        return Next.DELIVER

    def _keep_only(self, stages: set[str]) -> None:
        if not isinstance(self.rest, Job):  # a group has one target
            return
        left = tuple(target for target in self.rest.targets if target.stage in stages)
        if left != self.rest.targets:
            self.rest = self.rest._replace(targets=left)

    def _note_output(self, output: str) -> None:
        if output:
            self.output = output_capture.shorten(self.output + output)


def below(stage: int, stages: Sequence[StageInfo]) -> set[str]:
    """Name a stage and all that stand below it; none for NO_STAGE. Parents come first in `stages`."""
    found: set[int] = set()
    for index, info in enumerate(stages):
        if index == stage or info.parent in found:
            found.add(index)
    return {stages[index].name for index in found}


def verdict(fall: Fall, stages: Sequence[StageInfo]) -> str:
    """Say in one line how a job fell, and in which stage."""
    where = f" in stage '{stages[fall.stage].name}'" if 0 <= fall.stage < len(stages) else ""
    return f"{fall.text}{where}" + (f", {fall.remark}" if fall.remark else "")
