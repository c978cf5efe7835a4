"""Measures when each job began and what CPU time it took, where a trace of the run is written."""

from __future__ import annotations

import resource
import time

# No process can have been started in less: to copy the page tables of one with Python in it takes longer.
SHORT_JOB_NS = 100_000

UsageRow = tuple[float, float]
"""The first two fields of a Usage: when a job began, in seconds since 1970, and its CPU seconds."""


class UsageMeter:
    """Measures the jobs of this process, one after the other."""

    is_on = False
    """True if a trace is written."""

    def begin(self) -> None:
        """Begin anew, before a batch of jobs: what this process does between two batches is no job's."""
        self._own_s, self._others_s = time.process_time(), _of_others_s()
        self._epoch_s = time.time() - time.monotonic()

    def take(self, began_ns: int, ended_ns: int) -> UsageRow:
        """Return what the job used that began and ended at these times of the monotonic clock."""
        before_s, self._own_s = self._own_s, time.process_time()
        cpu_s = self._own_s - before_s
        if ended_ns - began_ns > SHORT_JOB_NS:
            before_s, self._others_s = self._others_s, _of_others_s()
            cpu_s += self._others_s - before_s
        return self._epoch_s + began_ns / 1e9, cpu_s


def _of_others_s() -> float:
    """Return the CPU seconds of the processes that this one has started and waited for."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


usage_meter = UsageMeter()
"""The meter of this process."""
