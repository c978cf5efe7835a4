"""The engine without worker processes: it runs every job in this process, one after the other."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pipeline
from pipeline.engines import Peaks
from pipeline.engines.attempts import Attempt, NextStep
from pipeline.engines.measuring import measures_of
from pipeline.engines.slots import NO_STAGE
from pipeline.errors import WorkersFailed
from pipeline.messages import AnyJob, InHand, Measures, Outcome, StageInfo, Usage
from pipeline.records import dataclass
from pipeline.stdio import stdout_to_stderr
from pipeline.worker import main as worker
from pipeline.worker.call_times import CallTable, call_times, merge
from pipeline.worker.process_state import process_state
from pipeline.worker.stage_call import error_line
from pipeline.worker.usage_meter import usage_meter


class ExitRefused(BaseException):
    """A stage has called os._exit, which would end the whole run as if all were done."""


@contextmanager
def _exit_refused() -> Iterator[None]:
    """Have os._exit raise ExitRefused in this process, though not in those that a stage forks."""
    pid, real = os.getpid(), os._exit

    def refuse(status: int) -> NoReturn:
        if os.getpid() != pid:
            real(status)
        raise ExitRefused(f"os._exit({status}) was called")

    os._exit = refuse
    try:
        yield
    finally:
        os._exit = real


@dataclass(frozen=True)
class SerialSpec:
    """The `Spec` of a SerialEngine."""

    blueprint: bytes
    """The stages, packed by `WorkerSetup.pack`."""
    retries: int = 0
    """The number of times that a job is tried again after an exception."""
    backoff_s: float = 1.0
    """Seconds before the first retry; doubled for each further one."""
    stages: tuple[StageInfo, ...] = ()
    """The stages by their index; only to name the one that is being called."""

    def open(self, folder: Path, close_fds: Sequence[int] = (), peaks: Peaks | None = None) -> SerialEngine:
        """Build the stages in this process."""
        return SerialEngine(self)


class SerialEngine:
    """Runs one job at each `poll`, in this process, where no limit of time or memory can be enforced."""

    def __init__(self, spec: SerialSpec) -> None:
        self._spec = spec
        pipeline.has_run_stages = True
        self._waiting: AnyJob | None = None
        self._in_hand: tuple[AnyJob, float] | None = None
        """The job that is running, or was when an exception ended it, and since when."""
        self._stage = NO_STAGE
        self._calls: CallTable = {}
        call_times.take()  # those of an engine that was open in this process before
        try:
            with stdout_to_stderr(), _exit_refused():
                worker.start(spec.blueprint)
        except (Exception, SystemExit, ExitRefused) as error:
            raise WorkersFailed(f"the stages cannot be built: {error_line(error)}") from error

    @property
    def has_room(self) -> bool:
        return self._waiting is None

    @property
    def busy(self) -> bool:
        return self._waiting is not None

    def warm_up(self) -> None:
        pass

    def submit(self, job: AnyJob) -> None:
        self._waiting = job

    def poll(self, timeout_s: float) -> list[Outcome]:
        job, self._waiting = self._waiting, None
        if job is None:
            return []
        self._in_hand, self._stage = (job, time.monotonic()), NO_STAGE
        with stdout_to_stderr(), _exit_refused():
            if not process_state.is_kept:
                process_state.keep()
            outcome = self._work(job)
            if any(result.status == "failed" for result in outcome.results):
                outcome = self._try_again(Attempt(job, self._spec.retries), outcome)
        self._in_hand = None
        merge(self._calls, call_times.take())
        return [outcome]

    def _work(self, job: AnyJob) -> Outcome:
        if not usage_meter.is_on:
            return worker.work(job, self._enter)
        began_ns = time.monotonic_ns()
        usage_meter.begin()
        outcome = worker.work(job, self._enter)
        return outcome._replace(usage=Usage(*usage_meter.take(began_ns, time.monotonic_ns())))

    def _enter(self, stage: int) -> None:
        call_times.enter(stage)
        if stage >= 0:  # the stage that an exception has ended is still the one to name
            self._stage = stage

    def _try_again(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Run the failed targets again while the attempt allows it."""
        while True:
            step = attempt.add_outcome(outcome)
            if step is NextStep.DELIVER:
                return attempt.outcome()
            if step is NextStep.RUN_LATER:
                time.sleep(self._spec.backoff_s * 2 ** (attempt.retries_taken - 1))
            outcome = self._work(attempt.remaining)

    def in_hand(self) -> list[InHand]:
        if self._in_hand is None:
            return []
        job, began = self._in_hand
        stage = self._spec.stages[self._stage].name if 0 <= self._stage < len(self._spec.stages) else ""
        return [InHand(job, stage, time.monotonic() - began, os.getpid())]

    def measures(self) -> Measures:
        return measures_of(self._spec.stages, self._calls, {})

    def drain(self) -> None:
        self._waiting = None

    def close(self) -> None:
        process_state.forget()
        worker.stop()
