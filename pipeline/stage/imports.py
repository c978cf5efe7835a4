"""Finds the imports anywhere in a piece of code, and their files, from its text and without importing anything."""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec, PathFinder
from importlib.util import resolve_name

from pipeline.records import dataclass
from pipeline.stage.counted import file_of, places_of

# Calls that load what only the call knows, unless a text is all that they are given.
_LOADERS = frozenset({"import_module", "__import__", "exec_module", "load_module", "run_module"})
_READERS = frozenset({"open", "read_text", "read_bytes", "load", "loads", "read_csv", "loadtxt", "get_data", "files"})
_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)


@dataclass(frozen=True)
class HiddenUse:
    """A line of a function that loads or reads a file that the code does not name."""

    line: int
    last_line: int
    what: str
    is_load: bool = False
    """True if the line loads a module, which a worker can tell."""


@dataclass(frozen=True)
class Located:
    """A file that an import of a name would load."""

    file: str
    package: str
    """The package to which relative imports in the file refer."""
    is_named: bool
    """True if the file is the named module itself, and not a package above it."""


def imported_names(tree: ast.Module, package: str) -> list[str]:
    """Return the names of everything that a module imports; for `from a import b` both a and a.b."""
    return list(dict.fromkeys(_imported_names(tree, package)))


def _imported_names(tree: ast.Module, package: str) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # more dots than packages, in a line that never ran
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names if alias.name != "*")
        elif isinstance(node, ast.Call) and called(node) in ("import_module", "__import__"):
            name = _text_given(node)
            if name is not None and not (name.startswith(".") and not package):
                yield resolve_name(name, package) if name.startswith(".") else name


def hidden_uses(tree: ast.Module) -> list[HiddenUse]:
    """Return the lines inside functions that load or read files that the code does not name."""
    found: dict[int, HiddenUse] = {}
    for function in (node for node in ast.walk(tree) if isinstance(node, _FUNCTIONS)):
        for node in ast.walk(function):
            if what := _hidden_use(node):
                line: int = node.lineno  # type: ignore[attr-defined]
                last: int = node.end_lineno or line  # type: ignore[attr-defined]
                is_load = isinstance(node, ast.Call) and called(node) in _LOADERS
                found.setdefault(line, HiddenUse(line, last, what, is_load))
    return [found[line] for line in sorted(found)]


def _hidden_use(node: ast.AST) -> str:
    if isinstance(node, ast.Name) and node.id == "__file__":
        return "reads a file beside the code"
    if not isinstance(node, ast.Call):
        return ""
    name = called(node)
    if name in _LOADERS and (_text_given(node) is None or name not in ("import_module", "__import__")):
        return f"{name}() of what only the call knows"
    if name == "run_path":
        return "run_path() of a file"
    if name in _READERS and _reads_a_named_file(node):
        return f"{name}() of a file"
    return ""


def _reads_a_named_file(node: ast.Call) -> bool:
    """Return whether a call opens a file by a literal name, for reading."""
    given = node.args[0] if node.args else None
    if isinstance(node.func, ast.Attribute) and isinstance(node.func.value, ast.Call) and not node.args:
        given = node.func.value.args[0] if node.func.value.args else None  # Path("table.csv").read_text()
    modes = [each.value for each in node.args[1:2] if isinstance(each, ast.Constant) and isinstance(each.value, str)]
    is_written = any(set(mode) & set("wax+") for mode in modes if called(node) == "open")
    is_path = isinstance(given, ast.Constant) and isinstance(given.value, str) and "{" not in given.value
    return is_path and not is_written and called(node) != "loads"


def called(node: ast.Call) -> str:
    """Return the last part of the name of a called function."""
    if isinstance(node.func, ast.Attribute):
        return node.func.attr
    return node.func.id if isinstance(node.func, ast.Name) else ""


def _text_given(node: ast.Call) -> str | None:
    given = node.args[0] if node.args else None
    return given.value if isinstance(given, ast.Constant) and isinstance(given.value, str) else None


def locate(name: str) -> list[Located]:
    """Return the existing files of a module and of the packages above it, without importing any."""
    found: list[Located] = []
    words, path = name.split("."), None
    for depth in range(len(words)):
        full = ".".join(words[: depth + 1])
        file, path = _find(full, path, is_top=depth == 0)
        if file:
            package = full if path is not None else full.rpartition(".")[0]
            found.append(Located(file, package, is_named=full == name))
        if not path:
            break
    return found


def _find(name: str, path: list[str] | None, *, is_top: bool) -> tuple[str | None, list[str] | None]:
    """Return the file of a module, and the folders of its submodules if it is a package."""
    if (module := sys.modules.get(name)) is not None:
        return file_of(module), places_of(module) or None
    if not is_top and path is None:
        return None, None
    spec = _spec(name, path, is_top=is_top)
    if spec is None:
        return None, None
    file = getattr(spec.loader, "archive", None) or (spec.origin if spec.has_location else None)
    places = spec.submodule_search_locations
    return os.path.abspath(file) if file else None, list(places) if places is not None else None


def _spec(name: str, path: list[str] | None, *, is_top: bool) -> ModuleSpec | None:
    for finder in sys.meta_path if is_top else (PathFinder,):
        try:
            spec: ModuleSpec | None = finder.find_spec(name, path)
        except Exception:  # a finder of whoever
            continue
        if spec is not None:
            return spec
    return None
