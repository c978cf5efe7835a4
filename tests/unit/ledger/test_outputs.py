"""What is recorded of outputs, and what a killed run leaves of those it was making."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.records import done, fail, intend, key, skip

from pipeline.engines.made_jobs import MadeBatch, MadeJobs
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import kept_time
from pipeline.messages import FailureKind, Job, Source, Target


def test_done_is_remembered(ledger: Ledger) -> None:
    """What was made from what, by which recipe, and what it looked like; keyed by its path in the project."""
    intend(ledger)
    assert ledger.outputs.owner(b"out/a") == (b"a", "intended")
    done(ledger)
    (row,) = ledger.outputs.all()
    assert row[:-2] == (b"a", b"out/a", "up", "done", 10, 1000, 1, "", 5, 2000, 0, b"5" * 16, None, None, None, None)


def test_what_is_recorded_stays_until_the_redoing_is_done(second_run: Ledger) -> None:
    """A redo that is handed out keeps the old record, marked: what lies there may be newer by now."""
    intend(second_run, Source(b"a", 99, 9))
    (row,) = second_run.outputs.all()
    assert (row.status, row.source_size, row.in_flight > 1) == ("done", 10, True)
    done(second_run)
    assert not next(second_run.outputs.all()).in_flight


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
        assert [(row.source, row.status, bool(row.in_flight)) for row in ledger.outputs.all()] == [
            (b"a", "done", 0),
            (b"b", "intended", 1),
        ]
        assert not ledger._connection.execute("SELECT * FROM intents").fetchall()


@pytest.mark.parametrize(("kind", "known"), [("error", False), ("crashed", True)])
def test_of_what_has_ended_nothing_is_kept(ledger: Ledger, kind: FailureKind, known: bool) -> None:
    """Done or failed, an output is no longer in hand; but one over which a worker died may have got its name."""
    intend(ledger)
    fail(ledger, kind)
    ledger.end_run(1, {}, swept=False)
    assert [row.status for row in ledger.outputs.all()] == ["intended"] * known
    assert not ledger._connection.execute("SELECT * FROM intents").fetchall()


@pytest.mark.parametrize(("kind", "in_flight"), [("error", 0), ("vanished", 0), ("crashed", 1), ("timeout", 1)])
def test_a_failure_keeps_the_old_record(second_run: Ledger, kind: FailureKind, in_flight: int) -> None:
    """Only where a worker died is it unknown whether the new output got its name before."""
    intend(second_run)
    fail(second_run, kind)
    (row,) = second_run.outputs.all()
    assert (row.status, row.size, bool(row.in_flight)) == ("done", 5, in_flight)


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


@settings(max_examples=examples(25), deadline=None)
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


def test_what_is_gone_is_forgotten(ledger: Ledger) -> None:
    """The record of an output that was only ever intended is deleted."""
    intend(ledger)
    fail(ledger, "crashed")
    assert [row.status for row in ledger.outputs.all()] == ["intended"]
    ledger.outputs.delete([b"out/a"])
    assert not list(ledger.outputs.all())


def test_an_output_is_moved_with_all_that_is_known_of_it(ledger: Ledger) -> None:
    """A rename changes its path and its stage's name; what was recorded under the new path goes."""
    done(ledger)
    done(ledger, Source(b"b", 1, 1), b"/project/out/b")
    before = ledger.outputs.get(b"out/a")
    assert before is not None
    ledger.outputs.move(b"out/a", b"out/b", "lift")
    assert list(ledger.outputs.all()) == [before._replace(target=b"out/b", stage="lift")]


def test_the_file_of_a_skipped_output_can_be_forgotten(ledger: Ledger) -> None:
    """Pruned, there is no file to look for any more; the source stays skipped."""
    done(ledger)
    ledger.outputs.flush()
    assert ledger.outputs.count_files() == 1
    ledger.outputs.set_skipped(b"out/a")
    ledger.outputs.forget_file(b"out/a")
    (row,) = ledger.outputs.all()
    assert (row.status, row.size, row.mtime_ns, row.digest) == ("skipped", None, None, None)
    assert ledger.outputs.count_files() == 0


