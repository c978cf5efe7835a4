"""What a run does where another is running: it fails and says what that is at, is passed over, or waits."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.program import ROOT, Pipeline, on_terminal, wait_until
from support.project import Project

from pipeline.report.standing import read_progress

HELD = """
import time
from pathlib import Path
GO = Path(__file__).parent.parent / "go"
def upper(text: str, *, mark: str = "") -> str:
    while text == "wait" and not GO.exists():
        time.sleep(0.01)
    return text.upper() + mark
"""
STATE = ".pipeline/pipeline"
# Holds the lock of the state as a run does that nothing moves in any more.
HUNG = """
import sys, time
from pathlib import Path
from pipeline.files.state_dir import open_state
from pipeline.messages import InHand, Job, Source
from pipeline.report.live import LiveProgress
from pipeline.report.summary import Summary
state = open_state(Path(sys.argv[1]), "pipeline")
live = LiveProgress(state, Summary(run=state.run, pipeline="pipeline"), "pipeline.yaml", moves_within_s=0.1)
live.on_start()
live.on_in_hand([InHand(Job(Source(b"a\\x1b.jpg", 1, 1), ()), "up", 660.0, 77)] * 5)
live.beat()
print("held", flush=True)
time.sleep(600)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("stages/upper.py", HELD)
    project.write("in/a", "x")
    project.write("in/b", "wait")
    return project


@pytest.fixture
def first(project: Project) -> Iterator[subprocess.Popen[bytes]]:
    """A run with one of two files in hand, until there is a file `go`."""
    with subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=project.folder) as run:
        wait_until(lambda: has_one_in_hand(read_progress(project.folder / STATE)[1]))
        yield run
        run.kill()


def has_one_in_hand(fields: dict[str, Any]) -> bool:
    """One file is through, and the other begun."""
    return fields.get("through") == 1 and len(fields["in_hand"]) == 1


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Start another run."""
    command = [sys.executable, "-m", "pipeline", *arguments]
    return subprocess.Popen(command, cwd=project.folder, stderr=subprocess.PIPE, text=True)


def is_asleep(process: subprocess.Popen[str]) -> bool:
    """Whether a run waits for its turn: it catches SIGTERM then, which it ignores by no means, and sleeps."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    caught = int(re.search(r"SigCgt:\s*(\w+)", status)[1], 16)  # type: ignore[index]
    return bool(caught >> (signal.SIGTERM - 1) & 1)


@pytest.mark.processes
def test_who_is_locked_out_is_told_what_the_other_is_at(
    project: Project, first: subprocess.Popen[bytes], pipeline: Pipeline
) -> None:
    """Process, host, since when, and how far it has come."""
    waits = ("--if-locked=wait:200ms",), ("--if-locked=wait", "--max-time=200ms")
    at = rf"another run of 'pipeline' is running \(pid {first.pid} on .* since [-0-9]+ [:0-9]+\)"
    for arguments in ((), ("--if-locked", "fail"), *waits):
        out = pipeline(*arguments)
        assert out.returncode == 75 and re.match(f"{at}: 1 of 2 files, .*1 in hand", out.stderr), out.stderr
    for verb in ("prune", "adopt"):
        out = pipeline(verb)
        assert out.returncode == 75 and "1 of 2 files" in out.stderr


@pytest.mark.processes
def test_skip_is_silent_and_ends_with_0(project: Project, first: subprocess.Popen[bytes], pipeline: Pipeline) -> None:
    """But for a person, who is told why nothing is done."""
    out = pipeline("--if-locked", "skip")
    assert (out.returncode, out.stdout, out.stderr) == (0, "", "")
    code, screen = on_terminal("python -m pipeline --if-locked skip", project.folder)
    assert code == 0 and screen.startswith("another run of 'pipeline'") and screen.endswith("; so nothing is done")
    project.write("go", "")
    assert first.wait(60) == 0
    assert pipeline("--if-locked", "skip").returncode == 0 and (project.folder / "out/b").exists()


@pytest.mark.processes
@pytest.mark.parametrize("wait", ["wait", "wait:10m"])
def test_who_waits_runs_the_pipeline_as_it_is_then(
    project: Project, first: subprocess.Popen[bytes], wait: str
) -> None:  # fmt: skip
    """What was read before the wait counts for nothing."""
    waiting = start(project, "--if-locked", wait)
    wait_until(lambda: is_asleep(waiting))
    project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    with: {mark: '!'}")
    project.write("in/c", "new")
    project.write("go", "")
    assert first.wait(60) == 0
    assert waiting.communicate(timeout=60)[1] == "" and waiting.returncode == 0
    assert project.outputs() == {"a": b"X!", "b": b"WAIT!", "c": b"NEW!"}


