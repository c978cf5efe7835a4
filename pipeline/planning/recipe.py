"""The digests that decide whether an output is stale: everything but the source, in named parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.model import Config, Pool, StageConfig
from pipeline.files.digest import contents_of
from pipeline.stage import values
from pipeline.stage.code import Code


@dataclass(frozen=True)
class Recipe:
    """What decides an output beside its source: the stages from the root to it, and how it is saved."""

    parts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """The same for the same parts, on every machine."""
        return _digest(_canonical_json(self.parts).encode())


Digest = Callable[[Path], str]
"""Gives the digest of a file's contents."""


def recipe_for(
    config: Config, route: Sequence[StageConfig], save: dict[str, Any], suffix: str, digest: Digest = contents_of
) -> Recipe:
    """Make the recipe of the output at the end of a route; what a pipeline does not say has no part in it."""
    files = _Files(config.folder, digest)
    parts: dict[str, Any] = {
        "route": [_of_stage(stage, files) for stage in route],
        "save": {"format": suffix if _makes_picture(route) else "", **_plain(save, files)},
        "values": values.RECIPE,
    }
    if config.pool.initializer:
        parts["initializer"] = _of_initializer(config.pool, config.initializer_code, files)
    if config.depends:
        parts["depends"] = files.contents_of_all(config.depends)
    if config.versions:
        parts["libraries"] = dict(config.versions)
    return Recipe(parts)


@dataclass(frozen=True)
class _Files:
    """The files beside the YAML, whose contents count."""

    folder: Path
    digest: Digest

    def contents(self, path: Path) -> str:
        return self.digest(self.folder / path)

    def contents_of_all(self, files: Sequence[str]) -> dict[str, str]:
        return {file: self.digest(self.folder / file) for file in files}


def _makes_picture(route: Sequence[StageConfig]) -> bool:
    """Whether the suffix of an output decides what is in it; a filter hands on what it was handed."""
    makes = [stage.stage.makes for stage in route if stage.stage.makes is not None]
    return bool(makes) and makes[-1] is values.IMAGE


def _of_stage(stage: StageConfig, files: _Files) -> dict[str, Any]:
    parts = {
        "code": stage.code.identity,
        "options": _plain(stage.options, files),
        **_decoding(stage),
    }
    if stage.depends:
        parts["depends"] = files.contents_of_all(stage.depends)
    if stage.pool and stage.pool.initializer:
        parts["initializer"] = _of_initializer(stage.pool, stage.initializer_code, files)
    return parts


def _of_initializer(pool: Pool, code: Code, files: _Files) -> dict[str, Any]:
    return {
        "code": code.identity,
        "initargs": [_initarg(each, files) for each in pool.initargs],
    }


def _decoding(stage: StageConfig) -> dict[str, Any]:
    """Return what else decides how its pictures are decoded; usually nothing."""
    box = stage.decode_box
    parts: dict[str, Any] = {"for": box._asdict()} if box and box != stage.box else {}
    parts |= {"color": "keep"} if stage.own_colors else {}
    return {"decoding": parts} if parts else {}


# -- options -----------------------------------------------------------------------------------------------------------


def _plain(value: Any, files: _Files) -> Any:
    """Options as JSON: a Path as written plus a digest of what is in the file behind it."""
    if isinstance(value, Path):
        return {"path": value.as_posix(), "contents": files.contents(value.expanduser())}
    if isinstance(value, dict):
        return {str(key): _plain(each, files) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each, files) for each in value]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(each, files) for each in value), key=repr)
    if isinstance(value, Enum):
        return _plain(value.value, files)
    if isinstance(value, (str, int, float, bool, type(None))):
        return value
    if fields := getattr(value, "__dataclass_fields__", None) or getattr(type(value), "model_fields", None):
        return {name: _plain(getattr(value, name), files) for name in fields}
    return repr(value)


def _initarg(value: Any, files: _Files) -> Any:
    named = isinstance(value, str) and (files.folder / value).is_file()
    return _plain(Path(value) if named else value, files)


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
