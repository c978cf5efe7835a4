"""`changed_by: hash`: contents decide, whatever the times say; and how one gets there and back."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from support.program import Pipeline
from support.project import MOODY, ONE_STAGE, Project

from pipeline.files import digest as contents

BY_HASH = ONE_STAGE + "changed_by: hash\n"
FRESH = {"up a": ("up-to-date", "up to date"), "up b": ("up-to-date", "up to date")}


@pytest.fixture(autouse=True)
def at_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests write counts as settled at once."""
    monkeypatch.setattr("pipeline.files.digest._AT_REST_NS", 0)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sources that a plan reads."""
    from pipeline.planning import file_state as changed

    names: list[str] = []
    real = changed.read

    def note(path: bytes) -> object:
        names.append(os.fsdecode(os.path.basename(path)))
        return real(path)

    monkeypatch.setattr(changed, "read", note)
    return names


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two files, made under `changed_by: hash`."""
    project = Project(tmp_path, BY_HASH)
    project.write("in/a", "one")
    project.write("in/b", "two")
    assert project.run().done == 2 and project.plan() == FRESH
    return project


def rows(project: Project) -> list[tuple[bytes, int, int]]:
    """What is recorded of each source: digest, time, time of its last change."""
    with closing(sqlite3.connect(project.folder / ".pipeline/pipeline/ledger.sqlite")) as ledger:
        found = ledger.execute("SELECT source_digest, source_mtime_ns, source_ctime_ns FROM outputs ORDER BY source")
        return found.fetchall()


def stamp(file: Path) -> tuple[int, int]:
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns


def touch(project: Project) -> None:
    os.utime(project.folder / "in/a", (7, 7))


def copy(project: Project) -> None:
    """Every file is another one with other times, as after a `git clone` or a copy without -p."""
    for name in ("a", "b"):
        file = project.folder / "in" / name
        data = file.read_bytes()
        file.unlink()
        file.write_bytes(data)


@pytest.mark.parametrize("change", [touch, copy])
def test_touching_redoes_nothing(project: Project, read: list[str], change: Callable[[Project], None]) -> None:
    """Contents are compared; the run notes the new times, and the next plan reads nothing."""
    change(project)
    assert project.plan() == FRESH and "a" in read
    summary = project.run()
    assert (summary.up_to_date, summary.done, summary.exit) == (2, 0, 0)
    read.clear()
    assert project.plan() == FRESH and project.run().done == 0 and read == []
    assert rows(project)[0][1:] == stamp(project.folder / "in/a")


def test_what_did_not_change_is_not_read(project: Project, read: list[str]) -> None:
    """A night in which nothing happened costs no reading."""
    assert project.plan() == FRESH and project.run().done == 0 and read == []


def test_contents_that_change_under_size_and_time_are_found(project: Project) -> None:
    """What `changed_by: mtime` cannot see: the same size, and the time put back."""
    file = project.folder / "in/a"
    before = file.stat()
    file.write_text("ONE")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert project.plan()["up a"] == ("make", "source changed (its contents)")
    file.write_text("three")
    assert project.plan()["up a"] == ("make", "source changed (size 3 -> 5)")
    assert project.run().done == 1 and project.plan() == FRESH


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_source_that_cannot_be_read_is_said_so(project: Project) -> None:
    """It is no bug of ours and not up to date; the run then fails that file alone."""
    touch(project)
    (project.folder / "in/a").chmod(0)
    assert project.plan()["up a"] == ("make", "source changed (cannot be read: Permission denied)")
    assert project.run().failed == 1


