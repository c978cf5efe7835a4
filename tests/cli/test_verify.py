"""`verify` names every output that is not as it was made, and nothing else."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, ledger_of, made


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Some files made, one left out, one failed."""
    project = made(tmp_path, "a", "b", "sub/c")
    project.write("in/left", "skip it")
    project.write("in/bad", "bad")
    assert (project.run().skipped, project.run().exit) == (1, 1)
    return project


def output(project: Project) -> Path:
    return project.folder / "out/a"


def rewrite(project: Project, text: str, later_s: float = 0) -> None:
    """Write the output in place, with the time it had, or a later one."""
    before = output(project).stat()
    output(project).write_text(text)
    os.utime(output(project), ns=(0, before.st_mtime_ns + round(later_s * 1e9)))


def make_folder(project: Project) -> None:
    output(project).unlink()
    output(project).mkdir()


def restore(project: Project) -> None:
    """Put back what it was before the last run."""
    before = output(project).read_text()
    project.write("in/a", "something else")
    project.run()
    rewrite(project, before, 100)


def make_loop(project: Project) -> None:
    output(project).unlink()
    output(project).symlink_to("a")


CASES: dict[str, tuple[Callable[[Project], object], str, str]] = {
    "gone": (lambda project: output(project).unlink(), "missing", "missing"),
    "cut": (lambda project: rewrite(project, "TE"), "torn", "torn (size 6 -> 2)"),
    "empty": (lambda project: rewrite(project, "", 100), "torn", "torn (size 6 -> 0)"),
    "edited": (lambda project: rewrite(project, "mine", 100), "edited", "edited by someone else"),
    "an older version": (restore, "older", "an older version"),
    "decayed": (
        lambda project: rewrite(project, "TEXT B"),
        "contents changed",
        "contents changed, though size and time are as recorded",
    ),
    "a folder": (make_folder, "edited", "something that is no file stands in its place"),
    "unreadable": (make_loop, "unreadable", "unreadable: Too many levels of symbolic links"),
}


@pytest.mark.parametrize("case", CASES)
def test_whatever_is_wrong_is_named(project: Project, pipeline: Pipeline, case: str) -> None:
    """By the output's path on stdout, counted on stderr, exit 1; and nothing is written."""
    change, kind, text = CASES[case]
    change(project)
    before = {path: path.lstat().st_mtime_ns for path in project.folder.rglob("*") if path.is_file()}
    ran = pipeline("verify")
    assert (ran.returncode, ran.stdout) == (1, f"out/a: {text}\n")
    assert ran.stderr == f"3 outputs verified: 2 as recorded, 1 {kind}\n"
    (line,) = [json.loads(each) for each in pipeline("verify", "--json").stdout.splitlines()]
    assert line == {"source": "a", "stage": "up", "finding": kind, "text": text, "output": "out/a"}
    assert {path: path.lstat().st_mtime_ns for path in project.folder.rglob("*") if path.is_file()} == before


def test_what_is_as_it_was_made(project: Project, pipeline: Pipeline) -> None:
    """Exit 0, nothing on stdout, also of what was copied back; what was left out or failed has no output to verify."""
    for later_s in (0, 100):
        rewrite(project, "TEXT A", later_s)
        ran = pipeline("verify")
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "3 outputs verified: 3 as recorded\n")


def test_before_the_first_run(tmp_path: Path, pipeline: Pipeline) -> None:
    """Nothing is recorded, and no state folder comes of asking."""
    Project(tmp_path)
    ran = pipeline("verify")
    assert (ran.returncode, ran.stderr) == (0, "0 outputs verified: 0 as recorded\n")
    assert not (tmp_path / ".pipeline").exists()


def test_of_an_older_ledger_only_size_and_time(project: Project, pipeline: Pipeline) -> None:
    """Outputs of which no digest was recorded are read, and it is said that their contents are not known."""
    with ledger_of(project.folder) as ledger:
        ledger._connection.execute("UPDATE outputs SET digest = NULL WHERE target = ?", (b"out/a",))
    rewrite(project, "TEXT B")
    ran = pipeline("verify")
    assert ran.returncode == 0 and "of 1 the contents were never recorded: only size and time\n" in ran.stderr


def test_pictures_of_every_way_to_commit(example: Path, pipeline: Pipeline) -> None:
    """What the example makes is as recorded; a flipped bit in one of them is found."""
    assert pipeline(cwd=example).returncode == 0
    assert "24 outputs verified: 24 as recorded" in pipeline("verify", cwd=example).stderr
    victim = example / "data/output/web/lake.webp"
    before, data = victim.stat(), bytearray(victim.read_bytes())
    data[len(data) // 2] ^= 1
    victim.write_bytes(data)
    os.utime(victim, ns=(0, before.st_mtime_ns))
    ran = pipeline("verify", cwd=example)
    assert ran.returncode == 1 and ran.stdout.startswith("data/output/web/lake.webp: contents changed")


@pytest.mark.processes
def test_beside_a_run(project: Project, pipeline: Pipeline) -> None:
    """What a run makes anew meanwhile is no finding."""
    for number in range(300):
        project.write(f"in/n{number}", "x")
    project.run()
    command = [sys.executable, "-m", "pipeline", "--force", "-j", "1"]
    for _ in range(3):
        running = subprocess.Popen(command, cwd=project.folder, stderr=subprocess.DEVNULL)
        try:
            while running.poll() is None:
                ran = pipeline("verify")
                assert (ran.returncode, ran.stdout) == (0, ""), ran.stderr
                assert re.fullmatch(r"\d+ outputs? verified: \d+ as recorded\n", ran.stderr)
        finally:
            if running.poll() is None:
                running.send_signal(signal.SIGKILL)
            running.wait()
        time.sleep(0.01)
