"""Finds past runs: those with a row in the ledger, those that needed none, and the days of those before."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from pipeline.config.model import Config
from pipeline.errors import UsageError
from pipeline.files.quiet_runs import quiet_runs
from pipeline.files.state_dir import log_of_run, report_of_run
from pipeline.ledger.days import Day, day_of
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import Cost, PastRun
from pipeline.ledger.session import open_to_read
from pipeline.records import dataclass
from pipeline.report.live import LIVE, read_progress

_LAST = re.compile(r"last(?:-(\d{1,9}))?")
_NUMBER = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class PastRuns:
    """All runs of a pipeline that are known of."""

    runs: Sequence[PastRun]
    """The runs, the newest last; those that found nothing to do by the note of another are numbered as they will be."""
    days: Sequence[Day]
    """The days of older ones, the newest last."""
    on: str
    """The name of the run that is on; empty if none is."""

    def find(self, word: str) -> PastRun | Day:
        """Return the run that a word names: its number, its name, `last` or `last-N`; or its day. Raises UsageError."""
        by_name = {run.name: run for run in self.runs}
        if word in by_name:
            return by_name[word]
        back = int(found[1] or 0) if (found := _LAST.fullmatch(word)) else None
        if back is not None and back < len(self.runs):
            return self.runs[-1 - back]
        number = int(word) if _NUMBER.fullmatch(word) else -1
        if run := next((each for each in self.runs if each.number == number), None):
            return run
        if day := day_of(self.days, number):
            return day
        raise UsageError(f"no run {word!r}: {self._describe_range()}")

    def _describe_range(self) -> str:
        if not self.runs:
            return "none is on record yet"
        days = f", and {self.days[0].first_run} to {self.days[-1].last_run} by the day" if self.days else ""
        return f"there are the runs {self.runs[0].number} to {self.runs[-1].number}{days}; 'last' is the last one"


@contextmanager
def open_past_runs(config: Config) -> Iterator[tuple[PastRuns, Ledger]]:
    """Open the ledger of a pipeline to read, with all runs that are known of."""
    quiet = list(quiet_runs(config.state))  # before the ledger is read, which has them afterwards
    with open_to_read(config.state / "ledger.sqlite") as ledger:
        standing, fields = read_progress(config.state)
        on = str(fields.get("run", "")) if standing in LIVE else ""
        runs = [*ledger.runs.past(), *ledger.runs.quiet_ones(quiet)]
        yield PastRuns(runs, list(ledger.days.all()), on), ledger


@dataclass(frozen=True)
class Costs:
    """What cost a run most, of what is on record still: the slowest sources, and those with the biggest outputs."""

    slowest: Sequence[Cost]
    biggest: Sequence[Cost]


def costs_of(ledger: Ledger, run: PastRun, most: int) -> Costs:
    """Return the sources that cost a run most, so many of each kind."""
    return Costs(ledger.runs.costs(run.name, "seconds", most), ledger.runs.costs(run.name, "bytes_out", most))


def files_of(config: Config, run: PastRun) -> tuple[Path | None, Path | None]:
    """Return the log and the report of a run, as far as they are kept still."""
    log, report = log_of_run(config.state, run.name), report_of_run(config.state, run.name)
    reports = (each for each in (report.with_suffix(".html"), report) if each.exists())
    return log if log.exists() else None, next(reports, None)
