"""The temporary tables of a plan: the outputs it decides on, orphans, past failures, and what was read of sources.

They are created empty for each plan, filled and settled within one transaction, read in chunks while the ledger is
written, and vanish with the connection. Who may do what to them is said in `schema.py`.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pipeline.ledger.input_folders import ROOT, ROOT_FILES
from pipeline.ledger.intents import RESEAL_WHERE
from pipeline.ledger.origins import ARE_FILES, ARE_GROUPS
from pipeline.ledger.schema import PLAN_TABLES
from pipeline.ledger.targets import Targets

MOVED = "moved"
"""The code of an orphan that is to be renamed: it is not shown as one, and its path is free."""

# What claims a target: also what is not made now, or it would depend on the moment who gets the path.
_CLAIMS = "action IN ('make', 'rename', 'up-to-date', 'held', 'settling')"
_WRITES = "action IN ('make', 'rename')"
# The orphans that were made of a source, and those whose source is gone.
_MADE = (
    "SELECT orphans.source, code, outputs.source_size, outputs.source_mtime_ns, outputs.source_digest, outputs.run"
    " FROM orphans JOIN outputs ON outputs.target = orphans.target WHERE outputs.status != 'intended'"
)
_GONE = f"{_MADE} AND code = 'source_gone'"
# A source that seems excluded is gone, too, where a file system that ignores case has it by a name of another case.
_OF_ANOTHER_CASE = "lower(CAST(past.source AS TEXT)) = lower(CAST(new.source AS TEXT))"
_FIND_MOVES = f"""
INSERT INTO moves
WITH past AS (
    SELECT source, code, max(source_size) AS size, max(source_mtime_ns) AS mtime_ns, max(source_digest) AS digest
    FROM ({_MADE}) WHERE code IN ('source_gone', 'excluded_now') GROUP BY source
    HAVING count(DISTINCT source_size) = 1 AND count(DISTINCT source_mtime_ns) = 1 AND count(DISTINCT source_digest) < 2
), new AS (
    SELECT source, min(seq) AS seq, source_size AS size, source_mtime_ns AS mtime_ns FROM plan
    WHERE {ARE_FILES} AND NOT EXISTS
        (SELECT 1 FROM outputs WHERE outputs.source = plan.source AND outputs.status != 'intended')
    GROUP BY source
)
SELECT new.source, new.seq, past.source, size, mtime_ns, past.digest FROM new JOIN past USING (size, mtime_ns)
WHERE code = 'source_gone' OR {_OF_ANOTHER_CASE}
GROUP BY size, mtime_ns HAVING count(*) = 1
"""
# The ledger is read once, whatever the number of moves.
_DROP_AMBIGUOUS_MOVES = """
DELETE FROM moves WHERE source IN (
    SELECT moves.source FROM outputs CROSS JOIN moves
    ON moves.size = outputs.source_size AND moves.mtime_ns = outputs.source_mtime_ns
    WHERE outputs.source NOT IN (moves.source, moves.gone) AND outputs.status != 'intended'
)
"""
# Why an output is an orphan that was to be renamed and is not: `?` where its source is as it was.
_NOT_MOVED = "CASE WHEN source IN (SELECT gone FROM moves) THEN 'source_moved' ELSE ? END"
_ROOT_FILES = f"X'{ROOT_FILES.hex()}'"
# Rows that are read together.
_CHUNK = 500
# `claimed` are the targets of what failed. A row of `outputs` whose part is empty stands for all parts of a fan-out; it
# is spared with them, since the next run knows them by it. Of a stage that is gone nobody knows which other one makes
# its outputs now.
_SPARE = """
WITH failed AS (
    SELECT source, stage FROM plan WHERE action IN ('refuse', 'held') UNION SELECT source, stage FROM changed
    UNION SELECT source, stage FROM failures WHERE (source, stage) NOT IN (SELECT * FROM past_failures)
), claimed AS (
    SELECT target FROM plan WHERE (source, stage) IN (SELECT * FROM failed)
)
UPDATE orphans SET spared = status != 'intended' AND (
    code = 'path_changed' AND (source, stage) IN (SELECT * FROM failed)
    OR code = 'stage_gone' AND source IN (SELECT source FROM failed)
    OR code = 'source_moved' AND (source, stage) IN
        (SELECT gone, failed.stage FROM moves JOIN failed ON failed.source = moves.source)
    OR target IN (SELECT target FROM claimed)
    OR EXISTS (
        SELECT 1 FROM outputs AS whole WHERE whole.source = orphans.source AND whole.stage = orphans.stage
        AND whole.part = '' AND whole.target IN (SELECT target FROM claimed)
    )
    OR EXISTS (SELECT 1 FROM outputs AS now WHERE now.target = orphans.target AND now.source != orphans.source)
) OR (
    target IN (SELECT target FROM claimed)
    AND EXISTS (SELECT 1 FROM outputs AS whole WHERE whole.target = orphans.target AND whole.part = '')
)
"""
_ORPHAN = "target, source, stage, status, code, size, mtime_ns, digests"
# The digests of the last versions of an output, one after the other.
_DIGESTS = "CAST(coalesce(digest, X'') || coalesce(earlier, X'') AS BLOB)"
_INSERT_ORPHAN = f"INSERT OR IGNORE INTO orphans ({_ORPHAN}) VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
_DECISION = (
    "seq, source, source_size, source_mtime_ns, stage, action, reason, path, target, rival, owned, moved_from, vacant"
)

_TO_MAKE = (
    "plan.seq, plan.source, plan.source_size, plan.source_mtime_ns, plan.stage, path, vacant, plan.target, plan.reason"
)
_IS_AHEAD = f"+action = 'make' AND NOT late AND {ARE_FILES.replace('source', 'plan.source')}"

CostSteps = Sequence[tuple[int, float]]
"""The seconds of a job from a size of its source on, the largest size first; below the least size it takes none."""

Record = tuple[Any, ...]
"""A row of a table, its columns in the order of `schema.py` or of the method's docstring."""


