"""What the tests share: a project to run in, and the program run as a user runs it."""

from __future__ import annotations

import compileall
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.pool_engines import make, method
from support.program import ROOT, Pipeline

__all__ = ["make", "method"]  # fixtures of the pool's tests


# A stage that a test edits twice within a second must not come from a cache; and no process of the hundreds that the
# tests start shall have to compile the program itself.
os.environ["PYTHONDONTWRITEBYTECODE"] = "1"
for package in ("pipeline", "stages"):
    compileall.compile_dir(ROOT / package, quiet=1)


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


@pytest.fixture(name="pipeline_process")
def run_in_process_of_its_own(tmp_path: Path) -> Pipeline:
    """Runs `python -m pipeline ...` in the test's folder, without a terminal."""

    def run(*arguments: str | bytes, cwd: Path = tmp_path, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pipeline", *arguments],
            cwd=cwd,
            env=os.environ | environment,
            capture_output=True,
            text=True,
            errors="surrogateescape",
            timeout=100,
        )

    return run


@pytest.fixture
def pipeline(pipeline_process: Pipeline) -> Pipeline:
    """Runs `python -m pipeline ...`, also where a folder's tests call it in their own process."""
    return pipeline_process
