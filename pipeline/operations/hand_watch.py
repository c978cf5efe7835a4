"""A thread that tells once a second which jobs are in hand, so that no file is ever at work without a name.

It does so for the whole of a run: while nothing runs jobs, it shows that the run is not dead.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import TracebackType

from pipeline.config.model import Config
from pipeline.engines import Engine
from pipeline.engines.made_jobs import SECONDS, MadeJobs
from pipeline.ledger.origins import key_of
from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.operations.recorder import RunLog

# Seconds between two looks.
_EVERY_S = 1.0
# A job in hand for so many seconds, and so many times as long as its stages usually take, is reported.
SLOW_S = 600.0
SLOW_TIMES = 20
# What a file may take beyond its timeouts before its run is said to hang: for kills, and a machine with much to do.
_SPARE_S = 60.0


class HandWatch:
    """Context manager around a run.

    It needs a thread, since the serial engine blocks the main one while it runs a job.
    """

    def __init__(self, observers: RunObserver, log: RunLog, beat: Callable[[], None]) -> None:
        """Begin nothing yet; `beat` is called at every look, from the thread, after the observers."""
        self._observers, self._log, self._beat = observers, log, beat
        self._engine: Engine | None = None
        self._end_late: Callable[[], None] = lambda: None
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        """The number of jobs that made an output of a stage, and the seconds that they took together."""
        self._reported: set[bytes] = set()
        self._lock = threading.Lock()
        """Held during a look, so that nobody closes the engine meanwhile."""
        self._has_ended = threading.Event()
        self._is_due = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="hand-watch")

    def follow(self, engine: Engine, end_late: Callable[[], None] = lambda: None) -> None:
        """Look at the jobs of an engine from now on, and at once; `end_late` is called after each look, too."""
        with self._lock:
            self._engine, self._end_late = engine, end_late
        self._is_due.set()

    def unfollow(self) -> None:
        """Look at no engine any more."""
        with self._lock:
            self._engine, self._end_late = None, lambda: None

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from outcomes how long jobs usually take."""
        if isinstance(outcomes, MadeJobs):
            for stages, _, rows, _ in outcomes.groups:
                self._add(stages, len(rows), sum([row[SECONDS] for row in rows]))
            return
        for outcome in outcomes:
            self._add([result.stage for result in outcome.results if result.status == "done"], 1, outcome.seconds)

    def _add(self, stages: Iterable[str], jobs: int, seconds: float) -> None:
        for stage in stages:
            spent = self._spent[stage]
            spent[0] += jobs
            spent[1] += seconds

    def __enter__(self) -> HandWatch:
        with suppress(RuntimeError):  # no thread can be started: whatever needs one says so, this one only tells
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_ended.set()
        self._is_due.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._has_ended.is_set():
            self._is_due.wait(_EVERY_S)
            self._is_due.clear()
            if not self._has_ended.is_set():
                with self._lock:
                    self._look()

    def _look(self) -> None:
        if self._engine:
            in_hand = self._engine.in_hand()
            self._observers.on_in_hand(in_hand)
            for each in in_hand:
                if each.seconds >= SLOW_S:
                    self._report_slow(each)
        try:
            self._beat()
        except Exception as error:  # it only tells of the run
            self._beat = lambda: None
            self._log.note(f"what the run is at is not told any more: {error!r}")
        self._end_late()

    def _report_slow(self, each: InHand) -> None:
        """Report a job that takes far longer than others, once."""
        usual_s = self._usual_s(each)
        if key_of(each.job.origin) in self._reported or each.seconds < SLOW_TIMES * usual_s:
            return
        self._reported.add(key_of(each.job.origin))
        usually = f"the others took {usual_s:,.1f} s each" if usual_s else "no other has ended yet"
        text = f"{each}; {usually}; 'timeout' in pipeline.yaml would end it"
        self._log.write(text)
        self._observers.on_slow(text)

    def _usual_s(self, each: InHand) -> float:
        """Return the mean seconds of the jobs that made the same outputs in this run; 0 if none has."""
        spent = [self._spent[target.stage] for target in each.job.targets if target.stage in self._spent]
        return max((seconds / jobs for jobs, seconds in spent), default=0.0)


def moves_within_s(config: Config) -> float | None:
    """Return the seconds within which a file in hand ends by the timeouts of a pipeline; None if they set no limit.

    It may be tried several times. Without a timeout for the whole file those of the stages are its limit, if each has
    one and is called once.
    """
    each_s = [stage.timeout_s for stage in config.stages]
    has_many_calls = any(stage.stage.fans_out or stage.stage.gathers for stage in config.stages)
    if config.timeout_s is not None:
        try_s = config.timeout_s
    elif has_many_calls or None in each_s:
        return None
    else:
        try_s = sum(filter(None, each_s))
    # A worker that dies, or lacks memory, costs one more try each.
    tries = 3 + config.retry.max
    backoff_s: float = config.retry.backoff_s * (2**config.retry.max - 1)
    return tries * try_s + backoff_s + _SPARE_S
