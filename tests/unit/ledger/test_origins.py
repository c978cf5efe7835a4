"""How sources and groups are kept in the columns of the ledger."""

from __future__ import annotations

import sqlite3

import pytest

from pipeline.ledger.origins import ARE_FILES, ARE_GROUPS, GROUPS, columns_of, is_group, key_of, origin_of
from pipeline.messages import Group, Origin, Source

ORIGINS: list[tuple[Origin, tuple[bytes, int, int]]] = [
    (Source(b"a/b.txt", 3, 5), (b"a/b.txt", 3, 5)),
    (Source(b"\xff", 0, -1), (b"\xff", 0, -1)),
    (Group("sheet", None, 7, 11), (b"/sheet", 7, 11)),
    (Group("sheet", b"", 7, 11), (b"/sheet/", 7, 11)),
    (Group("sheet", b"a/b", 7, 11), (b"/sheet/a/b", 7, 11)),
]


@pytest.mark.parametrize(("origin", "columns"), ORIGINS)
def test_the_columns_tell_what_they_were_made_of(origin: Origin, columns: tuple[bytes, int, int]) -> None:
    """Older ledgers hold groups in these very columns, so the form may not change."""
    assert columns_of(origin) == columns and key_of(origin) == columns[0]
    assert origin_of(*columns) == origin
    assert is_group(columns[0]) == isinstance(origin, Group)


def test_a_time_that_sqlite_cannot_hold_is_cut() -> None:
    """File systems have times after the year 2262."""
    assert columns_of(Source(b"a", 1, 2**64)) == (b"a", 1, 2**63 - 1)


def test_conditions_part_groups_from_files() -> None:
    """Whatever a file is called, no condition takes it for a group."""
    connection = sqlite3.connect(":memory:")
    connection.execute("CREATE TABLE found (source BLOB)")
    files, groups = [b".", b".hidden", b"0", b"0/a", b"-", b"a/b", b"\xff"], [b"/sheet", b"/sheet/", b"/0/\xff"]
    connection.executemany("INSERT INTO found VALUES (?)", [(each,) for each in files + groups])

    def chosen(which: str) -> set[bytes]:
        return {source for (source,) in connection.execute(f"SELECT source FROM found WHERE {which}")}

    assert chosen(ARE_FILES) == set(files) and chosen(ARE_GROUPS) == set(groups)
    assert all(GROUPS[0] <= group < GROUPS[1] for group in groups)
    connection.close()


def test_names_for_people_and_programs() -> None:
    """A group is never shown as the path of a file."""
    assert [str(origin) for origin, _ in ORIGINS] == ["a/b.txt", r"\xff", "all files", "group ''", "group a/b"]
    assert ORIGINS[0][0].as_json() == {"source": "a/b.txt"}
    assert Group("sheet", None).as_json() == {"source": None, "group": None}
    assert Group("sheet", b"\xff").as_json() == {"source": None, "group": r"\xff", "group_b64": "/w=="}
