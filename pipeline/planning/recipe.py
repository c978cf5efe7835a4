"""Describes each output of the tree: its path, and the recipe whose digest decides whether it is stale.

OutputSpec  one output: its template, its route through the tree, its recipe
Recipe      everything but the source that decides an output's contents, in named parts
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import Enum
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.config.model import Config, Pool, StageConfig
from pipeline.config.routes import route_of
from pipeline.config.threads import THREAD_VARIABLES
from pipeline.files import hashlib
from pipeline.files.digest import contents_of
from pipeline.files.template import ALL_PARTS, NoFile, Template
from pipeline.files.walk import Match, matcher
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.late_code import LateCode
from pipeline.records import dataclass
from pipeline.stage import values
from pipeline.stage.code import Code
from pipeline.stage.counted import is_of_kernel
from pipeline.stage.recognition import reading_kind
from pipeline.stage.values import Kind


@dataclass(frozen=True)
class Recipe:
    """Everything but the source that decides an output's contents: the stages of its route and the save options."""

    parts: dict[str, Any]
    files: tuple[dict[str, str], ...] = ()
    """For each stage the digests of its files of code, by paths relative to `folder`; not part of the digest."""
    folder: str = ""
    """The folder of pipeline.yaml."""

    @property
    def record(self) -> dict[str, Any]:
        """The recipe as the ledger keeps it: its parts, and the files by which a change of code is described."""
        return {**self.parts, "files": list(self.files)}

    def has_swapped_files(self, before: Mapping[str, Any]) -> bool:
        """Return whether the files of a recorded recipe with the same parts had each other's code.

        The parts name no files, so that outputs stay as they are when the project is moved.
        """
        was = before.get("files", [])
        return [set(each) for each in was] == [set(each) for each in self.files] and was != list(self.files)

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
    reads: Kind | None = None
    """The kind in which the source is read; None where it may be any file."""

    def fill(self, source: bytes) -> bytes:
        """Return the path of a source's output, with a placeholder for the name of a part. Raises FileFailure."""
        return self.template.fill(source, ALL_PARTS if self.has_parts else "")

    @cached_property
    def is_nameless(self) -> bool:
        """True if no stage learns the name of the source, so that the contents of the output do not depend on it."""
        taken = [stage.stage for stage in self.route]
        return not any(each.wants_item or each.takes not in _WITHOUT_NAME for each in taken)

    @cached_property
    def is_plain(self) -> bool:
        """True if the output is exactly one file for every source."""
        return self.template.has_file and not self.has_parts and self.matches is None


def output_specs(
    config: Config, ledger: Ledger, *, record: bool, late: LateCode | None = None
) -> tuple[OutputSpec, ...]:
    """Return every output of the tree with its recipe; the recipes are recorded in the ledger if `record`."""
    known = {digest: number for number, digest in ledger.recipes().items()}
    late = late or LateCode(config, ledger)
    contents, leaves = ledger.file_digests, []
    for stage in config.ends:
        # A gathering stage's recipe leaves out the stages above: the records of the members tell when those change.
        route, output = (stage,) if stage.stage.gathers else route_of(config, stage), stage.output
        template, save = (output.template, output.saving) if output else (NoFile(stage.name), {})
        recipe = recipe_for(config, route, save, template.suffix, contents.digest, late.changed)
        if (before := known.get(recipe.digest)) and recipe.has_swapped_files(ledger.recipe_parts(before)):
            recipe = replace(recipe, parts={**recipe.parts, "order": _digest(_canonical_json(recipe.files).encode())})
        number = ledger.number_recipe(recipe.digest, recipe.record) if record else known.get(recipe.digest)
        matches = matcher(route[0].match) if route[0].match else None
        gathers, has_parts = stage.stage.gathers, any(each.stage.fans_out for each in route)
        reads = None if gathers else reading_kind([each.stage for each in route])
        leaves.append(OutputSpec(stage.name, template, recipe, number, route, matches, gathers, has_parts, reads))
    if record:
        contents.remember()
    return tuple(leaves)


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


# The kinds of values that tell nothing of the file they come from.
_WITHOUT_NAME = (values.BYTES, values.TEXT, values.IMAGE, values.PICTURE)


# -- recipes -----------------------------------------------------------------------------------------------------------

Digest = Callable[[Path], str]
"""A function that returns the digest of a file's contents."""

# Where the programs of the system lie, and those of Python's own installation.
_SYSTEM = (
    *("/bin/", "/sbin/", "/lib/", "/lib64/", "/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/lib64/", "/usr/libexec/"),
    "/usr/share/",
    *(os.path.join(each, "") for each in {sys.prefix, sys.base_prefix} - {"/usr", "/usr/local", "/"}),
)


