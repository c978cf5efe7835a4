"""Branches of the tree that are not for every file: `match`, and stages that leave no file."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project

from pipeline.config.load import load_config
from pipeline.errors import ConfigError

MIXED = """
inputs: in
stages:
  - {name: up, match: ['*.txt'], uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: low, match: ['*.csv', 'd/*.TXT'], uses: lower, output: 'out/low/{dir}/{name}'}
engine: serial
"""
SENT = """
import os
from pathlib import Path
SENT = Path(__file__).parent.parent / "sent"
def send(text: str, *, to: str = "here") -> bool:
    if text.startswith("bad"):
        raise ValueError("cannot be sent")
    with SENT.open("a") as file:
        file.write(f"{text} {to}\\n")
    return not text.startswith("no")
"""
SEND = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
  - {name: send, from: up, uses: send, output: none}
engine: serial
"""


@pytest.fixture
def mixed(tmp_path: Path) -> Project:
    """A folder of texts, tables and something else, and a stage for each of the first two."""
    project = Project(tmp_path, MIXED)
    project.write("stages/lower.py", "def lower(text: str) -> str:\n    return text.lower()\n")
    for name in ("a.txt", "b.CSV", "c.bin", "d/e.txt"):
        project.write(f"in/{name}", "Text")
    return project


def test_each_file_goes_where_it_matches(mixed: Project) -> None:
    """Patterns as in .gitignore, case ignored; a file may match several stages, and one that matches none is counted
    apart.
    """
    summary = mixed.run()
    assert mixed.outputs() == {"up/a.txt": b"TEXT", "low/b.CSV": b"text", "up/d/e.txt": b"TEXT", "low/d/e.txt": b"text"}
    assert (summary.done, summary.unmatched, summary.skipped, summary.sources) == (4, 1, 0, 4)
    assert "1 unmatched" in summary.lines()[0] and summary.as_json()["unmatched"] == 1
    again = mixed.run()
    assert (again.done, again.up_to_date, again.unmatched) == (0, 4, 1)


def test_another_pattern_makes_orphans_of_what_matched(mixed: Project) -> None:
    """What a stage does not read any more is not made, and what was made of it is an orphan; the rest is as it was."""
    mixed.run()
    mixed.edit("pipeline.yaml", "['*.txt']", "['/*.txt']")
    summary = mixed.run()
    assert (summary.done, summary.up_to_date) == (0, 3)
    assert mixed.orphans() == ["out/up/d/e.txt"]


def test_branches_that_match_apart_may_write_to_one_place(mixed: Project) -> None:
    """Two stages with one template are refused for the files that both read, and only for those."""
    mixed.edit("pipeline.yaml", "out/low/", "out/up/")
    plan = mixed.plan()
    assert plan["up a.txt"] == ("make", "new") and plan["low b.CSV"] == ("make", "new")
    assert plan["up d/e.txt"][0] == plan["low d/e.txt"][0] == "refuse"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        (
            "name: low,",
            "name: low, from: up,",
            "'match' is for a stage that reads the inputs; this one reads from 'up'",
        ),
        ("['*.txt']", "['!']", "stage 'up': match: '!' is no gitignore pattern"),
    ],
)
def test_what_cannot_be_matched(mixed: Project, old: str, new: str, said: str) -> None:
    """A pattern that is none, and a stage that does not read the inputs, are refused when the pipeline is loaded."""
    mixed.edit("pipeline.yaml", old, new)
    with pytest.raises(ConfigError) as raised:
        load_config(mixed.folder / "pipeline.yaml")
    assert said in str(raised.value)


@pytest.fixture
def sending(tmp_path: Path) -> Project:
    """A project whose second stage leaves no file."""
    project = Project(tmp_path, SEND)
    project.write("stages/send.py", SENT)
    return project


def sent(project: Project) -> list[str]:
    """What was sent since this was asked last."""
    file = project.folder / "sent"
    lines = file.read_text().splitlines() if file.exists() else []
    file.unlink(missing_ok=True)
    return lines


def test_a_stage_without_a_file_is_called_once(sending: Project) -> None:
    """Once for each source, and again when the source or its options change; renaming it sends nothing."""
    for name in ("a", "b", "none"):
        sending.write(f"in/{name}", name)
    assert sending.run().done == 6
    assert sent(sending) == ["A here", "B here", "NONE here"]
    assert sending.run().up_to_date == 6 and sent(sending) == []
    sending.edit("pipeline.yaml", "name: send", "name: upload")
    assert sending.run().up_to_date == 6 and sent(sending) == []
    sending.write("in/b", "b, again")
    assert sending.run().done == 2 and sent(sending) == ["B, AGAIN here"]
    sending.edit("pipeline.yaml", "uses: send,", "uses: send, with: {to: there},")
    assert sending.run().done == 3 and sent(sending) == ["A there", "B, AGAIN there", "NONE there"]


def test_it_fails_and_skips_as_any_other(sending: Project) -> None:
    """A failure is tried again, and a source that is left out stays so; neither touches the other outputs."""
    sending.edit("pipeline.yaml", "from: up", "from: inputs")
    sending.write("in/bad", "bad")
    sending.write("in/no", "no")
    summary = sending.run()
    assert (summary.done, summary.failed, summary.skipped) == (2, 1, 1)
    again = sending.run()
    assert (again.failed, again.up_to_date, again.done) == (1, 3, 0)
    assert sent(sending) == ["no here"]


def test_it_may_have_parts(sending: Project) -> None:
    """Below a fan-out it is called for every part, and for none again while nothing changes."""
    text = "from collections.abc import Iterator\ndef upper(text: str) -> Iterator[str]:\n    yield from text.split()\n"
    sending.write("stages/upper.py", text)
    sending.edit("pipeline.yaml", "{dir}/{name}", "{name}/{part}")
    sending.write("in/a", "one two")
    assert sending.run().done == 4 and sent(sending) == ["one here", "two here"]
    assert sending.run().up_to_date == 4 and sent(sending) == []
    sending.write("in/a", "one")
    assert sending.run().done == 2 and sent(sending) == ["one here"]
    assert sending.run().up_to_date == 2 and sending.orphans() == []


def test_its_rows_go_with_the_source(sending: Project) -> None:
    """A source that is gone is no reason to do or to say anything; one that comes back is done again."""
    sending.write("in/a", "a")
    sending.write("in/b", "b")
    sending.run()
    (sending.folder / "in/a").unlink()
    assert sending.run().up_to_date == 2
    sending.write("in/a", "new")
    assert sending.run().done == 2 and sent(sending) == ["A here", "B here", "NEW here"]
