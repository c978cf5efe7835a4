"""The loop of a run: it feeds the engine while that has room, and records outcomes until no job is left.

A signal, a limit, an error of the machine or a change of the code may end it early: the engine is then drained. The
first signal lets the jobs in hand end, a second one does not.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from types import FrameType, TracebackType
from typing import Any

from pipeline.engines import Engine
from pipeline.engines.made_jobs import MadeJobs
from pipeline.errors import TIME_IS_UP, CodeChanged, EnvironmentFailure, Interrupted, Unfollowed, WorkersFailed
from pipeline.messages import AnyJob, Outcome
from pipeline.observer import RunObserver
from pipeline.operations.code_watch import CodeWatch
from pipeline.operations.guards import Guards
from pipeline.operations.hand_watch import HandWatch
from pipeline.operations.recorder import COMMIT_EVERY_S, Recorder, RunLog
from pipeline.operations.time_limit import TimeLimit
from pipeline.text import shown

# How many files that were loaded late are named.
_NAMED = 10
# So many jobs are handed out, or passed over for want of time, in one turn of a run that has a time limit.
_MOST_IN_A_TURN = 1000
# How long after the end of the grace a job that keeps this very process busy is ended by another signal.
_REPEATED_AFTER_S = 0.5
_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Context manager that catches SIGINT, SIGTERM and SIGHUP."""

    def __init__(self, grace_s: float) -> None:
        self.first = 0
        """The number of the first signal; 0 before any."""
        self.is_interrupted = False
        """True if jobs in hand could not be finished."""
        self._grace_s = grace_s
        self._received_at = 0.0
        self._is_late = False
        """True once the job that this process runs is to be ended since the time limit has long passed."""
        self._handlers_before: dict[int, Any] = {}

    @property
    def name(self) -> str:
        """The name of the first signal, such as SIGTERM."""
        return signal.Signals(self.first).name

    def check_grace(self) -> None:
        """Raise Interrupted once the jobs in hand have had `grace_s` seconds since the first signal."""
        if self.first and time.monotonic() - self._received_at > self._grace_s:
            raise Interrupted

    def repeat_late(self) -> None:
        """Send the signal once more if the job that this process runs has not ended long after its grace."""
        if self.first and time.monotonic() - self._received_at > self._grace_s + _REPEATED_AFTER_S:
            os.kill(os.getpid(), self.first)

    def end_late(self, late_s: float) -> None:
        """Interrupt the job that this process runs if it has not ended long after the time limit and the grace."""
        if late_s > _REPEATED_AFTER_S and signal.SIGTERM in self._handlers_before:
            self._is_late = True
            os.kill(os.getpid(), signal.SIGTERM)

    def _receive(self, number: int, frame: FrameType | None) -> None:
        if self.first or self._is_late:
            raise Interrupted
        self.first, self._received_at = number, time.monotonic()

    def __enter__(self) -> Signals:
        if threading.current_thread() is not threading.main_thread():
            return self  # Python gives signals to the main thread only, which is whoever called us
        for number in _CAUGHT:
            # nohup ignores SIGHUP, a shell's background job SIGINT: that is left as it is.
            if signal.getsignal(number) is not signal.SIG_IGN:
                self._handlers_before[number] = signal.signal(number, self._receive)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> bool:
        for number, handler in self._handlers_before.items():
            signal.signal(number, handler)
        self.is_interrupted = isinstance(error, Interrupted)
        return self.is_interrupted