class PlanTables:
    """The tables of one plan; creating them begins the transaction in which they are filled."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.targets = Targets(connection, "plan", lambda: None)
        connection.executescript(PLAN_TABLES + "BEGIN")

    # -- filling -------------------------------------------------------------------------------------------------------

    def insert_outputs(self, outputs: Iterable[Record]) -> None:
        """Append outputs to `plan`, each with all its columns but `seq`."""
        values = f"NULL{', ?' * 14}"
        self._connection.executemany(f"INSERT INTO plan VALUES ({values})", outputs)

    def insert_orphans(self, orphans: Iterable[Record]) -> None:
        """Add orphans, unless their targets are among them."""
        self._connection.executemany(_INSERT_ORPHAN, orphans)

    def insert_skipped_orphans(self, code: str) -> None:
        """Add as orphans the files of all outputs that the ledger has as skipped."""
        self._connection.execute(
            f"INSERT OR IGNORE INTO orphans ({_ORPHAN})"
            f" SELECT target, source, stage, status, ?, size, mtime_ns, {_DIGESTS} FROM outputs"
            " WHERE status = 'skipped' AND size IS NOT NULL",
            (code,),
        )

    def insert_past_failure(self, source: bytes, stage: str) -> None:
        """Add a failure that the ledger may forget."""
        self._connection.execute("INSERT INTO past_failures VALUES (?, ?)", (source, stage))

    def insert_reading(self, target: bytes, mtime_ns: int, digest: bytes | None, ctime_ns: int | None) -> None:
        """Add the time of the source of an output, and its digest and ctime if it was read."""
        self._connection.execute(
            "INSERT OR IGNORE INTO readings VALUES (?, ?, ?, ?)", (target, mtime_ns, digest, ctime_ns)
        )

    def insert_touched(self, target: bytes, mtime_ns: int) -> None:
        """Add the time of an output that was read to have the contents that we wrote."""
        self._connection.execute("INSERT OR REPLACE INTO touched VALUES (?, ?)", (target, mtime_ns))

    def insert_seen(self, folder: bytes, mount: bytes, files: int) -> None:
        """Add a folder in which the walk met files."""
        self._connection.execute("INSERT OR REPLACE INTO seen VALUES (?, ?, ?)", (folder, mount, files))

    def unplanned_group_outputs(self) -> list[Record]:
        """Return the recorded outputs of groups that the plan does not have.

        Each is target, source, stage, status, whether its group is in the plan, size, mtime_ns, digests.
        """
        planned = f"FROM plan WHERE {ARE_GROUPS}"
        return self._all(
            f"SELECT target, source, stage, status, source IN (SELECT source {planned}), size, mtime_ns, {_DIGESTS}"
            " FROM outputs"
            f" WHERE {ARE_GROUPS} AND target NOT IN (SELECT target {planned})"
        )

    def delete_group_orphans(self) -> None:
        """Delete the orphans that were made of groups."""
        self._connection.execute(f"DELETE FROM orphans WHERE {ARE_GROUPS}")

    def delete_group_outputs(self) -> None:
        """Delete the outputs of groups from the plan."""
        self._connection.execute(f"DELETE FROM plan WHERE {ARE_GROUPS}")

    # -- sources that were moved ---------------------------------------------------------------------------------------

    def find_moves(self) -> bool:
        """Find the new sources that have size and time of one source that is gone, and of no other; any at all?"""
        self._connection.execute(_FIND_MOVES)
        if not self._all("SELECT EXISTS (SELECT 1 FROM moves)")[0][0]:
            return False
        self._connection.execute("CREATE INDEX temp.moves_by_identity ON moves (size, mtime_ns)")
        self._connection.execute(_DROP_AMBIGUOUS_MOVES)
        self._connection.execute("CREATE INDEX temp.moves_by_gone ON moves (gone)")
        return True

    def moves(self) -> Iterator[Record]:
        """Yield source, the `seq` of its first output, the source that is gone, and the digest recorded of that."""
        yield from self._chunks("SELECT source, seq, gone, digest FROM moves WHERE source > ? ORDER BY source", b"")

    def drop_move(self, source: bytes) -> None:
        """Take a source for one that was never there before."""
        self._connection.execute("DELETE FROM moves WHERE source = ?", (source,))

    def decisions_near(self, seq: int, distance: int, source: bytes) -> list[Record]:
        """Return the decisions on a source that begin at `seq` and are at most so many, as `decisions` does."""
        which = "seq BETWEEN ? AND ? AND source = ?"
        return self._all(f"SELECT {_DECISION} FROM plan WHERE {which} ORDER BY seq", seq, seq + distance, source)

    def take_from(self, seq: int, action: str, reason: str, target: bytes, *, is_owned: bool) -> None:
        """Have an output of the plan take what lies at a target, before it is made if it is."""
        columns = "action = ?, reason = ?, moved_from = ?, owned = ?, rival = NULL, vacant = 0"
        self._connection.execute(f"UPDATE plan SET {columns} WHERE seq = ?", (action, reason, target, is_owned, seq))
        self._connection.execute("UPDATE orphans SET code = ? WHERE target = ?", (MOVED, target))

    def delete_orphans_at(self, targets: Iterable[bytes]) -> None:
        """Delete the orphans with these targets."""
        self._connection.executemany("DELETE FROM orphans WHERE target = ?", ((target,) for target in targets))

    def end_moves(self) -> None:
        """Give what is left of sources that were moved a reason of its own."""
        which = "code IN ('source_gone', 'excluded_now') AND source IN (SELECT gone FROM moves)"
        self._connection.execute(f"UPDATE orphans SET code = 'source_moved' WHERE {which}")

    # -- folders that are gone -----------------------------------------------------------------------------------------

    def index_orphans(self) -> None:
        """Index the orphans by source, in preparation of the methods below."""
        self._connection.execute("CREATE INDEX temp.orphans_by_source ON orphans (source)")

    def folders_of_gone(self, least: int) -> list[bytes]:
        """Return the folders that may be lost: those recorded as mount points or lost, and others.

        The others are top folders, and the files directly in the root, of which at least so many sources are gone.
        """
        top = f"CASE instr(source, X'2F') WHEN 0 THEN {_ROOT_FILES} ELSE substr(source, 1, instr(source, X'2F')) END"
        rows = self._all(
            f"SELECT {top} AS folder FROM ({_GONE}) GROUP BY folder HAVING count(DISTINCT source) >= ?"
            " UNION SELECT folder FROM folders WHERE (mount != X'' OR is_lost) AND folder != X''",
            least,
        )
        return [folder for (folder,) in rows]

    def count_left_out(self, folder: bytes, code: str) -> int:
        """Count the sources in a folder that the walk did not meet, for one reason."""
        which, values = _within(folder)
        return int(self._all(f"SELECT count(DISTINCT source) FROM ({_MADE} AND code = ?) {which}", code, *values)[0][0])

    def others_known_in(self, folder: bytes) -> Iterator[bytes]:
        """Yield the known sources in a folder that are neither gone, nor excluded, nor moved; the ledger stays."""
        which, values = _within(folder)
        has_moves = self._all("SELECT EXISTS (SELECT 1 FROM moves)")[0][0]
        moved = " AND NOT EXISTS (SELECT 1 FROM moves WHERE gone = outputs.source)" if has_moves else ""
        rows = self._connection.execute(
            f"SELECT DISTINCT source FROM outputs {which} AND status != 'intended' AND {ARE_FILES}"
            " AND NOT EXISTS (SELECT 1 FROM orphans WHERE orphans.source = outputs.source"
            f" AND code IN ('source_gone', 'excluded_now')){moved}",
            values,
        )
        return (source for (source,) in rows)

    def count_elsewhere(self, folder: bytes, *, by_size: bool) -> int:
        """Count the sources in a folder that are gone, and of which a twin is there under another path.

        A twin has the size and the time or, if it is recorded, the contents; `by_size` the size alone. It is new, or
        was made by a later run than all of these: what was a copy before is none.
        """
        which, values = _within(folder)
        alike = "" if by_size else " AND (there.mtime_ns = gone.mtime_ns OR there.digest = gone.digest)"
        rows = self._all(
            "WITH gone AS MATERIALIZED (SELECT source, source_size AS size, source_mtime_ns AS mtime_ns,"
            f" source_digest AS digest, run FROM ({_GONE}) {which}), there AS ("
            " SELECT source_size AS size, source_mtime_ns AS mtime_ns, source_digest AS digest FROM outputs"
            f" WHERE status != 'intended' AND {ARE_FILES} AND run > (SELECT max(run) FROM gone)"
            " AND NOT EXISTS (SELECT 1 FROM orphans WHERE orphans.source = outputs.source AND code = 'source_gone')"
            f" UNION ALL SELECT source_size, source_mtime_ns, NULL FROM plan WHERE {ARE_FILES})"
            f" SELECT count(DISTINCT gone.source) FROM there CROSS JOIN gone ON gone.size = there.size{alike}",
            *values,
        )
        return int(rows[0][0])

    def keep(self, folder: bytes, code: str) -> None:
        """Have the outputs and failures of sources in a folder, not met for a reason, be neither orphans nor past."""
        which, values = _within(folder)
        self._connection.execute(f"DELETE FROM orphans {which} AND code = ?", (*values, code))
        self._connection.execute(f"DELETE FROM past_failures {which}", values)

    # -- settling ------------------------------------------------------------------------------------------------------

    def index_targets(self) -> None:
        """Index the plan by target; no more outputs of files are inserted."""
        self._connection.execute("CREATE INDEX temp.plan_by_target ON plan (target)")

    def refuse_rivals(self, except_orphan: str, *, of_groups: bool = False) -> Iterator[tuple[int, bytes]]:
        """Refuse what is recorded as another source's, unless that is an orphan of another reason than this one.

        With `of_groups` only outputs of groups are: those of files were judged by orphans that are deleted by then.

        Yields `seq` and rival of each, for `refuse` to give its reason.
        """
        among = ARE_GROUPS if of_groups else "TRUE"
        self._connection.execute(
            "UPDATE plan SET action = 'refuse', reason = 'collision'"
            f" WHERE rival IS NOT NULL AND {_WRITES} AND {among} AND NOT EXISTS"
            " (SELECT 1 FROM orphans WHERE orphans.target = plan.target AND code != ?)",
            (except_orphan,),
        )
        which = f"reason = 'collision' AND {among} AND seq > ?"
        yield from self._chunks(f"SELECT seq, rival FROM plan WHERE {which} ORDER BY seq", 0)

    def contested_targets(self, *, of_groups: bool = False) -> Iterator[bytes]:
        """Yield the targets that several outputs claim; only those that a group claims, if `of_groups`."""
        which = f"AND target IN (SELECT target FROM plan WHERE {ARE_GROUPS})" if of_groups else ""
        statement = f"SELECT target FROM plan WHERE {_CLAIMS} {which} AND target > ?"
        for (target,) in self._chunks(f"{statement} GROUP BY target HAVING count(*) > 1 ORDER BY target", b""):
            yield target

    def first_claims(self, target: bytes) -> list[tuple[int, bytes, int]]:
        """Return the two foremost claims to a target, each as `seq`, source, and whether it has the output already."""
        which = f"target = ? AND {_CLAIMS} ORDER BY owned DESC, seq LIMIT 2"
        return self._all(f"SELECT seq, source, owned FROM plan WHERE {which}", target)

    def refusable_claims(self, target: bytes) -> list[int]:
        """Return `seq` of every claim to a target but of those that are not judged yet."""
        which = f"target = ? AND {_CLAIMS} AND action != 'settling'"
        return [seq for (seq,) in self._all(f"SELECT seq FROM plan WHERE {which}", target)]

    def source_and_target(self, seq: int) -> tuple[bytes, bytes]:
        """Return source and target of an output of the plan."""
        source, target = self._all("SELECT source, target FROM plan WHERE seq = ?", seq)[0]
        return source, target

    def refuse(self, seq: int, reason: str) -> None:
        """Refuse an output of the plan for a reason."""
        refuse = "UPDATE plan SET action = 'refuse', reason = ? WHERE seq = ?"
        self._connection.execute(refuse, (reason, seq))

    def actions_near(self, seq: int, distance: int, source: bytes) -> list[tuple[int, Any]]:
        """Return `seq` and action of the outputs of a source, which lie at most so far from one of them."""
        which = "seq BETWEEN ? AND ? AND source = ?"
        return self._all(f"SELECT seq, action FROM plan WHERE {which}", seq - distance, seq + distance, source)

    def set_leader(self, leader: int, of: Iterable[int]) -> None:
        """Have one of the outputs of a source be what is said of it as a whole."""
        self._connection.executemany("UPDATE plan SET leads = ? WHERE seq = ?", ((seq == leader, seq) for seq in of))

    def release_unmoved(self, code: str) -> None:
        """Make orphans, for this reason, of what was to be renamed and has been refused its new path."""
        self._connection.execute("CREATE INDEX temp.plan_by_origin ON plan (moved_from) WHERE moved_from IS NOT NULL")
        self._connection.execute(
            f"UPDATE orphans SET code = {_NOT_MOVED} WHERE code = ? AND NOT EXISTS"
            f" (SELECT 1 FROM plan WHERE moved_from = orphans.target AND {_WRITES})",
            (code, MOVED),
        )

    def delete_overwritten_orphans(self, *, by_groups: bool = False) -> None:
        """Delete the orphans at whose paths an output is written; only by those of groups, if `by_groups`."""
        which = f"{_WRITES} AND {ARE_GROUPS}" if by_groups else _WRITES
        self._connection.execute(f"DELETE FROM orphans WHERE target IN (SELECT target FROM plan WHERE {which})")

    def spare_old_outputs(self) -> None:
        """Spare the orphans that are old outputs of what the plan refuses or holds, or what failed, and no others.

        Among them are those of another source that lie where such an output would, or a part of one might: as after a
        source has got another suffix. Nor is one an orphan whose place the run gave to a part of another source.
        """
        self._connection.execute(_SPARE)

    def delete_orphans(self) -> None:
        """Delete every orphan."""
        self._connection.execute("DELETE FROM orphans")

    # -- while the plan is carried out ---------------------------------------------------------------------------------

    def make_instead(self, seq: int, reason: str, orphan: bytes, code: str) -> None:
        """Turn a rename into an output to make for a reason, and what it was to move into an orphan with a code."""
        make = "UPDATE plan SET action = 'make', reason = ?, moved_from = NULL WHERE seq = ?"
        self._connection.execute(make, (reason, seq))
        release = f"UPDATE orphans SET code = {_NOT_MOVED} WHERE target = ? AND code = ?"
        self._connection.execute(release, (code, orphan, MOVED))

    def keep_readings(self) -> None:
        """Write to the ledger what was read of unchanged sources and outputs, so that the next plan reads none."""
        self._connection.execute(
            "UPDATE outputs SET source_mtime_ns = readings.mtime_ns,"
            " source_digest = coalesce(readings.digest, source_digest),"
            " source_ctime_ns = coalesce(readings.ctime_ns, source_ctime_ns)"
            " FROM temp.readings WHERE outputs.target = readings.target"
        )
        self._connection.execute(
            "UPDATE outputs SET mtime_ns = touched.mtime_ns FROM temp.touched WHERE outputs.target = touched.target"
        )
        either = "SELECT target FROM temp.readings UNION SELECT target FROM temp.touched"
        self._connection.execute(f"{RESEAL_WHERE} target IN ({either})")

    # -- reading -------------------------------------------------------------------------------------------------------

    def find_long_jobs(
        self, costs: Mapping[str, CostSteps], s_per_byte: float, *, least_s: float, most: int, as_last_time: bool
    ) -> int:
        """Choose the jobs to be handed out first, those that are expected to take longest; return their number.

        Args:
            costs: The expected cost of each stage's job by the size of its source.
            s_per_byte: The cost of a job of any other stage.
            least_s: The cost below which jobs are alike.
            most: How many are chosen at most, for each output of a source.
            as_last_time: Whether what the job took last time is taken instead, where its source has the same size.
        """
        cases = " ".join(f"WHEN ? THEN {_by_size(steps)}" for steps in costs.values())
        by_size = (
            f"CASE plan.stage {cases} ELSE {s_per_byte!r} * plan.source_size END"
            if costs
            else (f"{s_per_byte!r} * plan.source_size")
        )
        cost, past = by_size, ""
        if as_last_time:
            past = " LEFT JOIN outputs ON outputs.target = plan.target AND outputs.source_size = plan.source_size"
            cost = f"coalesce(outputs.seconds, {by_size})"
        self._connection.execute("DELETE FROM long_jobs")
        longest = (
            f"SELECT plan.source AS source, seq, plan.source_size AS size, {cost} AS cost FROM plan{past}"
            f" WHERE {_IS_AHEAD} AND cost >= ? ORDER BY cost DESC, size DESC LIMIT ?"
        )
        found = self._connection.execute(
            "INSERT INTO long_jobs SELECT NULL, source, min(seq) FROM"
            f" ({longest}) GROUP BY source ORDER BY max(cost) DESC, size DESC, min(seq)",
            (*costs, least_s, most),
        )
        return found.rowcount

    def outputs_of_long_jobs(self, distance: int) -> Iterator[Record]:
        """Yield what `outputs_to_make` does of the jobs that are handed out first; those of one lie at most so far."""
        # The plus signs keep SQLite from making an index of the whole plan for it.
        near = "plan.seq BETWEEN long_jobs.seq - ?1 AND long_jobs.seq + ?1 AND +plan.source = long_jobs.source"
        which = f"place > ?2 AND place <= ?2 + {_CHUNK} AND {_IS_AHEAD} ORDER BY place, plan.seq"
        read, before = f"SELECT {_TO_MAKE} FROM long_jobs CROSS JOIN plan ON {near} WHERE {which}", 0
        last = self._all("SELECT count(*) FROM long_jobs")[0][0]
        while before < last:
            yield from self._all(read, distance, before)
            before += _CHUNK

    def outputs_to_make(self, *, late: bool, of_groups: bool = False) -> Iterator[Record]:
        """Yield `seq`, source, size, mtime_ns, stage, path, whether it is vacant, target and reason of each to make.

        Those of the jobs that are handed out first are left out.
        """
        which = f"{ARE_GROUPS if of_groups else ARE_FILES} AND {'late' if late else 'NOT late'}"
        if not late and not of_groups and self._all("SELECT EXISTS (SELECT 1 FROM long_jobs)")[0][0]:
            which += " AND NOT EXISTS (SELECT 1 FROM long_jobs WHERE long_jobs.source = plan.source)"
        return self._chunks(
            f"SELECT {_TO_MAKE} FROM plan WHERE seq > ? AND action = 'make' AND {which} ORDER BY seq", 0
        )

    def decisions(self, action: str | None, of_groups: bool | None) -> Iterator[Record]:
        """Yield decisions, each as `seq` and then the fields of a Decision; None chooses all of them."""
        which = "TRUE" if of_groups is None else ARE_GROUPS if of_groups else ARE_FILES
        if action is not None:
            which += f" AND action = '{action}'"
        return self._chunks(f"SELECT {_DECISION} FROM plan WHERE seq > ? AND {which} ORDER BY seq", 0)

    def paths_to_write(self) -> Iterator[Record]:
        """Yield `seq` and the path of each output to make or rename."""
        which = "action IN ('make', 'rename')"
        return self._chunks(f"SELECT seq, path FROM plan WHERE seq > ? AND {which} ORDER BY seq", 0)

    def decisions_of_source(self, source: bytes) -> Iterator[Record]:
        """Yield the decisions on the outputs of one source, with the columns of `decisions`."""
        return self._chunks(f"SELECT {_DECISION} FROM plan WHERE seq > ? AND source = ? ORDER BY seq", 0, source)

    def decisions_of_stage(self, stage: str) -> Iterator[Record]:
        """Yield the decisions on the outputs of one stage, with the columns of `decisions`."""
        return self._chunks(f"SELECT {_DECISION} FROM plan WHERE seq > ? AND stage = ? ORDER BY seq", 0, stage)

    def sources_of(self, target: bytes) -> list[bytes]:
        """Return the sources of which an output has this target."""
        return [source for (source,) in self._all("SELECT source FROM plan WHERE target = ? ORDER BY seq", target)]

    def counts(self, *, of_groups: bool) -> list[Record]:
        """Count outputs, and the sources they stand for, by action and reason: those of groups, or those of files."""
        which = f"WHERE {ARE_GROUPS if of_groups else ARE_FILES} GROUP BY action, reason ORDER BY min(seq)"
        return self._all(f"SELECT action, reason, count(*), sum(leads) FROM plan {which}")

    def stages_to_make(self) -> list[str]:
        """Return the stages with an output of a file to make."""
        found = self._all(f"SELECT DISTINCT stage FROM plan WHERE action = 'make' AND {ARE_FILES}")
        return [stage for (stage,) in found]

    def sizes_to_make(self) -> list[tuple[str, int, bool, int]]:
        """Count the outputs to make: stage, the bits of the size of the source, whether it is a group, how many."""
        self._connection.create_function("bits", 1, int.bit_length, deterministic=True)
        found = self._all(
            f"SELECT stage, bits(source_size), {ARE_GROUPS}, count(*) FROM plan WHERE action = 'make' GROUP BY 1, 2, 3"
        )
        return [(stage, bits, bool(are_groups), outputs) for stage, bits, are_groups, outputs in found]

    def count_sources_to_make(self) -> int:
        """Count the files of which something is to be made."""
        which = f"action = 'make' AND {ARE_FILES}"
        return int(self._all(f"SELECT count(DISTINCT source) FROM plan WHERE {which}")[0][0])

    def unsettled_groups(self) -> set[tuple[bytes, str]]:
        """Return source and stage of what is made of groups and not up to date."""
        return set(self._all(f"SELECT source, stage FROM plan WHERE {ARE_GROUPS} AND action != 'up-to-date'"))

    def renames(self) -> Iterator[Record]:
        """Yield the renames, those of a source together, each as the fields of a Rename."""
        which = f"{_WRITES} AND moved_from IS NOT NULL AND seq > ?"
        columns = "seq, source, stage, path, target, moved_from, action = 'make'"
        return self._chunks(f"SELECT {columns} FROM plan WHERE {which} ORDER BY seq", 0)

    def outputs_like_orphans(self, within_ns: int) -> list[bytes]:
        """Return the targets that are no orphans and have size and, within so much, mtime_ns of one."""
        self._connection.execute("CREATE INDEX IF NOT EXISTS temp.orphans_by_size ON orphans (size, mtime_ns)")
        like = (
            "orphans.size = outputs.size AND orphans.mtime_ns BETWEEN outputs.mtime_ns - ?1 AND outputs.mtime_ns + ?1"
        )
        rows = self._connection.execute(
            f"SELECT target FROM outputs WHERE EXISTS (SELECT 1 FROM temp.orphans WHERE NOT spared AND {like})"
            " AND target NOT IN (SELECT target FROM temp.orphans WHERE NOT spared)",
            (within_ns,),
        )
        return [target for (target,) in rows]

    def orphans(self) -> Iterator[Record]:
        """Yield the orphans that are neither to be renamed nor spared, in byte order of their targets."""
        which = f"code != '{MOVED}' AND NOT spared AND target > ? ORDER BY target"
        return self._chunks(f"SELECT {_ORPHAN} FROM orphans WHERE {which}", b"")

    def why_spared(self, target: bytes) -> Any:
        """Return the code of a spared orphan; None where there is none with this target."""
        found = self._all("SELECT code FROM orphans WHERE target = ? AND spared", target)
        return found[0][0] if found else None

    def past_failures(self) -> list[tuple[bytes, str]]:
        """Return source and stage of every failure that the ledger may forget."""
        return self._all("SELECT source, stage FROM past_failures")

    def _chunks(self, statement: str, before: object, *values: object) -> Iterator[Any]:
        """Yield the rows after `before` in order of their first column; between two chunks any row may change."""
        while rows := self._all(f"{statement} LIMIT {_CHUNK}", before, *values):
            yield from rows
            before = rows[-1][0]

    def _all(self, statement: str, *values: object) -> list[Any]:
        return self._connection.execute(statement, values).fetchall()


def _by_size(steps: CostSteps) -> str:
    """Return the expression for the cost of a job by the size of its source."""
    if not steps:
        return "0.0"
    cases = " ".join(f"WHEN plan.source_size >= {size} THEN {seconds!r}" for size, seconds in steps)
    return f"CASE {cases} ELSE 0.0 END"


def _within(folder: bytes) -> tuple[str, tuple[bytes, ...]]:
    """Return the condition, and its values, for the sources in a folder with a slash at its end, ROOT or ROOT_FILES."""
    if folder == ROOT:
        return "WHERE TRUE", ()
    if folder == ROOT_FILES:
        return "WHERE instr(source, X'2F') = 0", ()
    return "WHERE source >= ? AND source < ?", (folder, folder[:-1] + b"0")
