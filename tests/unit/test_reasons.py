"""Reasons are counted without the particulars of one file, so that a million files make a handful of counts."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, ledger_of

from pipeline.text import planned_reason, reason_of


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("too small: 120x80", "too small"),
        ("truncated picture (14 bytes not processed)", "truncated picture"),
        ("only 2.5 of 10MB", "only ... of ..."),
        ("nothing like 'a.jpg' is known", "nothing like ... is known"),
        ("it isn't there, and that won't do", "it isn't there"),
        ("stage 'web' changed its input", "stage 'web' changed its input"),
        ("1,200 members failed", "members failed"),
        (": 17", ": ..."),
        ("", ""),
    ],
)
def test_what_was_said_of_one_file_is_left_out(text: str, reason: str) -> None:
    """Figures, quoted words, and what follows a colon or the like; a stage is named still."""
    assert reason_of(text) == reason


@pytest.mark.parametrize(
    ("action", "why", "reason"),
    [
        ("make", "source changed (size 10 -> 12)", "source changed"),
        ("make", "web: width 1600 -> 1200", "web: width 1600 -> 1200"),
        ("make", "1 member to be made", "members to be made"),
        ("make", "failed before (error, attempt 2 of 3)", "failed before (error, attempt 2 of 3)"),
        ("rename", "moved from out/a", "path changed"),
        ("refuse", "exists, not ours", "exists, not ours"),
        ("refuse", "collision with a.jpeg: both want out/a", "collision"),
        ("refuse", "output 'out/../a' would leave its folder", "output ... would leave its folder"),
        ("up-to-date", "edited by someone else: kept", "edited by someone else: kept"),
        ("up-to-date", "skipped: too small: 120x80", "skipped: too small"),
    ],
)
def test_what_a_plan_says_is_told_apart_by_what_many_share(action: str, why: str, reason: str) -> None:
    """What differs in the pipeline is said in full, what differs in a file is not."""
    assert planned_reason(action, why) == reason


def test_a_reason_of_its_own_for_every_file_makes_one_count(tmp_path: Path, pipeline: Pipeline) -> None:
    """Judged file by file, shown in full, and as spans; each file's own words are told where it is told of."""
    project = Project(tmp_path)
    say = "from pipeline import Skip\ndef upper(text: str) -> str:\n    raise Skip(f'too small: {len(text)} letters')\n"
    project.write("stages/upper.py", say)
    for size in range(1, 9):
        project.write(f"in/{size}", "x" * size)
    assert project.run().skipped == 8
    table = "        8         8  skipped: too small\n"
    assert table in pipeline("plan").stdout
    with ledger_of(tmp_path) as ledger:
        (counts,) = ledger._connection.execute("SELECT counts FROM spans").fetchall()
        assert counts == ('{"skipped: too small": [8, 8]}',)
        ledger.unchanged.delete()
    assert table in pipeline("plan").stdout
    shown = pipeline("plan", "-v").stdout
    assert table in shown and "skipped: too small: 3 letters" in shown