def test_a_part_of_a_killed_run_is_recorded_once(ledger: Ledger) -> None:
    """What it looks like is taken from the disk; another source's part is left alone."""
    for size in (3, 4):
        ledger.outputs.add_part(b"out/a-1", b"a", "cut", size, 1000, b"1")
    ledger.outputs.add_part(b"out/a-1", b"b", "cut", 9, 1000, b"1")
    (row,) = ledger.outputs.all()
    assert (row.source, row.part, row.size, row.status, row.recipe) == (b"a", "1", 4, "done", 0)


def test_outputs_are_counted_by_folder_and_source(ledger: Ledger) -> None:
    """A folder's outputs are those whose keys begin with it and a slash; folders of sources can be left out."""
    assert ledger.outputs.is_blank()
    for source, path in ((b"x/a", b"out/a"), (b"x/b", b"out/b"), (b"y/c", b"out-2/c")):
        done(ledger, Source(source, 1, 1), path)
    intend(ledger, Source(b"z", 1, 1), b"out/z")
    ledger.outputs.flush()
    assert not ledger.outputs.is_blank()
    assert ledger.outputs.done_below(b"out/") == [b"out/a", b"out/b"]
    assert ledger.outputs.done_below(b"out/", limit=1) == [b"out/a"] and ledger.outputs.count_done_below(b"out/") == 2
    assert ledger.outputs.count_sources() == 3 and ledger.outputs.count_sources((b"x/",)) == 1


def test_listed_sources_confine_what_is_read(ledger: Ledger) -> None:
    """Of a list of names only their records are read, in byte order."""
    for name in (b"a", b"b", b"c"):
        done(ledger, Source(name, 1, 1), b"/project/out/" + name)
    fail(ledger)
    ledger.list_sources(iter([b"c", b"a", b"nowhere", b"a"]))
    assert list(ledger.listed_sources()) == [b"a", b"c", b"nowhere"]
    assert [row.source for row in ledger.outputs.all(listed=True)] == [b"a", b"c"]
    assert [failure.source for failure in ledger.failures.all(listed=True)] == [b"a"]


Files = tuple[int, int, bytes]
TIMES = st.integers(-(2**64), 2**64)
FILES = st.tuples(st.integers(0, 2**40), TIMES, st.just(b"") | st.binary(min_size=16, max_size=16))


@given(
    st.lists(st.tuples(st.booleans(), TIMES, FILES, FILES), min_size=1, max_size=20),
    st.sampled_from([b"", b"s" * 16]),
)
@settings(max_examples=examples(50), deadline=None)
def test_many_outputs_are_recorded_as_each_would_be(jobs: list[tuple[bool, int, Files, Files]], digest: bytes) -> None:
    """Also those without a file, and those with times that SQLite cannot keep; in a second run, too."""
    batches = []
    for number, (has_two, mtime_ns, *_) in enumerate(jobs):
        stages = ("up", "down") if has_two else ("up",)
        targets = tuple(Target(stage, b"/project/%b/%d" % (stage.encode(), number)) for stage in stages)
        batches.append(Job(Source(b"%d" % number, number, mtime_ns), targets))
    rows = [(0.25, digest, None, *first, *(second if two else ())) for two, _, first, second in jobs]
    made, recipes = MadeJobs([MadeBatch(batches, rows, 1)]), {"up": 1, "down": 2}
    kept = []
    for together in (False, True):
        with closing(Ledger(None)) as ledger:
            for run in ("one", "two"):
                ledger.begin_run(run)
                if run == "two":
                    ledger.outputs.expect_rows()
                ledger.begin()
                ledger.intend(batches, key)
                for group in made.groups if together else ():
                    ledger.record_made(*group, key, recipes)
                for outcome in () if together else made:
                    ledger.record(outcome, key, recipes)
                ledger.commit()
            rest = "source_size, run, seat, seconds, peak_bytes, bytes_in, bytes_out, annotations"
            costs = ledger._connection.execute(f"SELECT {rest} FROM outputs ORDER BY source, target").fetchall()
            kept.append(([row._replace(recorded_ns=0) for row in ledger.outputs.all()], costs))
    assert kept[0] == kept[1] and len(kept[0][0]) == sum(1 + two for two, *_ in jobs)
