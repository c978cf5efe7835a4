"""Tells during a run how long it may still take, by the cost of the files that are left and not by their number."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.planning.estimate import Expected
from pipeline.planning.learnt import Learnt

# Where the costliest files take less than this many times what the cheapest do, their number tells as much.
_ALIKE = 1.5
# Seconds after which the pace of the run itself tells more than that of others.
_KNOWN_AFTER_S = 3.0


class RemainingTime(RunObserver):
    """Follows a run, and tells about once a second how many seconds are left."""

    def __init__(self, on_left: Callable[[float], None]) -> None:
        """`on_left` is called with the seconds that are left, from the thread of `on_in_hand`."""
        self._on_left = on_left
        self._learnt: Learnt | None = None
        """What each file counts for; None where all count for one."""
        self._mean = 1.0
        """What a file counts for of which nothing is known."""
        self._planned = self._done = 0.0
        self._done_before = 0.0
        """What had ended when the plan was whole; how long that took tells nothing."""
        self._at_once_s: float | None = None
        """Seconds that one unit of what is left takes, by what earlier runs took; None if unknown."""
        self._began: float | None = None

    def expect(self, expected: Expected, learnt: Learnt, workers: float, *, done: int = 0) -> None:
        """Begin to count anew, before anything is handed out, with what the files of the plan are expected to take.

        Args:
            expected: The sum of all files.
            learnt: What each of them takes.
            workers: The number of files that are worked on at a time, less what workers are idle.
            done: The number of files of the plan that ended before it was whole.
        """
        self._planned, self._done = 0.0, float(done)
        self._learnt, self._mean, self._at_once_s, self._began = None, 1.0, None, None
        self._done_before = self._done
        if not expected.jobs:
            return
        self._at_once_s = expected.busy_s / expected.jobs / workers
        if expected.slowest_s > _ALIKE * expected.quickest_s:
            self._learnt, self._mean, self._at_once_s = learnt, expected.busy_s / expected.jobs, 1 / workers
            self._done = done * self._mean
        self._done_before = self._done

    @property
    def left_s(self) -> float | None:
        """The seconds that are left; None if nothing tells yet."""
        if self._began is None:
            return None
        left, spent_s = max(0.0, self._planned - self._done), time.monotonic() - self._began
        done = self._done - self._done_before
        if done and (spent_s > _KNOWN_AFTER_S or self._at_once_s is None):
            return left * spent_s / done
        return None if self._at_once_s is None else left * self._at_once_s

    def on_planned(self, files: int) -> None:
        self._planned += files * self._mean
        self._began = self._began or time.monotonic()

    def on_outcome(self, outcome: Outcome) -> None:
        if self._learnt is None:
            self._done += not outcome.goes_on
        elif not outcome.goes_on:
            self._done += self._learnt.seconds_of_outcome(outcome) or self._mean

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        if self._learnt is None:
            self._done += len(outcomes)
        else:
            super().on_outcomes(outcomes)

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        if (left_s := self.left_s) is not None:
            self._on_left(left_s)
