"""A digest over what code does: neither layout, comments, docstrings nor the version of Python enter it.

Light: it needs nothing but the standard library, so that a test can run it on every Python there is.
"""

from __future__ import annotations

import ast
import hashlib
from collections.abc import Iterator
from typing import Any

_DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
# Fields that say how something was written, or that some versions of Python have and others do not.
_NOT_CODE = ("kind", "type_comment", "type_ignores")


def digest_of_code(tree: ast.AST) -> str:
    """The digest of a piece of code: the same for ever, wherever it is made."""
    return hashlib.blake2b("\n".join(_tokens(tree)).encode(), digest_size=16).hexdigest()


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
