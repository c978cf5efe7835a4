"""The temporary tables of a plan, asked directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing

import pytest
from support.records import done

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.plan_tables import MOVED, PlanTables
from pipeline.messages import Source


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(Ledger(None)) as ledger:
        yield ledger


@pytest.fixture
def tables(ledger: Ledger) -> PlanTables:
    return ledger.create_plan_tables()


def output(source: bytes, action: str = "make", code: str = "new", **more: object) -> tuple[object, ...]:
    """A row of `plan`, without its number; the target is `out/` and the source unless it is given."""
    target = more.get("target", b"out/" + source)
    return (
        source, 1, 1, more.get("stage", "up"), action, code, b"/project/" + bytes(target), target,  # type: ignore[call-overload]
        more.get("rival"), more.get("owned", False), more.get("late", False), True, more.get("moved_from"), False,
    )  # fmt: skip


def orphan(target: bytes, code: str = "source-gone") -> tuple[object, ...]:
    return (target, b"a", "up", "done", code, 5, 2000, b"digest")


def test_outputs_come_in_the_order_in_which_they_were_added(tables: PlanTables) -> None:
    """That is the byte order of the walk; those that are late are asked for by themselves."""
    tables.insert_outputs([output(b"a", late=True), output(b"b"), output(b"c", "held"), output(b"/up/g")])
    assert [row[1] for row in tables.outputs_to_make(late=False)] == [b"b"]
    assert [row[1] for row in tables.outputs_to_make(late=True)] == [b"a"]
    assert [row[1] for row in tables.outputs_to_make(late=False, of_groups=True)] == [b"/up/g"]
    assert [row[1] for row in tables.decisions(None, None)] == [b"a", b"b", b"c", b"/up/g"]
    assert [row[1] for row in tables.decisions("make", False)] == [b"a", b"b"]
    assert tables.count_sources_to_make() == 2


def test_what_is_read_in_chunks_may_be_written_meanwhile(tables: PlanTables) -> None:
    """A run records results while the plan still yields jobs; nothing is left out, and nothing comes twice."""
    names = [b"%04d" % number for number in range(1200)]
    tables.insert_outputs(output(name) for name in names)
    tables.index_targets()
    tables._connection.execute("COMMIT")
    found = []
    for seq, source, *_ in tables.outputs_to_make(late=False):
        found.append(source)
        tables.refuse(seq, "collision")
    assert found == names


def test_claims_to_one_target_are_found(tables: PlanTables) -> None:
    """Whoever has the output comes first; what is not judged yet claims its path, but is not refused."""
    same = {"target": b"out/x"}
    tables.insert_outputs(
        [output(b"a", **same), output(b"b", "up-to-date", owned=True, **same), output(b"c", "settling", **same),
         output(b"d", "refuse", **same), output(b"e")]
    )  # fmt: skip
    assert list(tables.contested_targets()) == [b"out/x"] and not list(tables.contested_targets(of_groups=True))
    assert [source for _, source, _ in tables.first_claims(b"out/x")] == [b"b", b"a"]
    assert [tables.source_and_target(seq)[0] for seq in tables.refusable_claims(b"out/x")] == [b"a", b"b"]
    assert tables.sources_of(b"out/x") == [b"a", b"b", b"c", b"d"]


def test_a_rival_that_is_an_orphan_gives_way(tables: PlanTables) -> None:
    """But for the one reason with which its source is still there."""
    tables.insert_outputs([output(name, rival=b"old") for name in (b"a", b"b", b"c")])
    tables.insert_orphans([orphan(b"out/a"), orphan(b"out/b", "skipped-now")])
    refused = [tables.source_and_target(seq)[0] for seq, _ in tables.refuse_rivals("skipped-now")]
    assert refused == [b"b", b"c"]


def test_an_orphan_whose_path_is_written_is_none(tables: PlanTables) -> None:
    """A path has one owner; without the whole picture there are no orphans at all."""
    tables.insert_outputs([output(b"a"), output(b"b", "held")])
    tables.insert_orphans([orphan(b"out/a"), orphan(b"out/b"), orphan(b"out/b", "again")])
    tables.delete_overwritten_orphans()
    assert [row[0] for row in tables.orphans()] == [b"out/b"]
    tables.delete_orphans()
    assert not list(tables.orphans())


def test_what_cannot_be_renamed_is_made_and_its_old_file_an_orphan(tables: PlanTables) -> None:
    """Refused when the plan is settled, or impossible when it is carried out."""
    tables.insert_outputs([output(b"a", "rename", moved_from=b"old/a"), output(b"b", "refuse", moved_from=b"old/b")])
    tables.insert_orphans([orphan(b"old/a", MOVED), orphan(b"old/b", MOVED)])
    assert not list(tables.orphans())
    tables.release_unmoved("path-changed")
    assert [(row[0], row[4]) for row in tables.orphans()] == [(b"old/b", "path-changed")]
    (rename,) = tables.renames()
    tables.make_instead(rename[0], "why", b"old/a", "path-changed")
    assert [row[0] for row in tables.orphans()] == [b"old/a", b"old/b"]
    assert [(row[1], row[-1]) for row in tables.outputs_to_make(late=False)] == [(b"a", "why")]
    assert not list(tables.renames())


def test_orphans_of_groups_are_what_the_plan_lacks(ledger: Ledger, tables: PlanTables) -> None:
    """Each is told with whether its group is still planned, only under another path."""
    done(ledger, Source(b"/up/g", 1, 1), b"out/old")
    done(ledger, Source(b"/up/h", 1, 1), b"out/gone")
    ledger.outputs.flush()
    tables.insert_outputs([output(b"/up/g", target=b"out/new")])
    assert {row[0]: row[4] for row in tables.unplanned_group_outputs()} == {b"out/old": 1, b"out/gone": 0}
    assert tables.unsettled_groups() == {(b"/up/g", "up")}
    tables.delete_group_outputs()
    assert not list(tables.decisions(None, None))


def test_readings_reach_the_ledger(ledger: Ledger, tables: PlanTables) -> None:
    """A source that was touched and is the same is not read again by the next plan."""
    done(ledger)
    ledger.outputs.flush()
    tables.insert_reading(b"out/a", 77, b"digest", 88)
    tables.keep_readings()
    record = ledger.outputs.get(b"out/a")
    assert record is not None
    assert (record.source_digest, record.source_mtime_ns, record.source_ctime_ns) == (b"digest", 77, 88)


def test_a_time_that_was_not_read_for_leaves_what_is_known(ledger: Ledger, tables: PlanTables) -> None:
    """The digest of a source stays where only its time is another."""
    done(ledger)
    ledger.outputs.flush()
    ledger._connection.execute("UPDATE outputs SET source_digest = X'77', source_ctime_ns = 88")
    tables.insert_reading(b"out/a", 78, None, None)
    tables.keep_readings()
    record = ledger.outputs.get(b"out/a")
    assert record is not None
    assert (record.source_digest, record.source_mtime_ns, record.source_ctime_ns) == (b"w", 78, 88)


def test_outputs_are_counted_by_action_and_reason(tables: PlanTables) -> None:
    """Files and groups apart."""
    tables.insert_outputs([output(b"a"), output(b"b"), output(b"c", "held", "held-after"), output(b"/up/g")])
    assert tables.counts(of_groups=False) == [("make", "new", 2, 2), ("held", "held-after", 1, 1)]
    assert tables.counts(of_groups=True) == [("make", "new", 1, 1)]


def test_past_failures_are_kept_for_the_run(tables: PlanTables) -> None:
    """A plan that only looks forgets nothing."""
    tables.insert_past_failure(b"a", "up")
    assert tables.past_failures() == [(b"a", "up")]


# -- the jobs that come first ------------------------------------------------------------------------------------------

BY_SIZE = [(8192, 5.0), (4096, 1.0)]


def sized(source: bytes, size: int, **more: object) -> tuple[object, ...]:
    return (source, size, *output(source, **more)[2:])  # type: ignore[arg-type]


def order_of(tables: PlanTables, distance: int = 2) -> list[tuple[bytes, str]]:
    """Source and stage of all outputs to make, in the order in which they are handed out."""
    rows = [*tables.outputs_of_long_jobs(distance), *tables.outputs_to_make(late=False)]
    return [(row[1], row[4]) for row in rows]


def test_the_longest_come_first(tables: PlanTables) -> None:
    """With all outputs of their source; of equal cost the larger source, then byte order; each once."""
    tables.insert_outputs(
        [
            sized(b"a", 10), sized(b"b", 4096), sized(b"b", 4096, stage="other"), sized(b"c", 9000),
            sized(b"d", 5000), sized(b"e", 5000), sized(b"f", 10**6, code="held", action="held"),
            sized(b"g", 10**6, late=True), sized(b"/up/h", 10**6),
        ]
    )  # fmt: skip
    assert tables.find_long_jobs({"up": BY_SIZE}, 0.0, least_s=0.5, most=100, as_last_time=False) == 4
    assert order_of(tables) == [
        (b"c", "up"), (b"d", "up"), (b"e", "up"), (b"b", "up"), (b"b", "other"), (b"a", "up"),
    ]  # fmt: skip
    assert [row[1] for row in tables.outputs_to_make(late=True)] == [b"g"]
    assert [row[1] for row in tables.outputs_to_make(late=False, of_groups=True)] == [b"/up/h"]


def test_a_job_is_as_long_as_the_longest_of_its_outputs(tables: PlanTables) -> None:
    """A stage of which nothing is known costs by the byte."""
    tables.insert_outputs([sized(b"a", 5000), sized(b"b", 100), sized(b"b", 100, stage="new"), sized(b"c", 9000)])
    assert tables.find_long_jobs({"up": BY_SIZE}, 0.03, least_s=0.5, most=100, as_last_time=False) == 3
    assert order_of(tables) == [(b"c", "up"), (b"b", "up"), (b"b", "new"), (b"a", "up")]


def test_what_a_job_took_last_time_counts_more_than_its_size(tables: PlanTables, ledger: Ledger) -> None:
    """As long as its source has the same size."""
    tables.insert_outputs([sized(b"a", 5000), sized(b"b", 10), sized(b"c", 10), sized(b"d", 9000), sized(b"e", 10)])
    tables._connection.execute("COMMIT")
    for source, size, seconds in ((b"b", 10, 3.0), (b"c", 11, 9.0), (b"d", 9000, 0.0)):
        ledger._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, source_size, at_work, seconds)"
            " VALUES (?, ?, 'up', 'done', ?, 0, ?)",
            (b"out/" + source, source, size, seconds),
        )
    assert tables.find_long_jobs({"up": BY_SIZE}, 0.0, least_s=0.5, most=100, as_last_time=True) == 2
    assert [source for source, _ in order_of(tables)] == [b"b", b"a", b"c", b"d", b"e"]


def test_so_many_are_chosen_at_most(tables: PlanTables) -> None:
    """And all of them come, though they are read in chunks while rows change."""
    tables.insert_outputs(sized(b"%04d" % number, 5000 + number) for number in range(1500))
    assert tables.find_long_jobs({"up": BY_SIZE}, 0.0, least_s=0.5, most=1200, as_last_time=False) == 1200
    found = [source for source, _ in order_of(tables)]
    longest = [b"%04d" % number for number in range(1499, -1, -1)]
    assert sorted(found) == sorted(longest)
    assert found[1200:] == sorted(set(longest) - set(found[:1200]))


def test_of_nothing_known_the_largest_come_first(tables: PlanTables) -> None:
    """And without a stage whose cost is known."""
    tables.insert_outputs([sized(b"a", 10), sized(b"b", 5000), sized(b"c", 9000)])
    assert tables.find_long_jobs({}, 1e-3, least_s=4.0, most=10, as_last_time=False) == 2
    assert [source for source, _ in order_of(tables)] == [b"c", b"b", b"a"]
