"""The code of a worker process: the initializer, the jobs of a batch, and the clean-up after each job."""

from __future__ import annotations

import gc
import os
import pickle
import resource
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from typing import NoReturn

from pipeline.allowance import allowance
from pipeline.engines import output_capture, slots, wire_format
from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.os_process import KILL_SIGNAL, LINUX, children, memory_bytes
from pipeline.engines.slots import (
    BATCH,
    DRAINING,
    NO_STAGE,
    PLACE,
    READY_BYTES,
    SINCE,
    STAGE,
    STAGE_SINCE,
    STATE,
    Slot,
    State,
)
from pipeline.engines.wire_format import Answer
from pipeline.errors import FilemillError, WorkersFailed
from pipeline.messages import AnyJob, FailureKind, Outcome
from pipeline.text import format_bytes, one_line, shortened
from pipeline.worker.call_times import CallTable, call_times
from pipeline.worker.process_state import process_state
from pipeline.worker.usage_meter import SHORT_JOB_NS, UsageRow, usage_meter

Enter = Callable[[int], None]
Work = Callable[[AnyJob, Enter], Outcome]
Reply = tuple[int, bytes, float, CallTable]

# A batch whose jobs turn out to be slow is returned after this long, so that other workers share the rest of it.
LONG_BATCH_NS = 100_000_000
# After a job that took longer than this, the cost of reading our memory does not matter.
LONG_JOB_NS = 1_000_000
# How long the processes that a job left behind may take to die of SIGKILL.
SWEEP_S = 2.0


# Python's own, which the process that this one is a copy of may have raised for itself.
_GC_THRESHOLDS = 700, 10, 10


class WorkerLoop:
    """Runs the jobs of batches in this worker, and reports in its slot what it is doing."""

    _work: Work

    def __init__(self, slot: Slot) -> None:
        self._slot = slot
        self._words = slot.table.words
        self._at = slots.first_word(slot.number)
        self._kept_children: set[int] = set()
        self._announce = self._enter  # the very same for every job
        self._spent_ns = call_times.spent_ns

    def initialize(self, functions: bytes, blueprint: bytes) -> None:
        """Run the initializer; the processes that it starts are kept, unlike those that a job leaves behind."""
        begin, self._work = pickle.loads(functions)
        begin(blueprint)
        self._kept_children = children() if LINUX else set()
        slot = self._slot
        limit, held = slot.max_memory_bytes, memory_bytes()
        self._words[self._at + READY_BYTES] = held
        if limit and held > limit:
            raise WorkersFailed(
                f"a worker holds {format_bytes(held)} right after its start; pool.max_memory is {format_bytes(limit)}"
            )
        output_capture.take()
        capture = output_capture.descriptor()
        process_state.keep([*slot.pipes, *(() if capture is None else (capture,))], self._end_spoilt)

    def run(self, number: int, jobs: list[AnyJob]) -> tuple[list[Answer], list[UsageRow], float]:
        """Run the jobs of a batch until the worker must leave; return their answers and the seconds taken.

        Between these is what each job used, where a trace is written.
        """
        words, at, slot, working = self._words, self._at, self._slot, int(State.WORKING)
        words[at + BATCH] = number
        answers: list[Answer] = []
        usages: list[UsageRow] = []
        if is_traced := usage_meter.is_on:
            usage_meter.begin()
        began = now = time.monotonic_ns()
        is_watched = False
        for place, job in enumerate(jobs):
            if slot.files_left is not None and slot.is_used_up:
                break
            if words[DRAINING] or now - began > LONG_BATCH_NS:
                break
            words[at + STAGE] = NO_STAGE
            words[at + SINCE] = before = now
            words[at + PLACE] = place
            words[at + STATE] = working
            answers.append(self._run_one(job, now))
            now = time.monotonic_ns()
            if is_traced:
                usages.append(usage_meter.take(before, now))
            if slot.files_left is not None:
                slot.files_left -= 1
            if is_watched := now - before > LONG_JOB_NS:
                self._watch_memory()
        if slot.files_left is not None and not answers:
            slot.files_left -= 1  # Pool counts batches: if its count ran ahead, it would end us without our noticing
        if not is_watched:
            self._watch_memory()
        return answers, usages, (now - began) / 1e9

    def _run_one(self, job: AnyJob, before: int) -> Answer:
        answer: Answer
        try:
            answer = self._work(job, self._announce)
        except BaseException as error:
            answer = self._failure(error)
        if allowance.claimed_bytes:
            claimed_bytes = allowance.take_claim()
            answer = answer._replace(claimed_bytes=claimed_bytes) if isinstance(answer, Outcome) else answer
        elif is_out_of_memory(answer):
            self._slot.files_left = 0  # a heap that was full once is not trusted again
        if LINUX and time.monotonic_ns() - before > SHORT_JOB_NS:
            kill_leftovers(self._kept_children)
        if process_state.is_spoilt:
            self._slot.files_left = 0
        try:
            output = output_capture.take()
        except OSError:
            self._end_spoilt()
        return answer._replace(output=output) if output else answer

    def _end_spoilt(self) -> NoReturn:
        """End this worker, which can neither take batches nor answer them any more."""
        self._words[self._at + STATE] = State.SPOILT
        os._exit(1)

    def _enter(self, stage: int) -> None:
        words, at, now = self._words, self._at, time.monotonic_ns()
        if stage < 0:
            self._spent_ns[words[at + STAGE]].append(now - words[at + STAGE_SINCE])
        words[at + STAGE_SINCE] = now
        words[at + STAGE] = stage

    def _failure(self, error: BaseException) -> WorkerFailure:
        text = one_line(traceback.format_exception_only(error)[-1])
        kind: FailureKind = "error" if isinstance(error, Exception) else "crashed"
        if isinstance(error, MemoryError):
            kind = "memory"
        detail = shortened("".join(traceback.format_exception(error)))
        return WorkerFailure(kind, self._words[self._at + STAGE], f"{text} was raised", detail=detail)

    def _watch_memory(self) -> None:
        limit = self._slot.max_memory_bytes
        if limit and _peak_bytes() > limit and memory_bytes() > limit:
            self._slot.files_left = 0


