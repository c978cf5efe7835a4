"""The README is true: its commands are run and show what it says they show."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.docs import blocks
from support.program import ROOT, on_terminal


def steps(block: str) -> list[tuple[str, str]]:
    """A console block as commands and what each shows."""
    return [(part.partition("\n")[0], part.partition("\n")[2].strip("\n")) for part in block.split("$ ")[1:]]


def as_pattern(shown: str) -> str:
    """What a command shows, less the seconds it takes, and what it expects of a machine."""
    pattern = re.sub(r"\d+\\\.\d\\ s", r"\\d+\\.\\d s", re.escape(shown))
    return re.sub(
        r"expected:.*free", r"expected: [^,]+, peak [^,]+ [MG]B, writes [^,]+B of [\\d,.]+ [GT]B free", pattern
    )


def test_the_first_two_commands_are_the_ones_to_start_with() -> None:
    """A newcomer, and .ci/run, take the first two blocks as they are."""
    install = "python3 -m venv .venv && .venv/bin/pip install -e"
    assert blocks("console")[:2] == [
        f"{install} . && .venv/bin/python -m pipeline pipeline.yaml\n",
        f"{install} '.[test]' && .venv/bin/python -m pytest\n",
    ]


def test_the_example_shown_is_the_one_committed() -> None:
    """The pipeline in the README is pipeline.yaml."""
    assert yaml.safe_load(blocks("yaml")[0]) == yaml.safe_load((ROOT / "pipeline.yaml").read_text())


def test_the_commands_show_what_the_readme_says(example: Path) -> None:
    """Every command of the README, run in its order on a terminal, shows the text below it."""
    for block in blocks("console")[2:]:
        screen = ""
        code = 0
        for command, shown in steps(block):
            if command == "echo $?":
                screen = str(code)
            else:
                code, screen = on_terminal(command, example)
            assert re.fullmatch(as_pattern(shown), screen), f"$ {command}\n{screen}\n--- but the README says\n{shown}"


def test_a_stage_in_ten_lines_works(example: Path) -> None:
    """The stage of the README, put where it says, is used by the YAML it says, and makes what is new only."""
    stage, fragment = blocks("python")[0], blocks("yaml")[1]
    assert len([line for line in stage.splitlines() if line.strip()]) <= 10
    (example / "stages").mkdir()
    (example / "stages" / "sharpen.py").write_text(stage)
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    subprocess.run(command, cwd=example, check=True)
    text = (example / "pipeline.yaml").read_text()
    (example / "pipeline.yaml").write_text(text.replace("pool:\n", f"{fragment}pool:\n"))
    code, screen = on_terminal("python -m pipeline", example)
    assert code == 0 and "12 done, 24 up to date" in screen


def test_the_cron_line_is_the_line_of_the_prompt(example: Path) -> None:
    """What cron runs is what a person runs, and it says nothing when all is well."""
    line = blocks("crontab")[0]
    command = line.split(None, 5)[5].strip().replace("/srv/photos", str(example))
    (example / ".venv" / "bin").mkdir(parents=True)
    script = example / ".venv" / "bin" / "filemill"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m pipeline "$@"\n')
    script.chmod(0o755)
    done = subprocess.run(command, shell=True, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    shutil.rmtree(example / "data")


@pytest.mark.parametrize(
    "page", sorted({*(ROOT / "docs").glob("*.md")} - {ROOT / "docs" / "tutorial.md"}), ids=lambda page: page.name
)
def test_every_pipeline_in_the_docs_is_one(example: Path, page: Path) -> None:
    """Each whole pipeline that a page shows is accepted, over the example's folder; test_pages.py runs the tutorial."""
    text = page.read_text()
    if page.name == "stages.md":  # the rest of which tests/test_stages_page.py runs
        text = text.partition("\n## Bundled stages\n")[2]
    for block in blocks("yaml", text):
        (example / "pipeline.yaml").write_text(block)
        checked = subprocess.run(
            [sys.executable, "-m", "pipeline", "check"], cwd=example, capture_output=True, text=True
        )
        assert checked.returncode == 0, f"{block}\n{checked.stderr}"
