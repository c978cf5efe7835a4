"""What a stage returned, held to what its signature says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from pipeline.errors import FileFailure
from pipeline.names import one_line
from pipeline.signature import Stage
from pipeline.types import Skip
from pipeline.values import is_kind


def check_returned(stage: Stage, name: str, made: Any) -> None:
    """Hold a stage, of this name, to its return annotation. Raises Skip where a filter says no."""
    if stage.makes is not None and is_kind(made, stage.makes):
        return
    if made is None:
        raise FileFailure(f"stage {name!r} returned None; return a value, or raise Skip(reason) ({stage.where})")
    if stage.makes is None:
        if not isinstance(made, bool):
            raise FileFailure(f"stage {name!r} returned {_type(made)}, not True or False ({stage.where})")
        if not made:
            raise Skip(f"left out by stage {name!r}")
    else:
        raise FileFailure(f"stage {name!r} returned {_type(made)}, not {stage.makes.name} ({stage.where})")


def check_path(name: str, made: Path, root: str, source: str = "") -> None:
    """A file that a stage returns must be there, and not among the inputs, where the next run would read it."""
    shown = one_line(str(made))
    if not made.is_file():
        what = "is a folder" if made.is_dir() else "does not exist"
        raise FileFailure(f"stage {name!r} returned the Path '{shown}', which {what}")
    if made != Path(source) and Path(root) in made.parents:
        raise FileFailure(
            f"stage {name!r} made '{shown}' among the inputs; take an Item and write into its scratch folder"
        )


def _type(value: Any) -> str:
    return type(value).__name__
