"""pipeline.yaml -> Config: the whole vocabulary, checked as a whole before anything runs.

    text --document--> data --vocabulary--> Declared --stages, options, templates--> Config

Every complaint is collected on the way and all of them are raised together.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.config.check_stages import Found, check_outputs, find_stages, output_of
from pipeline.config.check_tree import check_fan_outs, check_gathers, check_match, with_siblings
from pipeline.config.dependencies import Depends, versions_of
from pipeline.config.document import MAX_BYTES, Document, apply_edit, read_document
from pipeline.config.model import Config, Errors, Inputs, Pool, Prune, StageConfig
from pipeline.config.schema import Declared, declare, duration_s, pixels, size_bytes, who_at
from pipeline.config.schema import Pool as DeclaredPool
from pipeline.errors import ConfigError, EnvironmentFailure, StageError
from pipeline.files.template import NO_OUTPUT, Group, TemplateError, parse_group
from pipeline.files.walk import pattern_problem
from pipeline.images import Limits
from pipeline.stage.options import Place
from pipeline.stage.resolve import check_call, find_function, set_stage_path
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, PATH, Kind, can_convert
from pipeline.stdio import stdout_to_stderr
from pipeline.text import did_you_mean


def load_config(file: Path, edits: Sequence[str] = (), *, reads_inputs: bool = True) -> Config:
    """Read and check a pipeline, with `--set` edits laid over it. Raises ConfigError with every complaint.

    Whoever does not read the inputs may go on where the disk on which they are is away.
    """
    document = read_document(str(file), _read(file))
    for edit in edits:
        apply_edit(document, edit)
    declared = declare(document)
    folder = file.resolve().parent
    with stdout_to_stderr():  # a stage's module may print when it is imported
        found = find_stages(document, folder)
        config = _Checker(document, declared, found, file, folder).config() if declared else None
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
    """Where only the input root is missing, and it was there before, nobody wrote anything wrong."""
    return not os.path.exists(config.inputs.root) and os.path.exists(config.state / "ledger.sqlite")


def _read(file: Path) -> bytes:
    try:
        with open(file, "rb") as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: {reason}", hint="name the pipeline: python -m pipeline FILE.yaml") from None


class _Checker:
    """Takes what is declared through everything that only a look at the whole tree can tell."""

    def __init__(
        self, document: Document, declared: Declared, found: Sequence[Found | None], file: Path, folder: Path
    ) -> None:
        self._document = document
        self._declared = declared
        self._found = found
        self._file = file
        self._folder = folder

    def config(self) -> Config:
        declared = self._declared
        name = declared.name or re.sub(r"[^A-Za-z0-9_-]", "_", self._file.stem)
        inputs, state = self._inputs(), self._path(declared.state or f".pipeline/{name}")
        if state == inputs.root:
            self._document.complain(("state",), "the state folder is the input root; give it a folder of its own")
        declared_stages = self._stages()
        check_outputs(self._document, declared_stages, inputs.root)
        self._check_initializer(declared.pool, ())
        for index, stage in enumerate(declared.stages):
            if stage.pool:
                self._check_initializer(stage.pool, ("stages", index))
        stages = tuple(stage for stage in declared_stages if stage is not None)
        depends = Depends(self._document, self._folder, inputs.root, state, stages)
        files = depends.of_stages(declared)
        if len(stages) == len(declared_stages):
            stages = with_siblings(stages, self._document)
        return Config(
            file=self._file,
            name=name,
            folder=self._folder,
            inputs=inputs,
            stages=tuple(replace(stage, depends=its) for stage, its in zip(stages, files, strict=False)),
            pool=_pool_of(declared.pool),
            engine=declared.engine,
            state=state,
            timeout_s=duration_s(declared.timeout),
            retries=declared.retry.max,
            backoff_s=duration_s(declared.retry.backoff) or 0.0,
            errors=Errors(
                declared.errors.max,
                None if declared.errors.hold_after == "never" else declared.errors.hold_after,
            ),
            changed_by=declared.changed_by,
            depends=depends.of_pipeline(declared),
            libraries=versions_of(self._document, declared.libraries),
            prune=Prune(declared.prune.max) if declared.prune else None,
            warnings=tuple(self._document.render(self._document.warnings)),
        )

    def _path(self, written: str) -> Path:
        return Path(os.path.normpath(self._folder / os.path.expanduser(written)))

    def _written(self, written: str) -> str:
        """A path as the ledger keeps it, so that a project can be moved."""
        path = self._path(written)
        inside = not os.path.isabs(os.path.expanduser(written)) or self._folder in path.parents
        return os.path.relpath(path, self._folder) if inside else str(path)

    def _inputs(self) -> Inputs:
        inputs = self._declared.inputs
        root = self._path(inputs.root)
        if not os.path.isdir(root):
            what = "is no folder" if os.path.exists(root) else "does not exist"
            self._document.complain(("inputs", "root"), f"the input root {inputs.root!r} {what}")
        for key, patterns in (("include", inputs.include), ("exclude", inputs.exclude)):
            for index, pattern in enumerate(patterns):
                if problem := pattern_problem(pattern):
                    self._document.complain(("inputs", key, index), f"{key}: {problem}")
        limits, settle_s = Limits(pixels(inputs.max_pixels), inputs.max_side), duration_s(inputs.settle) or 0.0
        return Inputs(root, self._written(inputs.root), inputs.include, inputs.exclude, limits, settle_s)

    def _check_initializer(self, pool: DeclaredPool, place: Place) -> None:
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

    # -- the tree ------------------------------------------------------------------------------------------------------

    def _stages(self) -> list[StageConfig | None]:
        """One for each declared stage, in order; None for one that was not found."""
        self._check_names()
        parents = [self._parent(index) for index in range(len(self._declared.stages))]
        self._check_leaves(parents)
        made: list[StageConfig | None] = []
        for index, (declared, found, parent) in enumerate(
            zip(self._declared.stages, self._found, parents, strict=True)
        ):
            if found is None or isinstance(parent, _Lost):
                made.append(None)
                continue
            have = _kind_at(parent, made)
            self._check_types(index, found.stage, have, made[parent] if parent is not None else None)
            check_match(self._document, index, declared, parent)
            leaves_no_file = declared.output is not None and declared.output.path == NO_OUTPUT
            has_file = declared.output is not None and not leaves_no_file
            kind = found.stage.makes or have
            output = output_of(self._document, index, declared, kind, self._folder) if has_file else None
            made.append(
                StageConfig(
                    declared.name,
                    found.stage,
                    found.options,
                    parent,
                    output,
                    duration_s(declared.timeout),
                    found.box,
                    match=declared.match,
                    pool=_pool_of(declared.pool) if declared.pool else None,
                    leaves_no_file=leaves_no_file,
                    group=self._group(index),
                    partial=declared.partial,
                )
            )
        check_fan_outs(self._document, made)
        check_gathers(self._document, self._declared.stages, made)
        return made

    def _check_names(self) -> None:
        seen: set[str] = set()
        for index, stage in enumerate(self._declared.stages):
            place = ("stages", index, "name")
            if stage.name in seen:
                self._document.complain(place, f"stage name {stage.name!r} stands here twice")
            if stage.name == "inputs":
                self._document.complain(place, "'inputs' is the source itself; name the stage otherwise")
            seen.add(stage.name)

    def _parent(self, index: int) -> int | _Lost | None:
        declared = self._declared.stages[index]
        names = [stage.name for stage in self._declared.stages]
        who = f"stage {declared.name!r}"
        if declared.from_ is None and declared.match:
            return None
        if declared.from_ is None:
            before = self._declared.stages[index - 1] if index else None
            if before is not None and before.output is not None:
                text = f"{who} stands after {before.name!r}, which has an output"
                says = f"say 'from: {before.name}' to read what that stage makes, or 'from: inputs' for the source"
                self._document.complain(("stages", index), f"{text}; {says}")
            return index - 1 if index else None
        if declared.from_ == "inputs":
            return None
        if declared.from_ in names[:index]:
            return names.index(declared.from_)
        if declared.from_ in names:
            text = f"{who} reads from {declared.from_!r}, which must stand before it"
        else:
            text = f"{who}: no stage {declared.from_!r}{did_you_mean(declared.from_, [*names, 'inputs'])}"
        self._document.complain(("stages", index, "from"), text)
        return _Lost()

    def _check_leaves(self, parents: Sequence[int | _Lost | None]) -> None:
        if any(isinstance(parent, _Lost) for parent in parents):
            return  # nobody knows which stage it was meant to read from
        for index, declared in enumerate(self._declared.stages):
            if declared.output is None and index not in parents:
                text = f"stage {declared.name!r} has no 'output' and no stage reads from it"
                self._document.complain(("stages", index), text)

    def _check_types(self, index: int, stage: Stage, have: Kind | None, read: StageConfig | None) -> None:
        if stage.takes is None or have is None or can_convert(have, stage.takes):
            return
        if stage.gathers and (stage.takes is BYTES or stage.takes.suffixes):  # it reads the files as they are
            return
        who, maker = f"stage {self._declared.stages[index].name!r}", read.name if read else "inputs"
        text = f"{who} takes {stage.takes.name}, but {maker!r} makes {have.name}"
        self._document.complain(("stages", index, "uses"), f"{text}; there is no conversion ({stage.where})")

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _group(self, index: int) -> Group | None:
        declared = self._declared.stages[index]
        try:
            return parse_group(declared.group) if declared.group is not None else None
        except TemplateError as error:
            self._document.complain(("stages", index, "group"), f"stage {declared.name!r}: group: {error}")
            return None


def _pool_of(declared: DeclaredPool) -> Pool:
    return Pool(
        processes=declared.processes,
        maxtasksperchild=declared.maxtasksperchild,
        context=declared.context,
        initializer=declared.initializer,
        initargs=declared.initargs,
        max_memory_bytes=size_bytes(declared.max_memory),
        start_timeout_s=duration_s(declared.start_timeout) or 0.0,
    )


class _Lost:
    """Stands for the parent of a stage whose `from` names none."""


def _kind_at(index: int | None, made: Sequence[StageConfig | None]) -> Kind | None:
    """What a stage hands on; a filter, what it was handed; None where a stage on the way was not found."""
    while index is not None:
        config = made[index]
        if config is None:
            return None
        if config.stage.makes is not None:
            return config.stage.makes
        index = config.parent
    return PATH
