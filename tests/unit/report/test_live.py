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
from pipeline.messages import Outcome, Result, Source
from pipeline.report.live import LiveProgress, progress_file, read_progress
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
    fields = read_progress(tmp_path)[1]
    assert (fields["stage"], fields["planned"], fields["through"], fields["done"]) == ("running", 2, 1, 1)
    assert "left_s" not in fields
    live.on_left(12.34)
    live.on_in_hand([])
    assert read_progress(tmp_path)[1]["left_s"] == 12.3
    summary.exit, summary.stopped = 4, "too many failed"
    live.on_end()
    standing, fields = read_progress(tmp_path)
    assert "left_s" not in fields
    assert (standing, fields["exit"], fields["stopped"]) == ("ended", 4, "too many failed")
    assert fields["said"].startswith("photos: 1 done")


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


def test_a_folder_that_cannot_be_written_ends_no_run(tmp_path: Path, summary: Summary) -> None:
    """Progress is worth nothing that a full disk should stop a run over."""
    LiveProgress(State(tmp_path / "gone", "id", "r1", -1), summary, "photos.yaml").on_start()
