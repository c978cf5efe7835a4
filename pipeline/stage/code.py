"""The files that hold a stage's code, and a digest of what they do."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.files.digest import contents_of


def code_of(target: Any, folder: Path, found_in: str = "") -> str:
    """Return the code of a stage: its name, and a digest of its module and of what that imports from the YAML's folder.

    A decorator may have made the target in another module than the one where it was found: both count. A module that
    says `RECIPE = 3` is taken at that word instead, with what it imports.
    """
    module = sys.modules[found_in or target.__module__]
    name = f"{module.__name__.rpartition('.')[2]}.{getattr(target, '__qualname__', '')}"
    if (recipe := _recipe_of(module)) is not None:
        return f"{name} recipe {recipe}"
    digests = "".join(sorted(_digests(target, folder, found_in).values()))
    return f"{name} {hashlib.blake2b(digests.encode(), digest_size=16).hexdigest()}"


def files_of(target: Any, folder: Path, found_in: str = "") -> tuple[list[str], int | None]:
    """Return the files whose code counts, and the module's `RECIPE`, which counts instead if it has one."""
    module = sys.modules[found_in or target.__module__]
    if (recipe := _recipe_of(module)) is not None:
        return [getattr(module, "__file__", None) or module.__name__], recipe
    return list(_digests(target, folder, found_in)), None


def _recipe_of(module: ModuleType) -> int | None:
    recipe = getattr(module, "RECIPE", None)
    return recipe if isinstance(recipe, int) else None


def _digests(target: Any, folder: Path, found_in: str) -> dict[str, str]:
    """Return the digest of every file that counts, by its path."""
    seen: dict[str, str] = {}
    for each in (sys.modules[found_in or target.__module__], sys.modules[target.__module__]):
        if each.__spec__ is not None:
            _digest_module(each.__spec__, folder, seen)
    return seen


def _digest_module(spec: ModuleSpec, folder: Path, seen: dict[str, str]) -> None:
    """Digest a module and what it imports of the YAML's folder, each file once."""
    if not spec.has_location or spec.origin is None or spec.origin in seen:
        return
    try:
        tree = ast.parse(Path(spec.origin).read_bytes())
    except (OSError, SyntaxError, ValueError):  # no source, such as a compiled module: its contents count
        seen[spec.origin] = contents_of(Path(spec.origin))
        return
    if (recipe := _written_recipe(tree)) is not None:
        seen[spec.origin] = f"{spec.name.rpartition('.')[2]} recipe {recipe}"
        return
    seen[spec.origin] = digest_of_code(tree)
    for name in _imported(tree, spec.parent or ""):
        helper = _find_spec(name, folder)
        if helper is not None:
            _digest_module(helper, folder, seen)


def _written_recipe(tree: ast.Module) -> int | None:
    """Return the number of `RECIPE = 3` in a module that need not have been imported."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name("RECIPE")], ast.Constant(int(recipe))):
                return recipe
    return None


def _imported(tree: ast.Module, package: str) -> Iterator[str]:
    """Yield the names of all that a module imports, wherever in it; for `from a import b` both a and a.b."""
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
    """Find a module of the YAML's folder, imported yet or not; None for any other, and for a mere attribute."""
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
    """Return whether a module or package lies in the YAML's folder and was not installed there."""
    places = [spec.origin] if spec.has_location and spec.origin else list(spec.submodule_search_locations or ())
    paths = [Path(place).resolve() for place in places]
    return any(folder in path.parents and "site-packages" not in path.parts for path in paths)


_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say how something was written, or that some versions of Python have and others do not.
_NOT_CODE = ("kind", "type_comment", "type_ignores")


def digest_of_code(tree: ast.AST) -> str:
    """Return the digest of a piece of code, which is the same on every machine and version of Python."""
    return hashlib.blake2b("\n".join(_tokens(tree)).encode(), digest_size=16).hexdigest()


def _tokens(tree: ast.AST) -> Iterator[str]:
    """Yield the nodes, fields and values of a tree; with a stack, since sums of many terms nest deeply."""
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
    """A token of the tree's structure, unlike a str, which is a value in the code."""


def _fields(node: ast.AST) -> Iterator[tuple[str, Any]]:
    """Yield the fields of a node that say what it does."""
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
