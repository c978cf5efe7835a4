"""Finds the suffixes of pictures that a pipeline's code registers with Pillow, so that planning takes such files.

A worker that has called the initializer reads them by their contents; planning never calls any code of the user's. It
takes the suffixes that were registered while the code was imported, and those that the code names in a call of
`register_extension` or `register_extensions`, in a function too.
"""

from __future__ import annotations

import ast
import sys

_REGISTERING = ("register_extension", "register_extensions")


def suffixes_named(tree: ast.AST) -> frozenset[str]:
    """Return the suffixes, in lower case, that code names in calls that register them."""
    calls = (node for node in ast.walk(tree) if isinstance(node, ast.Call))
    named = (node for node in calls if _name_of(node.func) in _REGISTERING)
    texts = (each.value for call in named for each in ast.walk(call) if isinstance(each, ast.Constant))
    return frozenset(text.lower() for text in texts if isinstance(text, str) and text.startswith("."))


def _name_of(function: ast.expr) -> str:
    return getattr(function, "attr", "") or getattr(function, "id", "")


def suffixes_registered() -> frozenset[str]:
    """Return the suffixes, in lower case, that plug-ins have registered with Pillow in this process."""
    if "PIL.Image" not in sys.modules:
        return frozenset()
    from PIL import Image

    from pipeline.images.plugins import is_plugin

    names = {name for name in Image.OPEN if is_plugin(name)}
    return frozenset(suffix for suffix, name in Image.EXTENSION.items() if name in names)
