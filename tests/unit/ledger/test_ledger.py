"""The ledger as a whole: transactions, runs, recipes, facts, and what it does not open."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.records import done, fail, key

from pipeline.errors import EnvironmentFailure
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.runs import Window
from pipeline.messages import FailureKind, Job, Source, Target


def test_nothing_counts_until_commit(tmp_path: Path) -> None:
    """A killed run forgets what it had not committed, and nothing else."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.begin()
        done(ledger)
        ledger.commit()
        ledger.begin()
        done(ledger, Source(b"b", 1, 1), b"/project/out/b")
    with closing(Ledger(tmp_path / "l")) as ledger:
        assert [row.source for row in ledger.outputs.all()] == [b"a"]


def test_what_a_full_disk_took_back_is_still_ours(ledger: Ledger) -> None:
    """SQLite drops a transaction that finds no room: an output in it, made by now, is known as intended."""
    sources = [Source(b"%03d" % number, 1, 1) for number in range(200)]
    ledger.begin()
    ledger.intend([Job(source, (Target("up", b"/project/out/" + source.path),)) for source in sources], key)
    ledger.commit()
    pages = ledger._connection.execute("PRAGMA page_count").fetchone()[0]
    ledger.begin()
    for source in sources[:100]:
        done(ledger, source, b"/project/out/" + source.path)
    ledger.outputs.flush()
    ledger._connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.OperationalError, match="full"):
        for number in range(10_000):
            ledger.facts.set(f"fact {number}", "x" * 1000)
    ledger._connection.execute(f"PRAGMA max_page_count = {100 * pages}")
    for source in sources[100:]:
        done(ledger, source, b"/project/out/" + source.path)
    ledger.end_run(3, {}, swept=False)
    known = [(row.source, row.status) for row in ledger.outputs.all()]
    assert known == [(each.path, "intended" if each in sources[:100] else "done") for each in sources]


def test_recipes_have_one_number(ledger: Ledger) -> None:
    """The same parts are the same recipe; its parts can be read again."""
    number = ledger.number_recipe("one", {"save": {"quality": 80}})
    assert ledger.number_recipe("one", {"save": {"quality": 80}}) == number
    assert ledger.number_recipe("other", {"save": {"quality": 90}}) != number
    assert ledger.recipe_parts(number) == {"save": {"quality": 80}} and ledger.recipe_parts(99) == {}


@pytest.mark.parametrize(
    ("exit_code", "kind", "unclean"),
    [(0, None, []), (1, "error", []), (1, "timeout", ["one"]), (1, "crashed", ["one"]),
     (1, "interrupted", ["one"]), (3, None, ["one"]),
     (130, None, ["one"]), (None, None, ["one"])],
)  # fmt: skip
def test_runs_that_may_have_left_temporaries_are_known(
    tmp_path: Path, exit_code: int | None, kind: FailureKind | None, unclean: list[str]
) -> None:
    """Those that were killed or stopped, and those of which a job or a worker was; until one over all files."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.begin_run("one")
        if kind:
            fail(ledger, kind)
        if exit_code is not None:
            ledger.end_run(exit_code, {}, swept=True)
        ledger.begin_run("two")
        assert [run for run in ledger.runs.unclean() if run != "two"] == unclean
        ledger.end_run(0, {}, swept=False)
        assert ledger.runs.unclean() == unclean
        ledger.end_run(0, {}, swept=True)
        assert ledger.runs.unclean() == []


def test_a_newer_ledger_is_refused(tmp_path: Path) -> None:
    """A ledger of a version to come is left alone."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger._connection.execute("PRAGMA user_version = 99")
    with pytest.raises(EnvironmentFailure, match=r"newer filemill .schema 99"):
        Ledger(tmp_path / "l")


def test_what_is_no_database_is_said(tmp_path: Path) -> None:
    """One sentence and exit 3, no traceback."""
    (tmp_path / "l").write_bytes(b"x" * 5000)
    with pytest.raises(EnvironmentFailure, match="cannot be used: file is not a database"):
        Ledger(tmp_path / "l")


def test_a_run_leaves_its_summary(ledger: Ledger) -> None:
    """`status` shows the last run, also one that has not ended; the estimate reads those that have."""
    ledger.end_run(1, {"done": 2}, swept=False)
    assert list(ledger.runs.summaries()) == [{"done": 2}]
    last = ledger.runs.last()
    assert last is not None and (last["run"], last["exit"], last["done"]) == ("one", 1, 2)
    assert last["ended"] is None  # before all of it is on the disk
    ledger.runs.set_synced(2_000_000_000, ended=True)
    last = ledger.runs.last()
    assert last is not None and last["ended"] == 2.0
    ledger.begin_run("two")
    last = ledger.runs.last()
    assert last is not None and (last["run"], last["ended"], last["exit"]) == ("two", None, None)
    assert ledger.runs.names() == {"one", "two"}


def test_a_fact_is_as_it_was_said_last(ledger: Ledger) -> None:
    """One value a name; None where nothing was said."""
    assert ledger.facts.get("root") is None
    ledger.facts.set("root", {"path": "data", "device": 2**40})
    ledger.facts.set("root", {"path": "data/input"})
    assert ledger.facts.get("root") == {"path": "data/input"}
    ledger.facts.forget("root")
    assert ledger.facts.get("root") is None


def test_a_period_that_is_uncertain_is_kept_until_a_run_over_everything_has_ended_well(tmp_path: Path) -> None:
    """Each run takes it over from the one before it."""
    window = Window(5, 9, "power")
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.window = window
        ledger.begin_run("one")
        ledger.end_run(1, {}, swept=True)
        ledger.runs.set_synced(20, ended=True, is_sure=ledger.window is None)
        last = ledger.runs.newest()
        assert last and (last.unsure, last.ended, last.safe_until) == (window, 20, 20)
        ledger.begin_run("two")
        ledger.end_run(0, {}, swept=True)
        ledger.runs.set_synced(30, ended=True, is_sure=ledger.window is None)
        last = ledger.runs.newest()
        assert last and (last.id, last.unsure) == (2, None) and ledger.window is None


def test_unchanged_ranges_are_known_by_their_first_source(ledger: Ledger) -> None:
    """A range that is recorded anew takes the place of the old one; deleted are those that begin within the bounds."""
    ranges = [UnchangedRange(first, None, 2, b"d", {"up to date": (4, 2)}) for first in (b"a", b"m", b"z")]
    ledger.unchanged.add(ranges)
    ledger.unchanged.add([ranges[1]._replace(after=b"z")])
    ledger.unchanged.delete(b"b", b"m")
    assert [ledger.unchanged.get(first) for first in (b"a", b"m", b"q")] == [
        ranges[0], ranges[1]._replace(after=b"z"), None
    ]  # fmt: skip
    ledger.unchanged.delete(b"m", None)
    assert [each for each in b"amz" if ledger.unchanged.get(bytes([each]))] == [ord("a")]
    ledger.unchanged.delete()
    assert ledger.unchanged.get(b"a") is None
