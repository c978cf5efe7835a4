"""Engines run jobs: serially, in a pool of processes, or in several pools chained; the caller cannot tell which.

spec       a frozen, picklable description of an engine, with which any process can open it
engine     takes jobs and gives back outcomes
worker     a process that runs jobs
session    a `multiprocessing.Pool` and its workers, replaced when it is broken
batch      the jobs sent to a worker in one message
in flight  sent to a worker, and not answered yet
grant      the memory that a large job may take beyond a worker's share, while it is in flight
claim      the memory that a job in hand is about to take, where that is more than it was sent with
trial      the first job of a size of which nothing is known, while it is in flight
slot       a row of shared memory in which a worker reports what it is doing
attempt    the record of one job so far
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from pipeline.messages import AnyJob, InHand, Measures, Outcome


class Peaks(Protocol):
    """What is known of the memory that jobs take; it learns from their outcomes elsewhere."""

    def peak_bytes(self, stages: tuple[str, ...], size_bytes: int) -> int | None:
        """Return the memory that the worker of a job is expected to need; None if nothing is known of such jobs."""
        ...

    def is_foreseen(self, stages: tuple[str, ...], size_bytes: int) -> bool:
        """Return whether such jobs took so much with sources that are as large, or nearly so."""
        ...

    def add_peak(self, stages: tuple[str, ...], size_bytes: int, peak_bytes: int) -> None:
        """Learn that a job needed so much memory, or more, when its worker was killed for it."""
        ...


class Engine(Protocol):
    """Takes jobs and gives back outcomes, in any order, each exactly once.

    No call but `poll` waits, and `poll` never longer than its timeout, so that several engines can share one loop.
    """

    @property
    def has_room(self) -> bool:
        """Return whether `submit` may be called now; this bounds the jobs in memory."""
        ...

    @property
    def busy(self) -> bool:
        """Return whether more outcomes will come."""
        ...

    def warm_up(self) -> None:
        """Prepare for jobs that will follow soon; `poll` reports any failure to do so."""
        ...

    def submit(self, job: AnyJob) -> None:
        """Accept one job."""
        ...

    def poll(self, timeout_s: float) -> Sequence[Outcome]:
        """Return the outcomes that have arrived, waiting at most `timeout_s` for the first.

        They come as `MadeJobs` where the engine knows of all of them that they are such.

        Raises:
            WorkersFailed: no worker can be started.
        """
        ...

    def in_hand(self) -> list[InHand]:
        """Return the jobs that workers are running now; may be called from any thread."""
        ...

    def measures(self) -> Measures:
        """Return what was measured so far; also after `close`."""
        ...

    def drain(self) -> None:
        """Start no further job: running jobs end and are polled, the others are dropped."""
        ...

    def close(self) -> None:
        """End every worker, killing those that are running a job."""
        ...


class Spec(Protocol):
    """Frozen data that describes an engine, and can be pickled and opened by another process or on another machine."""

    def open(self, folder: Path, close_fds: Sequence[int] = (), peaks: Peaks | None = None) -> Engine:
        """Open the engine that this describes.

        Args:
            folder: Where the engine keeps files of its own while it is open, such as what jobs print; made if missing.
            close_fds: Descriptors of this process that a forked worker must close, such as that of a lock.
            peaks: What is known of the memory that jobs take; None if nothing is.

        Raises:
            WorkersFailed: the stages cannot be built; an engine with workers has its first `poll` raise that.
        """
        ...
