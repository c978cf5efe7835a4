"""docs/stages.md is true: what it says about writing stages is done, section by section, and works."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import yaml
from jsonschema import Draft7Validator
from PIL import Image
from support.program import ROOT, on_terminal

from pipeline.cli import main
from pipeline.config.catalogue import list_stages
from pipeline.config.json_schema import pipeline_schema

PAGE = (ROOT / "docs" / "stages.md").read_text().partition("\n## Bundled stages\n")[0]
README = (ROOT / "README.md").read_text()
SECTIONS = dict(re.findall(r"^## (.*?)\n(.*?)(?=^## |\Z)", PAGE, re.M | re.S))
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
HEAD = "inputs: data/input\nengine: serial\nstages:\n"
# How many outputs each section's pipeline makes of these pictures.
SIZES = {"lake.jpg": (90, 60), "trip/bay.png": (80, 50), "trip/tower.jpg": (50, 80)}
MADE = {
    "In ten lines": 3, "Options": 3, "A model, once per worker": 3, "Leave files out": 2, "Call a program": 3,
    "Fan out: many of one": 3, "Gather: one of many": 5,
}  # fmt: skip


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Some pictures, with every file that the page says to write, and the table that one of its stages reads."""
    for name, size in SIZES.items():
        file = tmp_path / "data" / "input" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size, "tan").save(file)
    for language, text in BLOCK.findall(PAGE):
        if language == "python" and (named := re.match(r"# (\S+\.py)\n", text)):
            (tmp_path / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / named[1]).write_text(text)
    greys = numpy.arange(256, dtype=numpy.uint8)
    numpy.save(tmp_path / "table.npy", numpy.stack([greys, greys // 2, 255 - greys], axis=1))
    (tmp_path / "pipeline.yaml").write_text(HEAD + BLOCK.findall(SECTIONS["In ten lines"])[1][1])
    return tmp_path


@pytest.mark.parametrize("section", SECTIONS)
def test_a_section_of_the_page(
    project: Path, section: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Its pipelines are run, its commands too, and its scripts, in their order."""
    monkeypatch.chdir(project)
    made = []
    for language, text in BLOCK.findall(SECTIONS[section]):
        if language == "yaml":
            (project / "pipeline.yaml").write_text(HEAD + text)
            assert main(["run", "--json"]) == 0, capfd.readouterr().err
            made.append(int(re.findall(r'"done": (\d+)', capfd.readouterr().out)[0]))
        elif language == "sh":
            code, screen = on_terminal(text.strip(), project)
            assert code == 0, screen
        elif not text.startswith("# "):
            done = subprocess.run([sys.executable, "-"], cwd=project, input=text, capture_output=True, text=True)
            assert (done.returncode, done.stderr) == (0, "") and done.stdout
    assert section not in MADE or made[0] == MADE[section]


def test_every_stage_of_the_page_can_be_used(project: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """All of them keep the contract, and have a sentence that says what they do."""
    assert main(["stages", str(project / "pipeline.yaml")]) == 0
    listed = capfd.readouterr().out.partition("bundled\n")[0]
    assert listed.count("  ") and "cannot be used" not in listed
    for name in ("average", "frame", "landscape", "pack", "sharpen", "tiles", "tint"):
        assert re.search(rf"^  {name} +\S.* -> \S+ +\w.*$", listed, re.M), listed


def test_an_editor_finds_nothing_wrong(project: Path) -> None:
    """Every YAML of the page, and the README's piece of one, fits the schema of a project with these stages."""
    validator = Draft7Validator(pipeline_schema(list_stages(project)))
    pieces = [text for language, text in BLOCK.findall(PAGE + README) if language == "yaml" and text.startswith("  - ")]
    assert len(pieces) > 8
    for piece in pieces:
        errors = list(validator.iter_errors(yaml.safe_load(HEAD + piece)))
        assert not errors, f"{piece}\n{errors}"


def test_the_first_stage_has_ten_lines_at_most() -> None:
    """As the heading says."""
    first = BLOCK.findall(SECTIONS["In ten lines"])[0][1]
    assert len([line for line in first.splitlines() if line.strip()]) <= 10
