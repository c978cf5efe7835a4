"""The display of a run on stderr: a progress bar, and the output of the stages."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Any

from pipeline.messages import Outcome
from pipeline.observer import RunObserver
from pipeline.text import format_duration, indented

# What is left is told by the run itself: the bar could only go by the number of files.
_FORMAT = "{l_bar}{bar}| {n_fmt}/{total_fmt} [{elapsed}, {rate_fmt}{postfix}]"


class TerminalObserver(RunObserver):
    """Names jobs that take far too long, shows a bar on a terminal and, if verbose, prints what the stages print."""

    def __init__(self, *, has_bar: bool, is_verbose: bool = False) -> None:
        self._has_bar = has_bar
        self._is_verbose = is_verbose
        self._bar: Any = None
        self._early = 0
        """The number of files that ended before it was known how many there are."""

    def on_planned(self, files: int) -> None:
        if self._has_bar and files:
            from tqdm import tqdm

            self._bar = tqdm(
                total=files, initial=self._early, unit="file", file=sys.stderr, leave=False, dynamic_ncols=True,
                bar_format=_FORMAT,
            )  # fmt: skip

    def on_left(self, seconds: float) -> None:
        if self._bar is not None:
            self._bar.set_postfix_str(f"{format_duration(seconds)} left", refresh=False)

    def on_outcome(self, outcome: Outcome) -> None:
        if outcome.goes_on:
            return
        if self._is_verbose and outcome.output:
            self._print(f"{outcome.origin} printed:\n{indented(outcome.output)}")
        self._count(1)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._count(len(outcomes))

    def _count(self, files: int) -> None:
        if self._bar is not None:
            self._bar.update(files)
        else:
            self._early += files

    def on_signal(self, name: str) -> None:
        if self._has_bar:
            self._print(f"{name}: finishing what is in hand; a second one stops at once")

    def on_slow(self, text: str) -> None:
        self._print(text)

    def on_jobs_ended(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar, self._early = None, 0

    def _print(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr)
        else:
            self._bar.write(text, file=sys.stderr)


def terminal_observers(*, is_quiet: bool, is_verbose: bool = False) -> list[TerminalObserver]:
    """Return the observer for this process's stderr."""
    return [TerminalObserver(has_bar=not is_quiet and sys.stderr.isatty(), is_verbose=is_verbose)]
