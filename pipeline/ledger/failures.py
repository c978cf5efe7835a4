"""The table of failures: which files failed, how often each was tried, and when it is left alone.

a stage failed in a run that ended in order     one attempt more
a time limit cut the file off                   none
`errors.hold_after` attempts                    held, until its source or its recipe changes; a change of its mode or
                                                owner, which ctime tells, has it tried once more
all files of a stage failed alike               the first that is held is tried by each run; if it fails as before, it
                                                stays held, without an attempt; once it is made, all are
dismissed by a person                           held too, and no longer in the exit code
"""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from pipeline.errors import NOT_STOPPED
from pipeline.ledger.origins import ARE_FILES, columns_of, is_group
from pipeline.ledger.schema import CHANGED_TABLE
from pipeline.messages import MOVED, Outcome, Result
from pipeline.records import NamedTuple, dataclass
from pipeline.text import in_general

if TYPE_CHECKING:
    from pipeline.ledger.failure_traits import Trait

# Another source or recipe is another matter: it begins at no attempt, and nobody has dismissed it.
_SAME = (
    "(failures.source_size, failures.source_mtime_ns, failures.recipe)"
    " = (excluded.source_size, excluded.source_mtime_ns, excluded.recipe)"
)
# What a stopped run only cut off did not fail, and nobody was told that it did.
_HAS_FAILED = "(failures.kind != 'interrupted' OR failures.attempts)"
# A run that was killed has told nobody of what failed in it first; the run that is running tells of it once.
_IS_UNTOLD = (
    "EXISTS (SELECT 1 FROM runs WHERE name = failures.run AND name != ?5 AND exit IS NULL"
    " AND started <= failures.first_failed_at)"
)
_RECORD = f"""
INSERT INTO failures
    (source, stage, kind, error, attempts, run, tried, source_size, source_mtime_ns, recipe, output, failed_at,
    first_failed_at, seat, place)
VALUES (?1, ?2, ?3, ?4, 0, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?11, ?12, ?13) ON CONFLICT (source, stage) DO UPDATE SET
    attempts = CASE WHEN {_SAME} THEN attempts ELSE 0 END,
    first_failed_at = CASE WHEN {_SAME} AND {_HAS_FAILED} AND NOT {_IS_UNTOLD} THEN first_failed_at
        ELSE excluded.first_failed_at END,
    dismissed_at = CASE WHEN {_SAME} THEN dismissed_at END,
    dismissed_by = CASE WHEN {_SAME} THEN dismissed_by END,
    kind = excluded.kind, error = excluded.error, run = excluded.run, tried = excluded.tried,
    source_size = excluded.source_size, source_mtime_ns = excluded.source_mtime_ns, recipe = excluded.recipe,
    output = excluded.output, failed_at = excluded.failed_at, seat = excluded.seat, place = excluded.place
"""
_IS_KNOWN = f"""
SELECT 1 FROM failures WHERE source = ?1 AND stage = ?2 AND source_size IS ?3 AND source_mtime_ns IS ?4
    AND recipe IS ?6 AND {_HAS_FAILED} AND NOT {_IS_UNTOLD}
"""
_COLUMNS = (
    "source, stage, kind, error, attempts, tried, source_size, source_mtime_ns, recipe, dismissed_at, failed_at,"
    " first_failed_at, seat, place, run"
)

# Characters of what was printed that are kept, most of them from its end; the log of the run has more.
_KEPT_HEAD, _KEPT_TAIL = 1000, 3000
# The failures of a stage by a recipe that began after some time, and that nobody has dismissed.
_CHOSEN = "stage = ? AND recipe = ? AND tried AND dismissed_at IS NULL AND coalesce(first_failed_at, 1) > ?"
# How many of the outputs that have recovered are named.
_NAMED = 20
# Fewer files that fail for the same reason are no sign that the reason lies elsewhere.
_FEWEST_ALIKE = 3


