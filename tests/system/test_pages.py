"""The tutorial and the how-to pages are true: every block is written or run, in order, over the example's pictures."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT, on_terminal

from pipeline.cli import VERBS

PAGES = [ROOT / "docs" / "tutorial.md", ROOT / "docs" / "python-api.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.M | re.S)
# Languages of blocks that show something and cannot be run here; tests/system/test_unattended.py tries what they show.
SHOWN_ONLY = {"crontab", "text", "ini", "yml"}


def as_pattern(shown: str) -> str:
    """Escape what a command shows for a regular expression: any seconds, any time, and any place for /srv/photos."""
    pattern = re.sub(r"\d+\\\.\d\\ s", r"\\d+\\.\\d s", re.escape(shown))
    pattern = re.sub(r"\d{4}(\\-\d\d){2}\\ \d\d(:\d\d){2}", r"[-\\d]{10} [:\\d]{8}", pattern)
    return pattern.replace("/srv/photos", r"/\S+")


def run_console(text: str, folder: Path) -> None:
    """Run the commands of a console block; each shows what stands below it."""
    for part in text.split("$ ")[1:]:
        command, _, shown = part.partition("\n")
        _, screen = on_terminal(command, folder)
        assert re.fullmatch(as_pattern(shown.strip("\n")), screen), f"$ {command}\n{screen}\n--- not\n{shown}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_block_of_a_page_works(example: Path, page: Path) -> None:
    """Files are written, commands succeed and show what the page says."""
    for language, text in BLOCK.findall(page.read_text()):
        if language == "yaml":
            (example / "pipeline.yaml").write_text(text)
        elif language == "python" and (named := re.match(r"# (\S+\.py)\n", text)):
            (example / named[1]).parent.mkdir(parents=True, exist_ok=True)
            (example / named[1]).write_text(text)
        elif language == "python":
            subprocess.run([sys.executable, "-"], cwd=example, input=text, text=True, check=True)
        elif language == "sh":
            code, screen = on_terminal(f"set -e\n{text.strip()}", example)
            assert code == 0, screen
        elif language == "console":
            run_console(text, example)
        else:
            assert language in SHOWN_ONLY, language


def test_the_command_line_page_has_every_verb() -> None:
    """Once each, in its first table."""
    page = (ROOT / "docs" / "cli.md").read_text().partition("\n## ")[0]
    assert sorted(re.findall(r"^\| `(\w+)(?: [^`]*)?` \|", page, re.M)) == sorted(VERBS)


def test_the_index_of_the_how_to_pages_has_all() -> None:
    """A page that nobody links to is not found."""
    folder = ROOT / "docs" / "how-to"
    listed = re.findall(r"^([a-z-]+)$", (folder / "index.md").read_text(), re.M)
    assert sorted(listed) == sorted(page.stem for page in folder.glob("*.md") if page.stem != "index")
