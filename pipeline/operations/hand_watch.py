"""A thread that tells once a second which jobs are in hand, so that no file is ever at work without a name."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import TracebackType

from pipeline.engines import Engine
from pipeline.engines.made_jobs import MadeJobs
from pipeline.ledger.origins import key_of
from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.operations.recorder import RunLog

# Seconds between two looks.
_EVERY_S = 1.0
# A job in hand for so many seconds, and so many times as long as its stages usually take, is reported.
SLOW_S = 600.0
SLOW_TIMES = 20


class HandWatch:
    """Context manager around the jobs of an engine. An engine that runs them in this process answers nobody else."""

    def __init__(
        self, engine: Engine, observers: RunObserver, log: RunLog, on_look: Callable[[], None] = lambda: None
    ) -> None:
        """Begin nothing yet; `on_look` is called at every look, from the thread."""
        self._engine, self._on_look = engine, on_look
        self._observers = observers
        self._log = log
        self._spent: dict[str, list[float]] = defaultdict(lambda: [0, 0.0])
        """The number of jobs that made an output of a stage, and the seconds that they took together."""
        self._reported: set[bytes] = set()
        self._has_ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True, name="hand-watch")

    def add(self, outcomes: Iterable[Outcome]) -> None:
        """Learn from outcomes how long jobs usually take."""
        if isinstance(outcomes, MadeJobs):
            for stages, _, rows, _ in outcomes.groups:
                self._add(stages, len(rows), sum([row[0] for row in rows]))
            return
        for outcome in outcomes:
            self._add([result.stage for result in outcome.results if result.status == "done"], 1, outcome.seconds)

    def _add(self, stages: Iterable[str], jobs: int, seconds: float) -> None:
        for stage in stages:
            spent = self._spent[stage]
            spent[0] += jobs
            spent[1] += seconds

    def __enter__(self) -> HandWatch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._has_ended.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._has_ended.is_set():
            in_hand = self._engine.in_hand()
            self._observers.on_in_hand(in_hand)
            for each in in_hand:
                if each.seconds >= SLOW_S:
                    self._report_slow(each)
            self._on_look()
            self._has_ended.wait(_EVERY_S)

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
