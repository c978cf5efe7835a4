"""What is left of a run is told by the cost of the files that are left, at the pace of earlier runs and its own."""

from __future__ import annotations

import pytest

from pipeline.messages import Outcome, Result, Source
from pipeline.operations import remaining_time
from pipeline.operations.remaining_time import RemainingTime
from pipeline.planning.estimate import expect
from pipeline.planning.learnt import Learnt


def outcome(size: int, seconds: float = 0.0) -> Outcome:
    return Outcome(Source(b"a", size, 0), (Result("up", b"out", "done"),), seconds)


class Clock:
    """A clock that moves when it is told to."""

    now = 0.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(remaining_time, "time", clock)
    return clock


@pytest.fixture
def learnt() -> Learnt:
    """Small files take a second, large ones a hundred."""
    learnt = Learnt()
    learnt.add(outcome(100, 1.0))
    learnt.add(outcome(100_000, 100.0))
    return learnt


def left(remaining: RemainingTime) -> float:
    assert remaining.left_s is not None
    return remaining.left_s


def test_it_goes_by_the_cost_of_what_is_left(clock: Clock, learnt: Learnt) -> None:
    """After the one long file a hundred short ones take as long again, though all but one file are left."""
    told: list[float] = []
    remaining = RemainingTime(told.append)
    assert remaining.left_s is None
    remaining.expect(expect([("up", 7, False, 100), ("up", 17, False, 1)], learnt, 2), learnt, 2)
    remaining.on_planned(101)
    assert left(remaining) == pytest.approx(100)  # 200 s on two workers
    clock.now = 50.0
    remaining.on_outcome(outcome(100_000))
    assert left(remaining) == pytest.approx(50)
    for _ in range(100):
        remaining.on_outcome(outcome(100))
    assert left(remaining) == pytest.approx(0)
    remaining.on_in_hand([])
    assert told == [pytest.approx(0)]


def test_the_pace_of_the_run_itself_counts(clock: Clock, learnt: Learnt) -> None:
    """On a machine that is twice as slow as it was."""
    remaining = RemainingTime(lambda _: None)
    remaining.expect(expect([("up", 7, False, 100)], learnt, 1), learnt, 1)
    remaining.on_planned(100)
    assert left(remaining) == pytest.approx(100)
    clock.now = 20.0
    for _ in range(10):
        remaining.on_outcome(outcome(100))
    assert left(remaining) == pytest.approx(180)


def test_without_anything_learnt_it_goes_by_number(clock: Clock) -> None:
    """As soon as a file is done; one that goes on in another pool is not."""
    remaining = RemainingTime(lambda _: None)
    remaining.expect(expect([("up", 7, False, 10)], Learnt(), 1), Learnt(), 1)
    remaining.on_planned(10)
    clock.now = 5.0
    remaining.on_outcome(outcome(1)._replace(goes_on=True))
    assert remaining.left_s is None
    remaining.on_outcome(outcome(1))
    assert left(remaining) == pytest.approx(45)


def test_a_plan_that_is_made_anew_begins_anew(clock: Clock, learnt: Learnt) -> None:
    """What was done before the code changed is not done twice."""
    remaining = RemainingTime(lambda _: None)
    for _ in range(2):
        remaining.expect(expect([("up", 7, False, 10)], learnt, 1), learnt, 1)
        remaining.on_planned(10)
        assert left(remaining) == pytest.approx(10)
        remaining.on_outcome(outcome(100))
