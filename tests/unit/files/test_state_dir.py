"""The state folder: who may run, and what is kept there."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from pipeline.errors import AlreadyRunning, EnvironmentFailure
from pipeline.files.state_dir import State, open_state

HOLD = "import sys, time; from pathlib import Path; from pipeline.files.state_dir import open_state;"
HOLD += "open_state(Path(sys.argv[1]), 'p'); print('held', flush=True); time.sleep(60)"


def opened(folder: Path) -> State:
    """A state folder that was opened by a run which has ended."""
    state = open_state(folder, "photos")
    state.close()
    return state


def test_a_second_run_is_refused_while_the_first_holds_the_lock(tmp_path: Path) -> None:
    """One run at a time; the second says who holds it and leaves everything as it is."""
    first = open_state(tmp_path / "s", "photos")
    first.prepare()
    (first.scratch / "in use").touch()
    with pytest.raises(AlreadyRunning, match=f"another run of 'photos' is running .pid {os.getpid()} on"):
        open_state(tmp_path / "s", "photos")
    assert (first.scratch / "in use").exists()
    first.close()
    opened(tmp_path / "s")


def test_a_killed_runs_lock_is_free_at_once(tmp_path: Path) -> None:
    """The lock is the kernel's: nobody has to remove anything after kill -9; what the run left goes too."""
    holder = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / "s")], stdout=subprocess.PIPE)
    assert holder.stdout and holder.stdout.readline() == b"held\n"
    (tmp_path / "s" / "scratch").mkdir()
    (tmp_path / "s" / "scratch" / "left").touch()
    with pytest.raises(AlreadyRunning, match=f"pid {holder.pid}"):
        open_state(tmp_path / "s", "photos")
    holder.send_signal(signal.SIGKILL)
    holder.wait()
    holder.stdout.close()
    state = open_state(tmp_path / "s", "photos")
    state.prepare()
    assert os.listdir(state.scratch) == []
    state.close()


def test_the_identity_stays_and_moves_with_the_folder(tmp_path: Path) -> None:
    """A run's id is new each time; the state's is made once, and anew only where it is lost or empty."""
    first, second = opened(tmp_path / "s"), opened(tmp_path / "s")
    assert first.id == second.id and first.run != second.run
    (tmp_path / "s").rename(tmp_path / "t")
    assert opened(tmp_path / "t").id == first.id
    (tmp_path / "t" / "id").write_text("")
    assert len(opened(tmp_path / "t").id) == 16


def test_runs_sort_by_time_and_old_logs_go(tmp_path: Path) -> None:
    """The logs of the last 30 runs are kept, this one's among them."""
    opened(tmp_path / "s")
    for day in range(10, 50):
        (tmp_path / "s" / "runs" / f"202401{day}-000000-aaaa.log").touch()
    state = opened(tmp_path / "s")
    state.prepare()
    left = sorted(os.listdir(tmp_path / "s" / "runs"))
    assert len(left) == 29 and left[-1] == "20240149-000000-aaaa.log" < f"{state.run}.log"


def test_a_state_folder_that_cannot_be_made_is_the_machines_fault(tmp_path: Path) -> None:
    """Exit 3 and one sentence, no traceback."""
    (tmp_path / "file").touch()
    with pytest.raises(EnvironmentFailure, match=r"cannot be used: .*: not a directory"):
        open_state(tmp_path / "file" / "s", "photos")


def test_where_there_are_no_locks_it_is_said_with_a_way_out(tmp_path: Path) -> None:
    """Exit 3 before anything is made: which file system, why that matters, and where the state could be instead."""
    if not shutil.which("strace"):
        pytest.skip("strace, which makes the kernel refuse locks, is not installed")
    command = ["strace", "-o", "/dev/null", "-e", "inject=flock:error=ENOLCK", sys.executable, "-c", HOLD]
    ran = subprocess.run([*command, str(tmp_path / "s")], capture_output=True, text=True)
    said = ran.stderr.splitlines()[-2:]
    assert f"the state folder {tmp_path / 's'} lies on " in said[0] and "gives no locks ([Errno 37]" in said[0]
    assert "hint: keep it on a local disk" in said[1]
