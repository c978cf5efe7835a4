"""pipeline/report/bar.py: what is on stderr while a run goes on."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator

import pytest
from support.screen import Terminal

from pipeline.messages import Outcome, Result, Source
from pipeline.report.bar import TerminalObserver, terminal_observers

OUTCOME = Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done"),), output="hello\n")
FAILED = OUTCOME._replace(results=(Result("up", b"/out/a", "failed", "no", "error"),))


Observe = Callable[..., TerminalObserver]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Iterator[Terminal]:
    """A terminal of 80 columns."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    with Terminal() as terminal:
        yield terminal


@pytest.fixture
def observe(terminal: Terminal, monkeypatch: pytest.MonkeyPatch) -> Iterator[Observe]:
    """Makes the terminal this process's stderr, and returns an observer of a run over so many files."""
    with contextlib.ExitStack() as stack:

        def begin(files: int = 0, *, held: int = 0, verbose: bool = False, encoding: str = "utf-8") -> TerminalObserver:
            monkeypatch.setattr("sys.stderr", stack.enter_context(terminal.open(encoding)))
            (observer,) = terminal_observers(is_quiet=False, is_verbose=verbose)
            observer.on_held(held)
            observer.on_planned(files)
            return observer

        yield begin
        monkeypatch.undo()


