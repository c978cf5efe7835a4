"""The table of runs: which there were, how far what they made had reached the disk, and how they ended."""

from __future__ import annotations

import json
import os
import sqlite3
import sys
import time
from collections.abc import Collection, Iterable, Iterator
from typing import Any, Literal

from pipeline.errors import ENDED_IN_ORDER
from pipeline.files.clocks import boot_id, may_be_since
from pipeline.files.quiet_runs import QuietRun
from pipeline.messages import KILLED
from pipeline.records import NamedTuple

# Higher than the number of any run.
_LAST = 2**62
# The runs whose rows are kept, the last: a year of nights. Older ones are folded into days, so many at a time at least
# that few runs have that to do.
_KEPT_RUNS, _FOLDED_TOGETHER = 400, 40
# The runs that are folded by one run at most: an older release has kept all of them.
_FOLDED_AT_MOST = 10_000
CLAIMS = "claims"
"""The fact that holds the number of the run that last wrote its number into each output folder's owner file."""


class Window(NamedTuple):
    """The period of which the ledger may not know all that was made; see docs/durability.md.

    Outputs that were recorded in it, or whose files last changed in it, are compared by their contents.
    """

    since_ns: int
    until_ns: int
    why: str

    def holds(self, ctime_ns: int | None) -> bool:
        """Return whether a file with this ctime may have changed in the period."""
        return ctime_ns is not None and may_be_since(ctime_ns, self.since_ns) and ctime_ns < self.until_ns

    def doubts(self, recorded_ns: int | None, ctime_ns: int) -> bool:
        """Return whether a row of then, or a file that last changed then, is to be compared by its contents."""
        return (recorded_ns or 0) >= self.since_ns or self.holds(ctime_ns)


class RunRow(NamedTuple):
    """The columns of a run that decide whether it has left anything uncertain."""

    id: int
    boot: str | None
    synced_until: int
    """Before this time all that the run and those before it made is on the disk, in nanoseconds since 1970."""
    ended: int | None
    unsure: Window | None
    """The period that the run began with, if it has not made all of it anew."""

    @property
    def safe_until(self) -> int:
        """When the run had last brought everything to the disk."""
        return self.ended or self.synced_until


class PastRun(NamedTuple):
    """A run as it is told of."""

    number: int
    name: str
    started_ns: int
    ended_ns: int | None
    """When all that it made was on the disk; None if it did not end in order, or is running."""
    exit: int | None
    summary: dict[str, Any]
    """Its counts, as `--json` prints them, and why it stopped, if it did."""
    host: str
    versions: dict[str, str]

    @property
    def seconds(self) -> float | None:
        """How long it took; None if it did not end."""
        return None if self.exit is None else self.summary.get("seconds")


_PAST = "id, name, started, ended, exit, summary, host, versions"


class Cost(NamedTuple):
    """What one source cost a run: the outputs of one job."""

    source: bytes
    stages: list[str]
    seconds: float
    peak_bytes: int | None
    """The memory of the worker by then."""
    bytes_in: int | None
    bytes_out: int
    seat: int | None
    """The number of the worker; None outside of a pool."""


class Making(NamedTuple):
    """How an output on record was made."""

    number: int
    """The number of the run."""
    run: PastRun | None
    """The run; None if its row was folded into a day."""
    recorded_ns: int
    seconds: float | None
    """The seconds of its job, in which others may have been made too; None if they are not on record."""
    peak_bytes: int | None


def boot_time_ns() -> int:
    """Return when this machine was started, in nanoseconds since 1970."""
    return time.time_ns() - time.clock_gettime_ns(time.CLOCK_BOOTTIME)


def _versions() -> dict[str, str]:
    """Return the versions that decide what a run can do."""
    from pipeline import __version__

    return {"filemill": __version__, "python": sys.version.split()[0]}


