"""The packages of CONTRIBUTING.md's table: imports go down it only, and what must stay light stays light."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path

from support.program import ROOT

PACKAGE = ROOT / "pipeline"
FOR_STAGES = {"pipeline", "pipeline.types", "pipeline.images", "pipeline.stage.program", "pipeline.testing"}


def table() -> dict[str, set[str]]:
    """What each package may import, from the table in CONTRIBUTING.md."""
    rows = re.findall(r"^\| ([^|]+) \|[^|]*\| ([^|]*) \|$", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    packages = {tuple(re.findall(r"`(\w+)", first)): set(re.findall(r"\w+", may)) for first, may in rows}
    return {package: may for row, may in packages.items() for package in row}


def package_of(module: str) -> str:
    """The row of a module: its package, `api` and `cli` for themselves, `root` for other modules at the top."""
    name = module.split(".")[1] if "." in module else ""
    return name if ((PACKAGE / name).is_dir() and name) or name in ("api", "cli", "values") else "root"


def imports(file: Path) -> set[str]:
    """The modules of this project that a file imports, at whatever depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            inner = ROOT / module.replace(".", "/")
            found |= {f"{module}.{a.name}" if (inner / f"{a.name}.py").exists() else module for a in node.names}
    return {name for name in found if name.split(".")[0] in ("pipeline", "stages")}


def test_imports_go_down_the_table() -> None:
    """Data flows one way: no package knows those that use it."""
    allowed, wrong = table(), []
    for file in sorted(PACKAGE.rglob("*.py")):
        if file in (PACKAGE / "__init__.py", PACKAGE / "__main__.py"):
            continue  # the first loads public names when they are used, the second is the command line
        mine = package_of(".".join(file.relative_to(ROOT).with_suffix("").parts))
        for name in imports(file):
            if package_of(name) not in allowed[mine] | {mine, "root"}:
                wrong.append(f"{file.relative_to(ROOT)} imports {name}")
    assert wrong == [], "against the table in CONTRIBUTING.md"


def test_every_package_has_a_row() -> None:
    """The newcomer's map is whole, and no module stands beside the house."""
    packages = {file.parent.name for file in PACKAGE.glob("*/__init__.py")}
    assert packages | {"api", "cli", "values", "root"} == set(table())
    assert len(list(PACKAGE.glob("*.py"))) <= 14


def test_bundled_stages_import_only_what_is_public() -> None:
    """A bundled stage is written as a user's would be."""
    wrong = [f"{file.name}: {each}" for file in (ROOT / "stages").glob("*.py") for each in imports(file) - FOR_STAGES]
    assert wrong == []


def test_a_worker_stays_light() -> None:
    """Every spawned worker pays for what it imports: neither pydantic, nor YAML, nor SQLite, nor Pillow."""
    code = "import sys, pipeline.worker.main; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "sqlite3", "PIL", "tqdm", "pathspec"} & set(loaded)


def test_a_run_needs_neither_pydantic_nor_yaml() -> None:
    """They check pipeline.yaml in a process of its own; the run that follows does not pay for their imports."""
    code = "import sys, pipeline.commands.run, pipeline.operations.run, pipeline.config.load; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not {"pydantic", "yaml", "PIL", "pathspec"} & set(loaded)
