"""A user's own modules whose names others have: they are his, and nobody else imports them."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import Project

import pipeline
import stages

NAMESAKE = "raise SystemExit('a namesake was imported')\n"
FILEMILL = [str(Path(sys.executable).with_name("filemill"))]
AS_MODULE = [sys.executable, "-m", "pipeline"]


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One text; beside the pipeline lie modules with the names of Python's own and of `stages`."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial\n", "")
    project.write("in/a", "text")
    for name in ("random", "socket", "selectors", "tempfile", "stages"):
        project.write(f"{name}.py", NAMESAKE)
    return project


def ran(project: Project, *command: str) -> subprocess.CompletedProcess[str]:
    """Run a command in the project's folder, which must end well."""
    done = subprocess.run(command, cwd=project.folder, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0 and "namesake" not in done.stdout, done.stderr
    return done


def copied_to(folder: Path) -> Path:
    """Copy the program's packages to a folder, and return it."""
    for package in (pipeline, stages):
        place = Path(package.__path__[0])
        shutil.copytree(place, folder / place.name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


@pytest.mark.processes
@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_namesakes_are_left_alone(project: Project, method: str) -> None:
    """Neither the program nor its workers take a user's file for Python's, or for their own package."""
    project.edit("pipeline.yaml", "inputs: in\n", f"inputs: in\npool: {{context: {method}}}\n")
    ran(project, *AS_MODULE)
    project.write("pipeline.py", NAMESAKE)
    ran(project, *FILEMILL, "--force", "pipeline.yaml")
    assert project.outputs() == {"a": b"TEXT"}


@pytest.mark.processes
@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_workers_import_the_program_from_where_it_runs(project: Project, method: str) -> None:
    """A checkout that is run beside an installed filemill has no workers of the other."""
    checkout = copied_to(project.folder / "checkout")
    project.edit("pipeline.yaml", "inputs: in\n", f"inputs: in\npool: {{context: {method}}}\n")
    project.write("stages/upper.py", "from pipeline import types\ndef upper(text: str) -> str: return types.__file__\n")
    command = [*AS_MODULE, str(project.folder / "pipeline.yaml")]
    subprocess.run(command, cwd=checkout, check=True, timeout=100)
    assert project.outputs() == {"a": str(checkout / "pipeline/types.py").encode()}


@pytest.mark.parametrize("file", ["pipeline.py", "pipeline/__init__.py"])
def test_a_namesake_of_the_program_is_named(project: Project, file: str) -> None:
    """Where `python -m pipeline` would run another module, the verbs of the first day say so; elsewhere they do not."""
    assert ran(project, *FILEMILL, "check").stderr == ""
    project.write(file, NAMESAKE)
    for arguments in (["check"], ["new", "shout"]):
        said = ran(project, *FILEMILL, *arguments).stderr
        assert f"{project.folder / file}: 'python -m pipeline' in {project.folder} runs this; say 'filemill'" in said


def test_another_distribution_of_the_name_is_named(tmp_path: Path) -> None:
    """Where one was installed over filemill, its name tells what happened."""
    copied_to(tmp_path)
    (tmp_path / "pipeline/__init__.py").write_text("__version__ = '7'\n")
    (tmp_path / "pipes-7.dist-info").mkdir()
    (tmp_path / "pipes-7.dist-info/METADATA").write_text("Name: pipes\nVersion: 7\n")
    (tmp_path / "pipes-7.dist-info/top_level.txt").write_text("pipeline\n")
    command = [sys.executable, "-c", "from pipeline.cli import main; main()"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{tmp_path / 'pipeline/__init__.py'}: this belongs to pipes, ")
