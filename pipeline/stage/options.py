"""Checks the options of the YAML against a stage's signature; no worker needs it."""

from __future__ import annotations

import dataclasses
import inspect
import os
import sys
from collections.abc import Callable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pipeline.records import dataclass
from pipeline.stage.plain_values import NotPlain, is_plain, parser_of
from pipeline.text import did_you_mean

Place = tuple[str | int, ...]
"""The path of a value in the data, such as ("stages", 0, "with", "width")."""


@dataclass(frozen=True)
class Problem:
    """One error in a value that YAML gave."""

    place: Place
    """The place of the problem, relative to the value that was checked."""
    text: str
    key: bool = False
    """True if the key is wrong rather than its value."""


def check_options(
    known: Mapping[str, inspect.Parameter],
    given: Mapping[str, Any],
    is_file: Callable[[str], bool] = lambda text: False,
) -> tuple[dict[str, Any], list[Problem]]:
    """Check options of the YAML against a signature; return the options after defaults, and the problems.

    Where `str | Path` is taken, a text that names a file, according to `is_file`, becomes a Path.

    Raises StageError for an annotation that no YAML value can satisfy.
    """
    problems: list[Problem] = []
    for name in given:
        if name not in known:
            text = f"no option {name!r}{did_you_mean(name, known) or _choices(known)}"
            problems.append(Problem((name,), text, key=True))
    options: dict[str, Any] = {}
    for name, parameter in known.items():
        if name not in given and is_plain(parameter.annotation, parameter.default):
            options[name] = parameter.default
            continue
        try:
            if name not in given:
                raise NotPlain
            options[name] = with_files(parser_of(parameter.annotation)(given[name]), parameter.annotation, is_file)
        except NotPlain:
            from pipeline.stage.validation import check_option  # which imports pydantic

            checked, wrong = check_option(parameter, given, is_file)
            options |= checked
            problems += wrong
    return options, problems


def with_files(value: Any, annotation: Any, is_file: Callable[[str], bool]) -> Any:
    """Return an option with each text that may be a Path, and names a file, as a Path; at any depth."""
    kinds = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return with_files(value, kinds[0], is_file)
    if isinstance(value, str):
        # A word without a dot or a slash, such as `convert`, more likely is no file although one has its name.
        may_be = {str, Path} <= set(kinds) and ("/" in value or "." in value) and "\0" not in value
        return Path(value) if may_be and not os.path.isabs(value) and is_file(value) else value
    if get_origin(annotation) in (Union, UnionType):  # such as `list[str | Path] | None`
        for kind in kinds:
            value = with_files(value, kind, is_file)
        return value
    if isinstance(value, dict) and len(kinds) == 2:
        return {key: with_files(each, kinds[1], is_file) for key, each in value.items()}
    if isinstance(value, tuple) and kinds and Ellipsis not in kinds and len(kinds) == len(value):
        return tuple(with_files(each, kind, is_file) for each, kind in zip(value, kinds, strict=True))
    if isinstance(value, (list, tuple, set, frozenset)) and kinds:
        return type(value)(with_files(each, kinds[0], is_file) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value), include_extras=True)
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
        changed = {name: with_files(each, hints[name], is_file) for name, each in fields.items()}
        return dataclasses.replace(value, **changed) if changed != fields else value
    return value


def _choices(known: Mapping[str, inspect.Parameter]) -> str:
    return f"; there are {', '.join(map(repr, known))}" if known else "; it has none"


def is_model(value: Any) -> bool:
    """Return whether a value is a model of pydantic's; there is none before that is imported."""
    pydantic = sys.modules.get("pydantic")
    return pydantic is not None and isinstance(value, pydantic.BaseModel)


def absolute(value: Any, folder: Path) -> Any:
    """Return options with every relative Path in them made absolute, at any depth."""
    if isinstance(value, Path):
        return folder / os.path.expanduser(value)
    if isinstance(value, dict):
        return {absolute(key, folder): absolute(each, folder) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_make"):
        return value._make(absolute(each, folder) for each in value)
    if isinstance(value, (list, tuple, set, frozenset)):
        return type(value)(absolute(each, folder) for each in value)
    if is_model(value):
        return value.model_copy(update={name: absolute(each, folder) for name, each in value})
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        fields = [each.name for each in dataclasses.fields(value) if each.init]
        return dataclasses.replace(value, **{name: absolute(getattr(value, name), folder) for name in fields})
    return value


def plain(value: Any) -> Any:
    """Return options as a recipe has them: built-in types and Paths, in place of objects of any other class."""
    if isinstance(value, Path):
        return Path(value)
    if isinstance(value, dict):
        return {Path(key) if isinstance(key, Path) else str(key): plain(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(each) for each in value]
    if isinstance(value, (set, frozenset)):
        members = [plain(each) for each in value]
        is_simple = all(isinstance(each, (str, int, float, Path, type(None))) for each in members)
        return frozenset(members) if is_simple else sorted(members, key=repr)
    if isinstance(value, Enum):
        return plain(value.value)
    for type_ in (bool, int, float, str):
        if isinstance(value, type_):
            return type_(value)
    if value is None:
        return None
    if fields := getattr(value, "__dataclass_fields__", None) or getattr(type(value), "model_fields", None):
        return {name: plain(getattr(value, name)) for name in fields}
    return repr(value)
