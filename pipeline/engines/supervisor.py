"""The thread that watches the workers: it enforces limits and reports deaths, whatever the consumer does."""

from __future__ import annotations

import os
import queue
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import wait

from pipeline.engines import output_capture, slots
from pipeline.engines.attempts import Fall
from pipeline.engines.pool_session import Crew, Doom, Member, how_it_ended
from pipeline.engines.slots import Reading, State, in_words
from pipeline.engines.worker_process import DUMP_SIGNAL, KILL_SIGNAL, kill_group
from pipeline.errors import EnvironmentFailure, FilemillError, WorkersFailed

# How often the limits are looked at; a death is noticed at once.
TICK_S = 0.05
# What a worker has to write its stacks before it is killed for being over a limit.
DUMP_S = 0.2
# A worker whose threads or exit functions do not end is not waited for longer.
LEAVE_S = 10.0
# Above this share of max_memory a worker is killed, above max_memory only replaced.
KILL_SHARE = 1.5
# Workers that die while they start, none having become ready in between, until that is said instead of
# retried...
MOST_DEAD_STARTS = 3
# ...and how many when they were killed from outside, by the kernel for want of memory for instance.
MOST_KILLED_STARTS = 20


@dataclass(frozen=True)
class Limits:
    """What a worker may use. Times in seconds."""

    job_s: float | None
    stage_s: tuple[float | None, ...]
    start_s: float
    memory_bytes: int | None


@dataclass(frozen=True)
class Death:
    """A worker is dead: what its slot said, and, if it was at work, how that counts for its job."""

    last: Reading
    fall: Fall


News = Death | FilemillError


