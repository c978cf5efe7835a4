"""Builds the checked pipeline from the parsed YAML and the stages it names."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pipeline.config import checks
from pipeline.config.document import Document
from pipeline.config.model import RUN_FIELD, Config, Inputs, Output, PipelineEntry, Pool, StageConfig, trace_folder
from pipeline.config.paths import check_fields
from pipeline.config.routes import kind_made
from pipeline.config.schema import who_at
from pipeline.config.stage_finder import FoundStage, StageFinder
from pipeline.config.telling import check_metrics, metrics_file, placed
from pipeline.files.template import (
    NO_OUTPUT,
    GroupTemplate,
    Template,
    TemplateError,
    parse_group_template,
    parse_template,
    with_one_spelling,
)
from pipeline.files.walk import pattern_problem
from pipeline.stage.code import NO_CODE, Code
from pipeline.stage.options import Place, check_options
from pipeline.stage.signature import keyword_options
from pipeline.stage.values import IMAGE, Kind, saver_for


class Assembler:
    """Builds the Config of a parsed pipeline, and adds every complaint to its document."""

    def __init__(self, document: Document, entry: PipelineEntry, finder: StageFinder) -> None:
        self._document = document
        self._entry = entry
        self._finder = finder
        self._folder = finder.folder

    def config(self, file: Path, found: Sequence[FoundStage | None]) -> Config:
        """Return the pipeline without its invalid stages, about which the document has complaints."""
        entry = self._entry
        name = entry.name or re.sub(r"[^A-Za-z0-9_-]", "_", file.stem)
        inputs, written = self._inputs(), entry.state or Path(f".pipeline/{name}")
        state = self._path(written)
        metrics = metrics_file(entry.metrics, self._folder, name) if entry.metrics else None
        initializers = [self._initializer(entry.pool, ())]
        initializers += [self._initializer(each.pool, ("stages", index)) for index, each in enumerate(entry.stages)]
        made = self._with_one_spelling(self._stages(found, initializers[1:]))
        made = checks.with_options_of_outputs(made, self._document)
        checks.check_tree(self._document, entry.stages, made, inputs.root)
        checks.check_state(self._document, written, state, self._folder, inputs.root, made)
        check_metrics(self._document, metrics, state)
        stages = tuple(stage for stage in made if stage is not None)
        if len(stages) == len(made):
            stages = checks.with_decoding(stages, self._document)
        trace = self._trace(name)
        if trace:
            checks.check_trace(self._document, trace, inputs.root, state, made)
        config = Config(
            **vars(entry)
            | {"file": file, "folder": self._folder, "name": name, "inputs": inputs, "state": state, "stages": stages}
            | {
                "notify": tuple(placed(each, self._folder) for each in entry.notify),
                "metrics": metrics,
                "trace": trace,
            },
            other_folders=_below_root(trace, inputs.root),
            written_root=self._written(entry.inputs.root),
            initializer_code=initializers[0],
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

    def _trace(self, name: str) -> str | None:
        """Return the path of the trace, absolute and with {run} to be filled in; None without one, or a valid one."""
        written = self._entry.trace
        if written is None:
            return None
        problem = check_fields(written, (RUN_FIELD, "{name}"))
        if not problem and RUN_FIELD not in written:
            problem = "each run writes a file of its own; use {run} in the path"
        if problem:
            self._document.complain(("trace",), f"trace: {problem}, such as runs/{{run}}.ndjson")
            return None
        return str(self._path(Path(written.replace("{name}", name))))

    def _initializer(self, pool: Pool | None, place: Place) -> Code:
        """Return the code of a pool's initializer, if it has one."""
        if pool is None:
            return NO_CODE
        who = who_at(self._document.data, (*place, "pool")) if place else ""
        if pool.initializer is None and pool.initargs:
            text = f"{who}initargs: there is no 'initializer' to take them"
            self._document.complain((*place, "pool", "initargs"), text)
        function = self._finder.find_initializer(place, pool, who)
        return self._finder.code.code_of(function) if function else NO_CODE

    def _stages(
        self, found: Sequence[FoundStage | None], initializers: Sequence[Code]
    ) -> list[StageConfig | None]:  # fmt: skip
        """Return the checked stages in the order of the YAML; None for one that was not found or has no parent."""
        parents = checks.find_parents(self._document, self._entry.stages)
        made: list[StageConfig | None] = []
        for index, (entry, each) in enumerate(zip(self._entry.stages, found, strict=True)):
            if each is None or index not in parents:
                made.append(None)
                continue
            stage, options, box = each
            parent = parents[index]
            kind = stage.makes or kind_made(made, parent)
            leaves_no_file = entry.output is not None and entry.output.template.text == NO_OUTPUT
            resolved = {
                "options": options,
                "output": None if leaves_no_file else self._output(index, kind),
                "group": self._group(index),
                "code": self._finder.code.code_of(stage.target, stage.module),
                "initializer_code": initializers[index],
            }
            made.append(
                StageConfig(
                    **vars(entry) | resolved, stage=stage, parent=parent, leaves_no_file=leaves_no_file, box=box
                )
            )
        return made

    def _with_one_spelling(self, stages: Sequence[StageConfig | None]) -> list[StageConfig | None]:
        """Return the stages so that no output has two keys in the ledger."""
        outputs = [stage.output if stage else None for stage in stages]
        templates = with_one_spelling([output.template if output else None for output in outputs], self._folder)
        return [
            replace(stage, output=replace(output, template=template)) if stage and output and template else stage
            for stage, output, template in zip(stages, outputs, templates, strict=True)
        ]

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
        return replace(
            entry.output,
            template=template,
            save=self._save_options(index, template, entry.output.save, kind) if kind else {},
        )

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


def _below_root(trace: str | None, root: Path) -> tuple[bytes, ...]:
    """Return the folder of the traces if they would be taken for inputs."""
    folder = trace_folder(trace) if trace else root
    return (os.fsencode(folder),) if root in folder.parents else ()
