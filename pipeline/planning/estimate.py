"""How fast a run was, and how long what a plan holds may take at that pace."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.ledger.ledger import Ledger

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


class Pace(NamedTuple):
    """How many files a run worked on, and how long that took, its workers' start included."""

    files: int
    seconds: float

    @property
    def per_second(self) -> float:
        """How many files in a second."""
        return self.files / self.seconds


def last_pace(ledger: Ledger) -> Pace | None:
    """That of the last run that had any work, if it is on record."""
    for summary in ledger.runs.summaries():
        if work := summary.get("work"):
            return Pace(work["files"], max(work["seconds"], 0.001))
    return None


def estimate(files: int, pace: Pace) -> str:
    """How long so many files may take, in words."""
    speed = pace.per_second
    return f"{_duration(files / speed)} at the last run's pace ({speed:,.{0 if speed >= 100 else 1}f} files/s)"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < _MINUTE_S:
        return f"about {seconds:.1f} s"
    if seconds < _HOUR_S:
        return f"about {seconds / _MINUTE_S:.0f} min"
    return f"about {seconds / _HOUR_S:.1f} h" if seconds < 2 * _DAY_S else f"about {seconds / _DAY_S:.0f} days"
