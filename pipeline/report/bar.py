"""The display of a run on stderr: how far it has come, and the output of the stages."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Protocol

from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.report.progress import Progress
from pipeline.report.whole_files import WholeFiles
from pipeline.stdio import has_escapes
from pipeline.text import indented

# Seconds between two lines on a terminal that cannot take one back.
_LINE_EVERY_S = 10.0


class _Display(Protocol):
    """Shows the progress of a run while its jobs are on."""

    def advance(self) -> None:
        """Show the progress if it is time."""

    def refresh(self) -> None:
        """Show the progress if it is time, though nothing has ended."""

    def close(self) -> None:
        """Show nothing more."""


class TerminalObserver(RunObserver):
    """Names jobs that take far too long, shows a bar on a terminal and, if verbose, prints what the stages print."""

    def __init__(self, *, has_bar: bool, is_verbose: bool = False) -> None:
        self._has_bar = has_bar
        self._is_verbose = is_verbose
        self._progress = Progress()
        self._whole_files = WholeFiles()
        self._display: _Display | None = None

    def on_held(self, outputs: int) -> None:
        self._progress.held = outputs

    def on_planned(self, files: int) -> None:
        if files:
            self._progress.total = (self._progress.total or 0) + files
            self._open()

    def on_left(self, seconds: float) -> None:
        self._progress.left_s = seconds

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        if self._display is not None:
            self._display.refresh()

    def on_outcome(self, outcome: Outcome) -> None:
        if self._is_verbose and outcome.output:
            self._print(f"{outcome.origin} printed:\n{indented(outcome.output)}")
        if whole := self._whole_files.add(outcome):
            self._progress.failed += any(each.is_failure for each in whole.results)
            self._count(1)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._count(len(outcomes))

    def _count(self, files: int) -> None:
        self._progress.done += files
        self._open()
        if self._display is not None:
            self._display.advance()

    def on_signal(self, name: str) -> None:
        if self._has_bar:
            self._print(f"{name}: finishing what is in hand; a second one stops at once")

    def on_slow(self, text: str) -> None:
        self._print(text)

    def on_jobs_ended(self) -> None:
        if self._display is not None:
            self._display.close()
            self._display = None
        self._progress.done, self._progress.total, self._progress.left_s = 0, None, None

    def on_end(self) -> None:
        self.on_jobs_ended()  # none may have begun, where no worker could be started

    def _open(self) -> None:
        """Open the display, unless it is open. Files of a first run end before it is known how many there are."""
        if not self._has_bar or self._display is not None:
            return
        if has_escapes(sys.stderr):
            from pipeline.report.progress_line import ProgressLine

            self._display = ProgressLine(self._progress, sys.stderr)
        else:
            self._display = _PlainLines(self._progress)

    def _print(self, text: str) -> None:
        print(text, file=sys.stderr)  # the bar has it appear above itself


class _PlainLines:
    """Prints a line now and then, on a terminal that knows no escape sequences."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._began = self._printed_at = time.monotonic()
        self._done_before = progress.done

    def advance(self) -> None:
        now = time.monotonic()
        if now - self._printed_at >= _LINE_EVERY_S:
            self._printed_at = now
            rate = (self._progress.done - self._done_before) / (now - self._began)
            print(", ".join(self._progress.parts(rate)), file=sys.stderr)

    refresh = advance

    def close(self) -> None:
        pass


def terminal_observers(*, is_quiet: bool, is_verbose: bool = False) -> list[TerminalObserver]:
    """Return the observer for this process's stderr."""
    return [TerminalObserver(has_bar=not is_quiet and sys.stderr.isatty(), is_verbose=is_verbose)]