class Runs:
    """The ledger's table of runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self.number = 0
        """The number of the run that is running, which the owner files name; 0 outside of one."""

    @staticmethod
    def versions() -> dict[str, str]:
        """Return the versions that the row of a run that is running has."""
        return _versions()

    def begin(self, name: str, window: Window | None, least_number: int) -> None:
        """Record that a run has begun; its number is no lower than `least_number`."""
        now = time.time_ns()
        self.number = max(self.last_number() + 1, least_number)
        self._connection.execute(
            "INSERT INTO runs (id, name, started, boot, synced_until, unsure_since, unsure_until, unsure_why, host,"
            " versions) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (self.number, name, now, boot_id(), now, *(window or (None, None, None)), os.uname().nodename,
             json.dumps(_versions())),
        )  # fmt: skip

    def add_quiet(self, runs: Iterable[PastRun]) -> None:
        """Record runs that found nothing to do, as `quiet_ones` gives them."""
        boot = boot_id()
        for run in runs:
            self._connection.execute(
                "INSERT INTO runs (id, name, started, boot, synced_until, ended, exit, summary, host, versions, swept)"
                " VALUES (?, ?, ?, ?, ?, ?, 0, ?, ?, ?, 1)",
                (run.number, run.name, run.started_ns, boot, run.ended_ns, run.ended_ns,
                 json.dumps(run.summary), run.host, json.dumps(run.versions)),
            )  # fmt: skip

    def quiet_ones(self, runs: Iterable[QuietRun]) -> Iterator[PastRun]:
        """Yield the runs that found nothing to do after the last one on record; not those after any other.

        After the ledger of an older backup they would tell of a time up to which all is known.
        """
        last, known, host, versions = self.last(), self.names(), os.uname().nodename, _versions()
        if last is None or last["exit"] != 0 or last["ended"] is None:
            return
        new = (run for run in runs if run.after == last["run"] and run.name not in known)
        for number, run in enumerate(new, self.last_number() + 1):
            yield PastRun(number, run.name, run.started_ns, run.ended_ns, 0, _summary_of(run), host, versions)

    def set_outcome(self, exit_code: int, summary: dict[str, Any], *, swept: bool) -> None:
        """Record how the run went; `swept` if it has redone all that earlier runs could have left behind."""
        if self.number:
            values = exit_code, json.dumps(summary), self.number
            self._connection.execute("UPDATE runs SET exit = ?, summary = ? WHERE id = ?", values)
        if swept:
            self._connection.execute("UPDATE runs SET swept = 1 WHERE id != ?", (self.number,))

    def set_synced(self, at_ns: int, *, ended: bool = False, is_sure: bool = False) -> None:
        """Record, on the disk itself, that all that was made before is there too.

        `ended` closes the run; `is_sure` says that it has made anew what the period it began with left uncertain.
        """
        columns = f"synced_until = ?1{', ended = ?1' if ended else ''}{', unsure_since = NULL' if is_sure else ''}"
        self._connection.execute("PRAGMA synchronous=FULL")
        self._connection.execute(f"UPDATE runs SET {columns} WHERE id = ?2", (at_ns, self.number))
        self._connection.execute("PRAGMA synchronous=NORMAL")

    def set_unsure(self, window: Window | None) -> None:
        """Record the period that a writer which is no run has found, and leaves to the next run."""
        columns = "unsure_since = ?, unsure_until = ?, unsure_why = ?"
        values = *(window or (None, None, None)), self.last_number()
        self._connection.execute(f"UPDATE runs SET {columns} WHERE id = ?", values)

    def last_number(self) -> int:
        """Return the number of the last run; 0 if there was none."""
        return self._connection.execute("SELECT max(id) FROM runs").fetchone()[0] or 0

    def newest(self) -> RunRow | None:
        """Return the last run."""
        return self.get(_LAST)

    def get(self, number: int) -> RunRow | None:
        """Return the last run up to a number."""
        columns = "id, boot, coalesce(synced_until, started), ended, unsure_since, unsure_until, unsure_why"
        newest = f"SELECT {columns} FROM runs WHERE id <= ? ORDER BY id DESC LIMIT 1"
        found = self._connection.execute(newest, (number,)).fetchone()
        if found is None:
            return None
        number, boot, synced_until, ended, since, until, why = found
        unsure = Window(since, until or since, why or "") if since is not None else None
        return RunRow(number, boot, synced_until, ended, unsure)

    def last(self) -> dict[str, Any] | None:
        """Return the summary of the run that began last, with `run`, `started`, `ended` and `exit`."""
        newest = "SELECT name, started, ended, exit, summary FROM runs ORDER BY id DESC LIMIT 1"
        found = self._connection.execute(newest).fetchone()
        if found is None:
            return None
        run, started, ended, exit_code, summary = found
        times = {"started": started / 1e9, "ended": ended / 1e9 if ended and exit_code is not None else None}
        return dict(json.loads(summary or "{}")) | {"run": run, "exit": exit_code} | times

    def summaries(self) -> Iterator[dict[str, Any]]:
        """Yield the summaries of the runs that ended, the newest first."""
        found = self._connection.execute("SELECT summary FROM runs WHERE summary IS NOT NULL ORDER BY id DESC")
        return (dict(json.loads(text)) for (text,) in found)

    def latest(self, count: int) -> list[dict[str, Any]]:
        """Return the summaries of the last runs, the oldest first, each with `number`, `run`, `started` and `exit`."""
        newest = "SELECT id, name, started, exit, summary FROM runs ORDER BY id DESC LIMIT ?"
        found = self._connection.execute(newest, (count,)).fetchall()
        found.reverse()
        return [
            dict(json.loads(summary or "{}"))
            | {"number": number, "run": run, "started": at_ns / 1e9, "exit": exit_code}
            for number, run, at_ns, exit_code, summary in found
        ]

    def names(self) -> set[str]:
        """Return the names of all runs on record."""
        return {run for (run,) in self._connection.execute("SELECT name FROM runs")}

    def unclean(self) -> list[str]:
        """Return the names of runs that may have left temporaries: they, a job or a worker was cut short."""
        found = self._connection.execute(
            f"SELECT name FROM runs WHERE NOT swept AND (exit IS NULL OR exit NOT IN {ENDED_IN_ORDER}"
            " OR name IN (SELECT run FROM failures WHERE kind IN (?, ?, ?, ?)))",
            (*KILLED, "interrupted"),
        )
        return [run for (run,) in found]

    def past(self) -> Iterator[PastRun]:
        """Yield all runs, the newest last."""
        return map(_past_run, self._connection.execute(f"SELECT {_PAST} FROM runs ORDER BY id"))

    def making_of(self, target: bytes) -> Making | None:
        """Return how an output was made; None if it is not on record, or no run has made it."""
        # What a job took is told of all parts together.
        jobs = "FROM outputs LEFT JOIN outputs AS job ON job.target = outputs.target OR (outputs.part != '' AND"
        jobs += " (job.source, job.stage, job.part, job.run) = (outputs.source, outputs.stage, '', outputs.run))"
        columns = "outputs.run, outputs.recorded, max(job.seconds), max(job.peak_bytes)"
        found = self._connection.execute(f"SELECT {columns} {jobs} WHERE outputs.target = ?", (target,)).fetchone()
        if found is None or found[0] is None:
            return None
        number, recorded_ns, seconds, peak_bytes = found
        run = self._connection.execute(f"SELECT {_PAST} FROM runs WHERE id = ?", (number,)).fetchone()
        return Making(number, _past_run(run) if run else None, recorded_ns or 0, seconds, peak_bytes)

    def costs(self, name: str, by: Literal["seconds", "bytes_out"], most: int) -> list[Cost]:
        """Return the slowest sources of a run, or those with the biggest outputs, of what is on record still."""
        # What a job took is in the row of each of its outputs, but for parts.
        statement = (
            "SELECT source, json_group_array(DISTINCT stage), max(seconds) AS seconds, max(peak_bytes), max(bytes_in),"
            " sum(bytes_out) AS bytes_out, max(seat) FROM made WHERE run = ? AND seconds IS NOT NULL"
            f" GROUP BY source ORDER BY {by} DESC, source LIMIT ?"
        )
        rows = self._connection.execute(statement, (name, most))
        return [Cost._make((row[0], json.loads(row[1]), *row[2:5], row[5] or 0, row[6])) for row in rows]

    def are_many(self) -> bool:
        """Return whether there are enough runs before the last ones to fold them."""
        count: int = self._connection.execute("SELECT count(*) FROM runs").fetchone()[0]
        return count > _KEPT_RUNS + _FOLDED_TOGETHER

    def take_old(self, spared: Collection[str], spared_numbers: Collection[int]) -> list[PastRun]:
        """Delete the rows of runs before the last ones, the oldest, and return what they said.

        Rows stay on which a promise rests: of runs that may have left temporaries, and those that are spared, by their
        names or their numbers.
        """
        newest = f"SELECT id FROM runs ORDER BY id DESC LIMIT {_KEPT_RUNS}"
        which = f"WHERE id NOT IN ({newest}) ORDER BY id LIMIT {_FOLDED_AT_MOST}"
        rows = self._connection.execute(f"SELECT {_PAST} FROM runs {which}")
        kept = {*spared, *self.unclean()}
        old = [each for each in map(_past_run, rows) if each.name not in kept and each.number not in spared_numbers]
        self._connection.executemany("DELETE FROM runs WHERE id = ?", ((each.number,) for each in old))
        return old


def _summary_of(run: QuietRun) -> dict[str, Any]:
    """Return the counts of a run that found nothing to do."""
    counts: dict[str, Any] = dict.fromkeys(("done", "skipped", "failed", "held", "pruned", "exit"), 0)
    seconds = round((run.ended_ns - run.started_ns) / 1e9, 3)
    return counts | {"run": run.name, "up_to_date": run.up_to_date, "sources": run.sources, "seconds": seconds}


def _past_run(row: tuple[Any, ...]) -> PastRun:
    return PastRun._make((*row[:5], plain_data(row[5]), row[6] or "", plain_data(row[7])))


def plain_data(text: str | None, kind: type[Any] = dict) -> Any:
    """Return what a column in JSON says; an empty dict or list if it is not of that kind, as after damage."""
    try:
        found = json.loads(text or "null")
    except ValueError:
        found = None
    return found if isinstance(found, kind) else kind()
