"""Finds stages by name, reads their signatures, and builds the callables that workers use.

    uses     the name of a stage in pipeline.yaml: resize, package.module:Name, ./folder/file.py:Name
    Stage    a function or class with the types that its signature takes and makes, and its options; its settings in a
             pipeline are a `StageConfig` (config/), and a worker calls the result of `Stage.build`
    Kind     a kind of value that travels between stages: Path, bytes, str, Image.Image, Picture, or a registered type
    options  the stage's keyword-only parameters, given under `with:`

Tests of stages call `set_stage_path(FOLDER)` once, so that `stages` is found as in a pipeline.
"""

from pipeline.stage.resolve import set_stage_path

__all__ = ["set_stage_path"]
