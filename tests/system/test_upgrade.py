"""A ledger that an older filemill has written is taken over, with all that it remembers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from support.project import MOODY, Project

from pipeline.ledger.schema import VERSION

VERSION_1 = """
CREATE TABLE recipes (id INTEGER PRIMARY KEY, digest TEXT NOT NULL UNIQUE, parts TEXT NOT NULL);
CREATE TABLE outputs (
    target BLOB NOT NULL UNIQUE, source BLOB NOT NULL, stage TEXT NOT NULL, status TEXT NOT NULL,
    source_size INTEGER, source_mtime_ns INTEGER, recipe INTEGER, reason TEXT, size INTEGER, mtime_ns INTEGER,
    at_work INTEGER NOT NULL, PRIMARY KEY (source, target)
) WITHOUT ROWID;
CREATE TABLE failures (
    source BLOB NOT NULL, stage TEXT NOT NULL,
    kind TEXT NOT NULL, error TEXT NOT NULL, attempts INTEGER NOT NULL, run TEXT NOT NULL,
    PRIMARY KEY (source, stage)
) WITHOUT ROWID;
CREATE TABLE runs (
    id TEXT PRIMARY KEY, started REAL NOT NULL, ended REAL, exit INTEGER, summary TEXT,
    swept INTEGER NOT NULL DEFAULT 0
);
PRAGMA user_version = 1;
"""


def as_version_1(file: Path) -> None:
    """Write a ledger's rows into one of schema 1, as it was."""
    old = file.with_name("old.sqlite")
    with closing(sqlite3.connect(old)) as made:
        made.executescript(VERSION_1)
        made.execute("ATTACH ? AS new", (str(file),))
        for table in ("recipes", "outputs", "failures", "runs"):
            columns = ", ".join(row[1] for row in made.execute(f"PRAGMA main.table_info({table})"))
            made.execute(f"INSERT INTO main.{table} ({columns}) SELECT {columns} FROM new.{table}")
        made.commit()
        made.execute("DETACH new")
    for new in (file.with_suffix(".seal"), *file.parent.glob("ledger-good-*")):
        new.unlink()
    old.replace(file)


def test_a_ledger_of_version_1_is_taken_over(tmp_path: Path) -> None:
    """What is done stays up to date, what failed is tried again, and the file is of the new version then."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    for name, text in (("good", "text"), ("left", "skip it"), ("bad", "bad one")):
        project.write(f"in/{name}", text)
    assert project.run().failed == 1
    ledger = tmp_path / ".pipeline/pipeline/ledger.sqlite"
    as_version_1(ledger)

    assert project.plan() == {
        "up good": ("up-to-date", "up to date"),
        "up left": ("up-to-date", "skipped: not wanted"),
        "up bad": ("make", "new"),
    }
    summary = project.run()
    assert (summary.up_to_date, summary.failed, summary.exit) == (2, 1, 1)
    with closing(sqlite3.connect(ledger)) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone() == (VERSION,)
