"""The whole vocabulary of pipeline.yaml, as models, and which of its words have no work behind them yet."""

from __future__ import annotations

import json
import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError

from pipeline.config.document import Document
from pipeline.stage.options import Place, describe, problems_of

_UNITS_S = {"ms": 0.001, "s": 1, "m": 60, "h": 3600, "d": 86400}
_UNITS_BYTES = {
    "B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12,
    "KiB": 2**10, "MiB": 2**20, "GiB": 2**30, "TiB": 2**40,
}  # fmt: skip

_TEXT = r"^[^\x00]+$"
_NAME = r"^[A-Za-z0-9_][A-Za-z0-9_-]{0,63}$"
_DURATION = rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(_UNITS_S)})$"
_SIZE = rf"^[0-9]+(\.[0-9]+)? ?({'|'.join(_UNITS_BYTES)})$"
# At least a pixel.
_PIXELS = r"^(0*[1-9][0-9]*(\.[0-9]+)?|0+\.[0-9]{0,5}[1-9][0-9]*) ?(MP|GP)$"
_PERCENT = r"^[0-9]+(\.[0-9]+)?%$"
_FUNCTION = r"^\w+(\.\w+)*:\w+$"
# What each pattern asks for, for the messages.
_ASKS = {
    _TEXT: "text is needed, not empty and without NUL",
    _NAME: "at most 64 letters, digits, '_' and '-' are needed, the first not '-'",
    _DURATION: "a duration with its unit is needed, such as 500ms, 60s or 5m",
    _SIZE: "a size with its unit is needed, such as 500MB or 2GiB",
    _PIXELS: "a number of pixels with its unit is needed, such as 200MP",
    _PERCENT: "a percentage is needed, such as 5%",
    _FUNCTION: "module:function is needed",
}

_UNITS_NEEDED = {
    "timeout": _DURATION, "backoff": _DURATION, "settle": _DURATION, "start_timeout": _DURATION, "max_memory": _SIZE,
    "max": _PERCENT,
}  # fmt: skip

Name = Annotated[str, StringConstraints(pattern=_NAME)]
Text = Annotated[str, StringConstraints(pattern=_TEXT)]
Duration = Annotated[str, StringConstraints(pattern=_DURATION)]
Size = Annotated[str, StringConstraints(pattern=_SIZE)]
Percent = Annotated[str, StringConstraints(pattern=_PERCENT)]
Function = Annotated[str, StringConstraints(pattern=_FUNCTION)]
Count = Annotated[int, Field(ge=1)]
Pixels = Count | Annotated[str, StringConstraints(pattern=_PIXELS)]

# What stands in the vocabulary and has no work behind it yet: refused, never ignored.
NOT_YET = {"engine": "dask"}


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, frozen=True, defer_build=True)


class Inputs(_Model):
    root: Text
    """The folder of the input files, relative to this file's; short form `inputs: FOLDER`."""
    include: tuple[Text, ...] = ()
    """Only files that match one of these patterns, as in .gitignore, case ignored; default: every file."""
    exclude: tuple[Text, ...] = ()
    """Files and folders that are left out; hidden ones are anyway."""
    settle: Duration | None = None
    """Leave files modified less than this ago, such as 5s, for the next run."""
    max_pixels: Pixels = "100MP"
    """Larger pictures are refused from their header."""
    max_side: Count = 65_500
    """Pictures with a longer side, in pixels, are refused."""


class Output(_Model):
    path: Text
    """Where the output goes, with the fields {dir}, {name}, {stem}, {suffix} and {part}; short form `output: PATH`;
    `none` for a stage that leaves no file.
    """
    save: dict[str, Any] = {}
    """How a picture is saved, in the options of its format."""


class Pool(_Model):
    processes: Count | None = None
    """How many workers; default: the CPUs this process may use."""
    maxtasksperchild: Count | None = None
    """After how many files a worker is replaced; default: never."""
    context: Literal["fork", "forkserver", "spawn"] = "forkserver"
    """How workers are started."""
    initializer: Function | None = None
    """A function beside this file, module:function, that runs once in each worker before the stages are built."""
    initargs: tuple[Any, ...] = ()
    """What the initializer is called with."""
    max_memory: Size | None = None
    """Per worker, such as 2GiB; default: an even share of 80 % of what there is."""
    start_timeout: Duration = "10m"
    """How long a worker may take to get ready."""


class Stage(_Model):
    name: Name
    """What it is called in messages; renaming a stage redoes nothing."""
    uses: Text
    """The stage: a name such as resize, package.module:Name or ./folder/file.py:Name."""
    with_: dict[str, Any] = Field(default={}, alias="with")
    """Its options."""
    from_: str | None = Field(default=None, alias="from")
    """The stage whose value it reads, or `inputs`; default: the stage before, if that has no output."""
    output: Output | None = None
    """Where what it makes is written, and how."""
    timeout: Duration | None = None
    """For each call of it, such as 10s."""
    depends: tuple[Text, ...] = ()
    """Files whose contents count as part of its recipe; names and patterns."""
    match: tuple[Text, ...] = ()
    """Patterns of the sources that it reads, as in .gitignore; default: all."""
    gather: bool = False
    """Called once for a group of files, with an iterator of those that its `from:` stage made."""
    group: Text | None = None
    """What the files of one group have in common, such as {dir}; default: all are one group."""
    partial: bool = False
    """Whether a group is made where some of its files failed."""
    pool: Pool | None = None
    """A pool of its own, with the keys of the shared one."""


class Retry(_Model):
    max: Annotated[int, Field(ge=0)] = 0
    """How often a file that failed by an exception is tried again at once."""
    backoff: Duration = "1s"
    """How long to wait before that."""


