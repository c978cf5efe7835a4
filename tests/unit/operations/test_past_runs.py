"""How the runs of old are found."""

from __future__ import annotations

import pytest

from pipeline.errors import UsageError
from pipeline.ledger.days import Day
from pipeline.ledger.ledger import Ledger
from pipeline.operations.past_runs import PastRuns


def day(name: str, first: int, last: int) -> Day:
    return Day(name, first, last, 1, {}, {}, [], [])


def test_where_days_overlap_the_shortest_has_the_run() -> None:
    """As they do after a clock that jumped: whoever asks is told of the same day."""
    days = [day("2026-01-01", 1, 90), day("2026-02-01", 40, 60), day("2026-03-01", 61, 95)]
    found = PastRuns([], days, "")
    assert [found.find(word) for word in ("3", "50", "75", "95")] == [days[0], days[1], days[2], days[2]]
    with pytest.raises(UsageError, match="no run '96'"):
        found.find("96")
    ledger = Ledger(None)
    rows = [(*each[:4], "{}", "{}", "[]", "[]") for each in days]
    ledger._connection.executemany("INSERT INTO days VALUES (?, ?, ?, ?, ?, ?, ?, ?)", rows)
    assert [ledger.days.of(number) for number in (3, 50, 75, 95, 96)] == [days[0], days[1], days[2], days[2], None]
    ledger.close()
