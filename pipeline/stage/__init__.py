"""Finds stages by name, reads their signatures, and builds the callables that workers use.

    uses     the name of a stage in pipeline.yaml: resize, package.module:Name, ./folder/file.py:Name
    Stage    a function or class with the types that its signature takes and makes, and its options; its settings in a
             pipeline are a `StageConfig` (config/), and a worker calls the result of `Stage.build`
    Kind     a kind of value that travels between stages: Path, bytes, str, Image.Image, Picture, or a registered type
    options  the stage's keyword-only parameters, given under `with:`

Tests of stages call `set_stage_path(FOLDER)` once, so that `stages` is found as in a pipeline.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pipeline.stage.resolve import set_stage_path

__all__ = ["set_stage_path"]


def __getattr__(name: str) -> Any:
    """Import what finds stages when it is asked for: most that import a module from here find none."""
    if name != "set_stage_path":
        raise AttributeError(f"module 'pipeline.stage' has no attribute {name!r}")
    from pipeline.stage.resolve import set_stage_path

    return set_stage_path