def recipe_for(
    config: Config,
    route: Sequence[StageConfig],
    save: dict[str, Any],
    suffix: str,
    digest: Digest = contents_of,
    late_code: Callable[[StageConfig], Mapping[str, str]] = lambda stage: {},
) -> Recipe:
    """Return the recipe of the output at the end of a route; keys that the pipeline does not use add no part to it.

    `late_code` returns the digests of the files of code that only calls of a stage loaded and that have changed since.
    """
    files = _Files(config.folder, digest)
    parts: dict[str, Any] = {
        "route": [_of_stage(stage, files, late_code(stage)) for stage in route],
        "save": {"format": suffix if _makes_picture(route) else "", **_plain(save, files)},
        "values": values.RECIPE,
    }
    if config.pool.initializer:
        parts["initializer"] = _of_initializer(config.pool, config.initializer_code, files)
    parts |= _environment(config.pool)
    if config.depends:
        parts["depends"] = files.contents_of_all(config.depends)
    if config.versions:
        parts["libraries"] = dict(config.versions)
    code = tuple(
        {os.path.relpath(path, config.folder): digest for path, digest in stage.code.files.items()} for stage in route
    )  # fmt: skip
    return Recipe(parts, code, str(config.folder))


@dataclass(frozen=True)
class _Files:
    """Reads the files that recipes depend on, relative to the folder of the YAML."""

    folder: Path
    digest: Digest

    def contents(self, path: Path) -> str:
        return self.digest(self.folder / path)

    def contents_of_all(self, files: Sequence[str]) -> dict[str, str]:
        return {file: self.digest(self.folder / file) for file in files}


def with_unknown_code(parts: dict[str, Any]) -> dict[str, Any]:
    """Return the parts of a recipe for outputs of unknown code."""
    route = [{**stage, "code": f"{stage['code'].partition(' ')[0]} unknown"} for stage in parts["route"]]
    return {**parts, "route": route}


def _makes_picture(route: Sequence[StageConfig]) -> bool:
    """Return whether an output is a picture, whose format its suffix decides; filters keep the kind of a value."""
    makes = [stage.stage.makes for stage in route if stage.stage.makes is not None]
    return bool(makes) and makes[-1] is values.IMAGE


def _of_stage(stage: StageConfig, files: _Files, late_code: Mapping[str, str]) -> dict[str, Any]:
    parts = {
        "code": stage.code.identity,
        "options": _plain(_with_paths(stage.options, _names_a_users_file), files),
        **_decoding(stage),
    }
    if late_code:
        parts["late"] = dict(late_code)
    if stage.depends:
        parts["depends"] = files.contents_of_all(stage.depends)
    if stage.pool and stage.pool.initializer:
        parts["initializer"] = _of_initializer(stage.pool, stage.initializer_code, files)
    return parts | _environment(stage.pool)


def _environment(pool: Pool | None) -> dict[str, Any]:
    """Return the part for the environment of a pool's workers, without how many threads there are; usually empty."""
    own = {name: text for name, text in pool.environment.items() if name not in THREAD_VARIABLES} if pool else {}
    return {"env": own} if own else {}


def _of_initializer(pool: Pool, code: Code, files: _Files) -> dict[str, Any]:
    return {
        "code": code.identity,
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
        if any(isinstance(key, Path) for key in value):
            return [[_plain(key, files), _plain(each, files)] for key, each in value.items()]
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
    return _plain(_with_paths(value, lambda text: (files.folder / text).is_file()), files)


def _with_paths(value: Any, is_path: Callable[[str], bool]) -> Any:
    """Return the arguments of an initializer, with each text that names a file, at any depth, as a Path."""
    if isinstance(value, dict):
        return {_with_paths(key, is_path): _with_paths(each, is_path) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_with_paths(each, is_path) for each in value]
    if isinstance(value, (set, frozenset)):
        return frozenset(_with_paths(each, is_path) for each in value)
    return Path(value) if isinstance(value, str) and "\0" not in value and is_path(value) else value


def _names_a_users_file(text: str) -> bool:
    """Return whether an option is the absolute path of a file, such as a script in an `argv`, that no package brought.

    A relative text may be anything; a stage that wants a path has an option of that type.
    """
    is_of_system = text.startswith(_SYSTEM) or is_of_kernel(text)
    return os.path.isabs(text) and not is_of_system and os.path.isfile(text)


def contents_read(config: Config) -> list[str]:
    """Return the files whose contents are part of a recipe: Paths in options and initargs, and `depends`."""
    found: list[str] = []

    def note(path: Path) -> str:
        found.append(os.path.abspath(path))
        return ""

    for stage in config.ends:
        route = (stage,) if stage.stage.gathers else route_of(config, stage)
        recipe_for(config, route, stage.output.save if stage.output else {}, "", note)
    return list(dict.fromkeys(found))


def _canonical_json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)


def _digest(data: bytes) -> str:
    return hashlib.blake2b(data, digest_size=16).hexdigest()
