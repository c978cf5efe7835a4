"""The digests that decide whether an output is stale: everything but the source, in named parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files.digest import contents_of
from pipeline.stage import values
from pipeline.stage.code import code_of
from pipeline.stage.resolve import find_function
from pipeline.stage.signature import Stage
from pipeline.types import FitBox


@dataclass(frozen=True)
class Recipe:
    """What decides an output beside its source: the stages from the root to it, and how it is saved."""

    parts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """The same for the same parts, on every machine."""
        return _digest(_canonical_json(self.parts).encode())


@dataclass(frozen=True)
class Step:
    """One stage of the route to an output, with its options after defaults."""

    stage: Stage
    options: dict[str, Any]
    least: FitBox | None = None
    """The box that decides how finely its picture is decoded, where that is not its own."""
    own_colors: bool = False
    depends: tuple[str, ...] = ()
    """The files whose contents count beside those that its options name; relative to the YAML's folder."""
    initializer: str | None = None
    """Of the pool that it has for itself; and what that is given."""
    initargs: tuple[Any, ...] = ()


@dataclass(frozen=True)
class Surroundings:
    """What counts for every output of a pipeline alike."""

    folder: Path
    """The YAML's, where Paths and helpers lie."""
    initializer: str | None = None
    initargs: tuple[Any, ...] = ()
    depends: tuple[str, ...] = ()
    libraries: Mapping[str, str] = field(default_factory=dict)
    """The versions of the distributions that count, by name."""
    digest: Callable[[Path], str] = contents_of
    """Gives the digest of a file's contents."""


def recipe_for(route: Sequence[Step], save: dict[str, Any], suffix: str, around: Surroundings) -> Recipe:
    """The recipe of the output at the end of a route. What is not there has no part, so that it changes nothing."""
    parts: dict[str, Any] = {
        "route": [_of_step(step, around) for step in route],
        "save": {"format": suffix if _makes_picture(route) else "", **_plain(save, around)},
        "values": values.RECIPE,
    }
    if around.initializer:
        parts["initializer"] = _of_initializer(around.initializer, around.initargs, around)
    if around.depends:
        parts["depends"] = _contents_of_all(around.depends, around)
    if around.libraries:
        parts["libraries"] = dict(around.libraries)
    return Recipe(parts)


def _makes_picture(route: Sequence[Step]) -> bool:
    """Whether the suffix of an output decides what is in it; a filter hands on what it was handed."""
    makes = [step.stage.makes for step in route if step.stage.makes is not None]
    return bool(makes) and makes[-1] is values.IMAGE


def _of_step(step: Step, around: Surroundings) -> dict[str, Any]:
    parts = {
        "code": code_of(step.stage.target, around.folder, step.stage.module),
        "options": _plain(step.options, around),
        **_decoding(step),
    }
    if step.depends:
        parts["depends"] = _contents_of_all(step.depends, around)
    if step.initializer:
        parts["initializer"] = _of_initializer(step.initializer, step.initargs, around)
    return parts


def _of_initializer(name: str, initargs: Sequence[Any], around: Surroundings) -> dict[str, Any]:
    return {
        "code": code_of(find_function(name), around.folder),
        "initargs": [_initarg(each, around) for each in initargs],
    }


def _contents_of_all(files: Sequence[str], around: Surroundings) -> dict[str, str]:
    return {file: around.digest(around.folder / file) for file in files}


def _decoding(step: Step) -> dict[str, Any]:
    """What else decides how its pictures are decoded; usually nothing."""
    parts: dict[str, Any] = {"for": step.least._asdict()} if step.least else {}
    parts |= {"color": "keep"} if step.own_colors else {}
    return {"decoding": parts} if parts else {}


# -- options -----------------------------------------------------------------------------------------------------------


def _plain(value: Any, around: Surroundings) -> Any:
    """Options as JSON: a Path as written plus a digest of what is in the file behind it."""
    if isinstance(value, Path):
        return {"path": value.as_posix(), "contents": around.digest(around.folder / value.expanduser())}
    if isinstance(value, dict):
        return {str(key): _plain(each, around) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, around) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each, around) for each in value), key=repr)
    if isinstance(value, Enum):
        return _plain(value.value, around)
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if fields := getattr(value, "__dataclass_fields__", None) or getattr(type(value), "model_fields", None):
        return {name: _plain(getattr(value, name), around) for name in fields}
    return repr(value)


def _initarg(value: Any, around: Surroundings) -> Any:
    named = isinstance(value, str) and (around.folder / value).is_file()
    return _plain(Path(value) if named else value, around)


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
