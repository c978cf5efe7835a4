"""The SQLite memory: what it keeps, what it forgets, and what a killed run leaves in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pipeline.ledger.outputs import OutputRecord

from pipeline.errors import EnvironmentFailure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import kept_time
from pipeline.messages import Job, Kind, Outcome, Result, Source, Target
from pipeline.planning.plan import Follower

SOURCE = Source(b"a", 10, 1000)
RECIPES = {"up": 1}


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("one")
        yield ledger


def key(stage: str, path: bytes) -> bytes:
    return path.removeprefix(b"/project/")


def intend(ledger: Ledger, source: Source = SOURCE, path: bytes = b"/project/out/a") -> None:
    ledger.intend([Job(source, (Target("up", path),))], key)


def done(ledger: Ledger, source: Source = SOURCE, path: bytes = b"/project/out/a") -> None:
    result = Result("up", path, "done", size_bytes=5, mtime_ns=2000, digest=b"5" * 16)
    ledger.record(Outcome(source, (result,)), key, RECIPES)


def fail(ledger: Ledger, kind: Kind = "error") -> None:
    ledger.record(Outcome(SOURCE, (Result("up", b"/project/out/a", "failed", "why", kind),)), key, RECIPES)


def skip(ledger: Ledger) -> None:
    ledger.record(Outcome(SOURCE, (Result("up", b"/project/out/a", "skipped", "too dark"),)), key, RECIPES)


def test_done_is_remembered(ledger: Ledger) -> None:
    """What was made from what, by which recipe, and what it looked like; keyed by its path in the project."""
    intend(ledger)
    assert ledger.outputs.owner(b"out/a") == (b"a", "intended")
    done(ledger)
    (row,) = ledger.outputs.all()
    assert row == (b"a", b"out/a", "up", "done", 10, 1000, 1, "", 5, 2000, 0, b"5" * 16, None, None, None, None)


@pytest.fixture
def second_run(tmp_path: Path) -> Iterator[Ledger]:
    """A ledger that remembers an output of the run before."""
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("one")
        done(ledger)
        ledger.end_run(0, {}, swept=True)
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("two")
        yield ledger


def test_what_is_recorded_stays_until_the_redoing_is_done(second_run: Ledger) -> None:
    """A redo that is handed out keeps the old record, marked: what lies there may be newer by now."""
    intend(second_run, Source(b"a", 99, 9))
    (row,) = second_run.outputs.all()
    assert (row.status, row.source_size, row.in_flight) == ("done", 10, 1)
    done(second_run)
    assert not next(second_run.outputs.all()).at_work


def test_what_a_killed_run_had_in_hand_is_ours(tmp_path: Path) -> None:
    """Whoever looks after it knows which outputs it was about to make; what it recorded is not among them."""
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        ledger.begin_run("one")
        ledger.begin()
        jobs = [Job(Source(name, 1, 1), (Target("up", b"/project/out/" + name),)) for name in (b"a", b"b")]
        ledger.intend(jobs, key)
        done(ledger)
        ledger.commit()
    with closing(Ledger(tmp_path / "ledger.sqlite")) as ledger:
        assert [(ledger.outputs.owner(b"out/" + name) or ("", ""))[1] for name in (b"a", b"b")] == ["done", "intended"]
        ledger.begin_run("two")
        assert [(row.source, row.status, row.in_flight) for row in ledger.outputs.all()] == [
            (b"a", "done", 0),
            (b"b", "intended", 1),
        ]
        assert not ledger._connection.execute("SELECT * FROM intents").fetchall()


@pytest.mark.parametrize(("kind", "known"), [("error", False), ("crashed", True)])
def test_of_what_has_ended_nothing_is_kept(ledger: Ledger, kind: Kind, known: bool) -> None:
    """Done or failed, an output is no longer in hand; but one over which a worker died may have got its name."""
    intend(ledger)
    fail(ledger, kind)
    ledger.end_run(1, {}, swept=False)
    assert [row.status for row in ledger.outputs.all()] == ["intended"] * known
    assert not ledger._connection.execute("SELECT * FROM intents").fetchall()


@pytest.mark.parametrize(("kind", "at_work"), [("error", 0), ("vanished", 0), ("crashed", 1), ("timeout", 1)])
def test_a_failure_keeps_the_old_record(second_run: Ledger, kind: Kind, at_work: int) -> None:
    """Only where a worker died is it unknown whether the new output got its name before."""
    intend(second_run)
    fail(second_run, kind)
    (row,) = second_run.outputs.all()
    assert (row.status, row.size, row.in_flight) == ("done", 5, at_work)


def test_attempts_are_counted_until_it_is_done(ledger: Ledger) -> None:
    """A failure has its last reason and in how many runs it happened; done or left out, it is forgotten."""
    for expected in (1, 2):
        fail(ledger)
        fail(ledger)
        ledger.end_run(1, {}, swept=False)
        (failure,) = ledger.failures.all()
        assert (failure.source, failure.stage, failure.error, failure.attempts) == (b"a", "up", "why", expected)
    done(ledger)
    assert list(ledger.failures.all()) == []
    fail(ledger)
    skip(ledger)
    assert list(ledger.failures.all()) == []


def test_a_skip_remembers_the_output_before_it(ledger: Ledger) -> None:
    """A file that is left out now keeps what is known of its old output, which somebody may want to remove."""
    done(ledger)
    skip(ledger)
    (row,) = ledger.outputs.all()
    assert (row.status, row.reason, row.size, row.mtime_ns) == ("skipped", "too dark", 5, 2000)


def test_a_target_taken_over_has_one_row(ledger: Ledger) -> None:
    """A path has one owner, the last that was made."""
    done(ledger)
    done(ledger, Source(b"b", 1, 1))
    assert [row.source for row in ledger.outputs.all()] == [b"b"]


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(min_size=1, max_size=8), max_size=30, unique=True))
def test_rows_come_in_byte_order(sources: list[bytes]) -> None:
    """Any bytes are kept as they are and come back in the order of the walk."""
    with closing(Ledger(None)) as ledger:
        for source in sources:
            done(ledger, Source(source, 1, 1), b"/project/out/" + source)
        assert [row.source for row in ledger.outputs.all()] == sorted(sources)
        assert {row.target for row in ledger.outputs.all()} == {b"out/" + source for source in sources}


@pytest.mark.parametrize("mtime_ns", [2**63, 2**80, -(2**70), 0, -1])
def test_any_time_a_file_can_have_is_kept(ledger: Ledger, mtime_ns: int) -> None:
    """Times past 2262 do not fit into SQLite; they are cut to what does, the same each time."""
    done(ledger, Source(b"a", 1, mtime_ns))
    assert next(ledger.outputs.all()).source_mtime_ns == kept_time(mtime_ns)


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


def test_recipes_have_one_number(ledger: Ledger) -> None:
    """The same parts are the same recipe; its parts can be read again."""
    number = ledger.number_recipe("one", {"save": {"quality": 80}})
    assert ledger.number_recipe("one", {"save": {"quality": 80}}) == number
    assert ledger.number_recipe("other", {"save": {"quality": 90}}) != number
    assert ledger.recipe_parts(number) == {"save": {"quality": 80}} and ledger.recipe_parts(99) == {}


@pytest.mark.parametrize(
    ("exit_code", "kind", "unclean"),
    [(0, None, []), (1, "error", []), (1, "timeout", ["one"]), (1, "crashed", ["one"]), (3, None, ["one"]),
     (130, None, ["one"]), (None, None, ["one"])],
)  # fmt: skip
def test_runs_that_may_have_left_temporaries_are_known(
    tmp_path: Path, exit_code: int | None, kind: Kind | None, unclean: list[str]
) -> None:
    """Those that were killed or stopped, and those of which a worker was; until a later run has seen to all files."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.begin_run("one")
        if kind:
            fail(ledger, kind)
        if exit_code is not None:
            ledger.end_run(exit_code, {}, swept=True)
        ledger.begin_run("two")
        assert [run for run in ledger.unclean_runs() if run != "two"] == unclean
        ledger.end_run(0, {}, swept=False)
        assert ledger.unclean_runs() == unclean
        ledger.end_run(0, {}, swept=True)
        assert ledger.unclean_runs() == []


def test_what_is_gone_is_forgotten(ledger: Ledger) -> None:
    """Targets that were only intended, and failures of what is gone."""
    intend(ledger)
    fail(ledger)
    ledger.outputs.delete([b"out/a"], failures=[(b"a", "up")])
    assert not list(ledger.outputs.all()) and not list(ledger.failures.all())


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


# -- in step with the walk ---------------------------------------------------------------------------------------------

KEYS = st.lists(st.binary(min_size=1, max_size=3), max_size=30, unique=True).map(sorted)


@settings(deadline=None)
@given(KEYS, KEYS)
def test_the_merge_passes_each_record_once(walked: list[bytes], recorded: list[bytes]) -> None:
    """Every record is either met with its source or passed as gone, in one go over both."""
    passed: list[OutputRecord] = []
    rows = iter([OutputRecord(key, key, "up", "done", 1, 1, 1, "", 1, 1, 0) for key in recorded])
    follower: Follower[OutputRecord] = Follower(rows, passed.append)
    met = [row.source for source in walked for row in follower.take(source)]
    follower.pass_the_rest()
    assert met == [key for key in walked if key in recorded]
    assert [row.source for row in passed] == [key for key in recorded if key not in walked]
