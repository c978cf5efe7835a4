"""Finds past runs and their reports: runs with a row in the ledger, those that needed none, and the days of others."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pipeline.errors import UsageError
from pipeline.files.file_system import read_regular
from pipeline.files.quiet_runs import quiet_runs
from pipeline.files.state_dir import log_of_run, report_of_run, reports_of_runs
from pipeline.ledger.days import Day, day_of
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import Cost, PastRun
from pipeline.ledger.session import open_to_read
from pipeline.operations.state_of_pipeline import HasState
from pipeline.records import dataclass
from pipeline.report.comparison import FORMAT, is_report
from pipeline.report.standing import LIVE, read_progress
from pipeline.text import shown

# More than there can be, and no more than a ledger can be asked for.
_MOST_ROWS = 2**62
# Where a report would be there is no regular file, or none any more.
_NO_FILE = (errno.ENOENT, errno.EISDIR, errno.EINVAL, errno.ELOOP, errno.ENXIO)
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
    """The name of the run that is running; empty if none is."""

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
def open_past_runs(config: HasState) -> Iterator[tuple[PastRuns, Ledger]]:
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
    most = min(most, _MOST_ROWS)
    return Costs(ledger.runs.costs(run.name, "seconds", most), ledger.runs.costs(run.name, "bytes_out", most))


def files_of(config: HasState, run: PastRun) -> tuple[Path | None, Path | None]:
    """Return the log and the report of a run, as far as they are kept still."""
    log, report = log_of_run(config.state, run.name), report_of_run(config.state, run.name)
    reports = (each for each in (report.with_suffix(".html"), report) if each.is_file())
    has_reports = not report.parent.is_symlink()
    return log if log.exists() else None, next(reports, None) if has_reports else None


# -- reports -----------------------------------------------------------------------------------------------------------


class Report:
    """One report, as it lies in the state folder."""

    def __init__(self, file: Path) -> None:
        self.file = file
        self.text = read_regular(file).decode("utf-8")
        self.fields: dict[str, Any] = json.loads(self.text)
        if not is_report(self.fields):
            raise ValueError(f"no report of format {FORMAT}")
        self.number: int = self.fields["number"]


def last_report(config: HasState) -> Report:
    """Return the report of the last run that left one. Raises UsageError."""
    found = next(_reports(config.state), None)
    if found is None:
        folder = shown(os.fsencode(config.state))
        raise UsageError(f"there is no report in {folder}; a run that does anything leaves one")
    return found


def find_reports(config: HasState, words: Sequence[str]) -> list[Report]:
    """Return the reports of the runs that words name as they name runs everywhere. Raises UsageError."""
    with open_past_runs(config) as (past, _):
        return [_find_report(config, past, word) for word in words]


def _find_report(config: HasState, past: PastRuns, word: str) -> Report:
    by_name = (each for each in _reports(config.state) if each.file.stem == word)
    if found := next(by_name, None):  # also that of a run which a lost ledger knew
        return found
    run = past.find(word)
    if isinstance(run, Day):
        which, why = word, ", or it is not kept any more"
        found = next((each for each in _reports(config.state) if each.number == int(word)), None)
    else:
        which, why = str(run.number), _why_without_report(run, past.on)
        found = next((each for each in _reports(config.state) if each.file.stem == run.name), None)
    if found is None:
        last = f"the last one is that of run {last_report(config).number}"
        raise UsageError(f"run {which} left no report{why}; {last}")
    return found


def _why_without_report(run: PastRun, on: str) -> str:
    if run.exit is None:
        return " yet, since it is running" if run.name == on else ", since it was cut off"
    did = ("done", "skipped", "failed", "pruned", "renamed")
    has_nothing = run.exit in (0, 6) and not any(run.summary.get(each) for each in did)
    return ", since it had nothing to do" if has_nothing else ", or it is not kept any more"


def _reports(state_folder: Path) -> Iterator[Report]:
    """Yield the reports, the newest first, but for files that are none, such as one that was edited, or a FIFO."""
    for file in reversed(reports_of_runs(state_folder)):
        try:
            yield Report(file)
        except (ValueError, RecursionError):
            continue
        except OSError as error:  # one that is denied, or lies on a bad disk, may well be one
            if error.errno not in _NO_FILE:
                raise
