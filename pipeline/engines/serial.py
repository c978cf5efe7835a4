"""The engine without processes: every job in this one, in turn. For debugging, and for comparing with."""

from __future__ import annotations

from pipeline import worker
from pipeline.errors import WorkersFailed
from pipeline.messages import Job, Outcome


class SerialEngine:
    """Runs each job when it is polled for."""

    def __init__(self, blueprint: bytes) -> None:
        try:
            worker.start(blueprint)
        except Exception as error:
            raise WorkersFailed(f"the stages cannot be built: {error}") from error
        self._waiting: Job | None = None

    @property
    def has_room(self) -> bool:
        return self._waiting is None

    @property
    def busy(self) -> bool:
        return self._waiting is not None

    def submit(self, job: Job) -> None:
        self._waiting = job

    def poll(self, timeout_s: float) -> list[Outcome]:
        job, self._waiting = self._waiting, None
        return [worker.work(job)] if job is not None else []

    def drain(self) -> None:
        self._waiting = None

    def close(self) -> None:
        pass
