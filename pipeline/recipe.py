"""The digests that decide whether an output is stale: everything but the source, in named parts."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

from pipeline import values
from pipeline.signature import Stage
from pipeline.stage import find_function
from pipeline.types import FitBox

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
    least: FitBox | None = None
    """The box that decides how finely its picture is decoded, where that is not its own."""
    own_colours: bool = False


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
            {
                "code": code_of(step.stage.target, folder, step.stage.module),
                "options": _plain(step.options, folder),
                **_decoding(step),
            }
            for step in route
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


def _decoding(step: Step) -> dict[str, Any]:
    """What else decides how its pictures are decoded; usually nothing."""
    parts: dict[str, Any] = {"for": step.least._asdict()} if step.least else {}
    parts |= {"color": "keep"} if step.own_colours else {}
    return {"decoding": parts} if parts else {}


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
    if isinstance(value, Enum):
        return _plain(value.value, folder)
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if fields := getattr(value, "__dataclass_fields__", None) or getattr(type(value), "model_fields", None):
        return {name: _plain(getattr(value, name), folder) for name in fields}
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


def code_of(target: Any, folder: Path, found_in: str = "") -> str:
    """A digest of the code of a stage: of its module, and of what that imports from the YAML's folder.

    A decorator may have made the target in another module than the one where it was found: both count. A module that
    says `RECIPE = 3` is taken at that word instead, with what it imports.
    """
    module = sys.modules[found_in or target.__module__]
    name = f"{module.__name__.rpartition('.')[2]}.{getattr(target, '__qualname__', '')}"
    recipe = getattr(module, "RECIPE", None)
    if isinstance(recipe, int):
        return f"{name} recipe {recipe}"
    seen: dict[str, str] = {}
    for each in (module, sys.modules[target.__module__]):
        if each.__spec__ is not None:
            _digest_module(each.__spec__, folder, seen)
    return f"{name} {_digest(''.join(sorted(seen.values())).encode())}"


def _digest_module(spec: ModuleSpec, folder: Path, seen: dict[str, str]) -> None:
    """Digest a module and what it imports of the YAML's folder, each file once."""
    if not spec.has_location or spec.origin is None or spec.origin in seen:
        return
    seen[spec.origin] = contents_of(Path(spec.origin))
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):  # no source, such as a compiled module: its contents count
        return
    seen[spec.origin] = digest_of_code(tree)
    for name in _imported(tree, spec.parent or ""):
        helper = _find_spec(name, folder)
        if helper is not None:
            _digest_module(helper, folder, seen)


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """The names of all that a module imports, wherever in it; for `from a import b` both a and a.b."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            try:
                base = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            except ImportError:  # more dots than packages, in a line that never ran
                continue
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)


def _find_spec(name: str, folder: Path) -> ModuleSpec | None:
    """Where a module of the YAML's folder lies, imported yet or not; None for any other, and for a mere attribute."""
    top = name.partition(".")[0]
    if top == "pipeline" or top in sys.stdlib_module_names:
        return None
    try:
        # Finding a.b imports a, which nobody wants of a library.
        spec = importlib.util.find_spec(top)
        if spec is not None and top != name and _is_ours(spec, folder):
            spec = importlib.util.find_spec(name)
    except (ImportError, ValueError, AttributeError):
        return None
    return spec if spec is not None and _is_ours(spec, folder) else None


def _is_ours(spec: ModuleSpec, folder: Path) -> bool:
    """Whether a module or package lies in the YAML's folder and was not installed there."""
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    paths = [Path(place).resolve() for place in places]
    return any(folder in path.parents and "site-packages" not in path.parts for path in paths)


def digest_of_code(tree: ast.AST) -> str:
    """A digest over what code does: neither layout, comments, docstrings nor the version of Python enter it."""
    return _digest("\n".join(_tokens(tree)).encode())


def _tokens(tree: ast.AST) -> Iterator[str]:
    """The tree as a flat list of its nodes, fields and values; a stack, since sums of many terms nest deeply."""
    waiting: list[Any] = [tree]
    while waiting:
        node = waiting.pop()
        if isinstance(node, _Mark):
            yield node
        elif isinstance(node, ast.AST):
            yield type(node).__name__
            waiting.append(_Mark(")"))
            for name, value in reversed(list(_fields(node))):
                waiting += [value, _Mark(name)]
        elif isinstance(node, list):
            waiting += [_Mark("]"), *reversed(node), _Mark("[")]
        else:
            # Not repr(): which characters that escapes depends on the version of Python.
            yield f"{type(node).__name__} {node!a}"


class _Mark(str):
    """A token as it stands, where a str would be a value of the code's."""


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """The fields of a node that say what it does."""
    for name in node._fields:
        value: Any = getattr(node, name, None)
        if name == "body" and isinstance(node, _DOCUMENTED):
            value = _without_docstring(value)
        if isinstance(node, ast.JoinedStr):  # Python 3.12 has empty texts between the fields of an f-string
            value = [each for each in value if not (isinstance(each, ast.Constant) and each.value == "")]
        if name in _NOT_CODE or value == [] or (value is None and not isinstance(node, ast.Constant)):
            continue
        yield name, value


def _without_docstring(body: Any) -> Any:
    first = body[0] if body else None
    documented = isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant)
    return body[1:] if documented and isinstance(first.value.value, str) else body  # type: ignore[union-attr]


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
