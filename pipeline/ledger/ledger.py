"""The ledger: one SQLite file that remembers what was made from what, by which recipe, in which run.

Each table has an object with its methods, and each of those knows the SQL of its table alone. The connection is private
to this package; `session.py` opens and closes the ledger of a state folder.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import EnvironmentFailure
from pipeline.files.state_dir import logs_of_runs
from pipeline.files.sync import sync_folder
from pipeline.ledger.failures import Failures, between
from pipeline.ledger.file_digests import FileDigests
from pipeline.ledger.input_folders import InputFolders
from pipeline.ledger.intents import Intent, Intents, PartIntent
from pipeline.ledger.origins import columns_of, key_of
from pipeline.ledger.outputs import MadeRow, Outputs, TargetKey
from pipeline.ledger.plan_tables import PlanTables
from pipeline.ledger.runs import CLAIMS, Runs, Window
from pipeline.ledger.schema import LISTED_TABLE, VERSION, TooOld, create_or_upgrade
from pipeline.ledger.targets import Targets
from pipeline.messages import KILLED, AnyJob, Job, Outcome, Result, Source
from pipeline.records import NamedTuple

if TYPE_CHECKING:
    from pipeline.ledger.days import Days
    from pipeline.ledger.group_tables import GroupTables
    from pipeline.ledger.overrides import Overrides

# Seconds that another process may keep the file locked: as long as it takes to die.
_TIMEOUT_S = 1.0


class Ledger:
    """The open ledger of one state folder, or an empty one in memory.

    Attributes:
        file: The SQLite file; None in memory.
        run: The name of the run that is running; empty outside of one.
        runs: Which runs there were, and how they ended.
        days: What is kept of the runs before the last ones.
        window: The period of which the ledger may not know all that was made; None if it knows all.
        outputs: What is recorded of each output.
        targets: Where those that were made lie, in any case and form of their names.
        intents: The outputs that were handed out and are not known to have ended.
        failures: What failed and has not been made since.
        facts: What is true of the pipeline as a whole.
        folders: How full the folders of the inputs were, and which are mount points.
        unchanged: The ranges of sources of which nothing is left to be done.
        file_digests: The digests of files that count as part of a recipe.
        overrides: The overrides by which a person had the ledger take something as true.
        notes: What a person should know of how the ledger was opened.
        on_commit: Called after each commit.
        has_news: Whether anything was handed out, recorded, moved or removed, so that a copy is out of date.
        least_run: The number that the next run has at least, since an owner file names the one before.
        is_suspect: Whether SQLite could not use the file, which is then left as it is for the next writer.
    """

    def __init__(self, file: Path | None, check: Callable[[sqlite3.Connection], None] | None = None) -> None:
        """Open the file; `check` is called with an older or existing one before anything is written to it."""
        self.file = file
        self._connection = connection = _connect(file, check)
        self.run = ""
        self.runs = Runs(connection)
        self.window: Window | None = None
        self.least_run = 1
        self.failures = Failures(connection)
        self.intents = Intents(connection)
        self.outputs = Outputs(connection, self.intents)
        self.targets = Targets(connection, "outputs", self.outputs.flush)
        self.facts = Facts(connection)
        self.folders = InputFolders(connection)
        self.unchanged = UnchangedRanges(connection)
        self.file_digests = FileDigests(connection)
        self.notes: list[str] = []
        self.on_commit: Callable[[], None] | None = None
        self.has_news = False
        self.is_suspect = False
        self._is_begun = False

    @cached_property
    def overrides(self) -> Overrides:
        """The overrides by which a person had the ledger take something as true."""
        from pipeline.ledger.overrides import Overrides

        return Overrides(self._connection)

    @cached_property
    def days(self) -> Days:
        """What is kept of the runs before the last ones."""
        from pipeline.ledger.days import Days

        return Days(self._connection)

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    # -- transactions --------------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Begin a transaction, unless one is open; nothing is kept until `commit`."""
        if not self._connection.in_transaction:
            if self._is_begun:  # SQLite has dropped a transaction by itself, as it does where the disk is full
                self.intents.keep_all()
            self._connection.execute("BEGIN IMMEDIATE")
            self._is_begun = True

    def commit(self) -> None:
        """Commit the open transaction, if there is one."""
        if self._connection.in_transaction:
            self.outputs.flush()
            if self.failures.past:
                self.failures.flush()
            self._connection.execute("COMMIT")
            self._is_begun = False
            if self.on_commit:
                self.on_commit()

    def rollback(self) -> None:
        """Drop what was written since `begin`."""
        self._connection.rollback()

    # -- jobs ----------------------------------------------------------------------------------------------------------

    def intend(self, jobs: Sequence[AnyJob], key: TargetKey) -> None:
        """Record that the targets of jobs are ours to write, before they are written."""
        self.has_news = True
        self.outputs.flush()
        now, fields, parts = time.time_ns(), list[bytes](), list[PartIntent]()
        for job in jobs:
            origin = job[0]
            source = origin.path if isinstance(origin, Source) else key_of(origin)
            for target in job.targets:
                stage, path, _, around, *_ = target
                fields += (key(stage, path), source, stage.encode())
                if around[0]:
                    parts.append(PartIntent(fields[-3], source, stage, key(stage, around[0]), around[1], since_ns=now))
        self.intents.add(fields)
        self.outputs.set_in_flight(fields[::3])
        self.intents.add_parts(parts)

    def record(self, outcome: Outcome, key: TargetKey, recipes: dict[str, int], tried: bool = True) -> Sequence[str]:
        """Record the results of a job; return the stages whose outputs failed and had not before.

        Args:
            outcome: The job's source and results.
            key: The keys of the targets.
            recipes: The number of each stage's recipe.
            tried: Whether a stage was called; what the plan refuses is no attempt.
        """
        self.has_news = True
        origin, new = columns_of(outcome.origin), list[str]()
        for result in outcome.results:
            target = key(result.stage, result.path)
            if result.status == "failed":
                if self._record_failure(outcome, result, target, recipes.get(result.stage), tried):
                    new.append(result.stage)
                continue
            self.outputs.add(origin, outcome, result, target, recipes[result.stage])
            if self.failures.has_any:
                self.failures.forget_later(origin[0], result.stage)
            self.intents.end_parts(target)
            for part in result.parts:
                one = Result(result.stage, part.path, "done", "", None, "", *part[2:])
                self.outputs.add(origin, outcome, one, key(one.stage, one.path), recipes[one.stage], part.name)
        return new

    def record_made(
        self,
        stages: Sequence[str],
        jobs: Sequence[Job],
        rows: Sequence[MadeRow],
        seat: int,
        key: TargetKey,
        recipes: dict[str, int],
    ) -> None:
        """Record jobs that made a file of each target, as `record` does one by one.

        Args:
            stages: The stages of the targets of each job.
            jobs: The jobs, all of which one worker has run.
            rows: What each of them made; see `MadeRow`.
            seat: The number of the worker's slot.
            key: The keys of the targets.
            recipes: The number of each stage's recipe.
        """
        self.has_news = True
        self.outputs.add_made(stages, jobs, rows, seat, key, recipes)
        if self.failures.has_any:
            for job in jobs:
                for stage in stages:
                    self.failures.forget_later(job.source.path, stage)

    def _record_failure(self, outcome: Outcome, result: Result, target: bytes, recipe: int | None, tried: bool) -> bool:
        self.outputs.flush()
        is_new = self.failures.record(self.run, outcome, result, recipe, tried)
        if result.kind in KILLED:
            self.intents.record([Intent(target, key_of(outcome.origin), result.stage)])
        else:
            self.outputs.clear_in_flight(target)
            self.intents.end_parts(target)
        self.intents.end([target])
        return is_new

    def record_cut_off(self, outcome: Outcome, result: Result, recipe: int | None) -> None:
        """Record that a job was cut off: its output is still known as ours to write, and as unknown."""
        self.outputs.flush()
        self.failures.record(self.run, outcome, result, recipe, tried=True)

    def move_folder(self, folder: bytes, to: bytes) -> None:
        """Give all outputs below a folder, made and intended, the paths that they have below another."""
        self.intents.record_open()
        self.outputs.move_folder(folder, to)
        self.intents.move_folder(folder, to)

    # -- runs ----------------------------------------------------------------------------------------------------------

    def begin_run(self, run: str) -> None:
        """Record that a run has begun; until its end reaches the disk it counts as unclean."""
        self.run = run
        self.begin()
        self.intents.record_open()
        self.runs.begin(run, self.window, self.least_run)
        self.fold_runs()
        self.outputs.run = self.runs.number
        self.commit()

    def fold_runs(self) -> None:
        """Fold the runs before the last ones into days, if there are many, within the open transaction.

        A run whose log is there is told of as long, and one that an owner file may name is known as long.
        """
        if self.runs.are_many():
            logs = {log.stem for log in logs_of_runs(self.file.parent)} if self.file else ()
            self.days.add(self.runs.take_old(logs, (self.facts.get(CLAIMS) or {}).values()))

    def make_durable(self) -> None:
        """Bring the row of the run, and all before it, to the disk, before an output is handed out."""
        self.commit()
        self.runs.set_synced(time.time_ns())
        # A log that is lost does not take the row with it.
        self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        if self.file:
            sync_folder(self.file.parent)

    def end_run(self, exit_code: int, summary: dict[str, Any], *, swept: bool) -> None:
        """Record how the run went; `swept` if it has redone all that earlier runs could have left behind."""
        self.begin()
        self.outputs.flush()
        self.intents.record_open()
        self.failures.count_attempts(self.run, exit_code)
        if swept and exit_code == 0:
            self.window = None
        self.runs.set_outcome(exit_code, summary, swept=swept)
        self.commit()

    # -- recipes -------------------------------------------------------------------------------------------------------

    def number_recipe(self, digest: str, parts: dict[str, Any]) -> int:
        """Return the number of a recipe, which is recorded with its named parts if it is new."""
        insert = "INSERT OR IGNORE INTO recipes (digest, parts) VALUES (?, ?)"
        self._connection.execute(insert, (digest, json.dumps(parts)))
        found = self._connection.execute("SELECT id FROM recipes WHERE digest = ?", (digest,)).fetchone()
        return int(found[0])

    def recipes(self) -> dict[int, str]:
        """Return the digest of each recipe, by its number."""
        return dict(self._connection.execute("SELECT id, digest FROM recipes"))

    def recipe_parts(self, number: int) -> dict[str, Any]:
        """Return the named parts of a recipe; none of one that is not on record."""
        found = self._connection.execute("SELECT parts FROM recipes WHERE id = ?", (number,)).fetchone()
        return dict(json.loads(found[0])) if found else {}

    # -- temporary tables ----------------------------------------------------------------------------------------------

    def forget_plan(self) -> None:
        """Drop the tables of a plan, and the digests that were read for it, so that another can be made.

        No job may be in hand: what was handed out and not recorded is known as ours, and as unknown, from then on.
        """
        self.begin()
        self.intents.record_open()
        self.outputs.expect_rows()
        self.commit()
        for (name,) in self._connection.execute("SELECT name FROM sqlite_temp_master WHERE type = 'table'").fetchall():
            self._connection.execute(f'DROP TABLE temp."{name}"')
        self.file_digests = FileDigests(self._connection)
        self.failures = self.failures.for_new_plan()
        self.targets = Targets(self._connection, "outputs", self.outputs.flush)

    def create_plan_tables(self) -> PlanTables:
        """Create the tables of a plan."""
        return PlanTables(self._connection)

    def create_group_tables(self) -> GroupTables:
        """Create the tables of the groups of a plan."""
        from pipeline.ledger.group_tables import GroupTables

        return GroupTables(self._connection)

    def list_sources(self, paths: Iterator[bytes]) -> None:
        """Create the table of sources to which `listed` confines outputs and failures; they may come in any order."""
        self._connection.execute(LISTED_TABLE)
        self._connection.execute("BEGIN")
        self._connection.executemany("INSERT OR IGNORE INTO listed VALUES (?)", ((path,) for path in paths))
        self._connection.execute("COMMIT")

    def listed_sources(self) -> Iterator[bytes]:
        """Yield the listed sources in byte order."""
        return (path for (path,) in self._connection.execute("SELECT path FROM listed ORDER BY path"))


