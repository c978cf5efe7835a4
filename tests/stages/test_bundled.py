"""What all bundled stages have in common: they are listed, their options are told, and an upgrade redoes nothing."""

from __future__ import annotations

import importlib
import re
from pathlib import Path

import pytest
from support.docs import blocks
from support.program import ROOT

from pipeline import load, run
from pipeline.stage import describe as about
from pipeline.stage.resolve import find, set_stage_path

NAMES = sorted(file.stem for file in (ROOT / "stages").glob("[!_]*.py"))
SECTION = (ROOT / "docs" / "stages.md").read_text().partition("\n## Bundled stages\n")[2]


@pytest.mark.parametrize("name", NAMES)
def test_a_bundled_stage_tells_all_about_itself(name: str, tmp_path: Path) -> None:
    """What it does, and every option; and it says by a number when it makes something else."""
    set_stage_path(tmp_path)
    stage = find(name, tmp_path)
    assert importlib.import_module(stage.module).RECIPE >= 1
    assert about.first_sentence(stage)
    assert [option.name for option in about.options(stage) if not option.doc] == []
    assert len(Path(stage.where.rpartition(":")[0]).read_text().splitlines()) < 220


def test_an_example_in_the_docstring_is_the_one_shown(tmp_path: Path) -> None:
    """No other would make sense of a program that nobody knows."""
    set_stage_path(tmp_path)
    given = about.example(find("command", tmp_path))
    assert given == {"argv": ["cwebp", "-quiet", "{source}", "-o", "{target}"]}


def test_the_page_has_all_of_them() -> None:
    """Once each, with what they take and make."""
    assert sorted(re.findall(r"^\| `(\w+)` \|", SECTION, re.M)) == NAMES


def test_the_pipeline_of_the_page_works(example: Path) -> None:
    """Over the example's pictures, and a text that an old program has written."""
    (example / "data/input/notes.txt").write_bytes("naïve".encode("cp1252"))
    (example / "pipeline.yaml").write_text(f"engine: serial\n{blocks('yaml', SECTION)[0]}")
    summary = run(load(example / "pipeline.yaml"))
    assert (summary.failed, summary.skipped) == (0, 4)
    made = {str(file.relative_to(example / "data/output")) for file in (example / "data/output").rglob("*.*")}
    assert {"sheets/sheet.jpg", "sheets/scans/sheet.jpg", "list.csv", "notes/notes.txt", "marked/lake.webp"} <= made
    assert (example / "data/output/notes/notes.txt").read_bytes() == "naïve".encode()
