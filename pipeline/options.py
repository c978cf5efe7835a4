"""A signature -> the options it accepts: validation and JSON Schema, by pydantic, in the parent only."""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import PydanticSchemaGenerationError, PydanticUserError, TypeAdapter, ValidationError

from pipeline.document import Place, did_you_mean
from pipeline.errors import StageError

Problem = tuple[Place, str, bool]
"""Where below the mapping, what is wrong, and whether its key is at fault rather than its value."""


def check_options(
    who: str, known: Mapping[str, inspect.Parameter], given: Mapping[str, Any], *, unknown_hint: str = ""
) -> tuple[dict[str, Any], list[Problem]]:
    """Validate what the YAML gives against a signature; gives the options after defaults, and what is wrong.

    Raises StageError for an annotation that no YAML value can satisfy.
    """
    problems: list[Problem] = []
    for name in given:
        if name not in known:
            says = did_you_mean(name, known) or unknown_hint or _choices(known)
            problems.append(((name,), f"{who}: no option {name!r}{says}", True))
    options: dict[str, Any] = {}
    for name, parameter in known.items():
        if name in given:
            value, wrong = validate(_adapter(who, parameter), given[name])
            options[name] = value
            problems += [((name, *place), f"{who}: option {name!r}: {text}", False) for place, text in wrong]
        elif parameter.default is parameter.empty:
            problems.append(((), f"{who}: option {name!r} is missing", False))
        else:
            options[name] = parameter.default
    return options, problems


def _choices(known: Mapping[str, inspect.Parameter]) -> str:
    return f"; there are {', '.join(map(repr, known))}" if known else "; it has none"


def _adapter(who: str, parameter: inspect.Parameter) -> TypeAdapter[Any]:
    try:
        return TypeAdapter(parameter.annotation)
    except (PydanticSchemaGenerationError, PydanticUserError) as error:
        raise StageError(
            f"{who}: option {parameter.name!r}: {parameter.annotation} is no type that YAML can give"
        ) from error


def validate(adapter: TypeAdapter[Any], value: Any) -> tuple[Any, list[tuple[Place, str]]]:
    """Validate one value strictly: "800" is no int, true is no 1. A union's complaints are said once."""
    try:
        return adapter.validate_json(json.dumps(value), strict=True), []
    except ValidationError as error:
        wrong = error.errors(include_url=False)
    if len(wrong) > 1 and _is_union(adapter):
        return None, [((), "; or ".join(dict.fromkeys(describe(each) for each in wrong)))]
    return None, [(tuple(each["loc"]), describe(each)) for each in wrong]


def _is_union(adapter: TypeAdapter[Any]) -> bool:
    annotation = adapter._type  # pydantic offers no public name for it
    while typing.get_origin(annotation) is typing.Annotated:
        annotation = typing.get_args(annotation)[0]
    return str(typing.get_origin(annotation)) in ("typing.Union", "<class 'types.UnionType'>")


def describe(error: Any) -> str:
    """One of pydantic's complaints in our words, with the user's own value in it."""
    text = str(error["msg"]).removeprefix("Input ").removeprefix("Value error, ")
    value = error.get("input")
    shown = json.dumps(value, ensure_ascii=False) if isinstance(value, (str, int, float, bool, type(None))) else ""
    return f"{text[0].lower()}{text[1:]}{f', not {shown}' if shown and len(shown) < 80 else ''}"


def absolute(value: Any, folder: Path) -> Any:
    """The same options with every relative Path in them made absolute."""
    if isinstance(value, Path):
        return folder / value.expanduser()
    if isinstance(value, dict):
        return {key: absolute(each, folder) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(absolute(each, folder) for each in value)
    return value
