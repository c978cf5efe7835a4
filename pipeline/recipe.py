"""The digests that decide whether an output is stale: everything but the source, in named parts."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline import values
from pipeline.stage import Stage, find_function

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say how something was written, or that some versions of Python have and others do not.
_NOT_CODE = ("kind", "type_comment", "type_ignores")


@dataclass(frozen=True)
class Recipe:
    """What decides an output beside its source: the stages from the root to it, and how it is saved."""

    parts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """The same for the same parts, on every machine."""
        return _digest(_canonical_json(self.parts).encode())


@dataclass(frozen=True)
class Step:
    """One stage of the route to an output, with its options after defaults."""

    stage: Stage
    options: dict[str, Any]


def recipe_for(
    route: Sequence[Step],
    save: dict[str, Any],
    suffix: str,
    folder: Path,
    initializer: str | None = None,
    initargs: tuple[Any, ...] = (),
) -> Recipe:
    """The recipe of the output at the end of a route; `folder` is the YAML's, where Paths and helpers lie."""
    parts: dict[str, Any] = {
        "route": [
            {"code": code_of(step.stage.target, folder), "options": _plain(step.options, folder)} for step in route
        ],
        "save": {"format": suffix, **_plain(save, folder)},
        "values": values.RECIPE,
    }
    if initializer:
        parts["initializer"] = {
            "code": code_of(find_function(initializer), folder),
            "initargs": [_initarg(each, folder) for each in initargs],
        }
    return Recipe(parts)


def why_changed(old: dict[str, Any], new: dict[str, Any], names: Sequence[str], where: Sequence[str]) -> str:
    """The first part that differs, in words; `names` and `where` are the stages of the route and their files."""
    if len(old.get("route", ())) != len(new["route"]):
        return "stages were added or removed above it"
    for before, after, name, file in zip(old["route"], new["route"], names, where, strict=True):
        if change := _first_change(before["options"], after["options"]):
            return f"{name}: {change}"
        if before["code"] != after["code"]:
            return f"{name}: code changed ({file})"
    if change := _first_change(old.get("save", {}), new["save"]):
        return f"{names[-1]}: save {change}"
    if old.get("initializer") != new.get("initializer"):
        return "the initializer changed"
    return "filemill makes pictures differently now"


def _first_change(before: dict[str, Any], after: dict[str, Any]) -> str:
    for key in [*after, *before]:
        old, new = before.get(key), after.get(key)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict) and old.get("path") == new.get("path"):
            return f"contents of {new['path']} changed"
        return f"{key} {_shown(old)} -> {_shown(new)}"
    return ""


def _shown(value: Any) -> str:
    if isinstance(value, dict) and set(value) == {"path", "contents"}:
        return str(value["path"])
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


# -- options -----------------------------------------------------------------------------------------------------------


def _plain(value: Any, folder: Path) -> Any:
    """Options as JSON: a Path as written plus a digest of what is in the file behind it."""
    if isinstance(value, Path):
        return {"path": value.as_posix(), "contents": contents_of(folder / value.expanduser())}
    if isinstance(value, dict):
        return {str(key): _plain(each, folder) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, folder) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each, folder) for each in value), key=repr)
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    return repr(value)


def _initarg(value: Any, folder: Path) -> Any:
    named = isinstance(value, str) and (folder / value).is_file()
    return _plain(Path(value) if named else value, folder)


def contents_of(file: Path) -> str:
    """A digest of a file's contents; says so where there is no such file to read."""
    try:
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return error.strerror or "unreadable"


# -- code --------------------------------------------------------------------------------------------------------------


def code_of(target: Any, folder: Path) -> str:
    """A digest of the code of a stage: of its module, and of what that imports from the YAML's folder.

    A module that says `RECIPE = 3` is taken at that word instead, with what it imports.
    """
    module = sys.modules[target.__module__]
    name = f"{module.__name__.rpartition('.')[2]}.{target.__qualname__}"
    recipe = getattr(module, "RECIPE", None)
    if isinstance(recipe, int):
        return f"{name} recipe {recipe}"
    seen: dict[Path, str] = {}
    _digest_module(module, folder, seen)
    return f"{name} {_digest(''.join(sorted(seen.values())).encode())}"


def _digest_module(module: ModuleType, folder: Path, seen: dict[Path, str]) -> None:
    file = Path(module.__file__ or "")
    if file in seen or file.suffix != ".py":
        return
    tree = ast.parse(file.read_bytes())
    seen[file] = digest_of_code(tree)
    for name in _imported(tree, module):
        helper = sys.modules.get(name)
        if helper is not None and _is_ours(helper, folder):
            _digest_module(helper, folder, seen)


def _imported(tree: ast.Module, module: ModuleType) -> Iterator[str]:
    """The names of all that a module imports, wherever in it; for `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            package = module.__package__ or ""
            base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _is_ours(module: ModuleType, folder: Path) -> bool:
    """Whether a module lies in the YAML's folder and was not installed there."""
    file = Path(getattr(module, "__file__", None) or "/")
    own = module.__name__.partition(".")[0] != "pipeline"
    return own and folder in file.resolve().parents and "site-packages" not in file.parts


def digest_of_code(tree: ast.AST) -> str:
    """A digest over what code does: neither layout, comments, docstrings nor the version of Python enter it."""
    return _digest(repr(_code(tree)).encode("utf-8", "surrogatepass"))


def _code(node: Any) -> Any:
    if isinstance(node, ast.AST):
        fields = []
        for name in node._fields:
            value = getattr(node, name, None)
            if name == "body" and isinstance(node, _DOCUMENTED):
                value = _without_docstring(value)
            if (value is None and not isinstance(node, ast.Constant)) or value == [] or name in _NOT_CODE:
                continue
            fields.append((name, _code(value)))
        return (type(node).__name__, *fields)
    if isinstance(node, list):
        return [_code(each) for each in node]
    return f"{type(node).__name__} {node!r}"


def _without_docstring(body: Any) -> Any:
    first = body[0] if body else None
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if documented and isinstance(first.value.value, str) else body  # type: ignore[union-attr]


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
