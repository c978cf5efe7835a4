"""pipeline/report/live.py: the small file by which another terminal knows how far a run has come."""

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
from pipeline.report.live import LiveProgress, describe_hang, describe_work, progress_file, read_progress, standing_of
from pipeline.report.summary import Summary

OUTCOME = Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done"),))


@pytest.fixture
def summary() -> Summary:
    return Summary(run="r1", pipeline="photos")


@pytest.fixture
def live(tmp_path: Path, summary: Summary) -> LiveProgress:
    live = LiveProgress(State(tmp_path, "id", "r1", -1), summary, "photos.yaml")
    live.on_start()
    return live


IN_HAND = InHand(Job(Source(b"a.jpg", 1, 1), ()), "web", 660.0, 77)


def rewrite(folder: Path, **fields: object) -> None:
    """Change fields of the file, as another machine or process would have written them."""
    file = progress_file(folder)
    file.write_text(json.dumps(json.loads(file.read_bytes()) | fields))


def test_a_run_is_told_from_its_start_to_its_end(tmp_path: Path, live: LiveProgress, summary: Summary) -> None:
    """Planning, then so many files of how many, then the summary; one that goes on in another pool is not through."""
    standing, fields = read_progress(tmp_path)
    assert (standing, fields["stage"], fields["pid"], fields["yaml"]) == (
        "running",
        "planning",
        os.getpid(),
        "photos.yaml",
    )
    live.on_planned(2)
    live.on_outcome(OUTCOME._replace(goes_on=True))
    live.on_outcome(OUTCOME)
    summary.done = 1
    live.on_in_hand([])
    live.beat()
    fields = read_progress(tmp_path)[1]
    assert (fields["stage"], fields["planned"], fields["through"], fields["done"]) == ("running", 2, 1, 1)
    assert "left_s" not in fields
    live.on_left(12.34)
    live.on_in_hand([])
    live.beat()
    assert read_progress(tmp_path)[1]["left_s"] == 12.3
    live.beat()
    assert read_progress(tmp_path)[1]["stage"] == "ending"  # nothing runs jobs any more
    summary.exit, summary.stopped = 4, "too many failed"
    live.on_end()
    standing, fields = read_progress(tmp_path)
    assert "left_s" not in fields
    assert (standing, fields["exit"], fields["stopped"]) == ("ended", 4, "too many failed")
    assert fields["said"].startswith("photos: 1 done")
    live.beat()  # by a thread that has not heard of the end
    assert read_progress(tmp_path)[0] == "ended"


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"{}", b"\xff"])
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
    assert describe_work(read_progress(tmp_path)[1]).startswith("1,200 of 5,000 files, 3 in hand, 4.0 min left, until ")


@pytest.mark.parametrize(
    ("code", "is_success"), [(0, True), (5, True), (6, True), (1, False), (3, False), (143, False)]
)
def test_the_last_success_is_remembered(tmp_path: Path, summary: Summary, code: int, is_success: bool) -> None:
    """Through runs that were none, through those that were killed, and while one is on."""
    state = State(tmp_path, "id", "r1", -1)
    summary.exit = code
    LiveProgress(state, summary, "photos.yaml").on_end()
    at = read_progress(tmp_path)[1].get("last_success")
    assert (at is not None) == is_success
    for _ in range(2):  # of which the first is cut off
        LiveProgress(state, Summary(run="r2"), "photos.yaml").on_start()
        assert read_progress(tmp_path)[1].get("last_success") == at
    last = read_progress(tmp_path)[1]["last"]
    assert last["standing"] == "killed" and "last" not in last


def test_what_the_version_before_wrote_is_read(tmp_path: Path, live: LiveProgress, summary: Summary) -> None:
    """It knew of no successes but by the exit code."""
    live.on_end()
    fields = json.loads(progress_file(tmp_path).read_bytes())
    kept = {key: fields[key] for key in ("run", "pid", "process", "host", "started", "stage", "at", "exit", "said")}
    progress_file(tmp_path).write_text(json.dumps(kept))
    assert read_progress(tmp_path)[0] == "ended"
    LiveProgress(State(tmp_path, "id", "r2", -1), summary, "photos.yaml").on_start()
    assert read_progress(tmp_path)[1]["last_success"] == fields["at"]


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path, summary: Summary) -> None:
    """Progress is worth nothing that a full disk should stop a run over."""
    LiveProgress(State(tmp_path / "gone", "id", "r1", -1), summary, "photos.yaml").on_start()
