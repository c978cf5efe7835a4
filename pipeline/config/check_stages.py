"""Checks of each declared stage: its function, its options, where its outputs go and how they are saved."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.config.document import Document
from pipeline.config.model import Output, StageConfig
from pipeline.config.schema import Stage as Declared
from pipeline.config.schema import who_at
from pipeline.errors import StageError
from pipeline.files.template import Template, TemplateError, always_same, parse_template
from pipeline.stage.options import Place, check_options
from pipeline.stage.resolve import find, set_stage_path
from pipeline.stage.signature import Stage, keyword_options
from pipeline.stage.values import IMAGE, Kind, saver_for
from pipeline.types import FitBox


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
    from pipeline.images.encode import SAVERS

    return {name for saver in SAVERS.values() for name in keyword_options("save", saver)}


def output_of(document: Document, index: int, stage: Declared, kind: Kind | None, folder: Path) -> Output | None:
    """Where a stage's output goes, and how a value of this kind is saved there; None where its template is none."""
    declared, place, who = stage.output, ("stages", index, "output"), f"stage {stage.name!r}"
    assert declared is not None
    try:
        template = parse_template(declared.path, folder, of_groups=stage.gather)
    except TemplateError as error:
        document.complain((*place, "path"), f"{who}: {error}")
        return None
    if kind is None:
        return Output(template, {})
    return Output(template, _save(document, place, who, template, declared.save, kind))


def _save(
    document: Document, place: Place, who: str, template: Template, given: dict[str, Any], kind: Kind
) -> dict[str, Any]:
    own_format = template.pieces[-1] in (("name",), ("suffix",))
    if kind.suffixes and not own_format and template.suffix.lower() not in kind.suffixes:
        text = f"{who}: no {kind.name} can be written as {template.suffix!r}; end with {' or '.join(kind.suffixes)}"
        document.complain((*place, "path"), text)
    saver = saver_for(template.suffix) if kind is IMAGE and not own_format else None
    if kind is IMAGE and not own_format and saver is None:
        what = f"as {template.suffix!r}" if template.suffix else "without a suffix; end with .jpg or {suffix}"
        document.complain((*place, "path"), f"{who}: no picture can be written {what}")
        return {}
    if saver is None:
        if given:
            why = "its format differs from file to file" if kind is IMAGE else "it does not make a picture"
            document.complain((*place, "save"), f"{who}: has no save options, since {why}", key=True)
        return {}
    from pipeline.images.encode import check_save

    options, problems = check_options(keyword_options("save", saver), given)
    for each in problems:
        document.complain((*place, "save", *each.place), f"{who}: save: {each.text}", key=each.key)
    try:
        if not problems:
            check_save(template.suffix, options)
    except ValueError as error:
        document.complain((*place, "save"), f"{who}: save: {error}")
    return options


def check_outputs(document: Document, stages: Sequence[StageConfig | None], root: Path) -> None:
    """No two stages may always have the same output, nor may any lie among the inputs."""
    real = os.path.realpath(root)
    seen: list[tuple[str, Template]] = []
    for index, config in enumerate(stages):
        if config is None or config.output is None:
            continue
        place, template = ("stages", index, "output", "path"), config.output.template
        for other, its in seen:
            # Those that choose among the sources may well leave each other's alone.
            if always_same(its, template) and not _matches(stages, index):
                document.complain(place, f"stages {other!r} and {config.name!r} have the same output")
        seen.append((config.name, template))
        if problem := _misnamed(config, template):
            document.complain(place, f"stage {config.name!r}: {problem}")
        if os.path.realpath(os.fsdecode(template.folder)) == real:
            text = f"stage {config.name!r}: its outputs would lie among the inputs and be read as such"
            document.complain(place, f"{text}; put them under a folder of their own")


def _misnamed(config: StageConfig, template: Template) -> str:
    """What the stage itself has against the suffix of its output; empty where that is the source's."""
    try:
        config.stage.check_output(template.suffix, config.options)
    except (ValueError, StageError) as error:
        return str(error)
    return ""


def _matches(stages: Sequence[StageConfig | None], index: int | None) -> tuple[str, ...]:
    """The patterns by which the branch of a stage chooses its sources."""
    while index is not None and (stage := stages[index]) is not None:
        if stage.parent is None:
            return stage.match
        index = stage.parent
    return ()
