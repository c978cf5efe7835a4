"""A ledger that an older filemill has written is taken over, with all that it remembers."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
from support.old_ledgers import write_as
from support.project import MOODY, Project

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import DamagedRow
from pipeline.ledger.schema import VERSION


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_a_ledger_of_an_older_version_is_taken_over(tmp_path: Path, version: int) -> None:
    """What is done stays up to date, what failed is tried again, and the file is of the new version then."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    for name, text in (("good", "text"), ("left", "skip it"), ("bad", "bad one")):
        project.write(f"in/{name}", text)
    assert project.run().failed == 1
    ledger = tmp_path / ".pipeline/pipeline/ledger.sqlite"
    write_as(version, ledger)

    assert project.plan() == {
        "up good": ("up-to-date", "up to date"),
        "up left": ("up-to-date", "skipped: not wanted"),
        "up bad": ("make", "new" if version == 1 else "failed before (error, attempt 1 of 3)"),
    }
    summary = project.run()
    assert (summary.up_to_date, summary.failed, summary.exit) == (2, 1, 1)
    with closing(sqlite3.connect(ledger)) as upgraded:
        assert upgraded.execute("PRAGMA user_version").fetchone() == (VERSION,)


def test_a_row_that_was_damaged_before_an_upgrade_is_so_after_it(tmp_path: Path) -> None:
    """The checksums of version 5 were of another kind: what they tell is not lost with them."""
    project = Project(tmp_path)
    for name in ("a", "b"):
        project.write(f"in/{name}", name)
    assert project.run().done == 2
    ledger = tmp_path / ".pipeline/pipeline/ledger.sqlite"
    write_as(5, ledger)
    with closing(sqlite3.connect(ledger)) as old:
        old.execute("UPDATE outputs SET size = size + 1 WHERE source = X'61'")
        old.commit()
    with closing(Ledger(ledger)) as upgraded, pytest.raises(DamagedRow, match="out/a"):
        list(upgraded.outputs.all())
    with closing(Ledger(ledger)) as upgraded:
        assert [row.target for row in upgraded.outputs.all(b"b")] == [b"out/b"]
