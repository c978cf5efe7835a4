"""The temporary tables of groups, asked directly."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.records import done

from pipeline.ledger.group_tables import GroupTables
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Source


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    with closing(Ledger(None)) as ledger:
        ledger.create_plan_tables()
        yield ledger


@pytest.fixture
def tables(ledger: Ledger) -> GroupTables:
    return ledger.create_group_tables()


def member(group: bytes, target: bytes, output: bytes = b"out/sheet") -> tuple[object, ...]:
    return ("sheet", group, output, target, b"of-" + target, None, b"digest", 6, 2001)


def test_members_come_in_byte_order(tables: GroupTables) -> None:
    """Whatever the order in which they were found, each with what it is and the contents it was made with."""
    tables.insert_members([member(b"g", b"b"), member(b"g", b"a"), member(b"h", b"c")])
    assert list(tables.members("sheet", b"g", b"out/sheet")) == [
        (b"a", b"of-a", None, 6, 2001), (b"b", b"of-b", None, 6, 2001)
    ]  # fmt: skip
    assert list(tables.member_states("sheet", b"g", b"out/sheet")) == [
        (b"a", b"digest", 6, 2001, b"of-a"), (b"b", b"digest", 6, 2001, b"of-b")
    ]  # fmt: skip


def test_a_group_is_counted_with_what_is_missing_from_it(tables: GroupTables) -> None:
    """What may be missing from every group is counted apart; what was said first of a source counts."""
    tables.insert_members([member(b"g", b"a"), member(b"g", b"b")])
    tables.insert_absent("sheet", b"g", b"out/sheet", b"x", "failed")
    tables.insert_absent("sheet", b"g", b"out/sheet", b"x", "to be made")
    tables.insert_absent("sheet", b"h", b"out/sheet", b"y", "to be moved")
    tables.insert_absent("sheet", b"", b"", b"z", "to be made")
    assert list(tables.groups("sheet")) == [(b"g", b"out/sheet", 2, 0, 0, 1), (b"h", b"out/sheet", 0, 0, 1, 0)]
    assert tables.absent_from_all("sheet") == {"to be made": 1}
    assert not list(tables.groups("other"))
    tables.clear()
    assert not list(tables.groups("sheet")) and tables.absent_from_all("sheet") == {}


def test_a_group_without_an_output_is_shown_by_one_of_its_members(tables: GroupTables) -> None:
    """The reason why it can go nowhere lies in the names of a member."""
    tables.insert_members([member(b"g", b"a", output=b"")])
    tables.insert_absent("sheet", b"h", b"", b"y", "failed")
    assert tables.member_without_output("sheet", b"g") == (b"of-a", "")
    assert tables.member_without_output("sheet", b"h") == (b"y", "")


def test_members_are_taken_from_what_was_made(ledger: Ledger, tables: GroupTables) -> None:
    """Orphans, outputs of other stages, and what is made of groups are no members."""
    for source, path in ((b"a", b"out/a"), (b"b", b"out/b"), (b"/sheet/g", b"out/sheet")):
        done(ledger, Source(source, 1, 1), path)
    ledger.outputs.flush()
    assert [row[1] for row in tables.recorded_outputs([])] == [b"out/a", b"out/b"]
    assert not list(tables.recorded_outputs(["other", "up"]))


def test_creating_them_leaves_the_plan_to_be_filled(tmp_path: Path) -> None:
    """The tables of the plan are filled in one transaction, which the ledger's `commit` ends."""
    with closing(Ledger(tmp_path / "l")) as ledger:
        ledger.create_plan_tables()
        ledger.create_group_tables()
        assert ledger._connection.in_transaction
        ledger.commit()
