"""pipeline.yaml -> Config: the whole vocabulary, checked as a whole before anything runs.

    text --document--> data --models--> Declared --stages, options, templates--> Config

Every complaint is collected on the way and all of them are raised together.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.document import Document, Place, apply_edit, did_you_mean, read_document
from pipeline.errors import ConfigError, FilemillError, StageError
from pipeline.options import check_options, describe
from pipeline.outputs import Template, TemplateError, always_same, parse_template
from pipeline.stage import Stage, find, find_function, keyword_options, set_stage_path
from pipeline.values import IMAGE, can_convert, saver_for
from pipeline.values import Kind as ValueKind

# -- what the program works with ---------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Inputs:
    """Where the input files are and which of them count."""

    root: Path
    include: tuple[str, ...]
    exclude: tuple[str, ...]


@dataclass(frozen=True)
class Output:
    """Where a stage's value is written and how."""

    template: Template
    save: dict[str, Any]
    """The save options after defaults; empty where no picture is saved."""


@dataclass(frozen=True)
class StageConfig:
    """One named step of the tree."""

    name: str
    stage: Stage
    options: dict[str, Any]
    """After defaults; Paths as written."""
    parent: int | None
    """The index of the stage it reads from; None for the source itself."""
    output: Output | None


@dataclass(frozen=True)
class Pool:
    """How the workers are run, in the standard library's words."""

    processes: int | None
    maxtasksperchild: int | None
    context: str
    initializer: str | None
    initargs: tuple[Any, ...]


@dataclass(frozen=True)
class Config:
    """A pipeline, checked."""

    file: Path
    name: str
    folder: Path
    inputs: Inputs
    stages: tuple[StageConfig, ...]
    pool: Pool
    engine: str
    state: Path

    @property
    def leaves(self) -> Iterator[StageConfig]:
        """The stages that have an output."""
        return (stage for stage in self.stages if stage.output is not None)


# -- the vocabulary ----------------------------------------------------------------------------------------------------

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_BYTES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_][A-Za-z0-9_-]*$", max_length=64)]
Text = Annotated[str, StringConstraints(min_length=1)]
Duration = Annotated[str, StringConstraints(pattern=rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(_UNITS_S)})$")]
Size = Annotated[str, StringConstraints(pattern=rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(_UNITS_BYTES)})$")]
Percent = Annotated[str, StringConstraints(pattern=r"^[0-9]+(\.[0-9]+)?%$")]
Count = Annotated[int, Field(ge=1)]

# What stands in the vocabulary and has no work behind it yet: refused, never ignored.
_NOT_YET = (
    ("inputs", "settle"), ("timeout",), ("retry",), ("errors",), ("depends",), ("prune",), ("libraries",),
    ("pool", "max_memory"), ("pool", "start_timeout"),
    ("stages", "*", "timeout"), ("stages", "*", "depends"), ("stages", "*", "match"), ("stages", "*", "gather"),
    ("stages", "*", "group"), ("stages", "*", "partial"), ("stages", "*", "pool"),
)  # fmt: skip
_NOT_YET_VALUES: dict[Place, str] = {("changed_by",): "hash", ("engine",): "dask"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class _Inputs(_Model):
    root: Text
    include: tuple[Text, ...] = ()
    exclude: tuple[Text, ...] = ()
    settle: Duration | None = None


class _Output(_Model):
    path: Text
    save: dict[str, Any] = {}


class _Stage(_Model):
    name: Name
    uses: Text
    with_: dict[str, Any] = Field(default={}, alias="with")
    from_: str | None = Field(default=None, alias="from")
    output: _Output | None = None
    timeout: Duration | None = None
    depends: tuple[Text, ...] = ()
    match: tuple[Text, ...] = ()
    gather: bool = False
    group: Text | None = None
    partial: bool = False
    pool: dict[str, Any] | None = None


class _Pool(_Model):
    processes: Count | None = None
    maxtasksperchild: Count | None = None
    context: Literal["fork", "forkserver", "spawn"] = "forkserver"
    initializer: Annotated[str, StringConstraints(pattern=r"^[\w.]+:\w+$")] | None = None
    initargs: tuple[Any, ...] = ()
    max_memory: Size | None = None
    start_timeout: Duration | None = None


class _Retry(_Model):
    max: Annotated[int, Field(ge=0)] = 0
    backoff: Duration = "1s"


class _Errors(_Model):
    max: Percent | Count | None = None
    hold_after: Count | None = None


class _Prune(_Model):
    max: Percent


class _Declared(_Model):
    """The file as it is written, key by key."""

    name: Name | None = None
    inputs: _Inputs
    stages: Annotated[tuple[_Stage, ...], Field(min_length=1)]
    pool: _Pool = _Pool()
    timeout: Duration | None = None
    retry: _Retry | None = None
    errors: _Errors | None = None
    changed_by: Literal["mtime", "hash"] = "mtime"
    depends: tuple[Text, ...] = ()
    libraries: tuple[Text, ...] = ()
    prune: _Prune | None = None
    engine: Literal["serial", "pool", "dask"] = "pool"
    state: Text | None = None


# -- reading -----------------------------------------------------------------------------------------------------------


def load_config(file: Path, edits: Sequence[str] = ()) -> Config:
    """Read and check a pipeline, with `--set` edits laid over it. Raises ConfigError with every complaint."""
    try:
        raw = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"{file}: {error.strerror}", hint="name the pipeline: python -m pipeline FILE.yaml") from None
    document = read_document(str(file), raw)
    for edit in edits:
        apply_edit(document, edit)
    _write_out_short_forms(document)
    declared = _declared(document)
    _refuse_what_is_not_built_yet(document)
    if declared is None:
        document.raise_complaints()
        raise AssertionError("a file that does not validate has complaints")
    folder = file.resolve().parent
    set_stage_path(folder)
    config = _Checker(document, declared, file, folder).config()
    document.raise_complaints()
    return config


