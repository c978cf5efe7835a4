"""A name and a signature become a checked callable.

Tests of stages call `set_stage_path(FOLDER)` once, so that `stages` is found as in a pipeline.
"""

from pipeline.stage.resolve import set_stage_path

__all__ = ["set_stage_path"]
