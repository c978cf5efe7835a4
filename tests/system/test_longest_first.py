"""What is left once the plan is whole is handed out longest first, so that no worker is left alone at the end."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project, ledger_of

from pipeline.planning.learnt import Learnt

# Tells in which order files began; a Z takes much longer than all others.
TELLS = """
import os, time
from pathlib import Path
LOG = Path(__file__).parent.parent / "began"
def upper(text: str, *, mark: str = "") -> str:
    with open(LOG, "a") as log:
        log.write(text.split()[0] + "\\n")
    time.sleep(0.4 if "Z" in text else 0)
    if "bad" in text:
        raise ValueError("bad text")
    return text.upper() + mark
"""
YAML = """
inputs: in
stages:
  - name: up
    uses: upper
    output: out/{{dir}}/{{name}}
engine: {engine}
pool: {{processes: 1}}
"""


@pytest.fixture(params=["serial", "pool"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Project:
    project = Project(tmp_path, YAML.format(engine=request.param))
    project.write("stages/upper.py", TELLS)
    return project


def began(project: Project) -> list[str]:
    """The files of the last run, in the order in which they began."""
    log = project.folder / "began"
    names = log.read_text().split()
    log.unlink()
    return names


def test_by_size_before_anything_is_learnt(project: Project) -> None:
    """The largest comes first, whatever its name."""
    for name in "abcdefghij":
        project.write(f"in/{name}", f"{name} text")
    project.write("in/z", "z " + "text" * 5000)
    assert project.run().done == 11
    assert began(project)[0] == "z"


def test_by_what_files_took_the_time_before(project: Project) -> None:
    """Though the slow one is no larger than the others; and a file of which nothing is known comes in its place."""
    for name in "abcdefghij":
        project.write(f"in/{name}", f"{name} text")
    project.write("in/z", "z Zext")
    assert project.run().done == 11
    assert sorted(began(project)) == list("abcdefghijz")
    with ledger_of(project.folder) as ledger:
        assert Learnt.load(ledger).slowest_s >= 0.4
    project.write("in/k", "k text")
    assert project.run(force=True).done == 12
    names = began(project)
    assert names[0] == "z" and sorted(names) == list("abcdefghijkz")


def test_what_failed_before_still_comes_last(project: Project) -> None:
    """However large it is: it does not keep others from being done."""
    for name in "abcd":
        project.write(f"in/{name}", f"{name} text")
    project.write("in/0", "0 " + "bad" * 5000)
    assert project.run().failed == 1
    assert began(project)[0] == "0"
    for name in "abcd":
        project.write(f"in/{name}", f"{name} new text")
    assert project.run().done == 4
    assert began(project)[-1] == "0"
