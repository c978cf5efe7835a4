"""The SQLite memory: what was made from what, by which recipe."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import EnvironmentFailure
from pipeline.files.digest import Contents
from pipeline.ledger.facts import Decrees, Facts
from pipeline.ledger.failures import Failure, Failures, between
from pipeline.ledger.intents import Intent, Intents
from pipeline.ledger.origins import ARE_FILES, columns_of, key_of
from pipeline.ledger.origins import kept_time as kept_time
from pipeline.ledger.schema import VERSION, bring_forward, version_of
from pipeline.messages import KILLED, AnyJob, Outcome, Result

_RECORD = """
INSERT INTO outputs
    (target, source, stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, digest,
    source_digest, source_ctime_ns, part, at_work)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0) ON CONFLICT (target) DO UPDATE SET
    source = excluded.source, stage = excluded.stage, status = excluded.status,
    source_size = excluded.source_size, source_mtime_ns = excluded.source_mtime_ns,
    source_digest = excluded.source_digest, source_ctime_ns = excluded.source_ctime_ns,
    recipe = excluded.recipe, reason = excluded.reason, at_work = 0, decree = NULL,
    size = coalesce(excluded.size, size), mtime_ns = coalesce(excluded.mtime_ns, mtime_ns),
    digest = coalesce(excluded.digest, digest), part = excluded.part
"""

_ROW = (
    "source, target, stage, status, source_size, source_mtime_ns, recipe, reason, size, mtime_ns, at_work,"
    " digest, source_digest, source_ctime_ns, decree, part"
)


class Row(NamedTuple):
    """What the ledger remembers of one output. A tuple, since a run that changes nothing makes one for each output."""

    source: bytes
    target: bytes
    stage: str
    status: str
    source_size: int
    source_mtime_ns: int
    recipe: int
    reason: str
    size: int | None
    mtime_ns: int | None
    at_work: int
    """Whether a run was stopped while it wrote the output: then what is there may be newer than this."""
    digest: bytes | None = None
    """Of the contents of the output as we wrote it."""
    source_digest: bytes | None = None
    source_ctime_ns: int | None = None
    """These two under `changed_by: hash` only."""
    decree: int | None = None
    """The number of the decree by which the row says what it does, if it is not by a run."""
    part: str | None = None
    """Of a fan-out's output, the name of the part; empty for all of them together."""


class Span(NamedTuple):
    """A run of sources of which nothing was left to be done."""

    first: bytes
    after: bytes | None
    """The source with which the next one begins."""
    sources: int
    digest: bytes
    counts: dict[str, tuple[int, int]]
    """How many outputs, and how many sources of which that is what is said, by why nothing is to be done."""


