"""What the tests share: a project to run in, and the program run as a user runs it."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from support.pool_engines import make, method
from support.program import ROOT, Pipeline
from support.warm_start import run_cold, run_warm

from pipeline.report.html import load_template

__all__ = ["make", "method"]  # fixtures of the pool's tests


# Every run forces its files to the disk and waits for it, longer than for all else where the disk is slow; in memory it
# does not wait. What disks do is tried on file systems of their own: see support/mounts.py and the drills.
_IN_MEMORY, _ROOM_BYTES = "/dev/shm", 2 << 30
if os.access(_IN_MEMORY, os.W_OK) and shutil.disk_usage(_IN_MEMORY).free > _ROOM_BYTES:
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", _IN_MEMORY)


# A stage that a test edits twice within a second must not come from a cache; and no process of the hundreds that the
# tests start shall have to compile the program itself.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
sys.dont_write_bytecode = False  # that of the tests themselves is kept: else each process of theirs compiles them all
for package in ("pipeline", "stages"):
    compileall.compile_dir(ROOT / package, quiet=1)
load_template()  # and the page of a report, which takes as long to compile as a small run


# The program names itself as one types it where PATH leads to it, as in an environment that is activated.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


# A shell that runs the tests in the background ignores these, and every program that a test starts would inherit that.
for _number in (signal.SIGINT, signal.SIGHUP):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.default_int_handler if _number == signal.SIGINT else signal.SIG_DFL)


def pytest_xdist_auto_num_workers() -> int:
    """Return half as many again as there are processors: many tests wait for processes to start or end."""
    return max(1, len(os.sched_getaffinity(0)) * 3 // 2)


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """A copy of the example project: its pipeline.yaml and its pictures, nothing made yet."""
    shutil.copy(ROOT / "pipeline.yaml", tmp_path)
    shutil.copytree(ROOT / "data" / "input", tmp_path / "data" / "input")
    return tmp_path


@pytest.fixture
def pipeline_process(tmp_path: Path) -> Pipeline:
    """Runs `python -m pipeline ...` in the test's folder as a new process, where its start is the point."""
    return partial(run_cold, cwd=tmp_path)


@pytest.fixture
def pipeline(tmp_path: Path) -> Pipeline:
    """Runs `python -m pipeline ...` in the test's folder in a process of its own, which costs half of a new one.

    A folder's tests may call the program in their own process instead.
    """
    return partial(run_warm, cwd=tmp_path)
