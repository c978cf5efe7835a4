"""A folder that cannot be listed, or whose files cannot be looked at: what is in it is unknown, and never gone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.permissions import permissions_hold
from support.project import MOODY, Project, ledger_of

from pipeline.report.summary import Summary

GATHER = '''
from collections.abc import Iterator
from pipeline import Item

def names(items: Iterator[Item[str]]) -> str:
    """A line for each member."""
    return "".join(f"{item.source}\\n" for item in items)
'''
YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: by_dir, from: up, uses: names, gather: true, group: '{dir}', output: 'out/dir/{dir}.txt'}
  - {name: by_stem, from: up, uses: names, gather: true, group: '{stem}', output: 'out/stem/{stem}.txt'}
  - {name: all, from: up, uses: names, gather: true, output: out/all.txt}
engine: serial
prune: {max: 100%}
"""
# By the permissions of a folder, what cannot be done with it: list it, or look at what is listed.
CLOSED = {0o000: "Permission denied", 0o444: "2.txt: Permission denied", 0o111: "Permission denied"}


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three folders with texts, shouted and gathered in three ways."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", MOODY)
    project.write("stages/names.py", GATHER)
    for name in ("a/1.txt", "b/1.txt", "b/2.txt", "b/c/3.txt", "d/4.txt"):
        project.write(f"in/{name}", f"text {name}")
    assert project.run().exit == 0
    return project


@contextmanager
def closed(folder: Path, mode: int) -> Iterator[None]:
    """A folder that has these permissions, which count."""
    before = folder.stat().st_mode & 0o777
    folder.chmod(mode)
    try:
        with permissions_hold():
            yield
    finally:
        folder.chmod(before)


def run_closed(project: Project, mode: int) -> Summary:
    """Run while one of the folders is closed."""
    with closed(project.folder / "in/b", mode):
        return project.run()


@pytest.mark.parametrize("mode", CLOSED, ids=oct)
def test_a_group_with_unknown_members_is_left_as_it_is(project: Project, mode: int) -> None:
    """A file that is gone, and nobody can tell, is not gathered again when another member changes."""
    (project.folder / "in/b/1.txt").unlink()
    project.write("in/a/1.txt", "another text")
    project.write("in/a/5.txt", "new")
    project.write("in/e/6.txt", "new")
    before = project.outputs()
    summary = run_closed(project, mode)

    assert (summary.exit, summary.done, summary.failed, summary.pruned) == (1, 5, 0, 0)
    made = project.outputs()
    # Those of folders that are known are made anew; those that a file of the closed one may belong to are not.
    assert made.pop("dir/a.txt") == b"a/1.txt\na/5.txt\n" and made.pop("dir/e.txt") == b"e/6.txt\n"
    assert before == {name: data for name, data in made.items() if name in before} | {
        name: before[name] for name in ("dir/a.txt", "up/a/1.txt")
    }
    assert f"folder b/ cannot be listed: {CLOSED[mode]}; what is in it was left alone" in summary.notes
    said = "outputs of groups were left alone: a folder that cannot be listed may hold members"
    assert [note for note in summary.notes if "groups" in note] == [f"9 {said}"]

    # Open again, the list is what it should be.
    assert project.run().exit == 0
    made = project.outputs()
    assert made["dir/b.txt"] == b"b/2.txt\n" and made["stem/1.txt"] == b"a/1.txt\n"
    assert made["all.txt"] == b"a/1.txt\na/5.txt\nb/2.txt\nb/c/3.txt\nd/4.txt\ne/6.txt\n"


@pytest.mark.parametrize("mode", CLOSED, ids=oct)
def test_what_is_made_of_an_unknown_group_is_no_orphan(project: Project, mode: int) -> None:
    """A group may be gone with its last member, or only seem so: nothing of it is removed, nor forgotten."""
    for name in ("b/1.txt", "b/2.txt", "b/c/3.txt"):
        (project.folder / "in" / name).unlink()
    before = project.outputs()
    with closed(project.folder / "in/b", mode):
        assert project.orphans() == []
        plan = project.plan()
        assert plan["by_dir /by_dir/b"][0] == plan["all /all"][0] == "settling"
        assert plan["by_dir /by_dir/a"] == ("up-to-date", "up to date")
        summary = project.run()
    assert summary.pruned == 0 and project.outputs() == before

    assert project.run().pruned == 3 + 2 + 2


@pytest.mark.parametrize("mode", CLOSED, ids=oct)
def test_a_failure_is_not_forgotten(tmp_path: Path, mode: int) -> None:
    """What failed in a folder that is closed now is still a failure, attempts and all."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/b/2.txt", "bad")
    project.write("in/a.txt", "good")
    project.run()
    run_closed(project, mode)
    with ledger_of(tmp_path) as ledger:
        assert [(each.source, each.attempts) for each in ledger.failures.all()] == [(b"b/2.txt", 1)]


def test_nor_is_that_of_a_link_to_a_disk_that_is_away(tmp_path: Path) -> None:
    """The link is there, and what it leads to may come back."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("away/b", "bad")
    project.write("in/a", "good")
    (tmp_path / "in/b").symlink_to(tmp_path / "away/b")
    project.run()
    (tmp_path / "away").rename(tmp_path / "not here")
    project.run()
    with ledger_of(tmp_path) as ledger:
        assert [each.source for each in ledger.failures.all()] == [b"b"]


def test_a_path_is_not_taken_from_a_source_that_cannot_be_looked_at(tmp_path: Path) -> None:
    """A name on a list may not have the output of a source of which nobody knows whether it is there."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "out/{dir}/{name}", "out/{stem}")
    project.write("in/b/x.one", "text")
    assert project.run().done == 1
    project.write("in/x.two", "another")
    with closed(project.folder / "in/b", 0):
        summary = project.run(names=[b"x.two"])
    assert summary.failed == 1 and project.outputs() == {"x": b"TEXT"}
    os.unlink(project.folder / "in/b/x.one")
    assert project.run(names=[b"x.two"]).done == 1
