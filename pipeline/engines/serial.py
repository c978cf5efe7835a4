"""The engine without worker processes: it runs every job in this process, one after the other."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines.attempts import Attempt, NextStep
from pipeline.errors import WorkersFailed
from pipeline.messages import AnyJob, Outcome
from pipeline.stdio import stdout_to_stderr
from pipeline.worker import main as worker
from pipeline.worker.process_state import process_state


@dataclass(frozen=True)
class SerialSpec:
    """The `Spec` of a SerialEngine."""

    blueprint: bytes
    """The stages, packed by `WorkerSetup.pack`."""
    retries: int = 0
    """The number of times that a job is tried again after an exception."""
    backoff_s: float = 1.0
    """Seconds before the first retry; doubled for each further one."""

    def open(self, folder: Path, close_fds: Sequence[int] = ()) -> SerialEngine:
        """Build the stages in this process."""
        return SerialEngine(self)


class SerialEngine:
    """Runs one job at each `poll`, in this process, where no limit of time or memory can be enforced."""

    def __init__(self, spec: SerialSpec) -> None:
        self._spec = spec
        self._waiting: AnyJob | None = None
        try:
            with stdout_to_stderr():
                worker.start(spec.blueprint)
        except Exception as error:
            raise WorkersFailed(f"the stages cannot be built: {error}") from error

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
        with stdout_to_stderr(), process_state.kept():
            outcome = worker.work(job)
            has_failed = any(result.status == "failed" for result in outcome.results)
            return [self._try_again(Attempt(job, self._spec.retries), outcome) if has_failed else outcome]

    def _try_again(self, attempt: Attempt, outcome: Outcome) -> Outcome:
        """Run the failed targets again while the attempt allows it."""
        while True:
            step = attempt.add_outcome(outcome)
            if step is NextStep.DELIVER:
                return attempt.outcome()
            if step is NextStep.RUN_LATER:
                time.sleep(self._spec.backoff_s * 2 ** (attempt.retries_taken - 1))
            outcome = worker.work(attempt.remaining)

    def drain(self) -> None:
        self._waiting = None

    def close(self) -> None:
        worker.stop()
