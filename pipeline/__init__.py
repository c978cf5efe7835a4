"""filemill: run your own functions over folders of files, in parallel, every night, without babysitting.

Its public names are loaded when they are used, so that a stage that wants one of them stays light.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.types import FitBox, Item, Part, Picture, Skip

__version__ = "0.1.0"
__all__ = ["FitBox", "Item", "Part", "Picture", "Skip", "__version__"]

_PLACES = {"FitBox": "types", "Item": "types", "Part": "types", "Picture": "types", "Skip": "types"}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'pipeline' has no attribute {name!r}")
    return getattr(importlib.import_module(f"pipeline.{_PLACES[name]}"), name)
