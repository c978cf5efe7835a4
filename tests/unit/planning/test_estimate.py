"""How long a plan may take is said from what the last run took, where there was one."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, ledger_of

from pipeline.planning.estimate import Pace, estimate, last_pace


@pytest.mark.parametrize(
    ("files", "pace", "said"),
    [
        (12, Pace(24, 3.0), "about 1.5 s at the last run's pace (8.0 files/s)"),
        (18_000, Pace(1000, 10.0), "about 3 min at the last run's pace (100 files/s)"),
        (10_000, Pace(1, 1.0), "about 2.8 h at the last run's pace (1.0 files/s)"),
        (1_000_000, Pace(3, 1.0), "about 4 days at the last run's pace (3.0 files/s)"),
        (1, Pace(1_000_000, 1.0), "less than a second at the last run's pace (1,000,000 files/s)"),
    ],
)
def test_it_is_said_in_words(files: int, pace: Pace, said: str) -> None:
    """In a unit that suits it, with the pace it is taken from."""
    assert estimate(files, pace) == said


def test_it_is_of_the_last_run_with_work(tmp_path: Path, pipeline: Pipeline) -> None:
    """A night in which nothing was to be done tells nothing; nothing is said where nothing is known or to be done."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    assert "pace" not in pipeline("plan").stdout
    project.run()
    project.run()
    assert "pace" not in pipeline("plan").stdout
    with ledger_of(tmp_path) as ledger:
        pace = last_pace(ledger)
        assert pace and pace.files == 1 and pace.seconds < 60
    project.write("in/b", "y")
    assert re.search(
        r"^(about [\d.]+ s|less than a second) at the last run's pace \([\d,.]+ files/s\)$",
        pipeline("plan").stdout,
        re.M,
    )


def test_verbose_shows_the_route(tmp_path: Path, pipeline: Pipeline) -> None:
    """Once a stage: what it is handed, and into what that is converted."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    said = pipeline("plan", "-v").stdout.splitlines()
    assert "up: inputs (Path) -> str -> upper -> str -> out/{dir}/{name}" in said
    assert said[-1] == "make        up           a -> out/a: new"
    assert "up: inputs" not in pipeline("plan").stdout
