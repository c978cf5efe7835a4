"""The house has floors: a file imports only from those that stand above it in CONTRIBUTING.md's table."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "pipeline"


def table() -> dict[str, set[str]]:
    """What each file may import, from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| `(\w+)(?:\.py|/)` \|[^|]*\| ([^|]*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    allowed: dict[str, set[str]] = {}
    for name, may in rows:
        allowed[name] = set(allowed) if may == "all above" else set(re.findall(r"[\w/]+", may)) - {"-"}
    return allowed


def modules() -> list[Path]:
    """Every module of the package."""
    return sorted(PACKAGE.rglob("*.py"))


def name_of(path: Path) -> str:
    """A module's row in the table: its path, or its folder's for engines and commands."""
    below = path.relative_to(PACKAGE).with_suffix("")
    return below.parts[0] if len(below.parts) > 1 else str(below)


def imported(path: Path) -> set[str]:
    """The rows of the table that a module imports, at whatever depth."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            names = [f"{base}.{alias.name}" for alias in node.names] if base == "pipeline" else [base]
        found |= {name.split(".")[1] for name in names if name.startswith("pipeline.")}
    return {name for name in found if (PACKAGE / f"{name}.py").exists() or (PACKAGE / name).is_dir()}


@pytest.mark.parametrize("path", modules(), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_file_imports_only_what_its_row_allows(path: Path) -> None:
    """Data flows one way: no file knows those that use it."""
    name = name_of(path)
    if name == "__init__":
        return  # its row says '-'; what it offers is imported when it is used
    assert imported(path) - {name} <= table()[name], f"{path} imports against CONTRIBUTING.md's table"


def test_every_file_has_a_row() -> None:
    """A new file is put into the table, so that the newcomer's map stays whole."""
    assert {name_of(path) for path in modules()} <= set(table())


def test_a_worker_stays_light() -> None:
    """Every spawned worker pays for what worker.py imports: neither pydantic, nor YAML, nor SQLite, nor Pillow."""
    code = "import sys, pipeline.worker; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "sqlite3", "PIL", "tqdm", "pathspec"} & set(loaded)
