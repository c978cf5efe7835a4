"""A machine that starts no more processes or threads ends a run with exit 3 and the limit, and no file is at fault."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from support.project import Project, ledger_of

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
pool: {processes: 3, context: CONTEXT}
"""
STAGES = {
    "thread": """
import threading, time
def upper(text: str) -> str:
    threads = [threading.Thread(target=time.sleep, args=(0.3,)) for _ in range(60)]
    for each in threads:
        each.start()
    return text
""",
    "program": """
import subprocess
def upper(text: str) -> str:
    for _ in range(60):
        subprocess.Popen(["sleep", "1"])
    return text
""",
    "fork": """
import os, time
def upper(text: str) -> str:
    for _ in range(60):
        if not os.fork():
            time.sleep(1)
            os._exit(0)
    return text
""",
    "import": """
import threading, time
for _ in range(60):
    threading.Thread(target=time.sleep, args=(0.3,), daemon=True).start()
def upper(text: str) -> str:
    return text
""",
}
# From the fourth file on nothing can start another worker.
SPENT = """
import os, resource
def upper(text: str) -> str:
    if text == "text 3":
        resource.prlimit(os.getppid(), resource.RLIMIT_NPROC, (1, 1))
    return text
"""

Limited = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(name="limited")
def run_as_a_user_with_a_limit(tmp_path: Path) -> Limited:
    """Runs `python -m pipeline ...` as a user who has no other process, and may have so many; root may have any."""
    capabilities = "-all,+dac_override,+dac_read_search"

    def run(most: int, *arguments: str) -> subprocess.CompletedProcess[str]:
        if os.geteuid() or not shutil.which("setpriv") or not shutil.which("prlimit"):
            pytest.skip("needs root, setpriv and prlimit")
        user = str(1_000_000 + time.time_ns() % 1_000_000_000)
        command = ["setpriv", "--reuid", user, "--regid", user, "--clear-groups"]
        command += ["--inh-caps", capabilities, "--ambient-caps", capabilities.removeprefix("-all,")]
        command += ["prlimit", f"--nproc={most}", sys.executable, "-m", "pipeline", *arguments]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100)

    return run


def project_of(folder: Path, context: str, stage: str = "") -> Project:
    """Return a project of ten files."""
    project = Project(folder, YAML.replace("CONTEXT", context))
    if stage:
        project.write("stages/upper.py", stage)
    for number in range(10):
        project.write(f"in/{number}", f"text {number}")
    return project


def is_stopped_by(most: int | None, ran: subprocess.CompletedProcess[str]) -> bool:
    """Return whether a run says so in plain words, with this limit or any."""
    limit = f"at most {most} of this user: ulimit -u" if most else "of this user: ulimit -u"
    plain = "Traceback" not in ran.stderr and "bug" not in ran.stderr
    return (
        ran.returncode == 3
        and "no more processes or threads can be started (" in ran.stderr
        and (limit in ran.stderr and plain)
    )


def has_failures(folder: Path) -> bool:
    """Return whether the ledger charges a file with anything."""
    with ledger_of(folder) as ledger:
        return bool(list(ledger.failures.all()))


FEW = [("fork", 1), ("fork", 3), ("fork", 6), ("fork", 8), ("forkserver", 5), ("forkserver", 7), ("spawn", 9)]
ALL = [(context, most) for context in ("fork", "forkserver", "spawn") for most in range(1, 16)]


@pytest.mark.parametrize(
    ("context", "most"), FEW + [pytest.param(*each, marks=pytest.mark.slow) for each in ALL if each not in FEW]
)
def test_a_run_that_can_start_too_few_ends_with_the_limit(
    tmp_path: Path, limited: Limited, context: str, most: int
) -> None:
    """Whatever it is that cannot be started: the reader of the pipeline, a thread, a forkserver, a worker."""
    project_of(tmp_path, context)
    ran = limited(most, "pipeline.yaml")
    assert is_stopped_by(most, ran) or (most > 9 and ran.returncode == 0), (ran.returncode, ran.stderr)
    assert not (tmp_path / ".pipeline/pipeline/ledger.sqlite").exists() or not has_failures(tmp_path)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_that_can_start_none_is_not_at_fault(tmp_path: Path, limited: Limited, stage: str) -> None:
    """Nor is the file that it had in hand; also where it starts threads when it is imported."""
    project_of(tmp_path, "fork", STAGES[stage])
    ran = limited(30, "pipeline.yaml")
    assert is_stopped_by(30, ran), (ran.returncode, ran.stderr)
    assert stage == "import" or not has_failures(tmp_path)


@pytest.mark.parametrize("context", ["fork", "forkserver"])
def test_a_worker_that_cannot_be_replaced_ends_the_run(tmp_path: Path, limited: Limited, context: str) -> None:
    """The files of the others are done or left for the next run, and none has failed."""
    project = project_of(tmp_path, context, SPENT)
    project.edit("pipeline.yaml", "processes: 3", "processes: 2, maxtasksperchild: 1")
    ran = limited(100, "pipeline.yaml")
    assert is_stopped_by(None, ran), (ran.returncode, ran.stderr)
    assert not has_failures(tmp_path)
    project.write("stages/upper.py", SPENT.replace("text 3", "none"))
    assert limited(100, "pipeline.yaml").returncode == 0 and len(project.outputs()) == 10


def test_other_verbs_say_so_too(tmp_path: Path, limited: Limited) -> None:
    """`verify` reads in threads; that Python has no error of the machine for them does not make it a bug of ours."""
    project_of(tmp_path, "fork")
    assert limited(100, "pipeline.yaml").returncode == 0
    assert is_stopped_by(1, limited(1, "verify"))
