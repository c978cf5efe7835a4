"""Writes a new stage that works unchanged, and a test of it that passes."""

from __future__ import annotations

import builtins
import keyword
from importlib import resources
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.stage.resolve import BUNDLED

TAKES = ("image", "text", "bytes", "path")
"""The kinds of value that `new --takes` offers."""


def write_stage(name: str, folder: Path, takes: str) -> list[Path]:
    """Write a stage and its test beside a pipeline, and return the paths written.

    Raises:
        UsageError: `name` cannot be a stage's name, or a file is in the way.
    """
    _refuse_name(name, folder)
    stage, test = folder / "stages" / f"{name}.py", folder / "tests" / "stages" / f"test_{name}.py"
    for each in (stage, stage.with_suffix(""), test):
        if each.exists():
            raise UsageError(f"{each} exists; nothing is overwritten")
    written = [(stage, _template(f"stage_{takes}", name)), (test, _template(f"test_{takes}", name))]
    conftest = test.with_name("conftest.py")
    if not conftest.exists():
        written.append((conftest, _template("conftest", name)))
    for file, text in written:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(text)
    return [file for file, _ in written]


def _template(file: str, name: str) -> str:
    """Return a template's text with the stage's name filled in."""
    text = (resources.files("pipeline.operations") / "templates" / f"{file}.py.tmpl").read_text(encoding="utf-8")
    return text.replace("STAGE", name)


def _refuse_name(name: str, folder: Path) -> None:
    if not name.isidentifier() or keyword.iskeyword(name) or name.startswith("_"):
        text = "a stage is named like a Python function, with letters, digits and '_'"
        raise UsageError(f"{name!r} is no name for a stage: {text}")
    templates = (_template(f"{file}_{takes}", "STAGE") for file in ("stage", "test") for takes in TAKES)
    imported = any(f"import {name}\n" in each for each in templates)
    if hasattr(builtins, name) or imported:
        raise UsageError(f"{name!r} is a name that the stage itself would need; name it otherwise")
    is_bundled = any((BUNDLED / each).exists() for each in (f"{name}.py", f"{name}/__init__.py"))
    if is_bundled and (folder / "stages").resolve() != BUNDLED:
        raise UsageError(f"{name!r} is the name of a bundled stage; name it otherwise")