class Supervisor:
    """Watches one crew at a time. What it sees is in `news`; the engine decides what follows."""

    def __init__(self, seating: slots.Seating, limits: Limits) -> None:
        self.news: queue.SimpleQueue[News] = queue.SimpleQueue()
        self._seating = seating
        self._table = seating.slots
        self._limits = limits
        self._crew: Crew | None = None
        self._lock = threading.Lock()
        self._dead_starts = self._killed_starts = 0
        self._has_failed = False
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="pool-supervisor")
        self._thread.start()

    def watch(self, crew: Crew) -> None:
        with self._lock:
            self._crew = crew

    def look_away(self) -> None:
        """From the return of this on, no death is reported until another crew is watched."""
        with self._lock:
            self._crew = None

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def fail(self, failure: FilemillError) -> None:
        """Report what no other worker can help, and once."""
        if not self._has_failed:
            self._has_failed = True
            self.news.put(failure)

    def _run(self) -> None:
        while not self._stop.is_set():
            with self._lock:
                members = list(self._crew.members) if self._crew else []
                for member in members:
                    self._look_at(member)
            self._sleep([member for member in members if not member.worker.is_given_up])

    def _sleep(self, members: list[Member]) -> None:
        """Until the next tick, or a death."""
        if wait([member.worker.sentinel for member in members], TICK_S) if members else self._stop.wait(TICK_S):
            time.sleep(0.001)

    def _look_at(self, member: Member) -> None:
        now = self._table.read(member.seat.number)
        if member.worker.is_dead:
            self._bury(member)
        elif member.is_stuck:
            self._remove(member)
            self.fail(EnvironmentFailure(member.give_up()))
        elif member.killed_at:
            member.kill()
        elif member.worker.is_abandoned:
            member.was_abandoned = True
            member.kill()
        elif member.doom:
            self._carry_out(member, member.doom, now)
        elif now.state == State.START_FAILED:
            self.fail(WorkersFailed(f"no worker can start:\n{output_capture.read(member.seat.capture).strip()}"))
        else:
            self._check_limits(member, now)
            output_capture.cut(member.seat.capture)

    def _check_limits(self, member: Member, now: Reading) -> None:
        spent_s = (time.monotonic_ns() - now.since) / 1e9
        if now.state == State.STARTING and spent_s > self._limits.start_s:
            self._condemn(
                member,
                Doom("timeout", f"was not ready after {self._limits.start_s:g} s", "pool.start_timeout"),
            )
        elif now.state == State.LEAVING and spent_s > LEAVE_S:
            member.kill()
        elif now.state in (State.IDLE, State.AT_WORK):
            self._dead_starts = self._killed_starts = 0
        if now.state == State.AT_WORK and (doom := self._over_limit(member, now, spent_s)):
            self._condemn(member, doom)

    def _over_limit(self, member: Member, now: Reading, spent_s: float) -> Doom | None:
        limits = self._limits
        stage_s = limits.stage_s[now.stage] if now.stage >= 0 else None
        if limits.job_s and spent_s > limits.job_s:
            return Doom("timeout", f"took longer than {limits.job_s:g} s", "the limit of a file", now.batch, now.place)
        if stage_s and (time.monotonic_ns() - now.stage_since) / 1e9 > stage_s:
            remark = "the stage's own limit"
            return Doom("timeout", f"took longer than {stage_s:g} s", remark, now.batch, now.place, now.stage_since)
        member.held_bytes = slots.memory_bytes(member.worker.pid) or member.held_bytes  # a dying one has none
        if limits.memory_bytes and member.held_bytes > limits.memory_bytes * KILL_SHARE:
            remark = f"more than {KILL_SHARE:g} times pool.max_memory of {in_words(limits.memory_bytes)}"
            return Doom("memory", f"killed at {in_words(member.held_bytes)} of memory", remark, now.batch, now.place)
        return None

    def _condemn(self, member: Member, doom: Doom) -> None:
        """Have the worker write down where it is; the next look but one kills it."""
        member.doom, member.doomed_at = doom, time.monotonic()
        if DUMP_SIGNAL and member.worker.pid:
            with suppress(ProcessLookupError):
                os.kill(member.worker.pid, DUMP_SIGNAL)

    def _carry_out(self, member: Member, doom: Doom, now: Reading) -> None:
        """Kill a worker that is still at what it was condemned for."""
        if not _is_still_at(doom, now):
            member.doom = None
        elif time.monotonic() - member.doomed_at > DUMP_S or doom.kind == "memory":
            member.kill()

    def _bury(self, member: Member) -> None:
        code = member.worker.exitcode
        if code is None:
            return  # another thread is reaping it; the next look will know
        kill_group(member.worker.pid)
        last = self._table.read(member.seat.number)
        output = output_capture.read(member.seat.capture)
        self._remove(member)
        if last.state == State.STARTING and not member.was_abandoned:
            self._count_dead_start(member, code, output)
        else:
            self._dead_starts = self._killed_starts = 0
        if last.state in (State.IDLE, State.AT_WORK) or member.was_abandoned:
            self.news.put(Death(last, _fall(member, last, code, output)))

    def _remove(self, member: Member) -> None:
        assert self._crew is not None
        self._crew.members.remove(member)
        self._seating.take_back(member.seat)

    def _count_dead_start(self, member: Member, code: int, output: str) -> None:
        if member.doom:
            self.fail(WorkersFailed(f"a worker {member.doom.text} ({member.doom.remark})\n{output}".strip()))
        self._killed_starts += code == -KILL_SIGNAL
        self._dead_starts += code != -KILL_SIGNAL
        if self._dead_starts >= MOST_DEAD_STARTS or self._killed_starts >= MOST_KILLED_STARTS:
            times = self._dead_starts + self._killed_starts
            self.fail(WorkersFailed(f"{times} workers died while they started: {how_it_ended(code)}\n{output}".strip()))


def _is_still_at(doom: Doom, now: Reading) -> bool:
    if now.state != State.AT_WORK:
        return now.state == State.STARTING
    is_same_job = (now.batch, now.place) == (doom.batch, doom.place)
    return is_same_job and doom.stage_since in (None, now.stage_since)


def _fall(member: Member, last: Reading, code: int, output: str) -> Fall:
    doom = member.doom
    if doom and _is_still_at(doom, last):
        return Fall(doom.kind, last.stage, doom.text, doom.remark, output=output)
    if member.was_abandoned:
        return Fall("crashed", last.stage, "killed, as the forkserver had been", output=output)
    remark = ""
    if code == -KILL_SIGNAL:
        held = f"; the worker held {in_words(member.held_bytes)}" if member.held_bytes else ""
        remark = f"perhaps out of memory{held}"
    return Fall("crashed", last.stage, how_it_ended(code), remark, output=output)
