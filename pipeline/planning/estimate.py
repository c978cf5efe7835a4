"""Estimates how long a plan may take, at the pace of the last run."""

from __future__ import annotations

from typing import NamedTuple

from pipeline.ledger.ledger import Ledger

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86_400


class Pace(NamedTuple):
    """The number of files a run worked on and the time that took, including the start of its workers."""

    files: int
    seconds: float

    @property
    def per_second(self) -> float:
        """Files per second."""
        return self.files / self.seconds


def last_pace(ledger: Ledger) -> Pace | None:
    """Return the pace of the last recorded run that had any work."""
    for summary in ledger.runs.summaries():
        if work := summary.get("work"):
            return Pace(work["files"], max(work["seconds"], 0.001))
    return None


def estimate(files: int, pace: Pace) -> str:
    """Return a phrase for the time that a number of files may take."""
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