class Ledger:
    """The open ledger of one state folder, or an empty one in memory where there is none yet."""

    def __init__(self, file: Path | None) -> None:
        self.file = file
        try:
            self.connection = sqlite3.connect(file or ":memory:", isolation_level=None)
            try:
                self._prepare()
            except BaseException:
                self.connection.close()
                raise
        except sqlite3.Error as error:
            raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error
        self.run = ""
        self.failed = Failures(self.connection)
        """What failed and has not been done since."""
        self.facts = Facts(self.connection)
        self.decrees = Decrees(self.connection)
        self.files = Files(self.connection)
        self.contents = Contents(self.connection)
        """The digests of files that count as part of a recipe."""
        self.notes: list[str] = []
        """What a person should know of how it was opened."""
        self.on_commit: Callable[[], None] | None = None
        self.has_news = False
        """Whether anything was handed out, recorded, moved or removed, so that a copy of it is out of date."""
        self.is_suspect = False
        """Whether SQLite could not use it: then it is left as it is, for the next writer to see to."""
        self.intents = Intents(self.connection)
        """What was handed out and is not known to have ended."""
        self._is_new = not self.connection.execute("SELECT EXISTS (SELECT 1 FROM outputs)").fetchone()[0]
        """Whether it knew of no output when it was opened: then there is none to be looked for."""
        self._waiting: list[tuple[Any, ...]] = []
        """Rows of outputs, written together at the next commit: that costs a third of writing each by itself."""

    def _prepare(self) -> None:
        # Without a sync at every commit: after a power cut the last moments are forgotten and redone. Nobody else opens
        # the file, readers take a copy; so no shared memory is needed, which network file systems do not have.
        self.connection.executescript(
            "PRAGMA locking_mode=EXCLUSIVE; PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL; PRAGMA temp_store=FILE"
        )
        bring_forward(self.connection)
        found = version_of(self.connection)
        if found != VERSION:
            raise EnvironmentFailure(f"the ledger {self.file} was written by a newer filemill (schema {found})")

    def close(self) -> None:
        """Close the file."""
        self.connection.close()

    # -- reading -------------------------------------------------------------------------------------------------------

    def rows(
        self, first: bytes = b"", after: bytes | None = None, *, listed: bool = False, of_files: bool = False
    ) -> Iterator[Row]:
        """Every output, in byte order of its source: of sources from `first` on and before `after`; only of those in
        the table `listed`, or only of files and not of groups, if it is asked.
        """
        self._write_outputs()
        if listed:
            among = "listed CROSS JOIN outputs ON source = path ORDER BY path"
            return map(Row._make, self.connection.execute(f"SELECT {_ROW} FROM {among}"))
        which = f"{between(after)}{f' AND {ARE_FILES}' if of_files else ''}"
        found = self.connection.execute(f"SELECT {_ROW} FROM outputs {which} ORDER BY source", (first, after))
        return map(Row._make, found)

    def span(self, first: bytes) -> Span | None:
        """The span that begins with a source."""
        found = self.connection.execute("SELECT * FROM spans WHERE first = ?", (first,)).fetchone()
        return Span._make((*found[:4], json.loads(found[4]))) if found else None

    def owner(self, target: bytes) -> tuple[bytes, str] | None:
        """The source and the status of a recorded or intended output."""
        self._write_outputs()
        if not self._is_new:
            found = self.connection.execute("SELECT source, status FROM outputs WHERE target = ?", (target,)).fetchone()
            if found:
                return (found[0], found[1])
        intent = self.intents.find(target)
        return (intent.source, "intended") if intent else None

    def row(self, target: bytes) -> Row | None:
        """What is recorded of one output."""
        self._write_outputs()
        found = self.connection.execute(f"SELECT {_ROW} FROM outputs WHERE target = ?", (target,)).fetchone()
        return Row._make(found) if found else None

    def failures(
        self, first: bytes = b"", after: bytes | None = None, *, listed: bool = False, of_files: bool = False
    ) -> Iterator[Failure]:
        """Every failure, in byte order of its source; with the same choice."""
        self._write_outputs()
        return self.failed.all(first, after, listed=listed, of_files=of_files)

    def recipes(self) -> dict[int, str]:
        """Every recipe's digest, by its number."""
        return dict(self.connection.execute("SELECT id, digest FROM recipes"))

    def recipe_parts(self, number: int) -> dict[str, Any]:
        """The named parts of a recorded recipe."""
        found = self.connection.execute("SELECT parts FROM recipes WHERE id = ?", (number,)).fetchone()
        return dict(json.loads(found[0])) if found else {}

    def last_run(self) -> dict[str, Any] | None:
        """The run that began last, with its summary."""
        newest = "SELECT id, started, ended, exit, summary FROM runs ORDER BY started DESC LIMIT 1"
        found = self.connection.execute(newest).fetchone()
        if found is None:
            return None
        return dict(json.loads(found[4] or "{}")) | dict(
            zip(("run", "started", "ended", "exit"), found[:4], strict=True)
        )

    def summaries(self) -> Iterator[dict[str, Any]]:
        """The summaries of the runs that ended, the newest first."""
        found = self.connection.execute("SELECT summary FROM runs WHERE summary IS NOT NULL ORDER BY started DESC")
        return (dict(json.loads(text)) for (text,) in found)

    def unclean_runs(self) -> list[str]:
        """The runs that may have left temporaries beside outputs: stopped before their end, or by a worker's."""
        found = self.connection.execute(
            "SELECT id FROM runs WHERE NOT swept AND (ended IS NULL OR exit NOT IN (0, 1)"
            " OR EXISTS (SELECT 1 FROM failures WHERE run = runs.id AND kind IN (?, ?, ?)))",
            KILLED,
        )
        return [row[0] for row in found]

    # -- writing -------------------------------------------------------------------------------------------------------

    def begin_run(self, run: str) -> None:
        """Record that a run has begun; until `end_run` it counts as unclean."""
        self.run = run
        self.begin()
        self.intents.settle()
        self.connection.execute("INSERT INTO runs (id, started) VALUES (?, ?)", (run, time.time()))
        self.commit()

    def end_run(self, exit_code: int, summary: dict[str, Any], *, swept: bool) -> None:
        """Record how the run ended; `swept` when it has redone all that runs before it could have left behind."""
        self.begin()
        self._write_outputs()
        self.intents.settle()
        self.failed.count_attempts(self.run, exit_code)
        self.connection.execute(
            "UPDATE runs SET ended = ?, exit = ?, summary = ? WHERE id = ?",
            (time.time(), exit_code, json.dumps(summary), self.run),
        )
        if swept:
            self.connection.execute("UPDATE runs SET swept = 1 WHERE id != ?", (self.run,))
        self.commit()

    def number_recipe(self, digest: str, parts: dict[str, Any]) -> int:
        """Give the number of a recipe, recorded with its named parts if it is new."""
        self.connection.execute(
            "INSERT OR IGNORE INTO recipes (digest, parts) VALUES (?, ?)", (digest, json.dumps(parts))
        )
        found = self.connection.execute("SELECT id FROM recipes WHERE digest = ?", (digest,)).fetchone()
        return int(found[0])

    def begin(self) -> None:
        """Begin to write; nothing counts until `commit`."""
        if not self.connection.in_transaction:
            self.connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make what was written last."""
        if self.connection.in_transaction:
            self._write_outputs()
            self.connection.execute("COMMIT")
            if self.on_commit:
                self.on_commit()

    def _write_outputs(self) -> None:
        if not self._waiting:
            return
        self.connection.executemany(_RECORD, self._waiting)
        self.failed.forget((row[1], row[2]) for row in self._waiting)
        for row in self._waiting:
            self.intents.end(row[0])
        self.intents.forget_ended()
        self._waiting.clear()

    def intend(self, jobs: Iterable[AnyJob], key: Callable[[str, bytes], bytes]) -> None:
        """Say that the jobs' targets are ours to write, before they are; what is recorded of them stays."""
        self.has_news = True
        self._write_outputs()
        intents = [
            Intent(key(target.stage, target.path), key_of(job.origin), target.stage)
            for job in jobs
            for target in job.targets
        ]
        self.intents.note(intents)
        if not self._is_new:
            at_work = "UPDATE outputs SET at_work = 1 WHERE target = ?"
            self.connection.executemany(at_work, ((intent.target,) for intent in intents))

    def record(
        self,
        outcome: Outcome,
        key: Callable[[str, bytes], bytes],
        recipes: dict[str, int],
        tried: bool = True,
    ) -> None:
        """Remember what became of a job; `recipes` are the numbers of the outputs' recipes, by stage.

        What was not `tried`, since the plan refused it, is no attempt.
        """
        self.has_news = True
        origin = columns_of(outcome.origin)
        for result in outcome.results:
            target = key(result.stage, result.path)
            if result.status == "failed":
                self._write_outputs()
                self.failed.record(self.run, origin, result, recipes.get(result.stage), outcome.output, tried)
                if result.kind in KILLED:
                    self.intents.keep([Intent(target, origin[0], result.stage)])
                else:
                    self.connection.execute("UPDATE outputs SET at_work = 0 WHERE target = ? AND at_work", (target,))
                self.intents.end(target)
            else:
                self._record_output(outcome, origin, result, target, recipes[result.stage])
                for part in result.parts:
                    one = Result(result.stage, part.path, "done", "", None, "", *part[2:])
                    target = key(one.stage, one.path)
                    self._record_output(outcome, origin, one, target, recipes[one.stage], part.name)

    def _record_output(
        self,
        outcome: Outcome,
        origin: tuple[bytes, int, int],
        result: Result,
        target: bytes,
        recipe: int,
        part: str | None = None,
    ) -> None:
        has_file = bool(result.digest)
        source, source_size, source_mtime_ns = origin
        self._waiting.append(
            (
                target, source, result.stage, result.status, source_size, source_mtime_ns, recipe,
                result.text, result.size_bytes if has_file else None, kept_time(result.mtime_ns) if has_file else None,
                result.digest or None, outcome.source_digest or None, outcome.source_ctime_ns,
                "" if result.parts else part,
            )
        )  # fmt: skip

    def take_readings(self) -> None:
        """Keep what a plan has read of sources that are as they were, so that the next one need not."""
        self.connection.execute(
            "UPDATE outputs SET source_digest = readings.digest, source_mtime_ns = readings.mtime_ns,"
            " source_ctime_ns = readings.ctime_ns FROM temp.readings WHERE outputs.target = readings.target"
        )

    def forget_spans(self, ranges: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Forget what is known of whole spans, from the first source of a range on and before that after it."""
        for first, after in ranges:
            self.connection.execute(f"DELETE FROM spans {between(after, 'first')}", (first, after))

    def remember_spans(self, spans: Iterable[Span]) -> None:
        """Remember spans of which nothing is left to be done."""
        rows = ((*span[:4], json.dumps(span.counts)) for span in spans)
        self.connection.executemany("INSERT OR REPLACE INTO spans VALUES (?, ?, ?, ?, ?)", rows)

    def forget(self, *, targets: Iterable[bytes] = (), failures: Iterable[tuple[bytes, str]] = ()) -> None:
        """Forget outputs that were only ever intended, and failures of files that are gone."""
        self.connection.executemany("DELETE FROM outputs WHERE target = ?", ((target,) for target in targets))
        self.failed.forget(failures)


# "0" is what comes after "/".
_MADE_BELOW = "FROM outputs WHERE target >= ? AND target < ? AND status = 'done'"


def is_blank(ledger: Ledger) -> bool:
    """Whether nothing was ever made or intended."""
    either = "SELECT 1 FROM outputs UNION ALL SELECT 1 FROM intents LIMIT 1"
    return ledger.connection.execute(either).fetchone() is None


def made_below(ledger: Ledger, folder: bytes, most: int = 20) -> list[bytes]:
    """The first outputs on record whose keys begin so, that is with a folder's and a slash."""
    values = (folder, folder[:-1] + b"0", most)
    return [row[0] for row in ledger.connection.execute(f"SELECT target {_MADE_BELOW} LIMIT ?", values)]


def count_made_below(ledger: Ledger, folder: bytes) -> int:
    """How many they are in all."""
    found = ledger.connection.execute(f"SELECT count(*) {_MADE_BELOW}", (folder, folder[:-1] + b"0"))
    return int(found.fetchone()[0])


def count_known_sources(ledger: Ledger, without: tuple[bytes, ...] = ()) -> int:
    """The sources of which something was made or left out, less those in some folders."""
    which = f"SELECT DISTINCT source FROM outputs WHERE status != 'intended' AND {ARE_FILES}"
    found = ledger.connection.execute(which)
    return sum(not source.startswith(without) for (source,) in found)


class Files:
    """The files in the ledger's table of outputs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def count(self) -> int:
        """How many are recorded as made."""
        return int(self._connection.execute("SELECT count(*) FROM outputs WHERE size IS NOT NULL").fetchone()[0])

    def move(self, target: bytes, to: bytes, stage: str) -> None:
        """Say that an output has another path by now, and is of this stage."""
        self._connection.execute("DELETE FROM outputs WHERE target = ?", (to,))
        self._connection.execute("UPDATE outputs SET target = ?, stage = ? WHERE target = ?", (to, stage, target))

    def take_over(self, target: bytes, source: bytes, stage: str, size: int, mtime_ns: int, part: bytes) -> None:
        """Say of a part that a killed run has made it; of what, and how, only that knew."""
        self._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, recipe, size, mtime_ns, at_work, part)"
            " VALUES (?, ?, ?, 'done', 0, ?, ?, 0, ?) ON CONFLICT (target) DO UPDATE SET"
            " size = excluded.size, mtime_ns = excluded.mtime_ns WHERE source = excluded.source",
            (target, source, stage, size, mtime_ns, part.decode()),
        )

    def leave_out(self, target: bytes) -> None:
        """Say of an output that it is not made any more, though its file is there."""
        self._connection.execute("UPDATE outputs SET status = 'skipped' WHERE target = ?", (target,))

    def forget(self, target: bytes) -> None:
        """Say that there is no file of an output that is left out by now."""
        forget = "UPDATE outputs SET size = NULL, mtime_ns = NULL, digest = NULL WHERE target = ?"
        self._connection.execute(forget, (target,))
