"""filemill: run your own functions over folders of files, in parallel, every night, without babysitting.

Its public names are loaded when they are used, so that a stage that wants one of them stays light.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.api import iterate, load, run
    from pipeline.errors import FilemillError
    from pipeline.messages import Outcome, Result
    from pipeline.progress import Summary
    from pipeline.types import FitBox, Item, Part, Picture, Skip

__version__ = "0.1.0"
__all__ = [
    "FilemillError", "FitBox", "Item", "Outcome", "Part", "Picture", "Result", "Skip", "Summary", "__version__",
    "iterate", "load", "run",
]  # fmt: skip

_PLACES = {
    "FitBox": "types", "Item": "types", "Part": "types", "Picture": "types", "Skip": "types", "iterate": "api",
    "FilemillError": "errors", "Outcome": "messages", "Result": "messages", "Summary": "progress",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.{_PLACES[name]}"), name)


class _Package(ModuleType):
    """Gives the functions `load` and `run`, whose names are those of modules, too: importing one would hide them."""

    @property
    def load(self) -> Any:
        return importlib.import_module("pipeline.api").load

    @load.setter
    def load(self, module: ModuleType) -> None:
        """Where Python puts the module of this name; it is found in `sys.modules` all the same."""

    @property
    def run(self) -> Any:
        return importlib.import_module("pipeline.api").run

    @run.setter
    def run(self, module: ModuleType) -> None:
        """Where Python puts the module of this name; it is found in `sys.modules` all the same."""


sys.modules[__name__].__class__ = _Package
