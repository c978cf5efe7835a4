"""What a stage must not do: each is an error of the file, which names the stage's own file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.project import Project

STAGES = """
import threading
from pathlib import Path
from pipeline import Item

def copied(item: Item[Path]) -> Path:
    made = item.scratch / "made.txt"
    made.write_text(item.value.read_text())
    return made

def spoil(path: Path) -> str:
    path.write_text("spoilt")
    return "spoilt"

def read(path: Path) -> str:
    return path.read_text()

def same(path: Path) -> Path:
    return path

def leak(text: str) -> str:
    for _ in range(10):
        threading.Thread(target=threading.Event().wait, args=(20,), daemon=True).start()
    return text

class Pooled:
    def __init__(self) -> None:
        self.threads = [threading.Thread(target=threading.Event().wait, args=(3,), daemon=True) for _ in range(3)]
    def __call__(self, text: str) -> str:
        while self.threads:
            self.threads.pop().start()
        return text
"""
LEAKING = """
inputs: in
stages:
  - {name: up, uses: 'stages.rude:leak', output: 'out/{name}'}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project with stages of bad manners."""
    project = Project(tmp_path, LEAKING)
    project.write("stages/rude.py", STAGES)
    project.write("in/a.txt", "text")
    return project


def line_of(text: str) -> int:
    """The line of the stages' module on which something stands."""
    return STAGES[: STAGES.index(text)].count("\n") + 1


def test_a_file_that_others_read_is_not_changed(project: Project) -> None:
    """A stage that changes its input in place beside a sibling fails; alone it may."""
    stages = """
inputs: in
stages:
  - {name: copied, uses: 'stages.rude:copied'}
  - {name: spoilt, from: copied, uses: 'stages.rude:spoil', output: 'out/spoilt/{name}'}
  - {name: read, from: copied, uses: 'stages.rude:read', output: 'out/read/{name}'}
engine: serial
"""
    project.write("pipeline.yaml", stages)
    summary = project.run()
    [(_, failed)] = summary.failures
    assert failed.stage == "spoilt" and failed.text.startswith("stage 'spoilt' changed its input, which other stages")
    assert f"rude.py:{line_of('def spoil')})" in failed.text
    project.write("pipeline.yaml", stages.replace("  - {name: read,", "  # - {name: read,"))
    assert project.run().done == 1
    assert (project.folder / "in/a.txt").read_text() == "text"


def test_a_source_is_not_changed(project: Project) -> None:
    """Nor is a source, whoever reads it."""
    project.edit("pipeline.yaml", "rude:leak", "rude:spoil")
    [(_, failed)] = project.run().failures
    assert failed.text.startswith("stage 'up' changed its input (")
    assert f"rude.py:{line_of('def spoil')})" in failed.text


def test_the_path_of_the_input_is_no_result(project: Project) -> None:
    """A stage that returns what it was given has made nothing."""
    project.edit("pipeline.yaml", "rude:leak", "rude:same")
    [(_, failed)] = project.run().failures
    assert failed.text.startswith("stage 'up' returned the Path of its input; return a file of its own")
    assert f"rude.py:{line_of('def same')})" in failed.text


def test_threads_are_not_left_behind(project: Project) -> None:
    """A stage that leaves more threads with every file fails when they are many; one that keeps a few does not."""
    for number in range(8):
        project.write(f"in/{number}", "text")
    summary = project.run()
    assert summary.failed and summary.done
    text = summary.failures[0][1].text
    assert text.startswith("stage 'up' leaves its threads running: there are ")
    assert f"rude.py:{line_of('def leak')})" in text
    project.edit("pipeline.yaml", "name: up, uses: 'stages.rude:leak'", "name: pooled, uses: 'stages.rude:Pooled'")
    assert project.run(force=True).failed == 0
