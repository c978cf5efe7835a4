"""A run where nothing has changed ends before it imports anything heavy, and is as any other to who looks at it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from support.mounts import mounted
from support.program import Pipeline, on_terminal, wait_until
from support.project import ONE_STAGE, Project

HEAVY = {"pydantic", "PIL", "yaml", "sqlite3", "argparse", "multiprocessing", "pathspec", "tqdm"}
STATE = ".pipeline/pipeline"
SLOW = """
import time
def upper(text: str) -> str:
    if text == "slow":
        open("begun", "w").close()
        time.sleep(100)
    return text.upper()
"""


@pytest.fixture
def project(tmp_path: Path, pipeline: Pipeline) -> Project:
    """Two texts that are made, so that nothing is left to be done."""
    project = Project(tmp_path, ONE_STAGE)
    project.write("stages/upper.py", SLOW)
    for name in ("a", "b"):
        project.write(f"in/{name}", name)
    assert pipeline("pipeline.yaml").returncode == 0
    assert (tmp_path / STATE / "unchanged.note").exists()
    return project


def quiet_runs(project: Project) -> int:
    file = project.folder / STATE / "quiet-runs"
    return len(file.read_text().splitlines()) if file.exists() else 0


def test_nothing_heavy_is_imported(project: Project) -> None:
    command = [sys.executable, "-X", "importtime", "-m", "pipeline", "pipeline.yaml"]
    ran = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, check=True)
    imported = {line.rpartition("|")[2].strip().split(".")[0] for line in ran.stderr.splitlines()}
    assert "pipeline" in imported and not imported & HEAVY
    assert not re.search(r"\| *pipeline\.(config\.model|ledger\.ledger|images|engines)", ran.stderr)


def test_it_says_on_a_terminal_what_an_ordinary_run_says(project: Project) -> None:
    """One line, but for the seconds; with `-q` none."""
    said = []
    for _ in range(2):
        (project.folder / STATE / "unchanged.note").unlink(missing_ok=True)
        said.append(on_terminal("python -m pipeline pipeline.yaml", project.folder))
    before = quiet_runs(project)
    said.append(on_terminal("python -m pipeline pipeline.yaml", project.folder))
    assert quiet_runs(project) == before + 1
    said = [(code, re.sub(r"\d\.\d s", "- s", text)) for code, text in said]
    assert said == [(0, "pipeline: 2 up to date (2 files, - s)")] * 3
    assert on_terminal("python -m pipeline -q pipeline.yaml", project.folder) == (0, "")
    assert quiet_runs(project) == before + 2


def test_status_tells_of_it(project: Project, pipeline: Pipeline) -> None:
    """With its own name and time."""
    before = json.loads(pipeline("status", "--json").stdout)
    assert pipeline("pipeline.yaml").returncode == 0 and quiet_runs(project) == 1
    now = json.loads(pipeline("status", "--json").stdout)
    assert set(now) == set(before) | {"last"} and now["last"]["run"] == before["run"]
    assert (now["standing"], now["exit"], now["up_to_date"]) == ("ended", 0, 2)
    assert now["run"] != before["run"] and now["at"] > before["at"]
    name = (project.folder / STATE / "quiet-runs").read_text().split()[0]
    assert now["run"] == name


def test_a_run_that_is_killed_leaves_no_note(project: Project, pipeline: Pipeline) -> None:
    """Whatever it was doing, the next one looks for itself."""
    project.write("in/slow", "slow")
    process = subprocess.Popen([sys.executable, "-m", "pipeline", "pipeline.yaml"], cwd=project.folder)
    wait_until((project.folder / "begun").exists)
    process.send_signal(signal.SIGKILL)
    process.wait()
    os.unlink(project.folder / "in/slow")
    assert not (project.folder / STATE / "unchanged.note").exists()
    before = quiet_runs(project)
    assert pipeline("pipeline.yaml").returncode == 0
    assert quiet_runs(project) == before and project.outputs() == {"a": b"A", "b": b"B"}


def test_a_note_of_another_working_folder_or_path_is_not_asked(project: Project, pipeline: Pipeline) -> None:
    """An import may find something else from there."""
    before = quiet_runs(project)
    assert pipeline(str(project.folder / "pipeline.yaml"), cwd=project.folder / "in").returncode == 0
    assert pipeline("pipeline.yaml", PYTHONPATH=f"{os.environ.get('PYTHONPATH', '')}:/elsewhere").returncode == 0
    assert quiet_runs(project) == before


def test_the_order_of_mounts_makes_no_difference(tmp_path: Path, pipeline: Pipeline) -> None:
    """A set of them comes in any order, another in each process; one that goes is noticed."""
    project = Project(tmp_path, ONE_STAGE)
    project.write("stages/upper.py", SLOW)
    for name in "abcd":
        (tmp_path / "in" / name).mkdir()
    with ExitStack() as mounts:
        for name in "abc":
            (mounts.enter_context(mounted("tmpfs", tmp_path / "in" / name)) / "text").write_text("text")
        with mounted("tmpfs", tmp_path / "in/d") as last:
            (last / "text").write_text("text")
            assert pipeline("pipeline.yaml").returncode == 0
            for seed in "123":
                assert pipeline("pipeline.yaml", PYTHONHASHSEED=seed).returncode == 0
            assert quiet_runs(project) == 3
        assert pipeline("pipeline.yaml").returncode == 4
        assert quiet_runs(project) == 0