class Errors(_Model):
    max: Percent | Count | None = None
    """How many files may fail, as a number or a share such as 5%, before the run is stopped."""
    hold_after: Count | Literal["never"] = 3
    """After how many failed runs a file is held; `never`."""


class Prune(_Model):
    max: Percent
    """The share of the recorded outputs, such as 10%, up to which orphans are removed."""


class Declared(_Model):
    """The file as it is written, key by key."""

    name: Name | None = None
    """What the pipeline is called; default: this file's stem."""
    inputs: Inputs
    """Where the input files are and which of them count."""
    stages: tuple[Stage, ...]
    """The stages, each after the one that it reads from."""
    pool: Pool = Pool()
    """The workers, in the standard library's words."""
    timeout: Duration | None = None
    """For each file, such as 60s."""
    retry: Retry = Retry()
    """What is done about a file that failed by an exception; default: nothing in the same run."""
    errors: Errors = Errors()
    """When a run is stopped, and when a file is held."""
    changed_by: Literal["mtime", "hash"] = "mtime"
    """What tells that a source changed: its size and time, or its contents."""
    depends: tuple[Text, ...] = ()
    """Files whose contents count as part of every recipe; names and patterns."""
    libraries: tuple[Text, ...] = ()
    """Distributions whose versions count as part of every recipe."""
    prune: Prune | None = None
    """Remove orphans at the end of every run, if they are not too many; default: never."""
    engine: Literal["serial", "pool", "dask"] = "pool"
    """Who runs the jobs."""
    state: Text | None = None
    """The folder of the ledger, the lock and the logs; default: .pipeline/NAME."""


def declare(document: Document) -> Declared | None:
    """Read a document by the vocabulary; None where it does not fit, with the complaints noted."""
    _write_out_short_forms(document)
    _refuse_what_is_not_built_yet(document)
    if document.data.get("stages") == []:
        document.complain(("stages",), "stages: at least one is needed")
    try:
        return Declared.model_validate_json(json.dumps(document.data))
    except ValidationError as error:
        problems = problems_of(error, document.data, _described, _keys_at)
    for each in problems:
        who = who_at(document.data, each.place)
        word = next((step for step in reversed(each.place) if isinstance(step, str)), "")
        plain = each.key or each.text.endswith(" is missing") or each.place[:-1] == ("stages",)
        document.complain(each.place, f"{who}{'' if plain else f'{word}: '}{each.text}", key=each.key)
    return None


def _write_out_short_forms(document: Document) -> None:
    """`inputs: photos` and `output: small/{name}` become the mappings they stand for."""
    stages = document.data.get("stages")
    count = len(stages) if isinstance(stages, list) else 0
    shorts: list[tuple[Place, str]] = [
        (("inputs",), "root"),
        *((("stages", index, "output"), "path") for index in range(count)),
    ]
    for place, key in shorts:
        holder = document.at(place[:-1])
        if isinstance(holder, dict) and isinstance(holder.get(place[-1]), str):
            holder[place[-1]] = {key: holder[place[-1]]}
            document.values[(*place, key)] = document.values[place]


def _described(error: Any) -> str:
    asks = _ASKS.get(error.get("ctx", {}).get("pattern", ""))
    if error["type"] == "string_type":  # a number without its unit, most likely
        # A union puts a step of its own behind the key.
        asks = next((_ASKS[_UNITS_NEEDED[step]] for step in error["loc"][:-3:-1] if step in _UNITS_NEEDED), None)
    return f"{asks}, not {error['input']!r}" if asks else describe(error)


def who_at(data: Any, place: Place) -> str:
    """How a complaint about this place begins: with its stage's name, or number, if it is of one."""
    if len(place) < 2 or place[0] != "stages" or not isinstance(place[1], int):
        return ""
    stage = data["stages"][place[1]]
    named = isinstance(stage, dict) and isinstance(stage.get("name"), str) and place[2:] != ("name",)
    return f"stage {stage['name']!r}: " if named else f"stage {place[1] + 1}: "


def _keys_at(place: Place) -> list[str]:
    """The keys that the vocabulary knows in the mapping at this place."""
    models: dict[Place, type[BaseModel]] = {
        (): Declared, ("inputs",): Inputs, ("stages", "*"): Stage, ("stages", "*", "output"): Output,
        ("pool",): Pool, ("stages", "*", "pool"): Pool, ("retry",): Retry, ("errors",): Errors, ("prune",): Prune,
    }  # fmt: skip
    return [info.alias or name for name, info in models[_general(place)].model_fields.items()]


def _general(place: Place) -> Place:
    return tuple("*" if isinstance(step, int) else step for step in place)


def _refuse_what_is_not_built_yet(document: Document) -> None:
    for key, value in NOT_YET.items():
        if document.data.get(key) == value:
            document.complain((key,), f"'{key}: {value}' is not supported yet")


def duration_s(text: str | None) -> float | None:
    """Seconds in a duration such as 500ms, 60s or 5m; None where there is none."""
    return None if text is None else _amount(text, _UNITS_S)


def size_bytes(text: str | None) -> int | None:
    """Bytes in a size such as 500MB or 2GiB; None where there is none."""
    return None if text is None else round(_amount(text, _UNITS_BYTES))


def pixels(amount: int | str) -> int:
    """Pixels in an amount such as 200MP, or as they are counted."""
    return amount if isinstance(amount, int) else round(_amount(amount, {"MP": 10**6, "GP": 10**9}))


def _amount(text: str, units: dict[str, Any]) -> float:
    number, unit = re.fullmatch(r"([0-9.]+) ?(\w+)", text).groups()  # type: ignore[union-attr]
    return float(number) * float(units[unit])
