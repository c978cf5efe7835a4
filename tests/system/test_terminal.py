"""What a person sees of a run on a terminal, also a narrow one, and one that knows nothing."""

from __future__ import annotations

import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import Project
from support.screen import Terminal

YAML = """
name: texts
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
pool: {processes: 2}
"""
STAGE = """
import pathlib, time
def upper(text: str) -> str:
    print(f"seen: {text}")
    while text == "wait" and not pathlib.Path("go").exists():
        time.sleep(0.01)
    return str(int(text)) if text != "wait" else text
"""
RUN = sys.executable, "-m", "pipeline"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of four files, of which one fails and one waits until there is a file `go`."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", STAGE)
    for name, text in (("a", "1"), ("b", "bad"), ("c", "2"), ("d", "wait")):
        project.write(f"in/{name}", text)
    return project


@pytest.mark.parametrize("columns", [20, 40, 80])
def test_a_run_as_it_looks(project: Project, columns: int) -> None:
    """One line that fits, above it whole what stages print, and at the end the summary in its place."""
    with Terminal(columns, 200) as terminal:
        process = terminal.start(*RUN, "-v", cwd=project.folder)
        lines = terminal.wait_for("75%", "1 failed", "seen: bad")
        (bar,) = (line for line in lines if "%" in line)
        assert len(bar) < columns and "3/4" in bar
        assert lines[-1] == bar and {"a printed:", "    seen: 1", "b printed:", "    seen: bad"} < set(lines)
        project.write("go", "")
        assert process.wait(60) == 1
        terminal.hang_up()
        shown = "\n".join(terminal.lines)
        assert "%" not in shown and "texts: 3 done, 1 fai" in shown
        assert b"\x1b[31mtexts: 3 done, 1 failed (4 files, " in terminal.raw


@pytest.mark.parametrize(
    ("stop", "code", "said"),
    [
        (lambda process, folder: process.send_signal(signal.SIGTERM), 143, "SIGTERM: finishing what is in hand"),
        (lambda process, folder: process.send_signal(signal.SIGINT), 130, "SIGINT: finishing what is in hand"),
        (lambda process, folder: shutil.rmtree(folder / "out"), 3, ""),
    ],
    ids=["SIGTERM", "SIGINT", "a lost folder"],
)
def test_a_run_that_is_stopped_leaves_no_bar(
    project: Project, stop: Callable[..., None], code: int, said: str
) -> None:  # fmt: skip
    """Only lines that say why, and the shell's prompt begins at the edge."""
    with Terminal(60) as terminal:
        process = terminal.start(*RUN, "--grace", "60", cwd=project.folder)
        terminal.wait_for("75%, 3/4")
        stop(process, project.folder)
        if said:
            terminal.wait_for(said)
        project.write("go", "")
        assert process.wait(60) == code
        terminal.hang_up()
        lines = terminal.lines
        assert not any("%" in line for line in lines) and any("stopped: " in line for line in lines)
        assert terminal.raw.endswith(b"\n")


def test_workers_that_cannot_start_leave_no_bar(project: Project) -> None:
    """No job has begun then, and none has ended."""
    project.edit("pipeline.yaml", "processes: 2", "processes: 2, initializer: 'broken:start'")
    project.write("broken.py", "import os, multiprocessing\ndef start():\n    os._exit(7)\n")
    with Terminal(70, 100) as terminal:
        assert terminal.start(*RUN, cwd=project.folder).wait(60) == 3
        terminal.hang_up()
        assert "0/4" in terminal.raw.decode() and not any("%" in line for line in terminal.lines)
        assert "stopped: " in "\n".join(terminal.lines)


def test_ctrl_c_twice(project: Project) -> None:
    """The terminal echoes it, and the echo goes with the bar; the second one does not wait."""
    with Terminal(40) as terminal:
        process = terminal.start(*RUN, cwd=project.folder)
        terminal.wait_for("75%", "3/4")
        terminal.type(b"\x03")
        terminal.wait_for("SIGINT: finishing what is in hand; a")
        terminal.type(b"\x03")
        assert process.wait(60) == 130
        terminal.hang_up()
        shown = "\n".join(terminal.lines)
        assert "%" not in shown and "d: cut off after " in shown and "stopped: by SIGINT" in shown


def test_a_terminal_that_knows_nothing(project: Project) -> None:
    """No escape sequence, no colors, no carriage return; the summary all the same."""
    project.write("go", "")
    with Terminal() as terminal:
        assert terminal.start(*RUN, cwd=project.folder, TERM="dumb").wait(60) == 1
        terminal.hang_up()
        assert b"\x1b" not in terminal.raw and b"\r" not in terminal.raw.replace(b"\r\n", b"")
        assert terminal.lines[0].startswith("texts: 3 done, 1 failed (4 files, ")


def test_a_terminal_always_gets_a_line(project: Project) -> None:
    """Also where nothing is new, or nothing is to be done; `-q` says what is new, and no more."""
    project.write("go", "")
    project.write("in/b", "3")
    for arguments, shown in (((), "4 done"), ((), "4 up to date"), (("-q",), "")):
        with Terminal() as terminal:
            assert terminal.start(*RUN, *arguments, cwd=project.folder).wait(60) == 0
            terminal.hang_up()
            assert shown in terminal.lines[0] and bool(shown) == bool(terminal.raw)
