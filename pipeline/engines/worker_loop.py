"""What runs inside a worker: the initializer, the jobs of a batch, and the tidying after each job."""

from __future__ import annotations

import os
import pickle
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress

from pipeline.engines import output_capture, slots, wire_format
from pipeline.engines.attempts import Fall
from pipeline.engines.slots import (
    BATCH,
    DRAINING,
    NO_STAGE,
    PLACE,
    SINCE,
    STAGE,
    STAGE_SINCE,
    STATE,
    Seat,
    State,
    in_words,
)
from pipeline.engines.wire_format import Answer
from pipeline.engines.worker_process import KILL_SIGNAL, LINUX, children
from pipeline.errors import FilemillError, WorkersFailed
from pipeline.messages import AnyJob, Kind, Outcome

Enter = Callable[[int], None]
Work = Callable[[AnyJob, Enter], Outcome]

# A batch that turned out to hold slow jobs goes back after so long, for other workers to share what is left
# of it.
LONG_BATCH_NS = 100_000_000
# After a job that took longer than this, reading our memory costs nothing that matters.
LONG_JOB_NS = 1_000_000
# No process can have been started in less; most of the time of a job that does nothing is saved by not
# looking.
SHORT_JOB_NS = 50_000
# How long the processes that a job left behind may take to die of SIGKILL.
SWEEP_S = 2.0


class Desk:
    """A worker at its desk: the seat it was given, and the function that does a job."""

    _work: Work

    def __init__(self, seat: Seat) -> None:
        self._seat = seat
        # Through a memoryview an item is written twice as fast as through ctypes.
        self._words = memoryview(seat.slots.words).cast("B").cast("q")
        self._at = slots.first_word(seat.number)
        self._kept_children: set[int] = set()

    def set_up(self, functions: bytes, blueprint: bytes) -> None:
        """Run the initializer. The processes it starts are not a job's leftovers."""
        begin, self._work = pickle.loads(functions)
        begin(blueprint)
        self._kept_children = children() if LINUX else set()
        limit, held = self._seat.max_memory_bytes, slots.memory_bytes()
        if limit and held > limit:
            raise WorkersFailed(
                f"a worker holds {in_words(held)} right after its start; pool.max_memory is {in_words(limit)}"
            )
        output_capture.take()

    def run(self, number: int, jobs: list[AnyJob]) -> tuple[list[Answer], float]:
        """Do the jobs of a batch, until the worker must leave; also gives the seconds it took."""
        words, at, seat, at_work = self._words, self._at, self._seat, int(State.AT_WORK)
        words[at + BATCH] = number
        answers: list[Answer] = []
        began = now = time.monotonic_ns()
        for place, job in enumerate(jobs):
            if seat.is_spent or words[DRAINING] or now - began > LONG_BATCH_NS:
                break
            words[at + STAGE] = NO_STAGE
            words[at + SINCE] = before = now
            words[at + PLACE] = place
            words[at + STATE] = at_work
            answers.append(self._run_one(job, now))
            now = time.monotonic_ns()
            if seat.files_left is not None:
                seat.files_left -= 1
            if now - before > LONG_JOB_NS:
                self._watch_memory()
        if seat.files_left is not None and not answers:
            seat.files_left -= 1  # Pool counts batches: it must never be ahead of us and have us leave unawares
        self._watch_memory()
        return answers, (now - began) / 1e9

    def _run_one(self, job: AnyJob, before: int) -> Answer:
        answer: Answer
        try:
            answer = self._work(job, self._enter)
        except BaseException as error:
            answer = self._fall(error)
        if is_memory(answer):
            self._seat.files_left = 0  # a heap that was full once is not trusted again
        if LINUX and time.monotonic_ns() - before > SHORT_JOB_NS:
            kill_leftovers(self._kept_children)
        output = output_capture.take()
        return answer._replace(output=output) if output else answer

    def _enter(self, stage: int) -> None:
        self._words[self._at + STAGE_SINCE] = time.monotonic_ns()
        self._words[self._at + STAGE] = stage

    def _fall(self, error: BaseException) -> Fall:
        text = traceback.format_exception_only(error)[-1].strip()
        kind: Kind = "error" if isinstance(error, Exception) else "crashed"
        if isinstance(error, MemoryError):
            kind = "memory"
        detail = "".join(traceback.format_exception(error))
        return Fall(kind, self._words[self._at + STAGE], f"{text} was raised", detail=detail)

    def _watch_memory(self) -> None:
        limit = self._seat.max_memory_bytes
        if limit and slots.memory_bytes() > limit:
            self._seat.files_left = 0


_desk: Desk | None = None


def start(functions: bytes, blueprint: bytes) -> None:
    """Pool's initializer: run the user's, and stay when it raises, or Pool would start others for ever."""
    global _desk
    seat = slots.mine()
    assert seat is not None
    try:
        desk = Desk(seat)
        desk.set_up(functions, blueprint)
        _desk = desk
    except BaseException as error:
        print(
            error if isinstance(error, FilemillError) else traceback.format_exc().rstrip(),
            file=sys.stderr,
            flush=True,
        )
        seat.enter_state(State.START_FAILED)
        while True:  # until the parent has read why, and kills us
            time.sleep(60)
    seat.enter_state(State.IDLE)


def run_batch(batch: tuple[int, bytes]) -> tuple[int, bytes, float]:
    """Pool's function: do a batch of jobs; gives its number, the packed answers, and the seconds it took."""
    seat = slots.mine()
    assert seat is not None and _desk is not None
    number, jobs = batch[0], wire_format.unpack_jobs(batch[1])
    answers, seconds = _desk.run(number, jobs)
    reply = number, wire_format.pack_answers(jobs, answers), seconds
    seat.slots.words[slots.first_word(seat.number) + STATE] = State.IDLE
    return reply


def is_memory(answer: Answer) -> bool:
    """Whether a job ran out of memory."""
    if isinstance(answer, Fall):
        return answer.kind == "memory"
    for result in answer.results:  # noqa: SIM110, any() would take three times as long, for every job
        if result.kind == "memory":
            return True
    return False


def kill_leftovers(kept: set[int]) -> None:
    """Kill the processes that a job has left behind, orphans among them, since we adopt those.

    Costs one call of the system when there are none.
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
