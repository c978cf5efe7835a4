"""Streams that are closed, full or unread: no exit code changes by them, no run stops, and nothing waits."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import MOODY, Project

from pipeline import cli

PROGRAM = [sys.executable, "-m", "pipeline"]
# The arguments of each verb, its exit code, and whether it prints data, which a full disk cannot take.
VERBS = {
    "run": (["run", "--json", "--force", "--engine", "pool"], 1, True),
    "run, quiet": (["run", "--force"], 1, False),
    "check": (["check"], 0, True),
    "plan": (["plan", "-v"], 0, True),
    "verify": (["verify"], 1, True),
    "prune": (["prune", "--yes"], 0, False),
    "status": (["status"], 0, True),
    "runs": (["runs"], 0, True),
    "report": (["report"], 0, True),
    "explain": (["explain", "in/a"], 0, True),
    "accept": (["accept", "--stage", "up", "--because", "code", "--yes"], 0, False),
    "adopt": (["adopt"], 0, False),
    "failures": (["failures"], 0, True),
    "try": (["try", "in/bad"], 1, True),
    "stages": (["stages"], 0, True),
    "new": (["new", "shout"], 0, True),
    "schema": (["schema"], 0, True),
    "help": (["--help"], 0, True),
    "help of a verb": (["plan", "--help"], 0, True),
}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three texts, of which one fails, by a stage that prints; one output was edited since."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY.replace("    if", "    print('a line')\n    if", 1))
    for name in ("a", "b", "bad"):
        project.write(f"in/{name}", f"{name} text")
    assert project.run().exit == 1
    project.write("out/a", "edited by somebody")
    return project


def unread(command: list[str], folder: Path) -> int:
    """Run a command whose stdout and stderr are pipes that nobody reads any more."""
    start, end = os.pipe()
    os.close(start)
    with open(end, "wb") as pipe:
        return subprocess.run(command, cwd=folder, stdout=pipe, stderr=pipe, timeout=100).returncode


def closed(command: list[str], folder: Path) -> int:
    """Run a command without any standard stream."""
    shell = ["sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh", *command]
    return subprocess.run(shell, cwd=folder, timeout=100).returncode


def full(command: list[str], folder: Path) -> int:
    """Run a command that writes stdout and stderr to a full disk."""
    with open("/dev/full", "wb") as disk:
        return subprocess.run(command, cwd=folder, stdout=disk, stderr=disk, timeout=100).returncode


def test_every_verb_is_tried() -> None:
    """A new verb gets its line in the table above."""
    assert {arguments[0] for arguments, _, _ in VERBS.values()} >= set(cli.VERBS)


@pytest.mark.processes
@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("how", [unread, closed, full])
def test_the_exit_code_is_true(project: Project, verb: str, how: Callable[[list[str], Path], int]) -> None:
    """What a verb has found is its exit code, whoever reads of it; only data that is lost is the machine's fault."""
    arguments, code, has_data = VERBS[verb]
    (project.folder / "out/b").unlink()
    assert how([*PROGRAM, *arguments], project.folder) == (3 if how is full and has_data else code)
    if arguments[0] == "run":
        assert (project.folder / "out/b").read_text() == "B TEXT"


@pytest.mark.processes
def test_a_program_of_a_stage_outlives_the_reader_too(project: Project) -> None:
    """In a serial run a stage's programs print to our stderr, and are not ended by its reader's leaving."""
    project.write("in/bad", "good text")
    run = "__import__('subprocess').run(['sh', '-c', 'echo; echo'], check=True)"
    project.write("stages/upper.py", f"def upper(text: str) -> str:\n    {run}\n    return text.upper()\n")
    assert unread([*PROGRAM, "--force", "--engine", "serial"], project.folder) == 0


@pytest.mark.processes
def test_a_closed_stdin(project: Project) -> None:
    """Names cannot be read from it, which is said; a debugger ends at once; a run does not need it."""

    def run(arguments: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m pipeline {arguments} <&-"
        return subprocess.run(command, shell=True, cwd=project.folder, capture_output=True, text=True, timeout=100)

    listed = run("--files-from -")
    assert (listed.returncode, listed.stdout) == (2, "")
    assert listed.stderr.startswith("--files-from -: stdin is closed; ")
    assert run("try in/bad --pdb").returncode == 1
    ran = run("--force --engine pool -v")
    assert ran.returncode == 1 and "bad (up): ValueError: bad text" in ran.stderr


STATE = ".pipeline/pipeline"
# Each file that is read, and whether a run can do without it.
FILES = {
    f"{STATE}/reading.seal": False,
    f"{STATE}/progress.json": False,
    "out/.filemill": True,
    f"{STATE}/id": False,
    f"{STATE}/lock": False,
    f"{STATE}/ledger.sqlite": False,
    f"{STATE}/ledger.sqlite-wal": False,
    f"{STATE}/ledger.sqlite-journal": False,
    f"{STATE}/ledger-good.sqlite": False,
    "pipeline.yaml": False,
    "stages/upper.py": False,
}


@pytest.mark.processes
@pytest.mark.parametrize("file", FILES)
def test_a_fifo_is_not_waited_for(project: Project, file: str) -> None:
    """Whatever stands in place of a file that we read: it is named, or it is done without, and nobody waits."""
    place = project.folder / file
    place.unlink(missing_ok=True)
    os.mkfifo(place)
    for verb in ("status", "run"):
        ran = subprocess.run([*PROGRAM, verb], cwd=project.folder, capture_output=True, text=True, timeout=100)
        assert "Traceback" not in ran.stderr and "bug" not in ran.stderr, ran.stderr
        if verb == "run":
            assert ran.returncode == 1 if FILES[file] else ran.returncode in (2, 3), ran.stderr
        if ran.returncode > 1:
            assert (place.stem if place.suffix == ".py" else place.name) in ran.stderr