def _peak_bytes() -> int:
    """Return at least as much memory as this process has held, which takes one system call, not three as what it holds.

    The system counts it in KiB on Linux, and in bytes elsewhere.
    """
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10


_loop: WorkerLoop | None = None


def start(functions: bytes, blueprint: bytes) -> None:
    """Run the user's initializer for Pool; when it raises, stay alive, or Pool would start others for ever."""
    global _loop
    gc.set_threshold(*_GC_THRESHOLDS)
    slot = slots.current()
    assert slot is not None
    try:
        loop = WorkerLoop(slot)
        loop.initialize(functions, blueprint)
        _loop = loop
    except BaseException as error:
        print(
            error if isinstance(error, FilemillError) else traceback.format_exc().rstrip(),
            file=sys.stderr,
            flush=True,
        )
        slot.enter_state(State.START_FAILED)
        while True:  # until the parent has read why, and kills us
            time.sleep(60)
    slot.enter_state(State.IDLE)


def run_batch(batch: tuple[int, bytes, int | None]) -> Reply:
    """Run a batch of jobs for Pool; return its number, the packed answers, the seconds taken, and the stages' calls."""
    slot = slots.current()
    assert slot is not None and _loop is not None
    try:
        number, packed, allowance.allowed_bytes = batch
        jobs = wire_format.unpack_jobs(packed)
        answers, usages, seconds = _loop.run(number, jobs)
        reply = number, wire_format.pack_answers(jobs, answers, slot.seat, usages), seconds, call_times.take()
    except BaseException:  # Pool would hand it to the parent, where no file can be blamed for it
        traceback.print_exc()
        os._exit(1)
    slot.table.words[slots.first_word(slot.number) + STATE] = State.IDLE
    return reply


def is_out_of_memory(answer: Answer) -> bool:
    """Return whether a job ran out of memory."""
    if isinstance(answer, WorkerFailure):
        return answer.kind == "memory"
    for result in answer.results:  # noqa: SIM110, any() would take three times as long, for every job
        if result.kind == "memory":
            return True
    return False


def kill_leftovers(kept: set[int]) -> None:
    """Kill the processes that a job has left behind, adopted orphans included, except those in `kept`.

    Costs one system call when there are none.
    """
    if not kept:
        try:
            os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:
            return
    deadline = time.monotonic() + SWEEP_S
    while (left := children() - kept) and time.monotonic() < deadline:
        for pid in left:
            with suppress(ProcessLookupError):
                os.kill(pid, KILL_SIGNAL)
            with suppress(ChildProcessError):
                os.waitpid(pid, 0 if time.monotonic() < deadline else os.WNOHANG)
