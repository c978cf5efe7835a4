"""pipeline.yaml -> Config: read, parsed, and checked as a whole before anything runs.

    text --document--> data --schema--> PipelineEntry --stages, options, templates, the tree--> Config

Every complaint is collected on the way and all of them are raised together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import checks
from pipeline.config.document import MAX_BYTES, Document, apply_edit, read_document
from pipeline.config.model import Config, Inputs, Output, PipelineEntry, Pool, StageConfig
from pipeline.config.schema import parse_pipeline, who_at
from pipeline.errors import ConfigError, EnvironmentFailure, StageError
from pipeline.files.template import (
    NO_OUTPUT,
    GroupTemplate,
    Template,
    TemplateError,
    parse_group_template,
    parse_template,
)
from pipeline.files.walk import pattern_problem
from pipeline.stage.options import Place, check_options
from pipeline.stage.resolve import check_call, find, find_function, set_stage_path
from pipeline.stage.signature import Stage, keyword_options
from pipeline.stage.values import IMAGE, Kind, saver_for
from pipeline.stdio import stdout_to_stderr
from pipeline.text import program
from pipeline.types import FitBox

FoundStage = tuple[Stage, dict[str, Any], FitBox | None]
"""A stage, its options after defaults, and the box into which it fits pictures with these options, if any."""


def load_config(file: Path, edits: Sequence[str] = (), *, reads_inputs: bool = True) -> Config:
    """Read and check a pipeline, with `--set` edits laid over it.

    Args:
        file: The path of the pipeline file.
        edits: The values of `--set`, such as `stages.web.with.width=800`.
        reads_inputs: Whether the caller needs the input files; if not, the input root of a pipeline that has run
            before may be missing.

    Raises:
        ConfigError: The pipeline is wrong; the text has every complaint.
        EnvironmentFailure: Only the input root is missing, and the pipeline has run before.
    """
    document = read_document(str(file), _read(file))
    for edit in edits:
        apply_edit(document, edit)
    entry = parse_pipeline(document)
    folder = file.resolve().parent
    with stdout_to_stderr():  # a stage's module may print when it is imported
        found = find_stages(document, folder)
        config = _Loader(document, entry, folder).config(file, found) if entry else None
    if config and len(document.complaints) == 1 and _is_root_lost(config):
        if not reads_inputs:
            return config
        text = f"the input root {config.inputs.root} does not exist, and this pipeline has run before"
        ways = "is its disk mounted, and its name right? if this is meant, make the folder, and 'run --rebuild' goes on"
        raise EnvironmentFailure(f"{text}; {ways}")
    document.raise_complaints()
    assert config is not None  # a file that does not fit has complaints
    return config


def _is_root_lost(config: Config) -> bool:
    """Return whether the input root is missing although the pipeline has run before: a disk may not be mounted."""
    return not os.path.exists(config.inputs.root) and os.path.exists(config.state / "ledger.sqlite")


def _read(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: {reason}", hint=f"name the pipeline: {program()} FILE.yaml") from None


# -- each stage by itself ----------------------------------------------------------------------------------------------


def find_stages(document: Document, folder: Path) -> list[FoundStage | None]:
    """Find each stage and check its options, whether the rest of the file is right or not; None for a wrong one."""
    entries = document.data.get("stages")
    if not isinstance(entries, list):
        return []
    try:
        set_stage_path(folder)
    except StageError as error:
        document.complain(("stages",), error.text)
        return [None] * len(entries)
    return [_find_stage(document, folder, index) for index in range(len(entries))]


def _find_stage(document: Document, folder: Path, index: int) -> FoundStage | None:
    place: Place = ("stages", index)
    entry, who = document.at(place), who_at(document.data, place)
    uses, given = (entry.get("uses"), entry.get("with", {})) if isinstance(entry, dict) else (None, None)
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
    return stage, options, None if problems else _ask_stage(document, place, stage, options)


def _ask_stage(document: Document, place: Place, stage: Stage, options: dict[str, Any]) -> FitBox | None:
    """Have a stage check its options, and ask it for the box into which it fits pictures."""
    who = who_at(document.data, place)
    try:
        stage.check(options)
        return stage.fit_box(options)
    except ValueError as error:
        document.complain((*place, "with"), f"{who}{error}")
    except StageError as error:
        document.complain((*place, "uses"), f"{who}{error.text}")
    return None


def _every_save_option() -> set[str]:
    from pipeline.images.encode import SAVERS

    return {name for saver in SAVERS.values() for name in keyword_options("save", saver)}


# -- the whole of it ---------------------------------------------------------------------------------------------------


class _Loader:
    """Builds the Config of a parsed pipeline, and adds every complaint to its document."""

    def __init__(self, document: Document, entry: PipelineEntry, folder: Path) -> None:
        self._document = document
        self._entry = entry
        self._folder = folder

    def config(self, file: Path, found: Sequence[FoundStage | None]) -> Config:
        """Return the pipeline without the stages that are wrong, with which the document has complaints."""
        entry = self._entry
        name = entry.name or re.sub(r"[^A-Za-z0-9_-]", "_", file.stem)
        inputs, state = self._inputs(), self._path(entry.state or Path(f".pipeline/{name}"))
        if state == inputs.root:
            self._document.complain(("state",), "the state folder is the input root; give it a folder of its own")
        made = self._stages(found)
        checks.check_tree(self._document, entry.stages, made, inputs.root)
        for place, pool in [((), entry.pool), *((("stages", i), each.pool) for i, each in enumerate(entry.stages))]:
            if pool is not None:
                self._check_initializer(pool, place)
        stages = tuple(stage for stage in made if stage is not None)
        if len(stages) == len(made):
            stages = checks.with_decoding(stages, self._document)
        config = Config(
            **vars(entry)
            | {"file": file, "folder": self._folder, "name": name, "inputs": inputs, "state": state, "stages": stages},
            written_root=self._written(entry.inputs.root),
        )
        if entry.libraries or entry.depends or any(each.depends for each in entry.stages):
            from pipeline.config.dependencies import with_dependencies

            config = with_dependencies(config, entry, self._document)
        return replace(config, warnings=tuple(self._document.render(self._document.warnings)))

    def _path(self, written: Path) -> Path:
        return Path(os.path.normpath(self._folder / os.path.expanduser(written)))

    def _written(self, written: Path) -> str:
        """Return a path as the ledger stores it: relative to the project if it lies there, so that it can be moved."""
        path = self._path(written)
        inside = not os.path.isabs(os.path.expanduser(written)) or self._folder in path.parents
        return os.path.relpath(path, self._folder) if inside else str(path)

    def _inputs(self) -> Inputs:
        inputs = self._entry.inputs
        root = self._path(inputs.root)
        if not os.path.isdir(root):
            what = "is no folder" if os.path.exists(root) else "does not exist"
            written = self._document.at(("inputs", "root"))
            self._document.complain(("inputs", "root"), f"the input root {written!r} {what}")
        for key, patterns in (("include", inputs.include), ("exclude", inputs.exclude)):
            for index, pattern in enumerate(patterns):
                if problem := pattern_problem(pattern):
                    self._document.complain(("inputs", key, index), f"{key}: {problem}")
        return replace(inputs, root=root)

    def _check_initializer(self, pool: Pool, place: Place) -> None:
        who = who_at(self._document.data, (*place, "pool")) if place else ""
        if pool.initializer is None:
            if pool.initargs:
                text = f"{who}initargs: there is no 'initializer' to take them"
                self._document.complain((*place, "pool", "initargs"), text)
            return
        try:
            set_stage_path(self._folder)
            function = find_function(pool.initializer)
            check_call(function, pool.initargs)
        except StageError as error:
            text = f"{who}initializer: {error.text}"
            self._document.complain((*place, "pool", "initializer"), text, hint=error.hint)

    def _stages(self, found: Sequence[FoundStage | None]) -> list[StageConfig | None]:
        """Return the checked stages in the order of the YAML; None for one that was not found or has no parent."""
        parents = checks.find_parents(self._document, self._entry.stages)
        made: list[StageConfig | None] = []
        for index, (entry, each) in enumerate(zip(self._entry.stages, found, strict=True)):
            if each is None or index not in parents:
                made.append(None)
                continue
            stage, options, box = each
            parent = parents[index]
            kind = stage.makes or checks.kind_made(made, parent)
            leaves_no_file = entry.output is not None and entry.output.template.text == NO_OUTPUT
            resolved = {
                "options": options,
                "output": None if leaves_no_file else self._output(index, kind),
                "group": self._group(index),
            }
            made.append(
                StageConfig(
                    **vars(entry) | resolved, stage=stage, parent=parent, leaves_no_file=leaves_no_file, box=box
                )
            )
        return made

    def _group(self, index: int) -> GroupTemplate | None:
        entry = self._entry.stages[index]
        try:
            return parse_group_template(entry.group.text) if entry.group else None
        except TemplateError as error:
            self._document.complain(("stages", index, "group"), f"stage {entry.name!r}: group: {error}")
            return None

    def _output(self, index: int, kind: Kind | None) -> Output | None:
        """Return a stage's output with the save options after defaults; None if it has none or its path is wrong."""
        entry = self._entry.stages[index]
        if entry.output is None:
            return None
        try:
            template = parse_template(entry.output.template.text, self._folder, of_groups=entry.gather)
        except TemplateError as error:
            self._document.complain(("stages", index, "output", "path"), f"stage {entry.name!r}: {error}")
            return None
        return Output(template, self._save_options(index, template, entry.output.save, kind) if kind else {})

    def _save_options(self, index: int, template: Template, given: dict[str, Any], kind: Kind) -> dict[str, Any]:
        """Return the save options after defaults; none if the format is that of each source."""
        place, who = ("stages", index, "output"), f"stage {self._entry.stages[index].name!r}"
        if template.pieces[-1] in (("name",), ("suffix",)):  # the source's own format
            why = "its format differs from file to file" if kind is IMAGE else "it does not make a picture"
        elif kind is IMAGE:
            return self._picture_options(place, who, template.suffix, given)
        else:
            why = "it does not make a picture"
            if kind.suffixes and template.suffix.lower() not in kind.suffixes:
                ends = " or ".join(kind.suffixes)
                text = f"{who}: no {kind.name} can be written as {template.suffix!r}; end with {ends}"
                self._document.complain((*place, "path"), text)
        if given:
            self._document.complain((*place, "save"), f"{who}: has no save options, since {why}", key=True)
        return {}

    def _picture_options(self, place: Place, who: str, suffix: str, given: dict[str, Any]) -> dict[str, Any]:
        saver = saver_for(suffix)
        if saver is None:
            what = f"as {suffix!r}" if suffix else "without a suffix; end with .jpg or {suffix}"
            self._document.complain((*place, "path"), f"{who}: no picture can be written {what}")
            return {}
        from pipeline.images.encode import check_save

        options, problems = check_options(keyword_options("save", saver), given)
        for each in problems:
            self._document.complain((*place, "save", *each.place), f"{who}: save: {each.text}", key=each.key)
        try:
            if not problems:
                check_save(suffix, options)
        except ValueError as error:
            self._document.complain((*place, "save"), f"{who}: save: {error}")
        return options
