"""The SQL of the program: it lies in the ledger's package, and files of every version come to the same tables."""

from __future__ import annotations

import ast
import re
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.program import ROOT

from pipeline.ledger.ledger import Ledger
from pipeline.ledger.schema import UPGRADES, VERSION

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


def without_columns(table: str, columns: tuple[str, ...], script: str) -> str:
    dropped = "".join(f"ALTER TABLE {table} DROP COLUMN {column};" for column in columns)
    return script + dropped


OF_VERSION_3 = ("digest", "source_digest", "source_ctime_ns", "decree", "part")
OF_VERSION_2 = ("tried", "source_size", "source_mtime_ns", "recipe", "dismissed_at", "dismissed_by", "output")
TO_2 = without_columns("outputs", OF_VERSION_3, UPGRADES[0]) + "".join(
    f"DROP TABLE {table};" for table in ("digests", "facts", "decrees", "intents")
)
TO_1 = without_columns("failures", OF_VERSION_2, TO_2) + "DROP TABLE spans;"


@pytest.mark.parametrize(("version", "script"), [(1, TO_1), (2, TO_2)])
def test_an_older_file_gets_the_tables_of_a_new_one(tmp_path: Path, version: int, script: str) -> None:
    """Nothing of the program needs to know from which version a file came."""
    file = tmp_path / "l"
    with closing(sqlite3.connect(file)) as connection:
        connection.executescript(f"{script} PRAGMA user_version={version}")
    Ledger(file).close()
    Ledger(tmp_path / "new").close()
    with closing(sqlite3.connect(file)) as old, closing(sqlite3.connect(tmp_path / "new")) as new:
        assert old.execute("PRAGMA user_version").fetchone() == (VERSION,)
        assert {name: {each[0] for each in of} for name, of in tables_of(old).items()} == {
            name: {each[0] for each in of} for name, of in tables_of(new).items()
        }
