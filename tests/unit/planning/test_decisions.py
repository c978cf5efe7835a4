"""Reasons are counted without the particulars of one file, so that a million files make a handful of counts."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from support.program import Pipeline
from support.project import Project, ledger_of

from pipeline.planning.decisions import Code, Reason, text_of, without_particulars
from pipeline.text import in_general


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("too small: 120x80", "too small"),
        ("truncated picture (14 bytes not processed)", "truncated picture"),
        ("only 2.5 of 10MB", "only ... of ..."),
        ("nothing like 'a.jpg' is known", "nothing like ... is known"),
        ("it isn't there, and that won't do", "it isn't there"),
        ("stage 'web' changed its input", "stage 'web' changed its input"),
        (": 17", ": ..."),
        ("", ""),
    ],
)
def test_what_was_said_of_one_file_is_left_out(text: str, reason: str) -> None:
    """Figures, quoted words, and what follows a colon or the like; a stage is named still."""
    assert in_general(text) == reason


@pytest.mark.parametrize(
    ("reason", "text", "in_general"),
    [
        (Reason("up_to_date"), "up to date", "up to date"),
        (Reason("new"), "new", "new"),
        (Reason("source_changed", ("size", 10, 12)), "source changed (size 10 -> 12)", "source changed"),
        (Reason("source_changed", ("time",)), "source changed (its time)", "source changed"),
        (Reason("source_changed", ("contents",)), "source changed (its contents)", "source changed"),
        (Reason("source_changed", ("unreadable", "gone")), "source changed (cannot be read: gone)", "source changed"),
        (Reason("output_torn", (10, 0)), "output torn (size 10 -> 0)", "output torn"),
        (Reason("part_torn", ("a", 10, 0)), "part a: output torn (size 10 -> 0)", "part a: output torn (size 10 -> 0)"),
        (Reason("part_missing", ("a",)), "part a: output missing", "part a: output missing"),
        (
            Reason("recipe_changed", ("web", "options", "web: width 1600 -> 1200")),
            "web: width 1600 -> 1200",
            "web: width 1600 -> 1200",
        ),
        (Reason("members_to_be_made", (1,)), "1 member to be made", "members to be made"),
        (Reason("members_failed", (1200,)), "1,200 members failed", "members failed"),
        (
            Reason("failed_before", ("error", 2, 3)),
            "failed before (error, attempt 2 of 3)",
            "failed before (error, attempt 2 of 3)",
        ),
        (Reason("failed_before", ("error", 0, 3)), "failed before (error)", "failed before (error)"),
        (
            Reason("failed_before", ("error", 4, 3)),
            "failed before (error, attempt 4)",
            "failed before (error, attempt 4)",
        ),
        (Reason("held", (1,)), "held after 1 failed attempt", "held after 1 failed attempt"),
        (Reason("dismissed", ("error",)), "dismissed (error)", "dismissed (error)"),
        (Reason("path_changed", ("out/a",)), "moved from out/a", "path changed"),
        (Reason("not_ours"), "exists, not ours", "exists, not ours"),
        (Reason("collision", ("a.jpeg", "out/a")), "collision with a.jpeg: both want out/a", "collision"),
        (Reason("collision", ("", "out/\udcff")), "collision with another stage's: both want out/\\xff", "collision"),
        (
            Reason("bad_path", ("output 'out/../a' would leave its folder",)),
            "output 'out/../a' would leave its folder",
            "output ... would leave its folder",
        ),
        (Reason("edited"), "edited by someone else: kept", "edited by someone else: kept"),
        (Reason("skipped", ("too small: 120x80",)), "skipped: too small: 120x80", "skipped: too small"),
    ],
)
def test_what_a_plan_says_is_told_apart_by_what_many_share(reason: Reason, text: str, in_general: str) -> None:
    """What differs in the pipeline is said in full, what differs in a file is not."""
    assert (text_of(reason), text_of(without_particulars(reason))) == (text, in_general)


def test_every_code_has_a_text() -> None:
    """A new code cannot be forgotten where reasons are shown."""
    codes = {code for group in get_args(Code) for code in get_args(group)}
    assert codes and all(text_of(Reason(code)) for code in codes)


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
        ledger.unchanged.delete(b"", None)
    assert table in pipeline("plan").stdout
    shown = pipeline("plan", "-v").stdout
    assert table in shown and "skipped: too small: 3 letters" in shown
