"""No name and no message of a stage acts on the terminal of whoever reads a log or the summary."""

from __future__ import annotations

import re
from pathlib import Path

from tests.support.program import Pipeline
from tests.support.project import Project

_LOUD = r"""
import pipeline
from pipeline.notes import note
def upper(text: str) -> str:
    print("\x1b[31mprinted\x07\rover\nstopped: forged")
    if text == "bad":
        raise ValueError("\x1b[31mred\nstopped: forged")
    if text == "skip":
        raise pipeline.Skip("\x1b[31mskip\nstopped: forged")
    note("noted \x1b[31m\nstopped: forged", "x\x1b")
    return text
def failing() -> None:
    raise ValueError("\x1b[31mred\nstopped: forged")
"""
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def test_nothing_that_is_shown_acts_on_a_terminal(tmp_path: Path, pipeline: Pipeline) -> None:
    """Summary, `-v`, log, `status`, `failures`, `plan` and `explain` spell out what is in names, errors and output."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 1}")
    project.write("stages/upper.py", _LOUD)
    for name, text in (("a\x1b[31m\nb", "bad"), ("s\x1b", "skip"), ("ok\x1b", "ok")):
        project.write(f"in/{name}", text)
    shown = [
        pipeline("run", "-v"),
        pipeline("status"),
        pipeline("failures"),
        pipeline("plan", "-v"),
        pipeline("verify"),
    ]
    shown.append(pipeline("explain", "in/a\x1b[31m\nb"))
    project.edit("pipeline.yaml", "processes: 1", "processes: 1, initializer: 'stages.upper:failing'")
    shown += [pipeline("run", "--force"), pipeline("status"), pipeline("check", "--set", "\x1b[31m=1")]
    texts = [text for each in shown for text in (each.stdout, each.stderr)]
    logs = [log.read_text() for log in (tmp_path / ".pipeline/pipeline/runs").iterdir()]
    for text in (*texts, *logs):
        assert not _CONTROL.search(text), text
    assert r"\x1b[31mprinted\x07" in logs[0] + logs[1] and r"noted \x1b[31m" in texts[1]
    assert not any(line.startswith("stopped: forged") for text in texts for line in text.splitlines())
    assert [line for log in logs for line in log.splitlines() if line.startswith("stopped: forged")] == []