@pytest.mark.processes
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_the_wait(project: Project, first: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """At once, with 128+N."""
    waiting = start(project, "--if-locked", "wait")
    wait_until(lambda: is_asleep(waiting))
    waiting.send_signal(number)
    assert waiting.communicate(timeout=60)[1] == "" and waiting.returncode == 128 + number
    assert first.poll() is None


@pytest.mark.processes
def test_a_lock_file_that_was_replaced_is_seen(project: Project, first: subprocess.Popen[bytes]) -> None:
    """Whoever waits opens it anew; and while he waits, he takes next to none of the machine's time."""
    waiting = start(project, "--if-locked", "wait")
    wait_until(lambda: is_asleep(waiting))
    first.kill()
    (project.folder / STATE / "lock").unlink()
    project.write("go", "")
    assert waiting.communicate(timeout=60)[1] == "" and waiting.returncode == 0
    assert project.outputs() == {"a": b"X", "b": b"WAIT"}


@pytest.mark.processes
def test_a_run_that_hangs_turns_75_into_3(project: Project, pipeline: Pipeline) -> None:
    """The files in hand are named, and what to do; who would pass it over or wait is told as well."""
    project.run(only="a")
    command = [sys.executable, "-c", HUNG, str(project.folder / STATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as hung:
        assert hung.stdout and hung.stdout.readline() == b"held\n"
        wait_until(lambda: read_progress(project.folder / STATE)[0] == "hung")
        for arguments in ((), ("--if-locked", "skip"), ("--if-locked", "wait")):
            out = pipeline(*arguments)
            assert out.returncode == 3 and out.stderr.count("\n") == 1
            said = (
                r"the run of \d\d:\d\d has not moved since \d\d:\d\d; files in hand: a\\x1b.jpg \(stage 'up', 11 min\)"
            )
            assert re.match(
                rf"{said}, .* and 2 others; `kill {hung.pid}`, or `kill -9 {hung.pid}` if it stays", out.stderr
            )
        said = pipeline("status")
        assert said.returncode == 0 and said.stdout.startswith("pipeline: the run of ")
        checked = pipeline("status", "--check")
        assert checked.returncode == 1 and "has not moved since" in checked.stdout and checked.stdout.count("\n") == 1
        hung.kill()
    project.write("go", "")
    assert pipeline().returncode == 0


@pytest.mark.processes
def test_the_progress_of_the_run_before_is_not_taken_for_the_holders(project: Project, pipeline: Pipeline) -> None:
    """A verb that holds the lock writes none."""
    project.write("go", "")
    assert pipeline().returncode == 0
    hold = "import sys, time; from pathlib import Path; from pipeline.files.state_dir import open_state;"
    hold += "open_state(Path(sys.argv[1]), 'pipeline'); print('held', flush=True); time.sleep(600)"
    command = [sys.executable, "-c", hold, str(project.folder / STATE)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": str(ROOT)}) as holder:
        assert holder.stdout and holder.stdout.readline() == b"held\n"
        out = pipeline()
        assert out.returncode == 75
        assert re.fullmatch(rf"another run of 'pipeline' is running \(pid {holder.pid} on .* since .*\)\n", out.stderr)
        holder.kill()


@pytest.mark.parametrize("value", ["", "no", "wait:", "wait:10", "wait:-1s", "skip:1s", "wait:1e9s", "FAIL"])
def test_a_bad_value_is_refused(project: Project, pipeline: Pipeline, value: str) -> None:
    """Also where there is nothing to do, and nobody at work."""
    project.write("go", "")
    assert pipeline().returncode == 0
    out = pipeline(f"--if-locked={value}")
    assert (out.returncode, out.stdout) == (2, "") and "--if-locked" in out.stderr
    assert pipeline("--max-time", value).returncode == 2
    assert pipeline("--sample", "1", "--output-root", "s", "--max-time", "5s").returncode == 2


def test_a_night_without_news_is_answered_from_the_note(project: Project, pipeline: Pipeline) -> None:
    """Whatever limits it has: no log is written by such a run."""
    project.write("go", "")
    assert pipeline().returncode == 0
    logs = set((project.folder / STATE / "runs").iterdir())
    for arguments in (("--if-locked", "skip", "--max-time=1s"), ("--if-locked=wait:1s", "pipeline.yaml", "-q")):
        assert pipeline(*arguments).returncode == 0
    assert set((project.folder / STATE / "runs").iterdir()) == logs