@dataclass(frozen=True)
class Failure:
    """An output that failed and has not been made since."""

    source: bytes
    stage: str
    kind: str
    error: str
    attempts: int
    """The runs that ended in order in which the source as it is failed by the recipe as it is."""
    tried: bool
    """Whether a stage was called; False if the plan refused."""
    source_size: int | None
    source_mtime_ns: int | None
    recipe: int | None
    dismissed_at: float | None
    """When a person dismissed it, in seconds since 1970."""
    failed_at: int | None = None
    """When it failed last, in nanoseconds since 1970; None if an older release recorded it."""
    first_failed_at: int | None = None
    """When this source failed by this recipe for the first time in a run that could tell, in nanoseconds since 1970."""
    seat: int | None = None
    """The number of the worker in which it failed last; None outside of a pool."""
    place: str = ""
    """The file and line of the user's code in which it failed; empty if that is not known."""
    run: str = ""
    """The name of the run in which it failed last."""

    def is_new_since(self, at_ns: int) -> bool:
        """Return whether it failed for the first time since then; not if an older release recorded it."""
        return _is_since(self.first_failed_at, at_ns)

    def is_freed_by(self, path: bytes) -> bool:
        """Return whether the mode, owner or name of the source at `path` has changed since: it may be readable now."""
        if self.dismissed_at is not None or self.failed_at is None:
            return False
        try:
            return os.stat(path).st_ctime_ns > self.failed_at
        except OSError:
            return False


def _is_since(first_failed_at: int | None, at_ns: int) -> bool:
    return (first_failed_at or 0) >= at_ns


class FailureOfRun(NamedTuple):
    """An output that failed in the run that is running."""

    source: bytes
    stage: str
    kind: str
    error: str
    place: str
    seat: int | None
    tried: bool
    """Whether a stage was called; False if the plan refused."""
    is_new: bool
    """Whether the source as it is had not failed by the recipe as it is before."""


@dataclass(frozen=True)
class AlikeFailures:
    """The failures of a stage that all began since it made an output last, and all have the same reason."""

    first_held: bytes
    """The first held source, which is tried for all."""
    files: int
    kind: str
    error: str
    """The error of the first file."""

    def has_failed_again(self, result: Result) -> bool:
        """Return whether a result of the first held source is a failure as before."""
        is_kind = result.status == "failed" and (result.kind or "error") == self.kind
        return is_kind and in_general(result.text) == in_general(self.error)


@dataclass(frozen=True)
class RetryPolicy:
    """The policy by which failing files are tried again."""

    hold_after: int | None
    """The number of attempts; None for no limit."""
    retry_failed: bool = False
    """Whether held files are tried once more by this run."""

    def is_over(self, failure: Failure) -> bool:
        """Return whether a file that has not changed since its failure is left alone."""
        held = self.hold_after is not None and failure.attempts >= self.hold_after
        return (held or failure.dismissed_at is not None) and not self.retry_failed


