"""Stages that gather: called once for a group of files, when those are made, and again when one of them changed."""

from __future__ import annotations

from pathlib import Path

import pytest
from project import Project

GATHER = '''
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item, Skip

def names(items: Iterator[Item[str]], *, mark: str = "") -> str:
    """A line for each member."""
    text = "".join(f"{item.source} {item.part or '-'} {item.value}{mark}\\n" for item in items)
    if "skip" in text.lower():
        raise Skip("not wanted")
    if "break" in text.lower():
        raise ValueError("broken sheet")
    return text
'''
YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
engine: serial
"""
MOODY = """
from pipeline import Skip
def upper(text: str) -> str:
    if text.startswith("left out"):
        raise Skip("not wanted")
    if text.startswith("bad"):
        raise ValueError("bad text")
    return text.upper()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two folders with texts, each shouted, and a sheet of each folder; nothing is made yet."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", MOODY)
    project.write("stages/names.py", GATHER)
    for name in ("a/1.txt", "a/2.txt", "b/1.txt"):
        project.write(f"in/{name}", f"text {name}")
    return project


def sheets(project: Project) -> dict[str, str]:
    """What was gathered, by the folder's name."""
    return {
        name.removesuffix("/sheet.txt"): data.decode()
        for name, data in project.outputs().items()
        if name.endswith("sheet.txt")
    }


def test_each_group_is_gathered_once_in_order(project: Project) -> None:
    """A stage gets the committed files of a group in the order of their paths, after all of them are made."""
    summary = project.run()
    assert (summary.done, summary.failed, summary.sources) == (5, 0, 3)
    assert sheets(project) == {
        "a": "a/1.txt - TEXT A/1.TXT\na/2.txt - TEXT A/2.TXT\n",
        "b": "b/1.txt - TEXT B/1.TXT\n",
    }
    again = project.run()
    assert (again.done, again.up_to_date) == (0, 5)
