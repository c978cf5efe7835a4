"""What jobs take is learnt by their outputs and the size of their source, and told of others like them."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project, ledger_of

from pipeline.ledger.ledger import Ledger
from pipeline.messages import Group, Outcome, Result, Source
from pipeline.planning.learnt import Learnt

MB = 1 << 20


def outcome(
    size: int,
    seconds: float,
    *stages: str,
    peak_bytes: int | None = None,
    seat: int | None = 0,
    failed: bool = False,
) -> Outcome:
    """The outcome of a job with outputs of these stages."""
    status = "failed" if failed else "done"
    results = tuple(Result(stage, b"out", status, size_bytes=10) for stage in stages or ("up",))  # type: ignore[arg-type]
    return Outcome(Source(b"a", size, 0), results, seconds, peak_bytes=peak_bytes, seat=seat)


def learnt_from(*outcomes: Outcome) -> Learnt:
    """A model that has met these."""
    learnt = Learnt()
    for each in outcomes:
        learnt.add(each)
    return learnt


def test_nothing_is_told_of_what_is_unknown() -> None:
    """Neither before anything was done, nor of other stages."""
    assert Learnt().is_empty
    assert Learnt().seconds(("up",), 1) is None and Learnt().peak_bytes(("up",), 1) is None
    learnt = learnt_from(outcome(100, 1.0))
    assert not learnt.is_empty
    assert learnt.seconds(("other",), 100) is None and learnt.peak_bytes(("up",), 100) is None


@pytest.mark.parametrize(
    ("size", "seconds"),
    [
        (0, 1.0),  # below the least class: as that
        (1000, 1.0),
        (1023, 1.0),
        (2000, 1 + 4 / 7),  # on the line between the classes around it
        (5000, 5.0),
        (8191, 5.0),
        (9000, 5 + 4 * 8 / 7),  # and on from there
        (40_000, 5 + 4 * 56 / 7),
    ],
)
def test_seconds_go_by_size(size: int, seconds: float) -> None:
    """Sizes within a factor of two are alike; others are told from the nearest that are known."""
    learnt = learnt_from(outcome(600, 0.5), outcome(1000, 1.5), outcome(5000, 5.0))
    assert learnt.seconds(("up",), size) == pytest.approx(seconds)


def test_outputs_that_were_never_made_together_are_told_from_what_is_known() -> None:
    """The sum of the largest known parts; else what the least larger set takes."""
    learnt = learnt_from(
        outcome(100, 1.0, "web"), outcome(100, 2.0, "thumb"), outcome(100, 8.0, "big", "huge", "more"),
        outcome(100, 5.0, "big", "huge"),
    )  # fmt: skip
    assert learnt.seconds(("thumb", "web"), 100) == pytest.approx(3.0)
    assert learnt.seconds(("web", "big", "huge"), 100) == pytest.approx(6.0)
    assert learnt.seconds(("huge",), 100) == pytest.approx(5.0)


def test_the_latest_count_most() -> None:
    """After an edit that makes a stage ten times as fast, the model follows within some hundred files."""
    learnt = learnt_from(*[outcome(100, 10.0)] * 1000, *[outcome(100, 1.0)] * 1000)
    assert learnt.seconds(("up",), 100) == pytest.approx(1.0, rel=0.3)
    assert learnt.slowest_s == 10.0


def test_what_failed_tells_nothing() -> None:
    """It may have ended long before the time that it takes."""
    assert learnt_from(outcome(100, 1.0, failed=True)).is_empty


def test_of_cheap_files_a_part_tells_enough() -> None:
    """Their mean is the same, and an expensive one among them is never passed over."""
    learnt = learnt_from(*[outcome(100, 0.0001)] * 5000, outcome(100, 3.0))
    assert learnt.slowest_s == 3.0
    assert learnt_from(*[outcome(100, 0.0001)] * 5000).seconds(("up",), 100) == pytest.approx(0.0001)


@pytest.mark.parametrize(
    ("size", "peak"), [(1, 50), (100, 50), (100_000, 900), (200_000, 1750), (400_000, 3450), (1 << 40, 3450)]
)
def test_peaks_go_by_size(size: int, peak: int) -> None:
    """Above the largest class that is known they grow on with the size, up to four times that; and then it is tried."""
    learnt = learnt_from(outcome(100, 1, peak_bytes=50 * MB), outcome(100_000, 1, peak_bytes=900 * MB))
    assert learnt.peak_bytes(("up",), size) == pytest.approx(peak * MB, rel=0.01)
    assert learnt_from(outcome(100, 1, peak_bytes=50 * MB)).peak_bytes(("up",), 1 << 40) == 50 * MB


@pytest.mark.parametrize(("size", "is_foreseen"), [(10, True), (1000, True), (4000, True), (8000, False)])
def test_what_is_far_larger_than_all_that_was_met_is_not_foreseen(size: int, is_foreseen: bool) -> None:
    """A file up to four times as large as one whose peak is known takes nothing that is a surprise."""
    learnt = Learnt()
    assert not learnt.is_foreseen(("up",), size)
    learnt.add_peak(("up",), 1000, 100 * MB)
    assert learnt.is_foreseen(("up",), size) is is_foreseen
    assert not learnt.is_foreseen(("down",), size)


def test_one_strange_file_tells_nothing_of_the_others() -> None:
    """Of twenty files one or two may need more than the others; where more do, the class is known for it."""
    usual = [outcome(100, 1, peak_bytes=50 * MB)] * 20
    learnt = learnt_from(*usual)
    learnt.add_peak(("up",), 100, 900 * MB)
    assert learnt.peak_bytes(("up",), 100) == 50 * MB
    assert learnt_from(*usual, *[outcome(100, 1, peak_bytes=900 * MB)] * 3).peak_bytes(("up",), 100) == 900 * MB


def test_a_peak_falls_again() -> None:
    """After an edit that halves the memory of a stage the former peak is forgotten."""
    learnt = learnt_from(*[outcome(100, 1, peak_bytes=900 * MB)] * 100)
    for each in range(20):
        learnt.add(outcome(100, 1, peak_bytes=100 * MB + each))
    assert 100 * MB <= (learnt.peak_bytes(("up",), 100) or 0) < 101 * MB


def test_a_kill_teaches() -> None:
    """A job that was killed for its memory told no outcome, and yet what it held."""
    learnt = Learnt()
    learnt.add_peak(("up",), 100, 500 * MB)
    assert learnt.peak_bytes(("up",), 100) == 500 * MB
    assert learnt.seconds(("up",), 100) is None


def test_a_group_goes_by_its_members() -> None:
    """Their number is what the plan knows of it."""
    learnt = learnt_from(Outcome(Group("sheet", None, 100), (Result("sheet", b"out", "done"),), 2.0))
    assert learnt.seconds(("sheet",), 120) == pytest.approx(2.0)
    assert learnt.seconds(("up",), 120) is None


def test_it_is_kept_in_the_ledger() -> None:
    """All of it, whether or not there is anything new."""
    ledger = Ledger(None)
    learnt = learnt_from(
        outcome(600, 0.5, "web", "thumb", peak_bytes=50 * MB), outcome(1000, 1.5, "web", "thumb"), outcome(9, 1.0)
    )
    learnt.save(ledger)
    assert not learnt.has_news
    again = Learnt.load(ledger)
    for stages in (("thumb", "web"), ("up",)):
        for size in (1, 1000, 100_000):
            assert again.seconds(stages, size) == learnt.seconds(stages, size)
            assert again.peak_bytes(stages, size) == learnt.peak_bytes(stages, size)
    again.save(ledger)
    assert Learnt.load(ledger).seconds(("up",), 9) == pytest.approx(1.0)


@pytest.mark.parametrize("fact", [3, {"a": 1}, [[["up"], 3, {"no": 1}]], [["up", 3]], [[["up"], "x", {}]]])
def test_a_fact_that_cannot_be_read_is_as_none(fact: object) -> None:
    """Nothing that a run must be right about rests on it."""
    ledger = Ledger(None)
    ledger.facts.set("learnt", fact)
    assert Learnt.load(ledger).is_empty


def test_runs_learn(tmp_path: Path) -> None:
    """By every set of outputs, from one run to the next."""
    project = Project(tmp_path)
    project.write("in/a", "x" * 100)
    project.write("in/b", "x" * 5000)
    assert project.run().done == 2
    with ledger_of(tmp_path) as ledger:
        learnt = Learnt.load(ledger)
    assert 0 < (learnt.seconds(("up",), 100) or 0) < 10 and (learnt.peak_bytes(("up",), 100) or 0) > MB
