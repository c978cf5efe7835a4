"""How far a run has come, asked from another terminal."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import Pipeline, wait_until
from support.project import ONE_STAGE, Project

from pipeline.report.live import progress_file, read_progress

SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.2)\n    return text.upper()\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    for number in range(40):
        project.write(f"in/{number:02}", "x")
    return project


def test_before_and_after_a_run(project: Project, pipeline: Pipeline) -> None:
    """One line on stdout, exit 0, and nothing is made by asking."""
    said = pipeline("status")
    assert (said.returncode, said.stdout, said.stderr) == (0, "pipeline: has not run yet\n", "")
    assert not (project.folder / ".pipeline").exists()
    pipeline()
    ended = r"pipeline: 40 done \(40 files, [0-9.]+ s\) ended 20\d\d-\d\d-\d\d \d\d:\d\d:\d\d with exit 0\n"
    assert re.fullmatch(ended, pipeline("status").stdout)
    progress_file(project.folder / ".pipeline/pipeline").unlink()
    assert re.fullmatch(r"pipeline: run \d+-\d+-\w+ ended .* with exit 0\n", pipeline("status").stdout)
    said_json = json.loads(pipeline("status", "--json").stdout)
    assert (said_json["standing"], said_json["done"], said_json["exit"]) == ("ended", 40, 0)


@pytest.mark.processes
def test_beside_a_run_and_after_its_death(project: Project, pipeline: Pipeline) -> None:
    """Who runs since when, and how many files of how many; a killed run is told from one at work."""
    project.write("stages/upper.py", SLOW)
    run = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder, stderr=subprocess.DEVNULL)
    folder = project.folder / ".pipeline/pipeline"
    wait_until(lambda: read_progress(folder)[1].get("through", 0) >= 3)
    said = pipeline("status").stdout
    assert re.match(rf"pipeline: running for \d+ s \(pid {run.pid} on .*\), \d+ of 40 files(, .* left)?\n", said)
    assert json.loads(pipeline("status", "--json").stdout)["standing"] == "running"
    run.send_signal(signal.SIGKILL)
    run.wait()
    said = pipeline("status").stdout
    assert said.startswith("pipeline: the run that began 20") and "was cut off; the same line again resumes" in said


def test_the_ledger_is_not_opened_while_a_run_is_on(project: Project, pipeline: Pipeline) -> None:
    """What says how far the run has come is the small file alone, whatever became of the database."""
    project.run()
    (project.folder / ".pipeline/pipeline/ledger.sqlite").write_bytes(b"nothing of use")
    assert "with exit 0" in pipeline("status").stdout


def test_a_stopped_run_says_why(tmp_path: Path, pipeline: Pipeline) -> None:
    """The exit code, and the reason beside it."""
    project = Project(tmp_path, ONE_STAGE.replace("engine:", "errors: {max: 1}\nengine:"))
    project.write("in/a", b"\xff")
    project.write("in/b", b"\xff")
    project.write("in/c", b"\xff")
    assert project.run().exit == 4
    assert "with exit 4, stopped: 2 of 3 files failed already" in pipeline("status").stdout


def test_a_refused_run_says_why(project: Project, pipeline: Pipeline) -> None:
    """Whoever asks in the morning is told what stopped the night's run, before it did anything."""
    assert project.run().exit == 0
    (project.folder / "in").rename(project.folder / "away")
    (project.folder / "in").mkdir()
    assert pipeline().returncode == 3
    said = pipeline("status").stdout
    assert said.startswith("pipeline: nothing done (0 files")
    assert "with exit 3, stopped: none of the 40 known files is in the input root" in said
