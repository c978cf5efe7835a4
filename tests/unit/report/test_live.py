"""pipeline/report/live.py: the small file by which another terminal knows how far a run has come."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.files.state_dir import State
from pipeline.messages import Outcome, Result, Source
from pipeline.report.live import LiveProgress
from pipeline.report.standing import progress_file, read_progress
from pipeline.report.summary import Summary

OUTCOME = Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done"),))


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
