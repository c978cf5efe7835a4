"""Digests of pieces of code that do not depend on layout, comments and documentation."""

from __future__ import annotations

import ast
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.files import hashlib
from pipeline.files.digest import contents_of
from pipeline.files.file_system import read_regular

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say how something was written, or that some versions of Python have and others do not.
_NOT_CODE = ("kind", "type_comment", "type_ignores")


def digest_of_code(tree: ast.AST) -> str:
    """Return the digest of a piece of code, which is the same on every machine and version of Python."""
    return hashlib.blake2b("\n".join(_tokens(tree)).encode(), digest_size=16).hexdigest()


def _tokens(tree: ast.AST) -> Iterator[str]:
    """Yield the nodes, fields and values of a tree, without recursion, since sums of many terms nest deeply."""
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
    """Yield the fields of a node that matter to its execution."""
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


def digest_of_source(tree: ast.Module, path: str) -> str:
    """Return the digest of a module: its own `RECIPE` where it has one, and else that of its code."""
    if (recipe := written_recipe(tree)) is None:
        return digest_of_code(tree)
    folder, file = os.path.split(path)
    name = os.path.basename(folder) if file == "__init__.py" else os.path.splitext(file)[0]
    return f"{name} recipe {recipe}"


def digest_of_file(path: str, data: bytes | None = None) -> str:
    """Return the digest of a file of code, given its bytes or as it lies there; of what is no source, its contents'."""
    try:
        if data is None and path.endswith(".py"):
            data = read_regular(path)
        if data is not None:
            return digest_of_source(ast.parse(data), path)
    except (OSError, SyntaxError, ValueError, RecursionError):
        pass
    return contents_of(Path(path))


def written_recipe(tree: ast.Module) -> int | None:
    """Return the number of `RECIPE = 3` in a module that need not have been imported."""
    for node in tree.body:
        match node:
            case ast.Assign([ast.Name("RECIPE")], ast.Constant(int(recipe))) | ast.AnnAssign(
                ast.Name("RECIPE"), _, ast.Constant(int(recipe))
            ):
                return recipe
    return None


def does_nothing(tree: ast.Module) -> bool:
    """Return whether a module has no code, as in most files that only make a package of their folder."""
    return all(
        isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in _without_docstring(tree.body)
    )