class JobLoop:
    """Context manager that runs jobs on an engine, in turns, until all have ended or the run must stop.

    Its exit ends the jobs in hand for the ledger where the run does not wait for them. Raises CodeChanged once the jobs
    in hand have ended.
    """

    def __init__(
        self,
        engine: Engine,
        recorder: Recorder,
        log: RunLog,
        observers: RunObserver,
        guards: Guards,
        code: CodeWatch,
        signals: Signals,
        is_followed: Callable[[], bool] | None,
        hands: HandWatch,
        limit: TimeLimit | None,
    ) -> None:
        self._engine = engine
        self._recorder = recorder
        self._log = log
        self._observers = observers
        self._guards = guards
        self._code = code
        self._signals = signals
        self._is_followed = is_followed
        self._hands = hands
        self.limit = limit
        """The time limit of the run; None without one."""
        self._held: AnyJob | None = None
        """A job that will end in time only if those before it take less than is expected of them."""
        self._is_draining = False
        self._is_open = False
        """True from the first turn until the jobs have ended."""
        self._late: list[str] = []
        """The files of code that calls of stages were the first to load."""

    def __enter__(self) -> JobLoop:
        self._hands.follow(self._engine, self._end_late)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._hands.unfollow()
        try:
            if isinstance(error, (Interrupted, EnvironmentFailure)):
                self._recorder.cut_off(self._engine.in_hand())
        finally:
            self._end_jobs()

    def run(self, jobs: Iterator[AnyJob], on_outcome: Callable[[Outcome], None] | None = None) -> None:
        """Run jobs, and those in hand, until all have ended; `on_outcome` is called for each that is recorded.

        Raises Interrupted, and CodeChanged once the jobs in hand have ended.
        """
        next_job = partial(next, jobs, None)
        while self.take_turn(next_job, on_outcome=on_outcome) or self._engine.busy:
            pass
        self._recorder.record_unnamed()
        self._end_jobs()
        self.raise_changed()
        self._stop_in_time(self._recorder.planned_files - self._recorder.done_files)

    def finish(self) -> None:
        """Wait for the jobs in hand, and start no others."""
        if not self._is_draining:
            self._drain()
        while self._engine.busy:
            self.take_turn()
        self._recorder.record_unnamed()
        self._stop_in_time(None)

    def _stop_in_time(self, files_left: int | None) -> None:
        """Stop the run, with all that was in hand done, if its time limit has left anything undone."""
        limit, is_stopped = self.limit, self._signals.first or self._log.is_stopped or self._code.changed
        if limit and files_left != 0 and (limit.is_over or limit.has_passed_over) and not is_stopped:
            is_well = not self._log.summary.failed
            self._log.stop(TIME_IS_UP, limit.describe(files_left, is_well=is_well))

    def raise_changed(self) -> None:
        """Raise CodeChanged if the code has changed; no job may be in hand."""
        if self._code.changed:
            raise CodeChanged(self._code.changed)

    @property
    def must_end(self) -> bool:
        """True if no more jobs may be started."""
        is_late = self.limit is not None and self.limit.is_over
        return bool(self._signals.first or self._log.is_stopped or self._code.changed or is_late)

    def take_turn(
        self,
        next_job: Callable[[], AnyJob | None] = lambda: None,
        wait_s: float = COMMIT_EVERY_S,
        on_outcome: Callable[[Outcome], None] | None = None,
    ) -> bool:
        """Hand out jobs while there is room, and record what has ended; return whether there may be more jobs."""
        self._is_open = True
        if self.must_end and not self._is_draining:
            self._drain()
        self._check_limits()
        may_be_more = not self._is_draining and self._feed(next_job)
        if outcomes := self._poll(wait_s):
            self._hands.add(outcomes)
            if self.limit:
                self.limit.add(outcomes)
            self._record(outcomes)
        if on_outcome:
            for outcome in outcomes:
                on_outcome(outcome)
        self._check_folders()
        self._recorder.stop_consumer()
        self._recorder.commit_if_due()
        return may_be_more

    def _poll(self, wait_s: float) -> Sequence[Outcome]:
        """Return the outcomes that have arrived. Raises CodeChanged where no worker can start with the present code."""
        try:
            outcomes = self._engine.poll(wait_s)
        except WorkersFailed as error:
            raise self._code.explain(error) from error
        if outcomes:
            self._code.check_tables()
        return outcomes

    def _record(self, outcomes: Sequence[Outcome]) -> None:
        if isinstance(outcomes, MadeJobs) and not self._code.is_spoilt:
            self._recorder.record_made(outcomes)
            return
        for outcome in outcomes:
            if outcome.late_code:
                self._late += self._code.on_loaded_late(outcome.late_code)
            if outcome.changed_code:
                self._code.on_loaded(outcome.changed_code)
            if outcome.changed_code or self._code.is_spoilt:
                self._recorder.record_as_stale(outcome)
            else:
                self._recorder.record(outcome)

    def _note_late(self) -> None:
        if self._late:
            names = [shown(os.fsencode(file)) for file in self._late[:_NAMED]]
            more = f" and {len(self._late) - _NAMED:,} more" if len(self._late) > _NAMED else ""
            note = f"loaded only when a stage was called, and part of its code from now on: {', '.join(names)}{more}"
            self._log.note(note)
            self._observers.on_note(note)
            self._late.clear()

    def _feed(self, next_job: Callable[[], AnyJob | None]) -> bool:
        """Hand out jobs while the engine has room; return whether there may be more."""
        if self.limit:
            return self._feed_in_time(next_job, self.limit)
        while self._engine.has_room:
            if (job := next_job()) is None:
                return False
            self._engine.submit(job)
        return True

    def _feed_in_time(self, next_job: Callable[[], AnyJob | None], limit: TimeLimit) -> bool:
        """Hand out the jobs that will end within the time limit, as `_feed` does."""
        for _ in range(_MOST_IN_A_TURN):
            if not (self._engine.has_room and limit.has_room):
                break
            job, self._held = self._held or next_job(), None
            if job is None:
                return False
            match limit.judge(job):
                case "start":
                    self._engine.submit(job)
                case "wait":
                    self._held = job
                    break
        return True

    def _end_late(self) -> None:
        self._signals.repeat_late()
        if self.limit and self._engine.in_hand():
            self._signals.end_late(self.limit.late_s)

    def _end_jobs(self) -> None:
        if self._is_open:
            self._is_open = False
            self._observers.on_jobs_ended()
            self._note_late()

    def _drain(self) -> None:
        self._is_draining = True
        if self._signals.first:
            self._observers.on_signal(self._signals.name)
        self._engine.drain()

    def _check_limits(self) -> None:
        """Raise Interrupted or Unfollowed where the run must end without waiting for the jobs in hand."""
        self._signals.check_grace()
        if self.limit and self.limit.is_late and self._engine.busy:
            raise Interrupted
        if self._is_followed and not self._is_followed():
            raise Unfollowed("nobody takes its outcomes any more; the same call resumes")

    def _check_folders(self) -> None:
        if self._log.is_stopped:
            return
        try:
            self._guards.check_folders(has_vanished=self._recorder.has_moved)
        except EnvironmentFailure as error:
            self._log.stop(error.exit_code, error.text)
