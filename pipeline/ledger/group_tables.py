"""The temporary tables of groups: which outputs are members of which group, and which are missing from it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pipeline.ledger.origins import ARE_FILES
from pipeline.ledger.schema import ABSENT_TABLE, MEMBERS_TABLE
from pipeline.records import NamedTuple

_PRESENT = "SELECT grp, output, 1 AS present, '' AS how FROM members WHERE stage = ?1"
_ABSENT = "SELECT grp, output, 0 AS present, how FROM absent WHERE stage = ?1 AND grp != X''"


class FoundMember(NamedTuple):
    """A member of a group, with the size and the time of its file on disk."""

    target: bytes
    source: bytes
    part: str | None
    size: int
    mtime_ns: int


class GroupTables:
    """The tables of the groups of one plan, for all the stages that gather; created empty."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        # Not by a script, which would commit the transaction in which the plan is filled.
        connection.execute(MEMBERS_TABLE)
        connection.execute(ABSENT_TABLE)

    def clear(self) -> None:
        """Empty both tables."""
        self._connection.execute("DELETE FROM members")
        self._connection.execute("DELETE FROM absent")

    # -- filling -------------------------------------------------------------------------------------------------------

    def recorded_outputs(self, other_stages: Sequence[str]) -> Iterator[tuple[Any, ...]]:
        """Yield source, target, part, size, mtime_ns and digest of the files that may be members: done, no orphans.

        Files of `other_stages` are left out; of stages that have another name by now they are not.
        """
        others = ", ".join("?" for _ in other_stages)
        return self._connection.execute(
            "SELECT source, target, part, size, mtime_ns, digest FROM outputs WHERE status = 'done'"
            f" AND size IS NOT NULL AND stage NOT IN ({others}) AND {ARE_FILES}"
            " AND target NOT IN (SELECT target FROM temp.orphans)",
            other_stages,
        )

    def insert_members(self, members: Iterable[tuple[object, ...]]) -> None:
        """Add members, each with all the columns of its table."""
        self._connection.executemany("INSERT INTO members VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)", members)

    def insert_absent(self, stage: str, group: bytes, output: bytes, source: bytes, how: str) -> None:
        """Add that a group lacks the output of a source; an empty `group` stands for every group of the stage."""
        self._connection.execute(
            "INSERT OR IGNORE INTO absent VALUES (?, ?, ?, ?, ?)", (stage, group, output, source, how)
        )

    # -- reading -------------------------------------------------------------------------------------------------------

    def groups(self, stage: str) -> Iterator[tuple[Any, ...]]:
        """Yield group, output, and how many members are there, to be made, to be moved and failed.

        What is missing from every group of the stage is counted by `absent_from_all`. The tables may not change
        meanwhile.
        """
        counts = "sum(present), sum(how = 'to be made'), sum(how = 'to be moved'), sum(how = 'failed')"
        among = f"({_PRESENT} UNION ALL {_ABSENT}) GROUP BY grp, output ORDER BY grp, output"
        return self._connection.execute(f"SELECT grp, output, {counts} FROM {among}", (stage,))

    def absent_from_all(self, stage: str) -> dict[str, int]:
        """Count what may be missing from every group of a stage, by how it is missing."""
        how = "SELECT how, count(*) FROM absent WHERE stage = ? AND grp = X'' GROUP BY how"
        return dict(self._connection.execute(how, (stage,)).fetchall())

    def member_without_output(self, stage: str, group: bytes) -> tuple[bytes, str]:
        """Return source and part of a member of a group for which there is no output."""
        members = "SELECT source, part FROM members WHERE stage = ?1 AND grp = ?2 AND output = X''"
        absent = "SELECT source, '' FROM absent WHERE stage = ?1 AND grp = ?2 AND output = X''"
        found = self._connection.execute(f"{members} UNION ALL {absent} LIMIT 1", (stage, group)).fetchone()
        return found[0], found[1] or ""

    def member_states(
        self, stage: str, group: bytes, output: bytes
    ) -> Iterator[tuple[bytes, bytes | None, int, int, bytes]]:
        """Yield target, digest as made, found size and mtime_ns, and source of the members of a group, by target.

        There is no digest of a member that is not as it was made.
        """
        return self._members("target, contents, found_size, found_mtime_ns, source", stage, group, output)

    def members(self, stage: str, group: bytes, output: bytes) -> Iterator[FoundMember]:
        """Yield the members of a group as they were found on disk, in byte order of target."""
        found = self._members("target, source, part, found_size, found_mtime_ns", stage, group, output)
        return map(FoundMember._make, found)

    def _members(self, columns: str, *group: object) -> Iterator[Any]:
        which = "stage = ? AND grp = ? AND output = ? ORDER BY target"
        return self._connection.execute(f"SELECT {columns} FROM members WHERE {which}", group)
