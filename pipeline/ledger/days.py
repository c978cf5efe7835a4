"""The table of days: what is kept of the runs before the last ones, whose own rows are gone."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator
from typing import Any

from pipeline.ledger.runs import PastRun, plain_data
from pipeline.records import NamedTuple
from pipeline.text import local_time

# What a summary says of a moment rather than of what the run did: its sum over the runs of a day would tell nothing.
_OF_A_MOMENT = {"exit", "sources", "up_to_date", "held", "dismissed", "edited", "settling", "unmatched"}
CUT_OFF = "cut off"
"""What stands for the exit code of a run that did not end."""


class Day(NamedTuple):
    """The runs of one day in local time, together."""

    day: str
    first_run: int
    """The numbers of its runs lie from this one to `last_run`; some between them may have kept their rows."""
    last_run: int
    runs: int
    exits: dict[str, int]
    """How many of the runs ended with each exit code."""
    totals: dict[str, float]
    """The sums of what the runs did: their counts, seconds and bytes."""
    hosts: list[str]
    versions: list[dict[str, str]]


class Days:
    """The ledger's table of days."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def all(self) -> Iterator[Day]:
        """Yield the days in their order."""
        return map(_day, self._connection.execute("SELECT * FROM days ORDER BY day"))

    def of(self, number: int) -> Day | None:
        """Return the day of a run without a row of its own."""
        return day_of(self.all(), number)

    def add(self, runs: Iterable[PastRun]) -> None:
        """Add runs, which lose their rows, to the days on which they began."""
        days: dict[str, Day] = {}
        for run in runs:
            day = local_time(run.started_ns / 1e9)[:10]
            days[day] = _with(days.get(day) or self._get(day) or _new(day, run.number), run)
        rows = ((*day[:4], *map(json.dumps, day[4:])) for day in days.values())
        self._connection.executemany("INSERT OR REPLACE INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)

    def _get(self, day: str) -> Day | None:
        found = self._connection.execute("SELECT * FROM days WHERE day = ?", (day,)).fetchone()
        return _day(found) if found else None


def day_of(days: Iterable[Day], number: int) -> Day | None:
    """Return the day of a run without a row of its own; None if it has none.

    Clocks that jump make days overlap: the shortest is then the likeliest.
    """
    covering = (each for each in days if each.first_run <= number <= each.last_run)
    return min(covering, key=lambda each: each.last_run - each.first_run, default=None)


def _new(day: str, number: int) -> Day:
    return Day(day, number, number, 0, {}, {}, [], [])


def _day(row: tuple[Any, ...]) -> Day:
    exits, totals, hosts, versions = row[4:]
    return Day._make(
        (*row[:4], plain_data(exits), plain_data(totals), plain_data(hosts, list), plain_data(versions, list))
    )


def _with(day: Day, run: PastRun) -> Day:
    """Return a day with one run more."""
    ending = CUT_OFF if run.exit is None else str(run.exit)
    totals = dict(day.totals)
    for key, value in run.summary.items():
        if value and key not in _OF_A_MOMENT and type(value) in (int, float):
            totals[key] = round(totals.get(key, 0) + value, 3)
    return Day(
        day.day,
        min(day.first_run, run.number),
        max(day.last_run, run.number),
        day.runs + 1,
        day.exits | {ending: day.exits.get(ending, 0) + 1},
        totals,
        day.hosts + [run.host] * (run.host not in (*day.hosts, "")),
        day.versions + [run.versions] * bool(run.versions and run.versions not in day.versions),
    )
