"""pipeline/report/standing.py: what is told of a run by its progress file and its process."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pipeline.files.state_dir import State
from pipeline.messages import InHand, Job, Outcome, Result, Source
from pipeline.report.live import LiveProgress
from pipeline.report.standing import describe_hang, describe_work, progress_file, read_progress, standing_of
from pipeline.report.summary import Summary

OUTCOME = Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done"),))
IN_HAND = InHand(Job(Source(b"a.jpg", 1, 1), ()), "web", 660.0, 77)


def rewrite(folder: Path, **fields: object) -> None:
    """Change fields of the file, as another machine or process would have written them."""
    file = progress_file(folder)
    file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"{}", b"\xff", b"[" * 100_000, b'{"a":' * 9_999])
def test_a_damaged_file_says_nothing(tmp_path: Path, live: LiveProgress, damage: bytes) -> None:
    """It is no error of the person's who asks."""
    progress_file(tmp_path).write_bytes(damage)
    assert read_progress(tmp_path) == ("never", {})


def test_a_dead_process_is_told_from_one_at_work(tmp_path: Path, live: LiveProgress) -> None:
    """A killed run is known by its process, also where its number was given to another since."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    rewrite(tmp_path, pid=process.pid)
    assert read_progress(tmp_path)[0] == "killed"
    rewrite(tmp_path, pid=os.getpid(), process="1")
    assert read_progress(tmp_path)[0] == "killed"


@pytest.mark.parametrize(("age_s", "standing"), [(1, "running"), (1000, "killed")])
def test_a_run_on_another_machine_is_known_by_its_updates(
    tmp_path: Path, live: LiveProgress, age_s: float, standing: str
) -> None:
    """Its processes cannot be seen from here."""
    rewrite(tmp_path, host="another", at=time.time() - age_s)
    assert read_progress(tmp_path)[0] == standing


def silence(folder: Path, seconds: float) -> None:
    """Make the file one that was written so long ago."""
    rewrite(folder, at=time.time() - seconds, at_up_s=time.monotonic() - seconds)
    os.utime(progress_file(folder), (0, time.time() - seconds))


def test_a_run_that_does_not_write_any_more_hangs(tmp_path: Path, live: LiveProgress) -> None:
    """Its process is there, and would write each second if it could."""
    silence(tmp_path, 60)
    assert read_progress(tmp_path)[0] == "running"  # a disk that keeps it waiting
    silence(tmp_path, 1000)
    standing, fields = read_progress(tmp_path)
    since = time.strftime("%H:%M", time.localtime(fields["at"]))
    assert standing == "hung" and f"has not moved since {since}; `kill {os.getpid()}`" in describe_hang(fields)


def test_a_file_that_outlasts_all_timeouts_is_a_hang(tmp_path: Path, summary: Summary) -> None:
    """By when a job ended last; without a timeout, and while nothing is in hand, a run may take any time."""
    live = LiveProgress(State(tmp_path, "id", "r1", -1), summary, "photos.yaml", moves_within_s=100)
    live.on_start()
    live.on_in_hand([IN_HAND])
    live.beat()
    assert read_progress(tmp_path)[0] == "running"
    rewrite(tmp_path, moved_up_s=time.monotonic() - 101)
    standing, fields = read_progress(tmp_path)
    assert standing == "hung" and "; files in hand: a.jpg (stage 'web', 11 min); `kill" in describe_hang(fields)
    live.on_in_hand([])
    live.beat()
    rewrite(tmp_path, moved_up_s=time.monotonic() - 101)
    assert read_progress(tmp_path)[0] == "running"


def test_a_clock_that_jumps_makes_no_hang(tmp_path: Path, live: LiveProgress) -> None:
    """What is compared is the time since the machine started."""
    live.on_in_hand([IN_HAND])
    live.beat()
    rewrite(tmp_path, at=time.time() - 1e6, moved=time.time() - 1e6, moves_within_s=100)
    assert read_progress(tmp_path)[0] == "running"


def test_a_full_disk_makes_no_hang(tmp_path: Path, live: LiveProgress) -> None:
    """What cannot be written is told by the time of the file alone."""
    silence(tmp_path, 1000)
    progress_file(tmp_path).with_suffix(".new").mkdir()  # in whose place no file can be written
    live.beat()
    assert read_progress(tmp_path)[0] == "running"


def test_a_run_of_an_earlier_start_of_the_machine_was_killed(tmp_path: Path, live: LiveProgress) -> None:
    """Whatever process has its number now."""
    rewrite(tmp_path, boot="another")
    assert read_progress(tmp_path)[0] == "killed"


def test_a_silent_run_on_another_machine_that_holds_the_lock_hangs(tmp_path: Path, live: LiveProgress) -> None:
    """Only who is locked out knows that it cannot be dead."""
    rewrite(tmp_path, host="another", at=time.time() - 1000)
    standing, fields = read_progress(tmp_path)
    assert (standing, standing_of(fields, holds_lock=True)) == ("killed", "hung")
    assert f"`kill {os.getpid()}` on another" in describe_hang(fields)


def test_what_a_live_run_is_at(tmp_path: Path, live: LiveProgress) -> None:
    """Its phase, or how many of how many files."""
    assert describe_work(read_progress(tmp_path)[1]) == "planning"
    live.on_planned(5000)
    live.on_outcomes([OUTCOME] * 1200)
    live.on_left(240)
    live.on_in_hand([IN_HAND] * 3)
    live.beat()
    assert describe_work(read_progress(tmp_path)[1]).startswith("1,200 of 5,000 files, 4.0 min left, until ")