def _connect(file: Path | None, check: Callable[[sqlite3.Connection], None] | None) -> sqlite3.Connection:
    """Open a file, and bring it forward to this version. Raises EnvironmentFailure."""
    try:
        connection = sqlite3.connect(file or ":memory:", isolation_level=None, timeout=_TIMEOUT_S)
        try:
            # Without a sync at every commit: after a power cut the last moments are forgotten and redone. Nobody else
            # opens the file, readers take a copy; so no shared memory is needed, which network file systems lack.
            connection.executescript(
                "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL;"
                " PRAGMA temp_store=FILE; PRAGMA wal_autocheckpoint=0"
            )
            if check:
                check(connection)
            _upgrade(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection
    except sqlite3.Error as error:
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def _upgrade(connection: sqlite3.Connection, file: Path | None) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version > VERSION:
        raise EnvironmentFailure(f"the ledger {file} was written by a newer filemill (schema {version})")
    try:
        create_or_upgrade(connection)
    except TooOld:
        text = f"the ledger {file} was written by a filemill that is too old to be taken over (schema {version})"
        raise EnvironmentFailure(text, hint="move it away; then 'adopt' takes the outputs that are there") from None


class Facts:
    """The ledger's table of facts: any plain data, by name."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, name: str) -> Any:
        """Return a fact; None if there is none of that name."""
        found = self._connection.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return json.loads(found[0]) if found else None

    def set(self, name: str, value: Any) -> None:
        """Record a fact, in place of the one of that name."""
        self._connection.execute("INSERT OR REPLACE INTO facts VALUES (?, ?)", (name, json.dumps(value)))

    def forget(self, name: str) -> None:
        """Delete a fact."""
        self._connection.execute("DELETE FROM facts WHERE name = ?", (name,))


class UnchangedRange(NamedTuple):
    """A range of sources, in byte order, whose outputs are all up to date."""

    first: bytes
    after: bytes | None
    """The source with which the next range begins."""
    sources: int
    digest: bytes
    counts: dict[str, tuple[int, int]]
    """The numbers of up-to-date outputs for each reason, and of sources whose foremost reason that is."""
    layout: bytes = b""
    """Which files belong to the range, as planning/ranges.py has it; empty where the templates tell."""


class UnchangedRanges:
    """The ledger's table of unchanged ranges; what is known of the outputs of groups is one of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, first: bytes) -> UnchangedRange | None:
        """Return the range that begins with a source."""
        found = self._connection.execute("SELECT * FROM spans WHERE first = ?", (first,)).fetchone()
        if found is None:
            return None
        counts = {why: (outputs, files) for why, (outputs, files) in json.loads(found[4]).items()}
        return UnchangedRange._make((*found[:4], counts, found[5]))

    def any_within(self, first: bytes, after: bytes | None) -> bool:
        """Return whether any range of files begins with `first` or later, and before `after`."""
        which = f"SELECT EXISTS (SELECT 1 FROM spans {between(after, 'first')} AND first != X'2F')"
        return bool(self._connection.execute(which, (first, after)).fetchone()[0])

    def add(self, ranges: Iterable[UnchangedRange]) -> None:
        """Record ranges, in place of those that begin with the same source."""
        rows = ((*each[:4], json.dumps(each.counts), each.layout) for each in ranges)
        self._connection.executemany("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?, ?)", rows)

    def delete(self, first: bytes = b"", after: bytes | None = None) -> None:
        """Delete the ranges that begin with `first` or later, and before `after`; all of them by default."""
        self._connection.execute(f"DELETE FROM spans {between(after, 'first')}", (first, after))

    def delete_around(self, source: bytes) -> None:
        """Delete the range in which a source is, of which a record was deleted."""
        self._connection.execute(
            "DELETE FROM spans WHERE first = (SELECT max(first) FROM spans WHERE first <= ?)", (source,)
        )