@pytest.mark.parametrize("change", [lambda project: None, touch], ids=["untouched", "touched"])
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
def test_from_mtime_to_hash_and_back(
    tmp_path: Path, read: list[str], change: Callable[[Project], None], is_large: bool
) -> None:
    """The switch itself redoes nothing, either way: what has no digest is judged by its time, and gets one by a run."""
    project = Project(tmp_path, ONE_STAGE)
    padding = " " * (1 << 20) if is_large else ""
    project.write("in/a", f"one{padding}")
    project.write("in/b", f"two{padding}")
    project.run()
    project.edit("pipeline.yaml", "engine", "changed_by: hash\nengine")
    # What has a digest is compared with it, since nobody knows when it was taken.
    assert project.plan() == FRESH and sorted(read) == ([] if is_large else ["a", "b"])
    read.clear()
    digest, *times = rows(project)[0]
    assert (digest is None) == is_large and times == [stamp(tmp_path / "in/a")[0], None]
    assert project.run().done == 0 and sorted(read) == ["a", "b"]
    assert all(digest and ctime for digest, _, ctime in rows(project))
    change(project)
    assert project.run().done == 0
    project.edit("pipeline.yaml", "changed_by: hash\n", "")
    assert project.plan() == FRESH
    touch(project)
    os.utime(tmp_path / "in/a", (99, 99))
    assert project.run().done == 1 and (rows(project)[0][0] is None) == is_large


def test_a_write_within_the_tick_of_a_reading_is_not_missed(
    project: Project, read: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file that was not at rest when it was read is read again by the next plan."""
    monkeypatch.setattr("pipeline.files.digest._AT_REST_NS", 10**18)
    project.write("in/a", "ONE")
    assert project.run().done == 1 and rows(project)[0][2] is None
    read.clear()
    assert project.plan() == FRESH and read == ["a"]


def test_skips_and_failures_keep_to_contents(tmp_path: Path) -> None:
    """A file left out stays so when it is touched; one that failed is tried again, as ever."""
    project = Project(tmp_path, BY_HASH)
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "skip it")
    project.write("in/b", "bad one")
    assert project.run().failed == 1
    touch(project)
    assert project.plan()["up a"] == ("up-to-date", "skipped: not wanted")
    assert project.plan()["up b"][0] == "make"


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_a_sibling_that_fails_takes_no_digest_away(tmp_path: Path, pipeline: Pipeline, engine: str) -> None:
    """Also what took more than one attempt is known by its contents."""
    bad = "  - {name: bad, from: inputs, uses: './bad.py:bad', output: 'bad/{name}'}"
    more = f"{bad}\nretry: {{max: 1, backoff: 1ms}}\nengine"
    project = Project(tmp_path, BY_HASH.replace("engine", more))
    project.write("bad.py", "def bad(text: str) -> str: raise ValueError\n")
    project.write("in/a", "one")
    assert pipeline("--engine", engine).returncode == 1
    assert rows(project)[0][0] == contents.read(tmp_path / "in/a").digest
    touch(project)
    assert project.plan()["up a"] == FRESH["up a"]


@pytest.mark.parametrize("selection", [{}, {"only": "a"}, {"limit": 1}, {"names": [b"a", b"n001"]}], ids=str)
def test_selections_go_by_contents_too(tmp_path: Path, selection: dict[str, Any]) -> None:
    """With many files read ahead; what is not selected is neither gone nor done."""
    project = Project(tmp_path, BY_HASH)
    names = ["a", *(f"n{number:03}" for number in range(150))]
    for name in names:
        project.write(f"in/{name}", name)
    assert project.run().done == len(names)
    for name in names:
        os.utime(tmp_path / "in" / name, (7, 7))
    project.write("in/n001", "N-01")
    assert project.run(**selection).done == (0 if "only" in selection else 1)
    assert project.run().done == (1 if "only" in selection else 0) and len(project.outputs()) == len(names)


def test_many_rows_of_one_source_each_have_their_say(tmp_path: Path) -> None:
    """Outputs of one source that were made at different times are compared each with its own digest."""
    project = Project(tmp_path, BY_HASH)
    project.write("in/a", "one")
    project.run()
    more = "  - {name: low, from: inputs, uses: upper, with: {mark: '!'}, output: 'low/{name}'}\nengine"
    project.edit("pipeline.yaml", "engine", more)
    project.write("in/a", "two")
    assert project.run(only="b").done == 0
    project.edit("stages/upper.py", "return text", "if mark: raise ValueError\n    return text")
    summary = project.run()
    assert (summary.done, summary.failed) == (1, 1)
    project.edit("stages/upper.py", "if mark: raise ValueError\n    ", "")
    project.run()
    project.write("in/a", "one")
    assert {why for _, why in project.plan().values()} == {"source changed (its contents)"}