def _write_out_short_forms(document: Document) -> None:
    """`inputs: photos` and `output: small/{name}` become the mappings they stand for."""
    data = document.data
    places: list[tuple[Any, Place, str]] = [(data, ("inputs",), "root")]
    stages = data.get("stages")
    if isinstance(stages, list):
        places += [
            (stage, ("stages", index, "output"), "path")
            for index, stage in enumerate(stages)
            if isinstance(stage, dict)
        ]
    for holder, place, key in places:
        value = holder.get(place[-1])
        if isinstance(value, (str, int, float)) and not isinstance(value, bool):
            holder[place[-1]] = {key: value}
            document.values[(*place, key)] = document.values[place]


def _declared(document: Document) -> _Declared | None:
    try:
        return _Declared.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        wrong = error.errors(include_url=False)
    said: set[Place] = set()
    for each in wrong:
        place = _place_in(document, tuple(each["loc"]))
        if each["type"] == "extra_forbidden":
            text = f"unknown key {place[-1]!r}{did_you_mean(str(place[-1]), _keys_at(place[:-1]))}"
            document.complain(place, text, key=True)
        elif each["type"] == "missing":
            above = tuple(each["loc"])[:-1]
            document.complain(above, f"{_who(document, above)}key {each['loc'][-1]!r} is missing")
        elif place not in said:  # a union complains once for each of its members
            document.complain(place, f"{_who(document, place)}{place[-1]}: {_described(each)}")
        said.add(place)
    return None


def _place_in(document: Document, loc: Place) -> Place:
    """A complaint's place without the names pydantic adds to it for the members of a union."""
    here: Any = document.data
    place: Place = ()
    for step in loc:
        inside = isinstance(here, dict) and step in here
        if inside or (isinstance(here, list) and isinstance(step, int) and step < len(here)):
            here, place = here[step], (*place, step)
        else:
            break
    return place if place == loc or len(place) > 0 else loc


def _described(error: Any) -> str:
    pattern = str(error.get("ctx", {}).get("pattern", ""))
    if "ms|" in pattern:
        return f"a duration with its unit is needed, such as 500ms, 60s or 5m, not {error['input']!r}"
    if "KiB" in pattern:
        return f"a size with its unit is needed, such as 500MB or 2GiB, not {error['input']!r}"
    return describe(error)


def _who(document: Document, place: Place) -> str:
    if len(place) >= 2 and place[0] == "stages" and isinstance(place[1], int):
        stage = document.data["stages"][place[1]]
        if isinstance(stage, dict) and isinstance(stage.get("name"), str):
            return f"stage {stage['name']!r}: "
        return f"stage {place[1] + 1}: "
    return ""


def _keys_at(place: Place) -> list[str]:
    """The keys that the vocabulary knows in the mapping at this place."""
    models: dict[str, type[BaseModel]] = {"inputs": _Inputs, "pool": _Pool, "retry": _Retry, "errors": _Errors}
    if not place:
        model: type[BaseModel] = _Declared
    elif place[0] == "stages":
        model = _Output if place[-1] == "output" else _Stage
    else:
        model = models.get(str(place[0]), _Declared)
    return [info.alias or name for name, info in model.model_fields.items()]


