"""Files that are still being written: left alone, counted apart, and neither failed nor gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import ONE_STAGE, Project, ledger_of, temporaries

from pipeline.files.atomic import temporary_for

SETTLING = ("settling", "settling")
FRESH = ("up-to-date", "up to date")
PATIENT = ONE_STAGE.replace("inputs: in", "inputs: {root: in, settle: 60s}")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A file that was written long ago, done, in a pipeline that leaves new ones alone for a minute."""
    project = Project(tmp_path, PATIENT)
    age(project.write("in/old", "old"), 3600)
    assert project.run().done == 1
    return project


def age(file: Path, seconds: float) -> None:
    at = time.time_ns() - round(seconds * 1e9)
    os.utime(file, ns=(at, at))


@pytest.mark.parametrize(("seconds", "settles"), [(0, True), (50, True), (61, False), (-30, False), (-1e6, False)])
def test_what_was_modified_just_now_is_left_alone(project: Project, seconds: float, settles: bool) -> None:
    """As long as the pipeline says, and not a moment longer; a time in the future counts as settled."""
    age(project.write("in/new", "new"), seconds)
    assert project.plan() == {"up new": SETTLING if settles else ("make", "new"), "up old": FRESH}
    summary = project.run()
    assert (summary.settling, summary.done, summary.up_to_date, summary.exit) == (settles, not settles, 1, 0)
    assert summary.sources == 2


def test_without_the_word_nothing_is_settling(tmp_path: Path) -> None:
    """The default is to do what is there; `0s` says the same."""
    for yaml in (ONE_STAGE, PATIENT.replace("60s", "0s")):
        project = Project(tmp_path, yaml)
        project.write("in/new", "new")
        assert "settling" not in str(project.plan())


def test_what_was_made_of_it_before_stays(project: Project) -> None:
    """A file that is being replaced is neither failed nor gone: its old output, and its record, wait for it."""
    project.write("in/old", "newer")
    for action in (project.run, lambda: project.run(force=True), lambda: project.run(retry_failed=True)):
        assert action().exit == 0
        assert project.outputs() == {"old": b"OLD"} and project.orphans() == []
    project.edit("pipeline.yaml", "out/{dir}", "other/{dir}")
    assert project.orphans() == []
    age(project.folder / "in/old", 3600)
    assert project.orphans() == ["out/old"]


def test_it_keeps_its_claim(tmp_path: Path) -> None:
    """Whose a path is must not depend on who is settled first."""
    project = Project(tmp_path, PATIENT.replace("{name}", "{stem}"))
    age(project.write("in/a.x", "x"), 3600)
    project.write("in/a.y", "y")
    collision = ("refuse", "collision with a.y: both want out/a")
    assert project.plan() == {"up a.x": collision, "up a.y": SETTLING}
    summary = project.run()
    assert (summary.settling, summary.failed, project.outputs()) == (1, 1, {})


def test_a_failure_is_remembered_meanwhile(tmp_path: Path) -> None:
    """That it is being written says nothing of what failed."""
    project = Project(tmp_path, PATIENT)
    age(project.write("in/a", b"\xff"), 3600)
    project.run()
    project.write("in/a", b"\xff\xff")
    assert project.run().exit == 0
    age(project.folder / "in/a", 3600)
    assert project.run().failed == 1


def test_what_a_killed_run_left_is_cleared_away(project: Project) -> None:
    """Beside an output that is not made now, too: a later run would not look for it any more."""
    project.write("in/new", "new")
    project.write("in/bad", b"\xff")
    age(project.folder / "in/bad", 3600)
    project.edit("pipeline.yaml", "engine", "errors: {hold_after: 1}\nengine")
    project.run()
    assert project.plan()["up bad"][0] == "held"
    with ledger_of(project.folder) as ledger:
        ledger.begin_run("killed")
    for name in ("new", "bad"):
        Path(os.fsdecode(temporary_for(os.fsencode(project.folder / "out" / name), "killed"))).touch()
    assert len(temporaries(project.folder)) == 2
    project.run()
    assert not temporaries(project.folder)


def test_it_is_counted_apart(project: Project, pipeline: Pipeline) -> None:
    """In the plan, in the summary and in its JSON, with exit 0 and silence for cron."""
    project.write("in/new", "new")
    assert "        1         1  settling\n" in pipeline("plan").stdout
    (line,) = [json.loads(each) for each in pipeline("plan", "--json", "--only", "new").stdout.splitlines()]
    assert (line.pop("action"), line.pop("why"), line.pop("code")) == ("settling", "settling", "settling")
    assert line == {"source": "new", "stage": "up", "output": "out/new"}
    ran = pipeline("--json")
    said = json.loads(ran.stdout)
    assert (ran.returncode, ran.stderr, said["settling"], said["up_to_date"], said["failed"]) == (0, "", 1, 1, 0)


def test_a_file_that_grows_is_done_when_it_is_whole(tmp_path: Path, pipeline: Pipeline) -> None:
    """Somebody uploads slowly while runs come and go: no run makes anything of a part."""
    project = Project(tmp_path, PATIENT.replace("60s", "1500ms"))
    upload = (
        "import time\nwith open('in/a', 'w', buffering=1) as file:\n"
        "    for number in range(20):\n        file.write(f'line {number}\\n')\n        time.sleep(0.1)\n"
    )
    uploading = subprocess.Popen([sys.executable, "-c", upload], cwd=tmp_path)
    while not (tmp_path / "in/a").exists():
        time.sleep(0.01)
    while uploading.poll() is None:
        assert pipeline("--engine", "serial").returncode == 0
        assert uploading.poll() is not None or not project.outputs()
    time.sleep(1.6)
    assert pipeline("--engine", "serial").returncode == 0
    assert project.outputs() == {"a": "".join(f"LINE {n}\n" for n in range(20)).encode()}
