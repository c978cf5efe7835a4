"""Who runs the jobs: what the journey in run.py asks of an engine, and nothing about how it is done."""

from __future__ import annotations

from typing import Protocol

from pipeline.messages import AnyJob, Outcome


class Engine(Protocol):
    """Takes jobs and gives back outcomes, in any order, each exactly once.

    No call but `poll` waits, and `poll` never longer than it is told, so that several engines can share one loop.
    """

    @property
    def has_room(self) -> bool:
        """Whether `submit` may be called now; the bound on what is in memory."""
        ...

    @property
    def busy(self) -> bool:
        """Whether outcomes are still to come."""
        ...

    def warm_up(self) -> None:
        """Get ready for jobs that are about to come; what goes wrong with that is said by `poll`."""
        ...

    def submit(self, job: AnyJob) -> None:
        """Hand over one job."""
        ...

    def poll(self, timeout_s: float) -> list[Outcome]:
        """Give the outcomes that have arrived, waiting at most `timeout_s` for the first.

        Raises `WorkersFailed` when no worker can be started.
        """
        ...

    def drain(self) -> None:
        """Start nothing more: what is in hand ends and is polled, what is not comes back no more."""
        ...

    def close(self) -> None:
        """End every worker; kills those that are still at work."""
        ...
