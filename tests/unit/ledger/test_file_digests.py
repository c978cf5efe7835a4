"""Digests of files that count as part of a recipe: each is read once, and never believed beyond what stat can tell."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.project import ONE_STAGE, Project

from pipeline.config.load import load_config
from pipeline.files.digest import contents_of
from pipeline.ledger.file_digests import FileDigests
from pipeline.ledger.ledger import Ledger
from pipeline.planning.recipe import output_specs

LOGO_STAGE = """
from pathlib import Path
def upper(text: str, *, logo: Path) -> str:
    return text.upper() + logo.read_text()
"""
WRONG = "a digest that no file has"


@pytest.fixture
def connection() -> Iterator[sqlite3.Connection]:
    """An empty ledger."""
    with closing(Ledger(None)) as ledger:
        yield ledger._connection


@pytest.fixture
def model(tmp_path: Path, connection: sqlite3.Connection, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file at rest, its digest remembered, and a wrong one put in its place: what shows it was not read again."""
    monkeypatch.setattr("pipeline.files.digest._AT_REST_NS", 0)
    file = tmp_path / "model"
    file.write_bytes(b"weights")
    os.utime(file, (7, 7))
    digests = FileDigests(connection)
    assert digests.digest(file) == contents_of(file)
    digests.remember()
    assert connection.execute("UPDATE digests SET digest = ?", (WRONG,)).rowcount == 1
    return file


def test_a_file_is_read_once(model: Path, connection: sqlite3.Connection) -> None:
    """A large model behind a Path option costs a stat each night, and not a reading."""
    assert FileDigests(connection).digest(model) == WRONG


def rewrite(file: Path) -> None:
    """Other contents of the same size, and the time put back: as `cp -p` and `rsync -t` do."""
    file.write_bytes(b"WEIGHTS")
    os.utime(file, (7, 7))


def replace(file: Path) -> None:
    """Another file of the same size and time takes its place."""
    other = file.with_name("other")
    other.write_bytes(b"WEIGHTS")
    os.utime(other, (7, 7))
    other.replace(file)


@pytest.mark.parametrize("change", [rewrite, replace, Path.touch])
def test_a_file_that_changed_is_read_again(model: Path, connection: sqlite3.Connection, change: object) -> None:
    """Also where its size and time of modification do not tell."""
    change(model)  # type: ignore[operator]
    assert FileDigests(connection).digest(model) == contents_of(model)


def test_a_file_that_was_just_written_is_not_remembered(tmp_path: Path, connection: sqlite3.Connection) -> None:
    """A second write within the same tick of the clock would not show."""
    file = tmp_path / "model"
    file.write_bytes(b"weights")
    digests = FileDigests(connection)
    digests.digest(file)
    digests.remember()
    assert connection.execute("SELECT count(*) FROM digests").fetchone() == (0,)


def test_what_is_not_asked_for_any_more_is_forgotten(model: Path, connection: sqlite3.Connection) -> None:
    """The table does not grow with the years."""
    digests = FileDigests(connection)
    digests.digest(model.with_name("nowhere"))
    digests.remember()
    assert connection.execute("SELECT count(*) FROM digests").fetchone() == (0,)


def test_a_run_remembers_and_a_plan_does_not_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a run writes the ledger; a plan makes use of what it finds there."""
    monkeypatch.setattr("pipeline.files.digest._AT_REST_NS", 0)
    project = Project(tmp_path, ONE_STAGE.replace("uses: upper", "uses: upper\n    with: {logo: logo.txt}"))
    project.write("stages/upper.py", LOGO_STAGE)
    os.utime(project.write("logo.txt", "1"), (7, 7))
    project.write("in/a", "x")

    def digests() -> list[str]:
        with closing(sqlite3.connect(tmp_path / ".pipeline/pipeline/ledger.sqlite")) as ledger:
            return [row[0] for row in ledger.execute("SELECT digest FROM digests")]

    project.run()
    assert digests() == [contents_of(tmp_path / "logo.txt")]
    project.write("logo.txt", "2")
    before = digests()
    assert project.plan()["up a"] == ("make", "up: contents of logo.txt changed")
    assert digests() == before
    config = load_config(tmp_path / "pipeline.yaml")
    with closing(Ledger(config.state / "ledger.sqlite")) as ledger:
        assert [leaf.number for leaf in output_specs(config, ledger, record=False)] == [None]
