"""filemill: run your own functions over folders of files, in parallel, every night, without babysitting.

Its public names are loaded when they are used, so that a stage that wants one of them stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline import values
    from pipeline.api import iterate, load, run
    from pipeline.errors import FileFailure, FilemillError, Unreadable
    from pipeline.messages import Outcome, Result
    from pipeline.report.summary import Summary
    from pipeline.types import FitBox, Item, Part, Picture, Skip, path_as_json, printable_path

__version__ = "0.1.0"
__all__ = [
    "FileFailure", "FilemillError", "FitBox", "Item", "Outcome", "Part", "Picture", "Result", "Skip", "Summary",
    "Unreadable", "__version__", "iterate", "load", "path_as_json", "printable_path", "run", "values",
]  # fmt: skip

is_program = False
"""Whether this process is nothing but the program, rather than a script or a notebook that has imported it."""

has_run_stages = False
"""Whether stages have run in this process, and may have left threads and exit functions that never end."""

# Where each public name is defined; a module is loaded when one of its names is used.
_DEFINED_IN = {
    "FileFailure": "errors",
    "FilemillError": "errors",
    "FitBox": "types",
    "Item": "types",
    "Outcome": "messages",
    "Part": "types",
    "Picture": "types",
    "Result": "messages",
    "Skip": "types",
    "Summary": "report.summary",
    "Unreadable": "errors",
    "iterate": "api",
    "load": "api",
    "path_as_json": "types",
    "printable_path": "types",
    "run": "api",
}


def __getattr__(name: str) -> Any:
    if name == "values":
        return importlib.import_module("pipeline.values")
    if name not in _DEFINED_IN:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.{_DEFINED_IN[name]}"), name)
