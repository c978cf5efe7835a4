"""The number of jobs in a batch, the number of batches in flight, and the order in which jobs are sent."""

from __future__ import annotations

import heapq
import itertools
import time
from collections import deque
from collections.abc import Iterable, Iterator

from pipeline.engines.attempts import Attempt

# A batch should take this long: sending it then costs next to nothing, and no worker waits for another. At 0.02 the
# process that sends them limited 64 workers: files of 5 ms took a third longer.
BATCH_S = 0.05
# Beyond this size a larger batch saves nothing more.
MAX_JOBS_IN_BATCH = 256
# Batches in flight: enough to keep a worker busy while the consumer writes to its ledger...
BATCHES_PER_WORKER = 3
# ...and for jobs so small that a full batch of them takes less than BATCH_S.
SHORT_BATCHES_PER_WORKER = 12
# The weight of the latest batch in the running mean of a job's seconds.
LATEST_WEIGHT = 0.2


class BatchSizer:
    """Sizes batches by the time that jobs have taken so far."""

    def __init__(self, processes: int, maxtasksperchild: int | None = None) -> None:
        self._processes = processes
        self._max_jobs = min(maxtasksperchild or MAX_JOBS_IN_BATCH, MAX_JOBS_IN_BATCH)
        self._mean_s: float | None = None
        self._batch_s = 0.0
        """The running mean of a batch's seconds."""

    def add_timing(self, jobs: int, seconds: float) -> None:
        """Take into account that `jobs` jobs of one batch took `seconds` in all."""
        self._batch_s += LATEST_WEIGHT * (seconds - self._batch_s)
        mean_s = seconds / jobs
        self._mean_s = mean_s if self._mean_s is None else self._mean_s + LATEST_WEIGHT * (mean_s - self._mean_s)

    def spare_s(self, in_flight: int) -> float:
        """Return for how long workers have batches to go on with, where so many are in flight and no more are sent."""
        return self._batch_s * (in_flight / self._processes - 1)

    @property
    def max_in_flight(self) -> int:
        """Return the number of batches that may be in flight."""
        are_short = self._mean_s is not None and self._mean_s * MAX_JOBS_IN_BATCH < BATCH_S
        return (SHORT_BATCHES_PER_WORKER if are_short else BATCHES_PER_WORKER) * self._processes

    def batch_size(self, waiting: int) -> int:
        """Return the number of jobs that take BATCH_S, or fewer near the end so that every worker has some."""
        in_time = int(BATCH_S / self._mean_s) if self._mean_s else 1
        fair = waiting // (2 * self._processes)
        return max(1, min(in_time, fair, self._max_jobs))


class Backlog:
    """The jobs that no worker has: those to be sent in order, in batches of their own, or so after a pause."""

    def __init__(self, sizer: BatchSizer) -> None:
        self._sizer = sizer
        self._waiting: deque[Attempt] = deque()
        self._alone: deque[Attempt] = deque()
        self._delayed: list[tuple[float, int, Attempt]] = []
        self._order = itertools.count()
        # Called for every job: the deque's own method saves a call.
        self.add = self._waiting.append

    def add_alone(self, attempt: Attempt) -> None:
        """Queue a job to be sent next, in a batch of its own."""
        self._alone.append(attempt)

    def add_delayed(self, attempt: Attempt, pause_s: float) -> None:
        """Queue a job to be sent in a batch of its own, after `pause_s`."""
        heapq.heappush(self._delayed, (time.monotonic() + pause_s, next(self._order), attempt))

    @property
    def has_waiting(self) -> bool:
        """Return whether any job could be sent now."""
        return bool(self._waiting or self._alone)

    def put_back(self, attempts: Iterable[Attempt]) -> None:
        """Queue jobs that were sent and not done, before all others."""
        self._waiting.extendleft(reversed(list(attempts)))

    def next_batch(self) -> list[Attempt]:
        """Remove and return the jobs of the next batch; an empty list when no job is due."""
        while self._delayed and self._delayed[0][0] <= time.monotonic():
            self._alone.append(heapq.heappop(self._delayed)[2])
        if self._alone:
            return [self._alone.popleft()]
        waiting = self._waiting
        size = min(self._sizer.batch_size(len(waiting)), len(waiting))
        return [waiting.popleft() for _ in range(size)]

    def clear(self) -> Iterator[Attempt]:
        """Remove and yield every job."""
        while self._waiting:
            yield self._waiting.popleft()
        while self._alone:
            yield self._alone.popleft()
        while self._delayed:
            yield self._delayed.pop()[2]