def _refuse_what_is_not_built_yet(document: Document) -> None:
    for place in document.keys:
        general: tuple[str, ...] = tuple("*" if isinstance(step, int) else step for step in place)
        if general in _NOT_YET:
            name = ".".join(step for step in general if step != "*")
            document.complain(place, f"{name!r} is not supported yet", key=True)
        value = _NOT_YET_VALUES.get(general)
        if value and document.data[place[0]] == value:
            document.complain(place, f"{place[0]}: {value} is not supported yet")
    for index, stage in enumerate(document.data.get("stages") or ()):
        output = stage.get("output") if isinstance(stage, dict) else None
        if isinstance(output, dict) and output.get("path") == "none":
            document.complain(("stages", index, "output"), "output: none is not supported yet")


class _Checker:
    """Takes what is declared through everything that only a look at the stages can tell."""

    def __init__(self, document: Document, declared: _Declared, file: Path, folder: Path) -> None:
        self._document = document
        self._declared = declared
        self._file = file
        self._folder = folder

    def config(self) -> Config:
        declared = self._declared
        name = declared.name or re.sub(r"[^A-Za-z0-9_-]", "_", self._file.stem)
        stages = self._stages()
        self._check_outputs(stages)
        self._check_initializer()
        pool = declared.pool
        return Config(
            file=self._file,
            name=name,
            folder=self._folder,
            inputs=self._inputs(),
            stages=tuple(stage for stage in stages if stage is not None),
            pool=Pool(pool.processes, pool.maxtasksperchild, pool.context, pool.initializer, pool.initargs),
            engine=declared.engine,
            state=self._path(declared.state or f".pipeline/{name}"),
        )

    def _path(self, written: str) -> Path:
        return Path(os.path.normpath(self._folder / Path(written).expanduser()))

    def _inputs(self) -> Inputs:
        inputs = self._declared.inputs
        root = self._path(inputs.root)
        if not root.is_dir():
            what = "is no folder" if root.exists() else "does not exist"
            self._document.complain(("inputs", "root"), f"the input root {inputs.root!r} {what}")
        for key, patterns in (("include", inputs.include), ("exclude", inputs.exclude)):
            for index, pattern in enumerate(patterns):
                if problem := pattern_problem(pattern):
                    self._document.complain(("inputs", key, index), f"{key}: {problem}")
        return Inputs(root, inputs.include, inputs.exclude)

    # -- stages --------------------------------------------------------------------------------------------------------

    def _stages(self) -> list[StageConfig | None]:
        """One for each declared stage, in order; None for one that has complaints of its own."""
        made: list[StageConfig | None] = []
        names = [stage.name for stage in self._declared.stages]
        for index, declared in enumerate(self._declared.stages):
            place: Place = ("stages", index)
            if declared.name in names[:index]:
                self._document.complain((*place, "name"), f"stage name {declared.name!r} stands here twice")
            if declared.name == "inputs":
                self._document.complain((*place, "name"), "'inputs' is the source itself; name the stage otherwise")
            parent = self._parent(index, names)
            made.append(self._stage(index, parent, made))
        read_from = {stage.parent for stage in made if stage}
        for index, declared in enumerate(self._declared.stages):
            if declared.output is None and index not in read_from and all(made):
                text = f"stage {declared.name!r} has no 'output' and no stage reads from it"
                self._document.complain(("stages", index), text)
        return made

    def _parent(self, index: int, names: list[str]) -> int | None:
        declared = self._declared.stages[index]
        before = self._declared.stages[index - 1] if index else None
        if declared.from_ is None:
            if before is not None and before.output is not None:
                self._document.complain(
                    ("stages", index),
                    f"stage {declared.name!r} stands after {before.name!r}, which has an output: say 'from: "
                    f"{before.name}' to read what that stage makes, or 'from: inputs' for the source",
                )
            return index - 1 if index else None
        if declared.from_ == "inputs":
            return None
        if declared.from_ in names[:index]:
            return names.index(declared.from_)
        place = ("stages", index, "from")
        if declared.from_ in names:
            text = f"stage {declared.name!r} reads from {declared.from_!r}, which must stand before it"
        else:
            text = f"stage {declared.name!r}: no stage {declared.from_!r}{did_you_mean(declared.from_, names)}"
        self._document.complain(place, text)
        return None

    def _stage(self, index: int, parent: int | None, made: list[StageConfig | None]) -> StageConfig | None:
        declared, place = self._declared.stages[index], ("stages", index)
        who = f"stage {declared.name!r}"
        try:
            stage = find(declared.uses, self._folder)
            options = self._options(index, stage)
        except StageError as error:
            self._document.complain((*place, "uses"), f"{who}: {error}")
            return None
        output = self._output(index, self._made_by(stage, parent, made)) if declared.output else None
        read = made[parent] if parent is not None else None
        have = self._kind_at(parent, made)
        if stage.takes is not None and have is not None and not can_convert(have, stage.takes):
            text = f"{who} takes {stage.takes.name}, but {read.name if read else 'inputs'!r} makes {have.name}"
            self._document.complain((*place, "uses"), f"{text}; there is no conversion ({stage.where})")
        return StageConfig(declared.name, stage, options, parent, output)

    def _kind_at(self, index: int | None, made: list[StageConfig | None]) -> ValueKind | None:
        """What a stage hands on; a filter, what it was handed."""
        from pipeline.values import PATH

        while index is not None:
            config = made[index]
            if config is None:
                return None
            if config.stage.makes is not None:
                return config.stage.makes
            index = config.parent
        return PATH

    def _made_by(self, stage: Stage, parent: int | None, made: list[StageConfig | None]) -> ValueKind | None:
        return stage.makes if stage.makes is not None else self._kind_at(parent, made)

    def _options(self, index: int, stage: Stage) -> dict[str, Any]:
        declared = self._declared.stages[index]
        who = f"stage {declared.name!r}"
        options, problems = check_options(who, stage.options, declared.with_)
        for below, text, key in problems:
            name = str(below[0]) if below else ""
            if key and name in _every_save_option():
                text = f"{who}: no option {name!r}; how an output is saved is said under output.save"
            self._document.complain(("stages", index, "with", *below), text, key=key)
        return options

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _output(self, index: int, kind: ValueKind | None) -> Output | None:
        declared = self._declared.stages[index].output
        assert declared is not None
        place: Place = ("stages", index, "output")
        who = f"stage {self._declared.stages[index].name!r}"
        try:
            template = parse_template(declared.path, self._folder)
        except TemplateError as error:
            self._document.complain((*place, "path"), f"{who}: {error}")
            return None
        if "part" in template.fields:
            self._document.complain((*place, "path"), f"{who}: {{part}} is for stages that fan out")
        return Output(template, self._save(place, who, template, declared.save, kind))

    def _save(
        self, place: Place, who: str, template: Template, given: dict[str, Any], kind: ValueKind | None
    ) -> dict[str, Any]:
        saver = saver_for(template.suffix) if kind is IMAGE and template.suffix else None
        if kind is IMAGE and template.suffix and saver is None:
            self._document.complain((*place, "path"), f"{who}: no picture can be written as {template.suffix!r}")
            return {}
        if saver is None:
            if given:
                why = "its format differs from file to file" if kind is IMAGE else "it does not make a picture"
                self._document.complain((*place, "save"), f"{who}: has no save options, since {why}", key=True)
            return {}
        options, problems = check_options(f"{who}: save", keyword_options("save", saver), given)
        for below, text, key in problems:
            self._document.complain((*place, "save", *below), text, key=key)
        return options

    def _check_outputs(self, stages: list[StageConfig | None]) -> None:
        root = os.fsencode(self._path(self._declared.inputs.root))
        seen: list[StageConfig] = []
        for index, config in enumerate(stages):
            if config is None or config.output is None:
                continue
            place: Place = ("stages", index, "output", "path")
            template = config.output.template
            for other in seen:
                if other.output and always_same(other.output.template, template):
                    self._document.complain(place, f"stages {other.name!r} and {config.name!r} have the same output")
            if template.folder == root:
                text = f"stage {config.name!r}: its outputs would lie among the inputs and be read as such"
                self._document.complain(place, f"{text}; put them under a folder of their own")
            seen.append(config)

    def _check_initializer(self) -> None:
        if self._declared.pool.initializer:
            try:
                find_function(self._declared.pool.initializer)
            except FilemillError as error:
                self._document.complain(("pool", "initializer"), str(error))


def _every_save_option() -> set[str]:
    from pipeline.pictures import SAVERS

    return {name for saver in SAVERS.values() for name in keyword_options("save", saver)}


def pattern_problem(pattern: str) -> str:
    """What is wrong with a gitignore-style pattern; empty if nothing is."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([pattern])
    except ValueError as error:
        return str(error)
    return ""


def duration_s(text: str) -> float:
    """Seconds in a duration such as 500ms, 60s or 5m."""
    return _amount(text, _UNITS_S)


def size_bytes(text: str) -> int:
    """Bytes in a size such as 500MB or 2GiB."""
    return round(_amount(text, _UNITS_BYTES))


def _amount(text: str, units: dict[str, Any]) -> float:
    number, unit = re.fullmatch(r"([0-9.]+) ?(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * float(units[unit])