class Failures:
    """The ledger's table of failures, in byte order of their sources."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute(CHANGED_TABLE)
        self.has_any = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM failures)").fetchone()[0])
        """Whether there may be any; where there are none, none is looked for."""
        self.past: list[tuple[bytes, str]] = []
        """Source and stage of outputs that were made or left out; their failures are deleted by the next `flush`."""
        self._alike: dict[str, int] = {}
        """The recipes of the stages whose files failed alike, by the name of the stage."""
        self.tried_for_all: dict[tuple[bytes, str], AlikeFailures] = {}
        """The held outputs that this run tries for all that failed alike, by their source and stage."""
        self.recovered = 0
        """The number of outputs that had failed before and were made, or left out, by this run."""
        self.first_recovered: list[tuple[bytes, str]] = []
        """Source and stage of the first 20 of these."""
        self.freed: dict[str, int] = {}
        """The number of held files that are tried again from now on, by the stage that has made one of them."""

    def for_new_plan(self) -> Failures:
        """Return a table of the same rows for another plan of the same run."""
        new = Failures(self._connection)
        new.recovered, new.first_recovered = self.recovered, self.first_recovered
        return new

    def all(
        self, first: bytes = b"", after: bytes | None = None, *, listed: bool = False, of_files: bool = False
    ) -> Iterator[Failure]:
        """Yield the failures in byte order of their sources; see `Outputs.all` for the arguments."""
        self.flush()
        if listed:
            among = "listed CROSS JOIN failures ON source = path ORDER BY path, stage"
            return (Failure(*row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM {among}"))
        among = f"failures {between(after)}{f' AND {ARE_FILES}' if of_files else ''} ORDER BY source, stage"
        return (Failure(*row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM {among}", (first, after)))

    def oldest_ns(self) -> int | None:
        """Return when the oldest failure that nobody has dismissed began, in nanoseconds since 1970; None without."""
        self.flush()
        oldest = "SELECT min(coalesce(first_failed_at, failed_at)) FROM failures WHERE dismissed_at IS NULL"
        found: int | None = self._connection.execute(oldest).fetchone()[0]
        return found

    def are_any_failing(self, hold_after: int | None) -> bool:
        """Return whether a failure is on record that is neither held after so many attempts nor dismissed."""
        self.flush()
        failing = f"dismissed_at IS NULL AND {_HAS_FAILED} AND (?1 IS NULL OR attempts < ?1)"
        found = self._connection.execute(f"SELECT EXISTS (SELECT 1 FROM failures WHERE {failing})", (hold_after,))
        return bool(found.fetchone()[0])

    def count_having(self, stage: str, traits: Sequence[Trait]) -> tuple[int, list[int]]:
        """Return the number of sources of a stage, made or failing, and of those with each trait."""
        from pipeline.ledger.failure_traits import count_having

        return count_having(self._connection, stage, traits)

    def of_source(self, source: bytes) -> list[Failure]:
        """Return the failures of one source."""
        return list(self.all(source, source + b"\0"))

    def printed(self, failure: Failure | FailureOfRun) -> str:
        """Return what the stages printed before a file failed."""
        found = self._connection.execute(
            "SELECT output FROM failures WHERE source = ? AND stage = ?", (failure.source, failure.stage)
        ).fetchone()
        return str(found[0]) if found else ""

    def record(self, run: str, outcome: Outcome, result: Result, recipe: int | None, tried: bool) -> bool:
        """Record a failure, which `count_attempts` counts when the run has ended; return whether it is a new one.

        It is new unless the same source has failed by the same recipe before, in a run that could tell of it: one that
        was killed could not. One that changed while it was read is new each time. What stays held stays as recorded.
        """
        self.flush()
        source, source_size, source_mtime_ns = columns_of(outcome.origin)
        if result.kind in MOVED:
            if result.kind == "changed":
                self._connection.execute("INSERT INTO changed VALUES (?, ?)", (source, result.stage))
            return True
        if result.code == "held":
            return False
        of_source = (source_size, source_mtime_ns, recipe)
        of_before = (source, result.stage, source_size, source_mtime_ns, run, recipe)
        known = self._connection.execute(_IS_KNOWN, of_before) if self.has_any else None
        is_new = known is None or known.fetchone() is None
        self.has_any = True
        values = (source, result.stage, result.kind or "error", result.text, run, tried)
        rest = (_shorten(outcome.output), time.time_ns(), outcome.seat, result.place)
        self._connection.execute(_RECORD, (*values, *of_source, *rest))
        return is_new

    def of_run(self, run: str) -> Iterator[FailureOfRun]:
        """Yield what failed in a run, in byte order of the sources; not what was only cut off."""
        self.flush()
        (began_ns,) = self._connection.execute("SELECT started FROM runs WHERE name = ?", (run,)).fetchone()
        rows = self._connection.execute(
            "SELECT source, stage, kind, error, place, seat, tried, first_failed_at FROM failures"
            " WHERE run = ? AND kind != 'interrupted' ORDER BY source, stage",
            (run,),
        )
        return (FailureOfRun._make((*row[:-1], _is_since(row[-1], began_ns))) for row in rows)

    def failed_sources(self, stage: str) -> Iterator[bytes]:
        """Yield the sources of which a stage did not make its output, also those that changed during the run."""
        self.flush()
        failed = "SELECT source FROM failures WHERE stage = ?1 AND dismissed_at IS NULL"
        changed = "SELECT source FROM changed WHERE stage = ?1"
        return (source for (source,) in self._connection.execute(f"{failed} UNION {changed}", (stage,)))

    def forget(self, failures: Iterable[tuple[bytes, str]]) -> None:
        """Delete failures, each given by its source and stage."""
        if self.has_any:
            self._connection.executemany("DELETE FROM failures WHERE source = ? AND stage = ?", failures)

    def forget_later(self, source: bytes, stage: str) -> None:
        """Delete a failure at the next `flush`, which costs less than to delete each by itself."""
        self.past.append((source, stage))
        if stage in self._alike:
            self._free(stage)

    def find_alike(
        self, stage: str, recipe: int | None, hold_after: int | None, since: Callable[[], int]
    ) -> AlikeFailures | None:
        """Return the failures of a stage by a recipe if there are several, all of one kind, and one is held.

        Only those count that began after `since`, which is when the stage made an output by the recipe last. Once it
        makes one in this run, they are all tried again from the next run on.
        """
        if not self.has_any or hold_after is None or recipe is None:
            return None
        found = self._connection.execute(
            f"SELECT count(*), max(attempts) FROM failures WHERE {_CHOSEN}", (stage, recipe, 0)
        ).fetchone()
        if found[0] < _FEWEST_ALIKE or found[1] < hold_after:
            return None
        rows = self._connection.execute(
            f"SELECT source, attempts, kind, error FROM failures WHERE {_CHOSEN} ORDER BY source",
            (stage, recipe, since()),
        )
        files, first_held, first_error, first_kind, first_text = 0, None, "", "", ""
        for source, attempts, kind, error in rows:
            if not files:
                first_kind, first_error, first_text = kind, error, in_general(error)
            if (kind, in_general(error)) != (first_kind, first_text):
                return None
            files += 1
            if first_held is None and attempts >= hold_after:
                first_held = source
        if first_held is None or files < _FEWEST_ALIKE:
            return None
        self._alike[stage] = recipe
        return AlikeFailures(first_held, files, first_kind, first_error)

    def _free(self, stage: str) -> None:
        """Have the files of a stage that failed alike tried again: one of them is made, so the reason is gone."""
        self.flush()
        free = "UPDATE failures SET attempts = 0 WHERE stage = ? AND recipe = ? AND tried AND dismissed_at IS NULL"
        self.freed[stage] = self._connection.execute(free, (stage, self._alike.pop(stage))).rowcount

    def flush(self) -> None:
        """Delete the failures that `forget_later` has collected, and count what has recovered by that."""
        if not self.past:
            return
        look = "SELECT kind FROM failures WHERE source = ? AND stage = ?"
        found = [(each, kind) for each in self.past for (kind,) in self._connection.execute(look, each)]
        recovered = [each for each, kind in found if kind != "interrupted"]
        self.recovered += len(recovered)
        self.first_recovered += recovered[: _NAMED - len(self.first_recovered)]
        self.forget(each for each, _ in found)
        self.past.clear()

    def count_attempts(self, run: str, exit_code: int) -> None:
        """Count an attempt for what failed in a run, unless the run, or the file alone, was cut short."""
        if exit_code in NOT_STOPPED:
            failed = "run = ? AND tried AND kind != 'interrupted'"
            self._connection.execute(f"UPDATE failures SET attempts = attempts + 1 WHERE {failed}", (run,))

    def dismiss(self, matches: Callable[[bytes], bool], pattern: str) -> tuple[int, int]:
        """Record that files need not be made as they are.

        Returns:
            How many files were dismissed, and how many were not because only a plan refuses them.
        """
        matching = (each for each in self.all() if matches(each.source))
        # A group that waits for its members goes with them.
        found = [(each.source, each.stage, each.tried) for each in matching if each.tried or not is_group(each.source)]
        self._connection.executemany(
            "UPDATE failures SET dismissed_at = ?, dismissed_by = ? WHERE source = ? AND stage = ?",
            ((time.time(), pattern, source, stage) for source, stage, tried in found if tried),
        )
        dismissed = {source for source, _, tried in found if tried}
        return len(dismissed), len({source for source, *_ in found} - dismissed)


def between(after: bytes | None, column: str = "source") -> str:
    """Return the condition for a range of sources; its parameters are the first one and `after`, be it None."""
    return f"WHERE {column} >= ?1 AND " + ("?2 IS NULL" if after is None else f"{column} < ?2")


def _shorten(text: str) -> str:
    left_out = len(text) - _KEPT_HEAD - _KEPT_TAIL
    if left_out <= 0:
        return text
    return f"{text[:_KEPT_HEAD]}\n[... {left_out} characters left out ...]\n{text[-_KEPT_TAIL:]}"
