"""The plan on disk: temporary tables beside the ledger that hold what is to be done, whatever its size.

SQLite finds the collisions: two sources that want one path are two rows with one target.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from pipeline.files.digest import Reading
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger, Row
from pipeline.ledger.origins import ARE_FILES, ARE_GROUPS, columns_of, is_group, kept_time, origin_of
from pipeline.messages import Group, GroupJob, Job, Origin, Source, Target
from pipeline.planning.decisions import PLACE, Action, Decision, Orphan, Rename, Verdict
from pipeline.text import PATH_CHANGED, planned_reason, shown

# Why an output is an orphan although its source and stage are as they were: the source is left out by now.
SKIPPED_NOW = "skipped now"
# Of what is to be renamed, and so no orphan: its path is free.
_MOVED = "moved"

# What claims a target: also what is not to be made now, or it would depend on the moment who has the path.
_WANTED = "action IN ('make', 'rename', 'up-to-date', 'held', 'settling')"
_NEW = "action IN ('make', 'rename')"
# Rows: inserted together, and read together.
_CHUNK = 500

_SCHEMA = """
CREATE TEMP TABLE plan (
    seq INTEGER PRIMARY KEY,
    source BLOB, source_size INTEGER, source_mtime_ns INTEGER,
    stage TEXT, action TEXT, why TEXT, path BLOB, target BLOB,
    rival BLOB, owned INTEGER, late INTEGER,
    leads INTEGER, -- whether it is what is said of its source as a whole
    moved_from BLOB
);
CREATE TEMP TABLE orphans (
    target BLOB PRIMARY KEY, source BLOB, stage TEXT, status TEXT, why TEXT, size INTEGER, mtime_ns INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE readings ( -- of sources that are as they were, for the rows that say less of them
    target BLOB PRIMARY KEY, digest BLOB, mtime_ns INTEGER, ctime_ns INTEGER
) WITHOUT ROWID;
CREATE TEMP TABLE past_failures (source BLOB, stage TEXT);
"""


class Spool:
    """What one plan holds; gone when the ledger is closed."""

    def __init__(self, ledger: Ledger, outputs_per_source: int) -> None:
        self._connection = ledger.connection
        self._outputs_per_source = outputs_per_source
        self._connection.executescript(_SCHEMA + "BEGIN")
        self._waiting: list[tuple[object, ...]] = []
        self._has_late = False
        self._has_renames = False

    # -- filling -------------------------------------------------------------------------------------------------------

    def add(self, origin: Origin, verdict: Verdict, *, leads: bool, late: bool = False) -> None:
        """Add what is to be done about one output; `late`, after all that is not, if it is to be made, and if it stands
        for parts that are renamed.
        """
        self._has_late |= late
        self._has_renames |= verdict.action == "rename"
        self._waiting.append(
            (
                *columns_of(origin), verdict.stage, verdict.action, verdict.why,
                verdict.path, verdict.target, verdict.rival, verdict.owned, late, leads, verdict.moved_from,
            )
        )  # fmt: skip
        if len(self._waiting) >= _CHUNK:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            slots = ", ?" * len(self._waiting[0])
            self._connection.executemany(f"INSERT INTO plan VALUES (NULL{slots})", self._waiting)
        self._waiting.clear()

    def add_orphan(self, row: Row, why: str) -> None:
        """Add a recorded output that no current source and template produces."""
        # What stands for parts is no file, and to be forgotten as what was never made.
        status = "intended" if row.part == "" else row.status
        orphan = Orphan(row.target, row.source, row.stage, status, why, row.size, row.mtime_ns)
        self._connection.execute("INSERT OR IGNORE INTO orphans VALUES (?, ?, ?, ?, ?, ?, ?)", orphan)

    def add_moved(self, row: Row) -> None:
        """Add an output that is to be renamed."""
        self.add_orphan(row, _MOVED)

    def add_orphans_of_groups(self, why: Callable[[str, bool], str]) -> None:
        """Add what is recorded of groups and nothing makes any more; why, is said by stage and by whether the group is
        there.
        """
        self._write()
        self._connection.execute(f"DELETE FROM orphans WHERE {ARE_GROUPS}")
        planned = f"FROM plan WHERE {ARE_GROUPS}"
        found = self._connection.execute(
            f"SELECT target, source, stage, status, source IN (SELECT source {planned}), size, mtime_ns FROM outputs"
            f" WHERE {ARE_GROUPS} AND target NOT IN (SELECT target {planned})"
        )
        orphans = [(*row[:4], why(row[2], bool(row[4])), *row[5:]) for row in found]
        self._connection.executemany("INSERT OR IGNORE INTO orphans VALUES (?, ?, ?, ?, ?, ?, ?)", orphans)

    def add_skipped(self) -> None:
        """Add, after the run, what is left of sources that it left out."""
        self._connection.execute(
            "INSERT OR IGNORE INTO orphans SELECT target, source, stage, status, ?, size, mtime_ns FROM outputs"
            " WHERE status = 'skipped' AND size IS NOT NULL",
            (SKIPPED_NOW,),
        )

    def add_past_failure(self, failure: Failure) -> None:
        """Add a recorded failure that no longer says anything: its source or its output is otherwise by now."""
        self._connection.execute("INSERT INTO past_failures VALUES (?, ?)", (failure.source, failure.stage))

    def add_reading(self, row: Row, reading: Reading) -> None:
        """Add what a source was read to be, which is what its row has it to be."""
        values = (row.target, reading.digest, kept_time(reading.mtime_ns), kept_time(reading.ctime_ns))
        self._connection.execute("INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?)", values)

    def settle(self, *, keep_orphans: bool) -> None:
        """End the filling: refuse what two sources want; the one that already has its output keeps it."""
        self._settle_rivals()
        self._connection.execute("CREATE INDEX temp.plan_by_target ON plan (target)")
        self._settle_targets()
        if self._has_renames:
            self._settle_moved()
        # An orphan whose path a current source takes over is none.
        kept = f"target IN (SELECT target FROM plan WHERE {_NEW})" if keep_orphans else "TRUE"
        self._connection.execute(f"DELETE FROM orphans WHERE {kept}")
        self._connection.execute("COMMIT")

    def settle_groups(self) -> None:
        """End the filling with what is made of groups, after that with all else."""
        self._settle_rivals()
        self._settle_targets(f"AND target IN (SELECT target FROM plan WHERE {ARE_GROUPS})")
        taken = f"SELECT target FROM plan WHERE {_NEW} AND {ARE_GROUPS}"
        self._connection.execute(f"DELETE FROM orphans WHERE target IN ({taken})")

    def forget_groups(self) -> None:
        """Forget what is made of groups: it is to be planned anew."""
        self._connection.execute(f"DELETE FROM plan WHERE {ARE_GROUPS}")

    def _settle_rivals(self) -> None:
        """Refuse what is recorded as another source's."""
        self._write()
        self._connection.execute(
            f"UPDATE plan SET action = 'refuse', why = 'rival' WHERE rival IS NOT NULL AND {_NEW}"
            " AND NOT EXISTS (SELECT 1 FROM orphans WHERE orphans.target = plan.target AND orphans.why != ?)",
            (SKIPPED_NOW,),
        )
        for seq, rival in self._chunks("SELECT seq, rival FROM plan WHERE why = 'rival' AND seq > ? ORDER BY seq", 0):
            self._refuse(seq, rival)

    def _settle_targets(self, which: str = "") -> None:
        """Refuse what several want."""
        for (target,) in self._chunks(
            f"SELECT target FROM plan WHERE {_WANTED} {which} AND target > ?"
            " GROUP BY target HAVING count(*) > 1 ORDER BY target",
            b"",
        ):
            self._settle_target(target)

    def _settle_moved(self) -> None:
        """What was to be renamed and is refused its new path is an orphan."""
        self._connection.execute("CREATE INDEX temp.plan_by_origin ON plan (moved_from) WHERE moved_from IS NOT NULL")
        self._connection.execute(
            "UPDATE orphans SET why = ? WHERE why = ? AND NOT EXISTS"
            " (SELECT 1 FROM plan WHERE moved_from = orphans.target AND action = 'rename')",
            (PATH_CHANGED, _MOVED),
        )

    def leave(self, part: Rename) -> None:
        """Leave a part that could not be renamed to those who make all of them: where it lies it is an orphan."""
        self._connection.execute("DELETE FROM plan WHERE seq = ?", (part.seq,))
        self._connection.execute("UPDATE orphans SET why = ? WHERE target = ?", (PATH_CHANGED, part.moved_from))

    def make_instead(self, rename: Rename) -> None:
        """Make an output that could not be renamed: what lies at its old path is an orphan."""
        self._connection.execute("UPDATE plan SET action = 'make', why = 'new' WHERE seq = ?", (rename.seq,))
        orphan = "UPDATE orphans SET why = ? WHERE target = ? AND why = ?"
        self._connection.execute(orphan, (PATH_CHANGED, rename.moved_from, _MOVED))

    def _settle_target(self, target: bytes) -> None:
        """Refuse all that want a target but the one that has it; where none has, all, each naming another."""
        wanted = f"FROM plan WHERE target = ? AND {_WANTED}"
        first, second = self._all(f"SELECT seq, source, owned {wanted} ORDER BY owned DESC, seq LIMIT 2", target)
        for seq in [row[0] for row in self._all(f"SELECT seq {wanted} AND action != 'settling'", target)]:
            if seq != first[0]:
                self._refuse(seq, first[1])
            elif not first[2]:
                self._refuse(seq, second[1])

    def _refuse(self, seq: int, rival: bytes) -> None:
        source, target = self._all("SELECT source, target FROM plan WHERE seq = ?", seq)[0]
        other = str(origin_of(rival)) if rival != source else "another stage's"
        why = f"collision with {other}: both want {shown(target)}"
        self._connection.execute("UPDATE plan SET action = 'refuse', why = ? WHERE seq = ?", (why, seq))
        if is_group(source):
            return
        near = (seq - self._outputs_per_source, seq + self._outputs_per_source)
        of_source = self._all("SELECT seq, action FROM plan WHERE seq BETWEEN ? AND ? AND source = ?", *near, source)
        leader = min(of_source, key=lambda row: (PLACE[row[1]], row[0]))[0]
        self._connection.executemany(
            "UPDATE plan SET leads = ? WHERE seq = ?", ((each == leader, each) for each, _ in of_source)
        )

    # -- reading -------------------------------------------------------------------------------------------------------

    def jobs(self) -> Iterator[Job]:
        """The jobs: for each source the outputs it is to make, in byte order, those that are late after the others."""
        yield from self._jobs(f"{ARE_FILES} AND NOT late")
        if self._has_late:
            yield from self._jobs(f"{ARE_FILES} AND late")

    def jobs_of_groups(self) -> Iterator[GroupJob]:
        """The jobs of groups, those that are late after the others."""
        for when in ("NOT late", "late"):
            for _, stage, path, *source in self._chunks(
                "SELECT seq, stage, path, source, source_size, source_mtime_ns FROM plan"
                f" WHERE seq > ? AND action = 'make' AND {ARE_GROUPS} AND {when} ORDER BY seq",
                0,
            ):
                group = origin_of(*source)
                assert isinstance(group, Group)
                yield GroupJob(group, Target(stage, path))

    def _jobs(self, which: str) -> Iterator[Job]:
        source, targets = Source(b"", 0, 0), list[Target]()
        for _, path, size_bytes, mtime_ns, stage, target in self._chunks(
            "SELECT seq, source, source_size, source_mtime_ns, stage, path FROM plan"
            f" WHERE seq > ? AND action = 'make' AND {which} ORDER BY seq",
            0,
        ):
            if path != source.path:
                if targets:
                    yield Job(source, tuple(targets))
                source, targets = Source(path, size_bytes, mtime_ns), []
            targets.append(Target(stage, target))
        if targets:
            yield Job(source, tuple(targets))

    def decisions(self, action: Action | None = None, which: str = "TRUE") -> Iterator[Decision]:
        """What the plan holds, in byte order; read in chunks, so that the ledger can be written meanwhile."""
        return self._decisions(which if action is None else f"{which} AND action = '{action}'")

    def _decisions(self, which: str, *values: object) -> Iterator[Decision]:
        for row in self._chunks(
            "SELECT seq, source, source_size, source_mtime_ns, stage, path, target, action, why FROM plan"
            f" WHERE seq > ? AND {which} ORDER BY seq",
            0,
            *values,
        ):
            yield Decision(origin_of(*row[1:4]), *row[4:])

    def decisions_of(self, source: bytes) -> list[Decision]:
        """What the plan holds of one source."""
        return list(self._decisions("source = ?", source))

    def decisions_of_stage(self, stage: str) -> Iterator[Decision]:
        """What the plan holds of one stage."""
        self._write()
        return self._decisions("stage = ?", stage)

    def wanted_by(self, target: bytes) -> list[bytes]:
        """The sources of which a template leads to this output."""
        return [row[0] for row in self._all("SELECT source FROM plan WHERE target = ? ORDER BY seq", target)]

    def counts(self, *, of_groups: bool = False) -> Iterator[tuple[Action, str, int, int]]:
        """How many outputs, and how many sources of which that is what is said, by what is to be done and why.

        A reason comes once for each of the particulars with which it is said; those may be as many as there are files.
        """
        which = f"WHERE {ARE_GROUPS if of_groups else ARE_FILES} GROUP BY action, why ORDER BY min(seq)"
        # What stands for parts that are renamed is none beside them.
        outputs = "sum(action != 'rename' OR NOT late)"
        found = self._connection.execute(f"SELECT action, why, {outputs}, sum(leads) FROM plan {which}")
        for action, why, outputs, files in found:
            yield action, planned_reason(action, why), outputs, files

    def count_jobs(self) -> int:
        """How many sources have something to make."""
        which = f"action = 'make' AND {ARE_FILES}"
        return int(self._all(f"SELECT count(DISTINCT source) FROM plan WHERE {which}")[0][0])

    def renames(self) -> Iterator[Rename]:
        """What is to be renamed, those of a source together."""
        which = "action = 'rename' AND moved_from IS NOT NULL AND seq > ?"
        columns = "seq, source, stage, path, target, moved_from, late"
        return map(Rename._make, self._chunks(f"SELECT {columns} FROM plan WHERE {which} ORDER BY seq", 0))

    def orphans(self) -> Iterator[Orphan]:
        """Every orphan, in byte order of its path."""
        which = f"why != '{_MOVED}' AND target > ?"
        return map(Orphan._make, self._chunks(f"SELECT * FROM orphans WHERE {which} ORDER BY target", b""))

    def past_failures(self) -> list[tuple[bytes, str]]:
        """Source and stage of every failure that no longer says anything."""
        return self._all("SELECT source, stage FROM past_failures")

    def _chunks(self, statement: str, before: object, *values: object) -> Iterator[tuple[Any, ...]]:
        """Rows after `before` in order of their first column, a chunk at a time: between two of them all may change."""
        while rows := self._all(f"{statement} LIMIT {_CHUNK}", before, *values):
            yield from rows
            before = rows[-1][0]

    def _all(self, statement: str, *values: object) -> list[tuple[Any, ...]]:
        return self._connection.execute(statement, values).fetchall()
