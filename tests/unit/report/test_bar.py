"""pipeline/report/bar.py: what is on stderr while a run goes on."""

from __future__ import annotations

import io

import pytest

from pipeline.messages import Outcome, Result, Source
from pipeline.report.bar import TerminalObserver, terminal_observers

OUTCOME = Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done"),), output="hello\n")


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("is_quiet", [False, True])
def test_without_a_terminal_only_what_takes_far_too_long_is_said(
    is_quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under cron there is no bar."""
    (observer,) = terminal_observers(is_quiet=is_quiet)
    observer.on_planned(2)
    observer.on_outcome(OUTCOME)
    observer.on_signal("SIGINT")
    observer.on_jobs_ended()
    assert capsys.readouterr() == ("", "")
    observer.on_slow("a.txt: in hand for 600 s")
    assert capsys.readouterr() == ("", "a.txt: in hand for 600 s\n")


def test_a_bar_counts_the_files_that_are_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that goes on in another pool is not through; the bar is gone when the jobs have ended."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    (observer,) = terminal_observers(is_quiet=False)
    observer.on_planned(2)
    assert "0/2" in terminal.getvalue()
    observer.on_left(754.0)
    for goes_on in (True, False):
        observer.on_outcome(OUTCOME._replace(goes_on=goes_on))
    observer.on_signal("SIGINT")
    observer.on_jobs_ended()
    shown = terminal.getvalue()
    assert "SIGINT: finishing what is in hand; a second one stops at once" in shown
    assert "13 min left" in shown
    assert "1/2" in shown and "2/2" not in shown and shown.endswith("\r") and "hello" not in shown


def test_what_stages_print_is_shown_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the name of the file over which it was printed."""
    observer = TerminalObserver(has_bar=False, is_verbose=True)
    observer.on_planned(1)
    observer.on_outcome(OUTCOME)
    observer.on_jobs_ended()
    assert capsys.readouterr().err == "a printed:\n    hello\n"
