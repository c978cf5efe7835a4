"""pipeline/operations/hand_watch.py: a run shows once a second that it is not dead, and what it holds."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
from support.program import wait_until
from support.project import Project

from pipeline.config.load import load_config
from pipeline.observer import RunObserver
from pipeline.operations import hand_watch
from pipeline.operations.hand_watch import HandWatch, moves_within_s
from pipeline.operations.recorder import RunLog
from pipeline.report.summary import Summary


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hand_watch, "_EVERY_S", 0.01)


def test_it_looks_also_while_nothing_runs_jobs(often: None) -> None:
    """A plan may take an hour, and whoever waits for it must see that it is made."""
    looks: list[int] = []
    with HandWatch(RunObserver(), RunLog(io.StringIO(), Summary()), lambda: looks.append(1)):
        wait_until(lambda: len(looks) > 3)
    seen = len(looks)
    assert seen == len(looks)  # its thread has ended


def test_what_fails_in_telling_is_said_once(often: None) -> None:
    """And the run goes on."""
    summary, turns = Summary(), list[int]()

    def fail() -> None:
        raise KeyError("no such field")

    hands = HandWatch(RunObserver(), RunLog(io.StringIO(), summary), fail)
    with hands:
        wait_until(lambda: summary.notes)
        hands._end_late = lambda: turns.append(1)
        wait_until(lambda: len(turns) > 3)
    assert summary.notes == ["what the run is at is not told any more: KeyError('no such field')"]


@pytest.mark.parametrize(
    ("words", "within_s"),
    [
        ("", None),
        ("timeout: 10s", 90),
        ("timeout: 10s\nretry: {max: 2, backoff: 5s}", 125),
        ("STAGE", 120),
        ("STAGE\ntimeout: 1m", 240),
    ],
)
def test_within_which_time_a_file_ends(tmp_path: Path, words: str, within_s: float | None) -> None:
    """By the timeouts, for each try and the pauses between; no limit without one."""
    project = Project(tmp_path)
    if "STAGE" in words:
        project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    timeout: 20s")
    project.edit("pipeline.yaml", "engine: serial", words.replace("STAGE", ""))
    assert moves_within_s(load_config(tmp_path / "pipeline.yaml")) == within_s
