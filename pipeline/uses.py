"""Each declared stage, found, and its options checked, whatever else is wrong with the file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.document import Document, Place
from pipeline.errors import StageError
from pipeline.options import check_options
from pipeline.signature import Stage, keyword_options
from pipeline.stage import find, set_stage_path
from pipeline.types import FitBox
from pipeline.vocabulary import who_at


@dataclass(frozen=True)
class Found:
    """A stage that was found, and what it was given."""

    stage: Stage
    options: dict[str, Any]
    box: FitBox | None


def find_stages(document: Document, folder: Path) -> list[Found | None]:
    """Find each stage and check its options, whatever else is wrong with the file; None for one with complaints."""
    declared = document.data.get("stages")
    if not isinstance(declared, list):
        return []
    try:
        set_stage_path(folder)
    except StageError as error:
        document.complain(("stages",), error.text)
        return [None] * len(declared)
    return [_find_stage(document, folder, index) for index in range(len(declared))]


def _find_stage(document: Document, folder: Path, index: int) -> Found | None:
    place: Place = ("stages", index)
    declared, who = document.at(place), who_at(document.data, place)
    uses, given = (declared.get("uses"), declared.get("with", {})) if isinstance(declared, dict) else (None, None)
    if not isinstance(uses, str) or not isinstance(given, dict):
        return None  # the vocabulary has said so
    where = ""
    try:
        stage = find(uses, folder)
        where = f"{stage.where}: "
        options, problems = check_options(stage.options, given)
    except StageError as error:
        document.complain((*place, "uses"), f"{who}{where}{error.text}", hint=error.hint)
        return None
    for each in problems:
        name, text = str(each.place[0]) if each.place else "", each.text
        if name not in stage.options and name in _every_save_option():
            text = f"no option {name!r}; how an output is saved is said under output.save"
        document.complain((*place, "with", *each.place), f"{who}{text}", key=each.key)
    box = None
    try:
        if not problems:
            stage.check(options)
            box = stage.fit_box(options)
    except ValueError as error:
        document.complain((*place, "with"), f"{who}{error}")
    except StageError as error:
        document.complain((*place, "uses"), f"{who}{error.text}")
    return Found(stage, options, box)


def _every_save_option() -> set[str]:
    from pipeline.formats import SAVERS

    return {name for saver in SAVERS.values() for name in keyword_options("save", saver)}
