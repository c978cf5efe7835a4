"""The files that failed: what the ledger keeps of each, how often it was tried, and when it is left alone.

a stage failed, in a run that ended in order    one attempt more
`errors.hold_after` attempts                    held, until its source or its recipe is another
dismissed by a person                           held too, and the exit code says so no more
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from pipeline.ledger.origins import ARE_FILES, is_group
from pipeline.messages import MOVED, Result

# Another source or recipe is another matter: it begins at no attempt, and nobody has dismissed it.
_SAME = (
    "(failures.source_size, failures.source_mtime_ns, failures.recipe)"
    " = (excluded.source_size, excluded.source_mtime_ns, excluded.recipe)"
)
_RECORD = f"""
INSERT INTO failures (source, stage, kind, error, attempts, run, tried, source_size, source_mtime_ns, recipe, output)
VALUES (?, ?, ?, ?, 0, ?, ?, ?, ?, ?, ?) ON CONFLICT (source, stage) DO UPDATE SET
    attempts = CASE WHEN {_SAME} THEN attempts ELSE 0 END,
    dismissed_at = CASE WHEN {_SAME} THEN dismissed_at END,
    dismissed_by = CASE WHEN {_SAME} THEN dismissed_by END,
    kind = excluded.kind, error = excluded.error, run = excluded.run, tried = excluded.tried,
    source_size = excluded.source_size, source_mtime_ns = excluded.source_mtime_ns, recipe = excluded.recipe,
    output = excluded.output
"""
_COLUMNS = "source, stage, kind, error, attempts, tried, source_size, source_mtime_ns, recipe, dismissed_at"

# Runs that ended so were not cut short: what failed in them was tried.
_IN_ORDER = (0, 1, 5)
# Characters of what was printed that are kept, most of them from its end; the log of the run has more.
_KEPT_HEAD, _KEPT_TAIL = 1000, 3000


@dataclass(frozen=True)
class Failure:
    """A file that failed and has not been done since."""

    source: bytes
    stage: str
    kind: str
    error: str
    attempts: int
    """In runs that ended in order, of the same source by the same recipe."""
    tried: bool
    """Whether a stage was tried, rather than the plan refusing."""
    source_size: int | None
    source_mtime_ns: int | None
    recipe: int | None
    dismissed_at: float | None
    """When a person said that it need not be done; seconds since 1970."""


@dataclass(frozen=True)
class Patience:
    """How often a file that fails is tried again."""

    hold_after: int | None
    """None for ever."""
    retry_failed: bool = False
    """Whether those that are held are tried once more now."""

    def is_over(self, failure: Failure) -> bool:
        """Whether a file that has not changed since is left alone."""
        held = self.hold_after is not None and failure.attempts >= self.hold_after
        return (held or failure.dismissed_at is not None) and not self.retry_failed

    def describe(self, failure: Failure) -> str:
        """What a plan says of it."""
        if self.is_over(failure):
            if failure.dismissed_at is not None:
                return f"dismissed ({failure.kind})"
            return f"held after {failure.attempts} failed {'attempt' if failure.attempts == 1 else 'attempts'}"
        attempt = f", attempt {failure.attempts}" if failure.attempts else ""  # none, if that run was cut short
        if self.hold_after is not None and 0 < failure.attempts <= self.hold_after:
            attempt += f" of {self.hold_after}"
        return f"failed before ({failure.kind}{attempt})"


class Failures:
    """The ledger's table of them."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        connection.execute("CREATE TEMP TABLE changed (source BLOB, stage TEXT)")
        self._has_any = bool(connection.execute("SELECT EXISTS (SELECT 1 FROM failures)").fetchone()[0])

    def all(
        self, first: bytes = b"", after: bytes | None = None, *, listed: bool = False, of_files: bool = False
    ) -> Iterator[Failure]:
        """Every failure, in byte order of its source: of sources from `first` on and before `after`; only of those in
        the table `listed`, or only of files and not of groups, if it is asked.
        """
        if listed:
            among = "listed CROSS JOIN failures ON source = path ORDER BY path, stage"
            return (Failure(*row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM {among}"))
        among = f"failures {between(after)}{f' AND {ARE_FILES}' if of_files else ''} ORDER BY source, stage"
        return (Failure(*row) for row in self._connection.execute(f"SELECT {_COLUMNS} FROM {among}", (first, after)))

    def output(self, failure: Failure) -> str:
        """What the stages printed before it failed."""
        found = self._connection.execute(
            "SELECT output FROM failures WHERE source = ? AND stage = ?", (failure.source, failure.stage)
        ).fetchone()
        return str(found[0]) if found else ""

    def record(
        self, run: str, origin: tuple[bytes, int, int], result: Result, recipe: int | None, printed: str, tried: bool
    ) -> None:
        """Remember a failure; whether it counts as an attempt is seen when the run has ended."""
        source, source_size, source_mtime_ns = origin
        if result.kind in MOVED:
            if result.kind == "changed":
                self._connection.execute("INSERT INTO changed VALUES (?, ?)", (source, result.stage))
            return
        self._has_any = True
        values = (source, result.stage, result.kind or "error", result.text, run, tried)
        self._connection.execute(_RECORD, (*values, source_size, source_mtime_ns, recipe, _shorten(printed)))

    def missing(self, stage: str) -> Iterator[bytes]:
        """The sources of which a stage failed to make what it should have by now, also those that changed meanwhile."""
        which = "SELECT source FROM failures WHERE stage = ?1 AND dismissed_at IS NULL"
        changed = "SELECT source FROM changed WHERE stage = ?1"
        return (source for (source,) in self._connection.execute(f"{which} UNION {changed}", (stage,)))

    def forget(self, failures: Iterable[tuple[bytes, str]]) -> None:
        """Forget what has been done since, or says nothing any more: source and stage of each."""
        if not self._has_any:
            return
        self._connection.executemany("DELETE FROM failures WHERE source = ? AND stage = ?", failures)

    def count_attempts(self, run: str, exit_code: int) -> None:
        """Count what failed in a run as tried once more, unless the run was cut short: then that is no reason."""
        if exit_code in _IN_ORDER:
            self._connection.execute("UPDATE failures SET attempts = attempts + 1 WHERE run = ? AND tried", (run,))

    def dismiss(self, matches: Callable[[bytes], bool], pattern: str) -> tuple[int, int]:
        """Put on record that files need not be done as they are; gives how many, and how many only a plan refuses."""
        matching = (each for each in self.all() if matches(each.source))
        # A group that waits for its members goes with them.
        found = [(each.source, each.stage, each.tried) for each in matching if each.tried or not is_group(each.source)]
        self._connection.executemany(
            "UPDATE failures SET dismissed_at = ?, dismissed_by = ? WHERE source = ? AND stage = ?",
            ((time.time(), pattern, source, stage) for source, stage, tried in found if tried),
        )
        dismissed = sum(tried for _, _, tried in found)
        return dismissed, len(found) - dismissed


def between(after: bytes | None, column: str = "source") -> str:
    """The condition for a range of sources; both its ends are given with it, also where there is none after it."""
    return f"WHERE {column} >= ?1 AND " + ("?2 IS NULL" if after is None else f"{column} < ?2")


def _shorten(text: str) -> str:
    left_out = len(text) - _KEPT_HEAD - _KEPT_TAIL
    if left_out <= 0:
        return text
    return f"{text[:_KEPT_HEAD]}\n[... {left_out} characters left out ...]\n{text[-_KEPT_TAIL:]}"