@pytest.mark.parametrize("is_quiet", [False, True])
def test_without_a_terminal_only_what_takes_far_too_long_is_said(
    is_quiet: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under cron there is no bar."""
    (observer,) = terminal_observers(is_quiet=is_quiet)
    observer.on_planned(2)
    observer.on_outcome(OUTCOME)
    observer.on_in_hand([])
    observer.on_signal("SIGINT")
    observer.on_jobs_ended()
    assert capsys.readouterr() == ("", "")
    observer.on_slow("a.txt: in hand for 600 s")
    assert capsys.readouterr() == ("", "a.txt: in hand for 600 s\n")


def test_what_stages_print_is_shown_when_verbose(capsys: pytest.CaptureFixture[str]) -> None:
    """Below the name of the file over which it was printed."""
    observer = TerminalObserver(has_bar=False, is_verbose=True)
    observer.on_planned(1)
    observer.on_outcome(OUTCOME)
    observer.on_jobs_ended()
    assert capsys.readouterr().err == "a printed:\n    hello\n"


def test_a_file_that_fails_in_several_pools_counts_once(terminal: Terminal, observe: Observe) -> None:
    """When the last of them has done with it."""
    observer = observe(200)
    for outcome in (FAILED._replace(goes_on=True), FAILED._replace(goes_on=True), FAILED):
        observer.on_outcome(outcome)
    observer.on_in_hand([])
    terminal.wait_for("1/200", "1 failed")
    observer.on_jobs_ended()


@pytest.mark.parametrize(
    ("columns", "shown"),
    [
        (20, " 25%, 1 failed"),
        (40, "25%, 50/200, 13 min left, 1 failed"),
        (60, "███            | 25%, 50/200, 13 min left, 1 failed, 3 held"),
        (100, "| 25%, 50/200, "),
    ],
)
def test_what_matters_most_is_shown_at_any_width(
    terminal: Terminal, observe: Observe, columns: int, shown: str
) -> None:
    """Failures before the count, that before the time that is left; the bar takes what is over, and no line breaks."""
    terminal.resize(columns)
    observer = observe(200, held=3)
    observer.on_left(754.0)
    observer.on_outcome(FAILED)
    observer.on_outcomes([OUTCOME] * 49)
    observer.on_in_hand([])
    (line,) = terminal.wait_for("25%", "1 failed")
    assert shown.strip() in line and len(line) < columns
    assert b"\x1b[31m1 failed\x1b[0m" in terminal.raw
    observer.on_jobs_ended()
    terminal.settle()
    assert terminal.lines == [""]


def test_a_bar_counts_the_files_that_are_through(terminal: Terminal, observe: Observe) -> None:
    """A file that goes on in another pool is not through; groups are counted after the files, anew."""
    observer = observe(2)
    for goes_on in (True, False):
        observer.on_outcome(OUTCOME._replace(goes_on=goes_on))
    observer.on_in_hand([])
    terminal.wait_for("50%, 1/2")
    observer.on_signal("SIGINT")
    terminal.wait_for("SIGINT: finishing what is in hand; a second one stops at once", "50%, 1/2")
    observer.on_jobs_ended()
    observer.on_planned(5)
    lines = terminal.wait_for("0%, 0/5")
    assert lines[0].startswith("SIGINT") and len(lines) == 2
    observer.on_jobs_ended()


def test_a_first_run_does_not_know_yet_how_many_there_are(terminal: Terminal, observe: Observe) -> None:
    """Then it says how many are through, and how many there are as soon as that is known."""
    observer = observe()
    observer.on_outcomes([OUTCOME] * 1200)
    (line,) = terminal.wait_for("1,200 files")
    assert "%" not in line
    observer.on_planned(2400)
    observer.on_in_hand([])
    terminal.wait_for("50%, 1,200/2,400")
    observer.on_jobs_ended()


def test_a_smaller_window_leaves_nothing_behind(terminal: Terminal, observe: Observe) -> None:
    """The next line is composed for the width that there is."""
    observer = observe(200)
    observer.on_outcomes([OUTCOME] * 100)
    observer.on_in_hand([])
    terminal.wait_for("| 50%, 100/200")
    terminal.resize(30)
    observer.on_in_hand([])
    assert terminal.wait_for("50%, 100/200") == [line for line in terminal.lines if len(line) < 30]
    observer.on_jobs_ended()
    terminal.settle()
    assert terminal.lines == [""]


def test_no_line_breaks_the_bar(terminal: Terminal, observe: Observe) -> None:
    """Neither what stages print, nor what another thread does, by halves or by many lines."""
    import sys

    observer = observe(200, verbose=True)

    def chatter() -> None:
        for number in range(50):
            print(f"thread {number}", file=sys.stderr)

    thread = threading.Thread(target=chatter)
    thread.start()
    for _ in range(50):
        observer.on_outcome(OUTCOME)
    thread.join()
    sys.stderr.write("half ")
    observer.on_in_hand([])
    observer.on_slow("a line")
    terminal.resize(80, 300)
    sys.stderr.write("last")
    observer.on_jobs_ended()
    terminal.settle()
    shown = terminal.raw.decode().replace("\r\n", "\n")
    lines = [line.rpartition("\x1b[K\r")[2].strip("\r") for line in shown.split("\n")]
    assert sorted(lines) == sorted(
        [f"thread {number}" for number in range(50)] + ["a printed:", "    hello"] * 50 + ["half a line", "last", ""]
    )


def test_a_forked_process_prints_as_it_is(terminal: Terminal, observe: Observe) -> None:
    """A worker must not wait for a lock that a thread of its parent held when it was forked."""
    import os
    import sys

    observer = observe(2)
    display = observer._display
    assert display is not None
    with display.lock:  # type: ignore[attr-defined]
        if (child := os.fork()) == 0:
            sys.stderr.write("from a worker\n")
            sys.stderr.flush()
            os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    terminal.wait_for("from a worker")
    observer.on_jobs_ended()


def test_no_color_means_none(terminal: Terminal, observe: Observe, monkeypatch: pytest.MonkeyPatch) -> None:
    """NO_COLOR asks for that, whatever its value."""
    monkeypatch.setenv("NO_COLOR", "1")
    observer = observe(2)
    observer.on_outcome(FAILED)
    observer.on_in_hand([])
    terminal.wait_for("1 failed")
    observer.on_jobs_ended()
    terminal.settle()
    assert terminal.raw.count(b"\x1b[") == terminal.raw.count(b"\x1b[K")


def test_a_dumb_terminal_gets_whole_lines(
    terminal: Terminal, observe: Observe, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One now and then, without any escape sequence."""
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setattr("pipeline.report.bar._LINE_EVERY_S", 0.0)
    observer = observe(4, held=1)
    observer.on_left(90.0)
    observer.on_outcome(FAILED)
    (line,) = terminal.wait_for("25%, 1/4, ")
    assert line.endswith(" files/s, 90 s left, 1 failed, 1 held")
    observer.on_jobs_ended()
    terminal.settle()
    assert b"\x1b" not in terminal.raw and terminal.raw.replace(b"\r\n", b"").isascii()
    assert b"\r" not in terminal.raw.replace(b"\r\n", b"")


def test_another_encoding_has_another_bar(terminal: Terminal, observe: Observe) -> None:
    """Blocks are no Latin-1."""
    observer = observe(2, encoding="latin-1")
    observer.on_outcome(OUTCOME)
    observer.on_in_hand([])
    terminal.wait_for("####", "50%, 1/2")
    observer.on_jobs_ended()
    assert terminal.raw.isascii()
