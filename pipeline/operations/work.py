"""What runs the jobs of a run, from the first that is handed out to the last, which may be before the plan is whole."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from types import TracebackType

from pipeline.engines import Engine
from pipeline.errors import SIGNALLED, TIME_IS_UP, EnvironmentFailure, FilemillError
from pipeline.messages import Job, Source
from pipeline.operations.job_loop import JobLoop, Signals
from pipeline.operations.launch import count_workers
from pipeline.operations.recorder import INTEND_AHEAD
from pipeline.operations.run_context import RunContext
from pipeline.operations.time_limit import TimeLimit
from pipeline.planning.plan_store import size_beyond_a_block
from pipeline.planning.unchanged import ComparedRange

# For so many seconds of a plan no job is handed out, since workers take as long to start: a plan that is whole by then
# is handed out in the best order, and all guards have spoken.
_HELD_BACK_S = 0.05
# Seconds between two turns of the loop while the plan is made.
_TURN_EVERY_S = 0.01
# So many jobs wait for room in the engine, and more of them are stored with the plan...
_MAX_WAITING = 4096
# ...unless those that were taken are expected to end within so many seconds: to wait for that costs less.
_MAX_WAIT_S = 1.0
# How many files that were cut off are named.
_NAMED = 3


class RunStopped(Exception):
    """The run ends before its plan is whole; the log says why."""


class Work:
    """Context manager around the steps of a run: its signals, its engine, and the loop that feeds it.

    Nothing is opened before the first job; what was opened is closed by `end`, or by the exit.
    """

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._signals = Signals(context.request.grace_s)
        self._stack = ExitStack()
        self._loop: JobLoop | None = None
        self._began = 0.0
        """When the loop was opened; 0 before, and once it is closed."""
        self._busy_before_s = 0.0

    def __enter__(self) -> Work:
        return self

    def loop(self) -> JobLoop:
        """Return the loop, which is opened by the first call."""
        if self._loop is None:
            context, self._began = self._context, time.monotonic()
            self._busy_before_s = context.learnt.busy_s
            self._stack.enter_context(self._signals)
            engine = context.open_engine()
            loop = JobLoop(
                engine, context.recorder, context.log, context.observers, context.guards, context.code,
                self._signals, context.request.is_followed, context.hands, self._limit(engine),
            )  # fmt: skip
            self._loop = self._stack.enter_context(loop)
        return self._loop

    def _limit(self, engine: Engine) -> TimeLimit | None:
        context, most = self._context, self._context.request.max_time
        if most is None:
            return None
        return TimeLimit(most, engine, context.learnt, count_workers(context.config), context.request.grace_s)

    @property
    def is_stopped(self) -> bool:
        """True if a signal or a limit has stopped the run."""
        return bool(self._signals.first) or self._context.log.is_stopped

    def end(self) -> None:
        """Close what runs jobs, and log why the run ends, if it ends early."""
        self.__exit__(None, None, None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        if not self._began:
            return isinstance(error, RunStopped)
        try:
            is_handled = self._stack.__exit__(kind, error, at) or isinstance(error, RunStopped)
        finally:
            if self._context.engine:
                self._context.engine.close()
        if error is None or is_handled:
            self._log_end()
        self._began = 0.0
        return is_handled

    def _log_end(self) -> None:
        context, signals = self._context, self._signals
        if refused := context.recorder.refused:
            more = f", and {len(refused) - 1:,} more like it" if len(refused) > 1 else ""
            text = f"{refused[0]}{more}; it is no attempt, and all other files were done"
            context.log.stop(EnvironmentFailure.exit_code, text)
        if signals.first:
            cut = ", what was in hand was cut off" if signals.is_interrupted else ""
            context.log.stop(SIGNALLED + signals.first, f"by {signals.name}{cut}; the same line resumes")
        elif signals.is_interrupted and self._loop and self._loop.limit and self._loop.limit.is_late:
            left = context.recorder.planned_files - context.recorder.done_files if context.is_planned else None
            text = self._loop.limit.describe(left, is_cut=True, is_well=not context.summary.failed)
            context.log.stop(TIME_IS_UP, text)
            self._note_cut_off()
        elif signals.is_interrupted:
            text = "a stage raised Interrupted, by which only a signal ends a run"
            context.log.stop(EnvironmentFailure.exit_code, text)
        if self._loop and self._loop.limit and (note := self._loop.limit.describe_misfits()):
            context.note(note)
        if files := context.recorder.done_files:
            context.work_done = {
                "files": files,
                "seconds": round(time.monotonic() - self._began, 3),
                "busy_s": round(context.learnt.busy_s - self._busy_before_s, 3),
                "processes": count_workers(context.config),
            }

    def _note_cut_off(self) -> None:
        """Note which files the time limit has cut off; told once, since the next night may well cut them off, too."""
        names = sorted(map(str, self._context.recorder.origins_cut_off))
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        what = f"cut off by the time limit: {', '.join(names[:_NAMED])}{more}"
        self._context.note(f"{what}; what is cut off each time needs a longer --max-time, or --grace")


class EarlyJobs:
    """Context manager around the making of a plan: has jobs done while the others are still looked for."""

    def __init__(self, context: RunContext) -> None:
        self._context = context
        self._waiting: deque[Job] = deque()
        self._intended: deque[Job] = deque()
        self._taken = 0
        self._began = time.monotonic()
        self._next_turn = self._began + _HELD_BACK_S
        self._has_begun = self._is_turning = False

    def __enter__(self) -> EarlyJobs:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        """Where the plan fails, and not a turn of the loop, let the jobs in hand end, and be recorded."""
        if isinstance(error, (FilemillError, OSError)) and self._has_begun and not self._is_turning:
            self._context.work.loop().finish()

    def take(self, job: Job) -> bool:
        """Take a job; return False where so many wait that it is stored with the plan."""
        if not self._taken:
            self._context.open_engine()
            self._context.recorder.is_streaming = True
        while len(self._waiting) >= _MAX_WAITING:
            if not self._is_quick():
                self.go_on()
                return False
            self._take_turn(wait_s=_TURN_EVERY_S)
        self._taken += 1
        self._waiting.append(job)
        self.go_on()
        return True

    def _is_quick(self) -> bool:
        """Return whether the jobs that were taken end so soon that it is best to wait for them."""
        done, seconds = self._context.recorder.done_files, time.monotonic() - self._began
        return seconds * (self._taken - done) < _MAX_WAIT_S * done if done else seconds < _MAX_WAIT_S

    def expect(self, compared: ComparedRange, sources: Sequence[Source]) -> None:
        """Have a range of sources be digested while its outputs are recorded."""
        if made := self._context.recorder.made_ranges:
            made.expect(compared, sources)

    def go_on(self) -> None:
        """Take a turn of the loop if it is time. Raises RunStopped and what a turn of the loop raises."""
        if time.monotonic() >= self._next_turn:
            self._take_turn()

    def rest(self) -> Iterator[Job]:
        """Yield the jobs that were taken and not handed out while the plan was made, the largest first."""
        self._waiting = deque(sorted(self._waiting, key=size_beyond_a_block, reverse=True))
        while job := self._next_job():
            yield job

    def _take_turn(self, wait_s: float = 0.0) -> None:
        if not self._has_begun:
            self._context.guards.begin_work()
            self._context.has_begun = self._has_begun = True
        self._is_turning = True
        loop = self._context.work.loop()
        loop.take_turn(self._next_job, wait_s)
        if loop.must_end:
            loop.finish()
            loop.raise_changed()
            self._context.summary.sources = self._taken
            raise RunStopped
        self._is_turning = False
        self._next_turn = time.monotonic() + _TURN_EVERY_S
        self._context.ledger.begin()  # of which the plan's own tables are written as part

    def _next_job(self) -> Job | None:
        """Return the next job whose targets are recorded as intended; None where none waits."""
        if not self._intended and self._waiting:
            count, parts = min(INTEND_AHEAD, len(self._waiting)), self._context.parts
            jobs = (self._waiting.popleft() for _ in range(count))
            self._intended.extend(parts.with_parts(jobs) if parts else jobs)
            self._context.recorder.intend(self._intended)
        return self._intended.popleft() if self._intended else None
