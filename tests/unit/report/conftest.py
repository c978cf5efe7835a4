"""The progress file of a run that has just begun."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.files.state_dir import State
from pipeline.report.live import LiveProgress
from pipeline.report.summary import Summary


@pytest.fixture
def summary() -> Summary:
    return Summary(run="r1", pipeline="photos")


@pytest.fixture
def live(tmp_path: Path, summary: Summary) -> LiveProgress:
    live = LiveProgress(State(tmp_path, "id", "r1", -1), summary, "photos.yaml")
    live.on_start()
    return live
