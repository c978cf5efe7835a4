"""Describes each output of the tree: its path, and the recipe whose digest decides whether it is stale.

OutputSpec  one output: its template, its route through the tree, its recipe
Recipe      everything but the source that decides an output's contents, in named parts
"""

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
from pipeline.files.template import ALL_PARTS, NoFile, Template
from pipeline.files.walk import Match, matcher
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.stage import values
from pipeline.stage.code import code_of
from pipeline.stage.resolve import find_function


@dataclass(frozen=True)
class Recipe:
    """Everything but the source that decides an output's contents: the stages of its route and the save options."""

    parts: dict[str, Any]

    @cached_property
    def digest(self) -> str:
        """The digest of the parts, which does not depend on the machine."""
        return _digest(_canonical_json(self.parts).encode())


@dataclass(frozen=True)
class OutputSpec:
    """One output of the tree: its template, its recipe, and the recipe's number if the ledger knows it."""

    stage: str
    template: Template | NoFile
    recipe: Recipe
    number: int | None
    route: tuple[StageConfig, ...]
    """The stages from the root of the tree to the output; for a stage that gathers, that stage alone."""
    matches: Match | None = None
    """Function that selects the sources of the output; None for all."""
    gathers: bool = False
    """True if the output is made of groups of files instead of single sources."""
    has_parts: bool = False
    """True if a fan-out makes the output, in parts whose number and names are known only once they are made."""

    def fill(self, source: bytes) -> bytes:
        """Return the path of a source's output, with a placeholder for the name of a part. Raises FileFailure."""
        return self.template.fill(source, ALL_PARTS if self.has_parts else "")

    @cached_property
    def is_plain(self) -> bool:
        """True if the output is exactly one file for every source."""
        return self.template.has_file and not self.has_parts and self.matches is None


def output_specs(config: Config, ledger: Ledger, *, record: bool) -> tuple[OutputSpec, ...]:
    """Return every output of the tree with its recipe; the recipes are recorded in the ledger if `record`."""
    known = {digest: number for number, digest in ledger.recipes().items()}
    contents, leaves = ledger.file_digests, []
    for stage in config.ends:
        # A gathering stage's recipe leaves out the stages above: the records of the members tell when those change.
        route, output = (stage,) if stage.stage.gathers else _route(config, stage), stage.output
        template, save = (output.template, output.save) if output else (NoFile(stage.name), {})
        recipe = recipe_for(config, route, save, template.suffix, contents.digest)
        number = ledger.number_recipe(recipe.digest, recipe.parts) if record else known.get(recipe.digest)
        matches = matcher(route[0].match) if route[0].match else None
        kinds = {"gathers": stage.stage.gathers, "has_parts": any(each.stage.fans_out for each in route)}
        leaves.append(OutputSpec(stage.name, template, recipe, number, route, matches, **kinds))
    if record:
        contents.remember()
    return tuple(leaves)


def _route(config: Config, stage: StageConfig) -> tuple[StageConfig, ...]:
    above = _route(config, config.stages[stage.parent]) if stage.parent is not None else ()
    return (*above, stage)


def take_parts(
    leaf: OutputSpec, source: bytes, recorded: dict[bytes, OutputRecord], *, left_out: bool = False
) -> list[OutputRecord]:
    """Pop the records of one output's parts from those of its source.

    Args:
        leaf: The output.
        source: The source's path.
        recorded: The records of the source, by target.
        left_out: Whether records of skipped parts are popped too.
    """
    template = leaf.template
    return [
        recorded.pop(row.target)
        for row in list(recorded.values())
        if row.part
        and (left_out or row.status != "skipped")
        and template.key(template.fill(source, row.part)) == row.target
    ]


# -- recipes -----------------------------------------------------------------------------------------------------------

Digest = Callable[[Path], str]
"""A function that returns the digest of a file's contents."""


def recipe_for(
    config: Config, route: Sequence[StageConfig], save: dict[str, Any], suffix: str, digest: Digest = contents_of
) -> Recipe:
    """Return the recipe of the output at the end of a route; keys that the pipeline does not use add no part to it."""
    files = _Files(config.folder, digest)
    parts: dict[str, Any] = {
        "route": [_of_stage(stage, files) for stage in route],
        "save": {"format": suffix if _makes_picture(route) else "", **_plain(save, files)},
        "values": values.RECIPE,
    }
    if config.pool.initializer:
        parts["initializer"] = _of_initializer(config.pool, files)
    if config.depends:
        parts["depends"] = files.contents_of_all(config.depends)
    if config.versions:
        parts["libraries"] = dict(config.versions)
    return Recipe(parts)


@dataclass(frozen=True)
class _Files:
    """Reads the files that recipes depend on, relative to the folder of the YAML."""

    folder: Path
    digest: Digest

    def contents(self, path: Path) -> str:
        return self.digest(self.folder / path)

    def contents_of_all(self, files: Sequence[str]) -> dict[str, str]:
        return {file: self.digest(self.folder / file) for file in files}


def _makes_picture(route: Sequence[StageConfig]) -> bool:
    """Return whether an output is a picture, whose format its suffix decides; filters keep the kind of a value."""
    makes = [stage.stage.makes for stage in route if stage.stage.makes is not None]
    return bool(makes) and makes[-1] is values.IMAGE


def _of_stage(stage: StageConfig, files: _Files) -> dict[str, Any]:
    parts = {
        "code": code_of(stage.stage.target, files.folder, stage.stage.module),
        "options": _plain(stage.options, files),
        **_decoding(stage),
    }
    if stage.depends:
        parts["depends"] = files.contents_of_all(stage.depends)
    if stage.pool and stage.pool.initializer:
        parts["initializer"] = _of_initializer(stage.pool, files)
    return parts


def _of_initializer(pool: Pool, files: _Files) -> dict[str, Any]:
    assert pool.initializer is not None
    return {
        "code": code_of(find_function(pool.initializer), files.folder),
        "initargs": [_initarg(each, files) for each in pool.initargs],
    }


def _decoding(stage: StageConfig) -> dict[str, Any]:
    """Return the part for the decoding of pictures; usually empty, since the stage's options decide it."""
    box = stage.decode_box
    parts: dict[str, Any] = {"for": box._asdict()} if box and box != stage.box else {}
    parts |= {"color": "keep"} if stage.own_colors else {}
    return {"decoding": parts} if parts else {}


# -- options -----------------------------------------------------------------------------------------------------------


def _plain(value: Any, files: _Files) -> Any:
    """Return an option as JSON: a Path as it was written, with the digest of its file's contents."""
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
