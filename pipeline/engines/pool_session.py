"""One Pool with its workers, from opening to dismissal; the engine opens another when one is broken."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import TimeoutError as NothingYet
from multiprocessing.pool import Pool
from pathlib import Path
from typing import Any

from pipeline.engines import worker_loop
from pipeline.engines.context import pool_context
from pipeline.engines.queues import BatchQueue
from pipeline.engines.slots import Seat, Seating, State
from pipeline.engines.worker_process import Worker, kill_group, start_lock
from pipeline.errors import FilemillError, WorkersFailed
from pipeline.messages import Kind

# A worker that SIGKILL has not ended after so long is stuck in the kernel, on a dead network disk for
# instance.
STUCK_S = 10.0
# How long idle workers may take to leave by themselves, so that what their stages registered with atexit is
# run.
GOODBYE_S = 5.0
# How long Pool's threads may take to end once all workers are dead; they are daemons, so they delay nobody.
TERMINATE_S = 5.0
# How often one who waits for a free seat looks whether it is still wanted.
SEAT_S = 0.05


@dataclass(frozen=True)
class Doom:
    """Why we decided to kill a worker, and over which job."""

    kind: Kind
    text: str
    remark: str
    batch: int = -1
    place: int = -1
    stage_since: int | None = None
    """Set when it was over one call of a stage."""


@dataclass
class Member:
    """A worker as the parent sees it."""

    worker: Worker
    seat: Seat
    held_bytes: int = 0
    """Its memory when last looked at."""
    doom: Doom | None = None
    doomed_at: float = 0.0
    killed_at: float | None = None
    was_abandoned = False

    def kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        self.worker.kill()

    @property
    def is_stuck(self) -> bool:
        return self.killed_at is not None and time.monotonic() - self.killed_at > STUCK_S

    def give_up(self) -> str:
        """Never wait for the worker again; tells which process it is and what it waits for."""
        self.worker.is_given_up = True
        pid = self.worker.pid or 0
        return f"worker {pid} has survived SIGKILL for {STUCK_S:g} s: {waiting_for(pid)}"


class Crew:
    """A Pool that is fed with numbered batches, and its workers."""

    def __init__(
        self,
        method: str,
        processes: int,
        maxtasksperchild: int | None,
        initargs: tuple[bytes, bytes],
        seating: Seating,
        fail: Callable[[FilemillError], None],
    ) -> None:
        self.members: list[Member] = []
        self.is_dismissed = False
        self._seating = seating
        self._fail = fail
        self._queues: tuple[BatchQueue, ...] = ()
        self._feed: queue.SimpleQueue[tuple[int, bytes] | None] = queue.SimpleQueue()
        context = pool_context(method, self)
        self._pool = Pool(processes, worker_loop.start, initargs, maxtasksperchild, context)
        self._replies = self._pool.imap_unordered(worker_loop.run_batch, iter(self._feed.get, None))

    def feed(self, number: int, jobs: bytes) -> None:
        self._feed.put((number, jobs))

    def reply(self, timeout_s: float) -> tuple[int, bytes, float] | None:
        """Give the next reply of `worker_loop.run_batch`; None when there is none within the time."""
        with suppress(NothingYet):
            return self._replies.next(max(0.0, timeout_s))
        return None

    def kill(self) -> list[str]:
        """Kill every worker and let nobody take its place; tells of those that would not die."""
        members = self._close_doors()
        while alive := [member for member in members if not member.worker.is_dead]:
            if any(member.is_stuck for member in alive):
                return [member.give_up() for member in alive]
            for member in alive:
                member.kill()
            time.sleep(0.002)
        for member in members:
            kill_group(member.worker.pid)
        return []

    def say_goodbye(self) -> None:
        """Let idle workers leave by themselves, if they do so in time and none has died with the lock."""
        members = self._close_doors()
        for member in members:
            if self._seating.slots.read(member.seat.number).state == State.STARTING:
                member.kill()  # it may be loading for minutes, and has nothing to say goodbye to
            self._queues[0].put(None)
        deadline = time.monotonic() + GOODBYE_S
        while time.monotonic() < deadline:
            dead = [member for member in members if member.worker.is_dead]
            if len(dead) == len(members) or any(m.worker.exitcode and not m.killed_at for m in dead):
                break
            time.sleep(0.002)

    def dismiss(self) -> list[str]:
        """Kill who is left, and end Pool's threads; tells of workers that would not die."""
        stuck = self.kill()
        self._feed.put(None)
        if self._queues:
            self._queues[0].stop_reading()
            self._queues[1].stop_writing()
        ending = threading.Thread(target=self._end_pool, daemon=True, name="pool-terminate")
        ending.start()
        ending.join(TERMINATE_S)
        return stuck

    def _close_doors(self) -> list[Member]:
        """Start nobody more, and give all those that were started."""
        self.is_dismissed = True
        with start_lock:
            return list(self.members)

    def _end_pool(self) -> None:
        self._pool.terminate()
        self._pool.join()

    def hire(self, worker_type: type[Worker], *args: Any, **kwargs: Any) -> Worker:
        """Make a process for Pool, in a free seat; waits for one, and so holds up a storm of replacements."""
        if not self._queues:
            self._queues = kwargs["args"][:2]
            self._queues[1].keep_quiet()
        worker = worker_type(*args, **kwargs)
        worker.crew = self
        while not self.is_dismissed:
            if seat := self._seating.give(SEAT_S):
                worker.seat = seat
                break
        return worker

    def welcome(self, worker: Worker) -> None:
        assert worker.seat
        self.members.append(Member(worker, worker.seat))

    def miss(self, worker: Worker, error: Exception | None) -> None:
        if worker.seat:
            self._seating.take_back(worker.seat)
        if error:
            self._fail(WorkersFailed(f"no worker can be started: {error}"))


def how_it_ended(code: int) -> str:
    """Say what an exit code means, such as "killed by SIGSEGV"."""
    import signal

    if code >= 0:
        return f"the worker ended by exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def waiting_for(pid: int) -> str:
    """Say in which state a process is and on what in the kernel it waits."""
    where, state = "", "unknown"
    with suppress(OSError):
        where = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    with suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return f"it is in state {state}" + (f" and waits in {where}" if where else "")
