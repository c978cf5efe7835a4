"""The thread that watches the workers: it enforces limits and reports deaths, even if the consumer is busy."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import Counter
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any

from pipeline.engines import output_capture
from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.grants import KILL_SHARE, LARGE_SHARE, WORKER_BYTES, Grants
from pipeline.engines.host import memory_kills
from pipeline.engines.os_process import (
    DUMP_SIGNAL,
    KILL_SIGNAL,
    describe_exit,
    kill_group,
    memory_bytes,
)
from pipeline.engines.pool_session import KillReason, PoolSession, Worker
from pipeline.engines.slots import SlotAllocator, Snapshot, State
from pipeline.errors import EnvironmentFailure, WorkersFailed
from pipeline.files.clocks import wall_time_s
from pipeline.files.process_limits import start_thread
from pipeline.messages import FailureKind, Lost, Usage
from pipeline.records import dataclass
from pipeline.text import format_bytes, indented

# How often the limits are checked; a death is noticed at once.
TICK_S = 0.05
# How long a worker that is over a limit may take to write its stacks; it is killed as soon as they are written.
DUMP_S = 1.0
# A worker whose threads or exit functions do not end by then is killed.
LEAVE_S = 10.0
# After so many deaths of starting workers, with none ready in between, the engine fails instead of trying again...
MAX_DEAD_STARTS = 3
# ...or after so many when they were killed from outside, for instance by the kernel when it is out of memory.
MAX_KILLED_STARTS = 20


@dataclass(frozen=True)
class Limits:
    """The limits of a worker; None for no limit."""

    job_s: float | None
    stage_s: tuple[float | None, ...]
    start_s: float
    memory_bytes: int | None


@dataclass(frozen=True)
class WorkerDeath:
    """The death of a worker: the last words of its slot, and the failure of its job if it was working."""

    last: Snapshot
    failure: WorkerFailure
    held_bytes: int = 0
    """The memory that the worker held when that was last read."""


Event = WorkerDeath | Exception


class Supervisor:
    """Watches the workers of one session at a time, and reports what happens to them in `events`."""

    def __init__(self, allocator: SlotAllocator, limits: Limits, grants: Grants, restarts: Counter[int]) -> None:
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._grants = grants
        self._restarts = restarts
        """The workers that were replaced, which this thread counts."""
        self._memory_kills = memory_kills()
        """How many kills by the kernel for want of memory are explained."""
        self._allocator = allocator
        self._table = allocator.table
        self._limits = limits
        self._session: PoolSession | None = None
        self._lock = threading.Lock()
        self._dead_starts = self._killed_starts = 0
        self._has_failed = False
        self._ended: set[Any] = set()
        """The sentinels of workers that had ended, or whose forkserver had, when that was last waited for."""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pool-supervisor")
        start_thread(self._thread)

    def watch(self, session: PoolSession) -> None:
        """Watch the workers of a session instead of any other."""
        with self._lock:
            self._session = session

    def unwatch(self) -> None:
        """Stop watching: once this has returned, no death is reported until another session is watched."""
        with self._lock:
            self._session = None

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self._stop.set()
        self._thread.join()

    def fail(self, failure: Exception) -> None:
        """Report a failure that ends the engine; only the first is reported."""
        if not self._has_failed:
            self._has_failed = True
            self.events.put(failure)

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                with self._lock:
                    workers = list(self._session.workers) if self._session else []
                    for worker in workers:
                        self._check(worker)
                    self._promise(workers)
                self._sleep([worker for worker in workers if not worker.process.is_given_up])
        except Exception as error:  # else nobody would notice a death from now on
            self.fail(error)

    def _promise(self, workers: list[Worker]) -> None:
        """Let other runs know what large jobs are yet to take, and that there is one even if nobody expected it."""
        if self._grants.board is None:
            return
        most = WORKER_BYTES + (self._limits.memory_bytes or 0) * LARGE_SHARE
        at_work = {
            now.batch: worker.held_bytes
            for worker in workers
            if (now := self._table.read(worker.slot.number)).state == State.WORKING
        }
        self._grants.renew(at_work, is_here=any(held > most for held in at_work.values()))

    def _sleep(self, workers: list[Worker]) -> None:
        """Wait for the next tick, or for a death."""
        self._ended = set(wait([worker.process.sentinel for worker in workers], TICK_S)) if workers else set()
        if self._ended or (not workers and self._stop.wait(TICK_S)):
            time.sleep(0.001)

    def _may_have_ended(self, worker: Worker) -> bool:
        """Return whether a worker is to be looked at; the others need no system call each to tell that they live."""
        return worker.process.is_given_up or worker.process.sentinel in self._ended

    def _check(self, worker: Worker) -> None:
        now = self._table.read(worker.slot.number)
        may_have_ended = self._may_have_ended(worker)
        if may_have_ended and worker.process.is_dead:
            self._reap(worker)
        elif worker.is_stuck:
            self._remove(worker)
            self.fail(EnvironmentFailure(worker.give_up()))
        elif worker.killed_at:
            worker.kill()
        elif may_have_ended and worker.process.is_abandoned:
            worker.was_abandoned = True
            worker.kill()
        elif worker.reason:
            self._finish_off(worker, worker.reason, now)
        elif now.state == State.START_FAILED:
            said = indented(output_capture.read(worker.slot.capture).strip())
            self.fail(WorkersFailed(f"no worker can start:\n{said}"))
        else:
            self._check_limits(worker, now)
            output_capture.cut(worker.slot.capture)

    def _check_limits(self, worker: Worker, now: Snapshot) -> None:
        spent_s = (time.monotonic_ns() - now.since_ns) / 1e9
        if now.state == State.STARTING and spent_s > self._limits.start_s:
            text = f"was not ready after {self._limits.start_s:g} s"
            self._condemn(worker, KillReason("timeout", text, "pool.start_timeout"))
        elif now.state == State.LEAVING and spent_s > LEAVE_S:
            worker.kill()
        elif now.state in (State.IDLE, State.WORKING):
            self._dead_starts = self._killed_starts = 0
        if now.state == State.WORKING and (reason := self._over_limit(worker, now, spent_s)):
            self._condemn(worker, reason)

    def _over_limit(self, worker: Worker, now: Snapshot, spent_s: float) -> KillReason | None:
        """Return the reason to kill a worker that exceeds a limit, or None."""
        limits, at = self._limits, (now.batch, now.place)
        stage_s = limits.stage_s[now.stage] if now.stage >= 0 else None
        if limits.job_s and spent_s > limits.job_s:
            return KillReason("timeout", f"took longer than {limits.job_s:g} s", "the limit of a file", *at)
        if stage_s and (time.monotonic_ns() - now.stage_since_ns) / 1e9 > stage_s:
            text = f"took longer than {stage_s:g} s"
            return KillReason("timeout", text, "the stage's own limit", *at, now.stage_since_ns)
        worker.held_bytes = memory_bytes(worker.process.pid) or worker.held_bytes  # a dying process has none
        most_bytes, remark = self._memory_limit(now.batch)
        if most_bytes is not None and worker.held_bytes > most_bytes:
            return KillReason("memory", f"killed at {format_bytes(worker.held_bytes)} of memory", remark, *at)
        return None

    def _memory_limit(self, batch: int) -> tuple[float | None, str]:
        """Return the memory above which a job of this batch costs its worker, and why; None for no limit."""
        if (grant := self._grants.get(batch)) and grant.kill_bytes:
            return grant.kill_bytes, grant.remark
        if not self._limits.memory_bytes:
            return None, ""
        usual = format_bytes(self._limits.memory_bytes)
        return self._limits.memory_bytes * KILL_SHARE, f"more than {KILL_SHARE:g} times pool.max_memory of {usual}"

    def _condemn(self, worker: Worker, reason: KillReason) -> None:
        """Have the worker write its stacks; a later check kills it unless it has finished the job by then."""
        worker.reason, worker.condemned_at = reason, time.monotonic()
        worker.is_dumping, worker.printed_bytes = False, output_capture.printed_bytes(worker.slot.capture)
        if DUMP_SIGNAL and worker.process.pid:
            with suppress(ProcessLookupError):
                os.kill(worker.process.pid, DUMP_SIGNAL)

    def _finish_off(self, worker: Worker, reason: KillReason, now: Snapshot) -> None:
        """Kill a worker that is still running the job for which it was condemned."""
        if not _is_still_running(reason, now):
            worker.reason = None
        elif reason.kind == "memory" or time.monotonic() - worker.condemned_at > DUMP_S or _has_dumped(worker):
            worker.kill()

    def _reap(self, worker: Worker) -> None:
        code = worker.process.exitcode
        if code is None:
            return  # another thread is reaping it; the next check will know
        kill_group(worker.process.pid)
        last = self._table.read(worker.slot.number)
        output = output_capture.read(worker.slot.capture)
        self._remove(worker)
        if last.state == State.STARTING and not worker.was_abandoned:
            self._count_dead_start(worker, code, output)
        else:
            self._dead_starts = self._killed_starts = 0
        if last.state in (State.IDLE, State.WORKING, State.SPOILT) or worker.was_abandoned:
            failure = _failure_of(worker, last, code, output, self._is_memory_kill(code))
            failure = failure._replace(seat=worker.slot.seat, usage=_usage_until_now(worker, last))
            self.events.put(WorkerDeath(last, failure, worker.held_bytes))
        self._restarts[worker.slot.seat] += 1

    def _is_memory_kill(self, code: int) -> bool:
        """Return whether the kernel has killed more processes for want of memory than deaths were explained by that."""
        is_one = code == -KILL_SIGNAL and memory_kills() > self._memory_kills
        self._memory_kills += is_one
        return is_one

    def _remove(self, worker: Worker) -> None:
        assert self._session is not None
        self._session.workers.remove(worker)
        self._allocator.release(worker.slot, worker.process.pid)

    def _count_dead_start(self, worker: Worker, code: int, output: str) -> None:
        if worker.reason:
            self.fail(WorkersFailed(f"a worker {worker.reason.text} ({worker.reason.remark})\n{output}".strip()))
        self._killed_starts += code == -KILL_SIGNAL
        self._dead_starts += code != -KILL_SIGNAL
        if self._dead_starts >= MAX_DEAD_STARTS or self._killed_starts >= MAX_KILLED_STARTS:
            deaths = self._dead_starts + self._killed_starts
            text = f"{deaths} workers died while they started: {describe_exit(code)}\n{output}"
            self.fail(WorkersFailed(text.strip()))


def _has_dumped(worker: Worker) -> bool:
    """Return whether the worker has written its stacks: its text grew after it was condemned, and grows no more."""
    printed_bytes, worker.printed_bytes = worker.printed_bytes, output_capture.printed_bytes(worker.slot.capture)
    has_grown = worker.printed_bytes != printed_bytes
    was_dumping, worker.is_dumping = worker.is_dumping, worker.is_dumping or has_grown
    return was_dumping and not has_grown


def _is_still_running(reason: KillReason, now: Snapshot) -> bool:
    if now.state != State.WORKING:
        return now.state == State.STARTING
    is_same_job = (now.batch, now.place) == (reason.batch, reason.place)
    return is_same_job and reason.stage_since_ns in (None, now.stage_since_ns)


def _usage_until_now(worker: Worker, last: Snapshot) -> Usage | None:
    """Return when the job began that a worker was running, and how long it has had; None if it was running none."""
    if last.state != State.WORKING:
        return None
    spent_s, seat = (time.monotonic_ns() - last.since_ns) / 1e9, worker.slot.seat
    return Usage(wall_time_s(last.since_ns), None, seat, (Lost(seat, spent_s),))


def _failure_of(worker: Worker, last: Snapshot, code: int, output: str, is_memory_kill: bool) -> WorkerFailure:
    reason = worker.reason
    if reason and _is_still_running(reason, last):
        return WorkerFailure(reason.kind, last.stage, reason.text, reason.remark, output=output)
    if worker.was_abandoned:
        text = "killed, as the forkserver had been"
        return WorkerFailure("crashed", last.stage, text, output=output, is_shared=True)
    if last.state == State.SPOILT:
        text = "file descriptors that are not its own were closed or replaced"
        return WorkerFailure("error", last.stage, text, output=output)
    remark = "after the last call of a stage" if last.state == State.IDLE else ""
    if code == -KILL_SIGNAL:
        held = f"; the worker held {format_bytes(worker.held_bytes)}" if worker.held_bytes else ""
        remark = f"since the machine was out of memory{held}" if is_memory_kill else f"perhaps out of memory{held}"
    kind: FailureKind = "memory" if is_memory_kill else "crashed"
    return WorkerFailure(kind, last.stage, describe_exit(code), remark, output=output)
