"""No file is in hand without a name: `status` lists them, and what is cut off is named wherever a person looks."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.program import wait_until
from support.project import Project
from support.warm_start import run_warm

from pipeline.config.load import load_config
from pipeline.observer import RunObserver
from pipeline.operations import hand_watch
from pipeline.operations.run import run
from pipeline.planning.selection import Selection

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
engine: ENGINE
pool: {processes: 2}
"""
# Waits until there is a file `go` where the text says so.
STAGE = """
import time
from pathlib import Path
GO = Path(__file__).parent.parent / "go"
def upper(text: str) -> str:
    while text == "wait" and not GO.exists():
        time.sleep(0.01)
    return text.upper()
"""
ENGINES = pytest.mark.parametrize("engine", ["serial", "pool"])


@pytest.fixture
def project(tmp_path: Path, engine: str) -> Project:
    """A project of four texts, one of which is in hand until there is a file `go`."""
    project = Project(tmp_path, YAML.replace("ENGINE", engine))
    project.write("stages/upper.py", STAGE)
    for name in "acd":
        project.write(f"in/{name}.txt", name)
    project.write("in/b.txt", "wait")
    return project


def say(project: Project, *arguments: str) -> str:
    """Run the program; return its stdout."""
    done = run_warm(*arguments, cwd=project.folder)
    assert done.returncode == 0, done.stderr
    return done.stdout


@contextmanager
def running(project: Project) -> Iterator[subprocess.Popen[str]]:
    """Start a run; it has been in the hanging file for some time when `status` has it."""
    command = [sys.executable, "-m", "pipeline", "run"]
    with subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True, process_group=0) as process:
        try:
            wait_until(lambda: "b.txt: in hand" in say(project, "status"))
            yield process
        finally:
            process.kill()


@ENGINES
def test_status_names_what_is_in_hand(project: Project) -> None:
    """With how long, the stage and the process; after the end nothing is in hand."""
    with running(project) as process:
        line = say(project, "status").splitlines()[1]
        assert line.startswith("  b.txt: in hand for ") and "(stage 'up', process " in line
        (held,) = json.loads(say(project, "status", "--json"))["in_hand"]
        assert (held["source"], held["stage"]) == ("b.txt", "up") and held["seconds"] >= 0
        os.kill(held["pid"], 0)  # it is there
        project.write("go", "")
        assert process.wait(60) == 0
    assert json.loads(say(project, "status", "--json"))["in_hand"] == []


@ENGINES
def test_what_is_cut_off_is_named(project: Project) -> None:
    """By two signals: in the summary, the log and `failures`; it counts as no attempt, and the next run makes it."""
    with running(project) as process:
        os.kill(process.pid, signal.SIGINT)
        os.kill(process.pid, signal.SIGTERM)
        said = process.communicate(timeout=60)[1]
    assert process.returncode in (128 + signal.SIGINT, 128 + signal.SIGTERM)
    assert "  b.txt: cut off after" in said and "in stage 'up'" in said
    (log,) = (project.folder / ".pipeline").glob("*/runs/*.log")
    assert "b.txt: cut off after" in log.read_text()
    failed = say(project, "failures")
    assert "\n\nb.txt (up): interrupted: cut off after" in failed and "attempt" not in failed
    project.write("go", "")
    assert say(project) == "" and say(project, "failures") == ""
    assert (project.folder / "out" / "b.txt").read_text() == "WAIT"


@ENGINES
def test_after_kill_9_status_names_what_was_in_hand(project: Project) -> None:
    """Nobody else can say which file a run had when the machine was switched off."""
    with running(project) as process:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(60)
        first, second = say(project, "status").splitlines()
    assert "was cut off" in first and second.startswith("  b.txt: was in hand (stage 'up'")


@ENGINES
def test_a_file_that_takes_far_too_long_is_said_once(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten minutes, and twenty times as long as the others: shortened here."""
    monkeypatch.setattr(hand_watch, "SLOW_S", 0.3)
    monkeypatch.setattr(hand_watch, "_EVERY_S", 0.05)
    said: list[str] = []

    class Listener(RunObserver):
        def on_slow(self, text: str) -> None:
            said.append(text)
            looks.clear()

        def on_in_hand(self, jobs: object) -> None:
            looks.append(jobs)
            if said and len(looks) > 4:  # it had the time to say it again
                project.write("go", "")

    looks: list[object] = []
    monkeypatch.chdir(project.folder)
    summary = run(load_config(project.folder / "pipeline.yaml"), Selection(), [Listener()])
    assert summary.exit == 0 and len(said) == 1
    assert said[0].startswith("b.txt: in hand for 0 s (stage 'up', process ") and "'timeout'" in said[0]
