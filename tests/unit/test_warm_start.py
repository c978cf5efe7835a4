"""A run that a launcher has forked is like one that was started: what tests see of the one is true of the other."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from support.project import ONE_STAGE, Project
from support.warm_start import run_cold, run_warm

STAGE = """
import json, os, signal, sys, threading

def upper(text: str) -> str:
    os.umask(umask := os.umask(0))
    return json.dumps({
        "argv": sys.argv, "path": sys.path, "flags": list(sys.flags), "folder": os.getcwd(), "umask": umask,
        "environment": dict(os.environ), "stdin": os.stat(0).st_rdev, "group": os.getpgid(0),
        "main": sys.modules["__main__"].__spec__.name, "threads": threading.active_count(),
        "signals": {each.name: str(signal.getsignal(each)) for each in (signal.SIGPIPE, signal.SIGCHLD)},
        "encodings": [sys.stdout.encoding, sys.stderr.errors, sys.getfilesystemencoding()],
        "files": len(os.listdir("/proc/self/fd")),
        "hash": hash("x"),
    })
"""


def found_by(project: Project, start: Any) -> dict[str, Any]:
    """Run the stage in the program's own process, and return what it has found."""
    done = start("--force", "--engine", "serial", cwd=project.folder)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    found: dict[str, Any] = json.loads(project.outputs()["a"])
    return found


def test_a_warm_start_is_like_a_cold_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process has what it is given, and nothing of the launcher; but for the seed of hashes, which none shares."""
    project = Project(tmp_path, ONE_STAGE)
    project.write("stages/upper.py", STAGE)
    project.write("in/a", "a")
    monkeypatch.setenv("MARK_OF_A_TEST", "é\n")
    before = os.umask(0o027)
    try:
        _, cold, *warm = (found_by(project, start) for start in (run_cold, run_cold, run_warm, run_warm))
    finally:
        os.umask(before)
    assert len({each.pop("hash") for each in (cold, *warm)}) == 3 or "PYTHONHASHSEED" in os.environ
    assert cold == warm[0] == warm[1]


def test_its_end_is_told_as_it_is(tmp_path: Path) -> None:
    """Exit codes, what is printed, and the signal that killed it."""
    project = Project(tmp_path, ONE_STAGE)
    project.write("in/a", "a")
    for arguments in (("check",), ("failures", "--json"), ("not-a-verb",), ("explain", "in/b")):
        cold, warm = run_cold(*arguments, cwd=tmp_path), run_warm(*arguments, cwd=tmp_path)
        assert (cold.returncode, cold.stdout, cold.stderr) == (warm.returncode, warm.stdout, warm.stderr)
    project.write("stages/upper.py", "import os\ndef upper(text: str) -> str:\n    os.kill(os.getpid(), 9)\n")
    for start in (run_cold, run_warm):
        assert start("--engine", "serial", cwd=tmp_path).returncode == -9
