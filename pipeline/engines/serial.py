"""The engine without processes: every job in this one, in turn. For debugging, and for comparing with."""

from __future__ import annotations

import time

from pipeline.engines.attempts import Case, Next
from pipeline.errors import WorkersFailed
from pipeline.messages import AnyJob, Outcome
from pipeline.stdio import stdout_to_stderr
from pipeline.worker import main as worker


class SerialEngine:
    """Runs each job when it is polled for. Limits of time and memory are not enforced: who could?"""

    def __init__(self, blueprint: bytes, retries: int = 0, backoff_s: float = 1.0) -> None:
        self._retries = retries
        self._backoff_s = backoff_s
        self._waiting: AnyJob | None = None
        try:
            with stdout_to_stderr():
                worker.start(blueprint)
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
        with stdout_to_stderr():
            return [self._run(Case(job, self._retries))]

    def _run(self, case: Case) -> Outcome:
        outcome = worker.work(case.rest)
        while not case.is_settled_by(outcome):
            step = case.learn(outcome)
            if step is Next.DELIVER:
                return case.outcome()
            if step is Next.RUN_LATER:
                time.sleep(self._backoff_s * 2 ** (case.retries_taken - 1))
            outcome = worker.work(case.rest)
        return outcome

    def drain(self) -> None:
        self._waiting = None

    def close(self) -> None:
        pass
