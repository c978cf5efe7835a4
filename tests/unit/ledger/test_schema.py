"""The SQL of the program: it lies in the ledger's package, and files of every version come to the same tables."""

from __future__ import annotations

import ast
import re
import sqlite3
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.old_ledgers import OLD_SCHEMAS
from support.program import ROOT

from pipeline.errors import EnvironmentFailure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.schema import VERSION, row_sum

SQL = re.compile(
    r"\b(SELECT\b.+\bFROM|INSERT (OR \w+ )?INTO|DELETE FROM|UPDATE \w+ SET|CREATE (TEMP )?(TABLE|INDEX)|PRAGMA \w)",
    re.S,
)


def uses_of_sql(file: Path) -> Iterator[str]:
    """Every string of SQL in a module, and every call that runs some."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value):
            yield f"{file.relative_to(ROOT)}:{node.lineno}: {node.value[:60]!r}"
        elif isinstance(node, ast.Attribute) and node.attr in ("executemany", "executescript"):
            yield f"{file.relative_to(ROOT)}:{node.lineno}: .{node.attr}"
        elif isinstance(node, ast.Attribute) and node.attr == "execute" and ast.unparse(node) != "command.execute":
            yield f"{file.relative_to(ROOT)}:{node.lineno}: .execute"  # the other is a verb of the command line


def test_sql_lies_in_the_ledger_only() -> None:
    """Whoever wants to know of the ledger asks it by a method named for what is wanted."""
    outside = [file for file in (ROOT / "pipeline").rglob("*.py") if file.parent.name != "ledger"]
    assert [use for file in outside for use in uses_of_sql(file)] == []
    assert len(outside) > 100 and any(uses_of_sql(ROOT / "pipeline/ledger/outputs.py"))


def tables_of(connection: sqlite3.Connection) -> dict[str, set[tuple[object, ...]]]:
    """The columns of each table, with their types, whatever their order."""
    names = connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall()
    return {name: {row[1:] for row in connection.execute(f"PRAGMA table_info({name})")} for (name,) in names}


@pytest.mark.parametrize("version", [1, 2, 3, 4, 5, 6])
def test_an_older_file_gets_the_tables_of_a_new_one(tmp_path: Path, version: int) -> None:
    """Nothing of the program needs to know from which version a file came."""
    file = tmp_path / "l"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"{OLD_SCHEMAS[version]} PRAGMA user_version={version}")
    Ledger(file).close()
    Ledger(tmp_path / "new").close()
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(tmp_path / "new")) as new:
        assert old.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert tables_of(old) == tables_of(new)


@pytest.mark.parametrize("column", ["mtime_ns", "recipe"])
def test_a_file_that_is_too_old_is_said_to_be(tmp_path: Path, column: str) -> None:
    """One sentence that says what to do, whatever it lacks; and no column is missed later."""
    with closing(sqlite3.connect(tmp_path / "l")) as connection:
        connection.executescript(f"{OLD_SCHEMAS[1]} ALTER TABLE outputs DROP COLUMN {column}; PRAGMA user_version=1")
    with pytest.raises(EnvironmentFailure, match="too old to be taken over") as raised:
        Ledger(tmp_path / "l")
    assert "'adopt'" in str(raised.value)


@pytest.mark.parametrize("column", ["digest", "source_digest", "decree", "part"])
def test_a_file_from_between_two_versions_is_taken_over(tmp_path: Path, column: str) -> None:
    """What it lacks is nothing, and no error."""
    with closing(sqlite3.connect(tmp_path / "l")) as connection:
        connection.executescript(f"{OLD_SCHEMAS[3]} ALTER TABLE outputs DROP COLUMN {column}; PRAGMA user_version=3")
    with closing(Ledger(tmp_path / "l")) as ledger:
        assert list(ledger.outputs.all()) == []


def test_the_checksum_of_a_row_depends_on_its_values_only() -> None:
    """Not on whether Python keeps a text once, nor on how often anything refers to a value."""
    text = "".join(["do", "ne"])
    for values in ((b"a", "done", 1, 2**40, None, -1, ""), (b"a", text, 1, 2**40, None, -1, "")):
        assert row_sum(*values) == row_sum(*[*values]) == zlib.crc32(_DONE)


_DONE = (
    b"(\x07\x00\x00\x00s\x01\x00\x00\x00au\x04\x00\x00\x00donei\x01\x00\x00\x00"
    b"l\x03\x00\x00\x00\x00\x00\x00\x00\x00\x04Ni\xff\xff\xff\xffu\x00\x00\x00\x00"
)
