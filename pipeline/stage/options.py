"""Validates options against a stage's signature, and gives their JSON Schema, with pydantic; no worker needs it."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from enum import Enum
from pathlib import Path
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pipeline.errors import StageError
from pipeline.records import dataclass
from pipeline.text import did_you_mean

# pydantic's types of error -> what is needed, in the words of YAML.
_NEEDED = {
    "model_type": "a mapping", "model_attributes_type": "a mapping", "dict_type": "a mapping",
    "dataclass_type": "a mapping", "list_type": "a list", "tuple_type": "a list", "set_type": "a list",
    "frozen_set_type": "a list", "string_type": "text", "path_type": "text", "bytes_type": "text",
    "int_type": "a whole number", "int_from_float": "a whole number", "float_type": "a number",
    "bool_type": "true or false", "none_required": "null",
}  # fmt: skip
# What pydantic says of itself and of Python's types in its messages.
_PYTHON_WORDS = re.compile(
    r"^(Input|Value error,|Assertion failed,|Tuple|List|Set|Frozenset|Dictionary|String) | after validation"
)
_NO_PLUGINS = "PYDANTIC_DISABLE_PLUGINS"
# Characters: a longer value is left out of the message; the source line shows it.
_SHOWN = 80


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


_PLAIN_DATA = "options are plain data: str, int, float, bool, Path, Literal, list, dict, or a dataclass of these"


def check_options(
    known: Mapping[str, inspect.Parameter],
    given: Mapping[str, Any],
    is_file: Callable[[str], bool] = lambda text: False,
) -> tuple[dict[str, Any], list[Problem]]:
    """Validate options of the YAML against a signature; return the options after defaults, and the problems.

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
        adapter = _adapter(parameter)
        if name in given:
            try:
                checked, wrong = validate(adapter, given[name])
                options[name] = _with_files(checked, parameter.annotation, is_file)
            except Exception as error:
                raise _no_type(parameter, error) from error
            problems += [Problem((name, *each.place), f"option {name!r}: {each.text}", each.key) for each in wrong]
        elif parameter.default is parameter.empty:
            _refuse_odd_type(adapter, parameter)
            problems.append(Problem((), f"option {name!r} is missing"))
        else:
            _refuse_odd_default(adapter, parameter)
            options[name] = parameter.default
    return options, problems


def _with_files(value: Any, annotation: Any, is_file: Callable[[str], bool]) -> Any:
    """Return an option with each text that may be a Path, and names a file, as a Path; at any depth."""
    kinds = get_args(annotation)
    if get_origin(annotation) is Annotated:
        return _with_files(value, kinds[0], is_file)
    if isinstance(value, str):
        # A word without a dot or a slash, such as `convert`, more likely is no file although one has its name.
        may_be = {str, Path} <= set(kinds) and ("/" in value or "." in value) and "\0" not in value
        return Path(value) if may_be and not os.path.isabs(value) and is_file(value) else value
    if get_origin(annotation) in (Union, UnionType):  # such as `list[str | Path] | None`
        for kind in kinds:
            value = _with_files(value, kind, is_file)
        return value
    if isinstance(value, dict) and len(kinds) == 2:
        return {key: _with_files(each, kinds[1], is_file) for key, each in value.items()}
    if isinstance(value, tuple) and kinds and Ellipsis not in kinds and len(kinds) == len(value):
        return tuple(_with_files(each, kind, is_file) for each, kind in zip(value, kinds, strict=True))
    if isinstance(value, (list, tuple, set, frozenset)) and kinds:
        return type(value)(_with_files(each, kinds[0], is_file) for each in value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        hints = get_type_hints(type(value), include_extras=True)
        fields = {each.name: getattr(value, each.name) for each in dataclasses.fields(value) if each.init}
        changed = {name: _with_files(each, hints[name], is_file) for name, each in fields.items()}
        return dataclasses.replace(value, **changed) if changed != fields else value
    return value


def _refuse_odd_type(adapter: TypeAdapter[Any], parameter: inspect.Parameter) -> None:
    """Raise StageError for a type of which YAML can hold no value, such as a function."""
    try:
        adapter.json_schema()
    except Exception as error:
        raise _no_type(parameter, error) from error


def _refuse_odd_default(adapter: TypeAdapter[Any], parameter: inspect.Parameter) -> None:
    """Raise StageError for a default that cannot be serialized, since no recipe could then detect its change."""
    try:
        adapter.dump_json(parameter.default, warnings=False)
    except Exception:
        text = f"the default of option {parameter.name!r} is no plain data: {parameter.default!r}"
        raise StageError(text, hint=_PLAIN_DATA) from None


def _choices(known: Mapping[str, inspect.Parameter]) -> str:
    return f"; there are {', '.join(map(repr, known))}" if known else "; it has none"


def adapter_of(annotation: Any) -> TypeAdapter[Any]:
    """Return the pydantic adapter of a type.

    pydantic would look through everything that is installed for plugins, at the first of all; those are not for us.
    """
    before = os.environ.get(_NO_PLUGINS)
    os.environ[_NO_PLUGINS] = "__all__"
    try:
        return TypeAdapter(annotation)
    finally:
        del os.environ[_NO_PLUGINS]
        if before is not None:
            os.environ[_NO_PLUGINS] = before


def _adapter(parameter: inspect.Parameter) -> TypeAdapter[Any]:
    if isinstance(parameter.default, FieldInfo):
        raise StageError(
            f"the default of option {parameter.name!r} is a Field",
            hint=f"say '{parameter.name}: Annotated[..., Field(...)] = default'",
        )
    try:
        return adapter_of(parameter.annotation)
    except Exception as error:
        raise _no_type(parameter, error) from error


def _no_type(parameter: inspect.Parameter, error: Exception) -> StageError:
    # pydantic raises its own, TypeError and more, according to what it meets, and some only with a value at hand.
    reason = str(error).partition("\n")[0]
    named = inspect.formatannotation(parameter.annotation)
    text = f"option {parameter.name!r} has a type that YAML cannot give: {named}"
    if "pydantic-core schema" not in reason:  # that says no more than that, and much of pydantic
        text += f" ({reason})"
    return StageError(text, hint=_PLAIN_DATA)


def validate(adapter: TypeAdapter[Any], value: Any) -> tuple[Any, list[Problem]]:
    """Validate one value strictly, so that "800" is no int and true is no 1; a union gives one problem."""
    try:
        return adapter.validate_json(json.dumps(value), strict=True, extra="forbid"), []
    except ValidationError as error:
        return None, problems_of(error, value)


def describe(error: Any) -> str:
    """Reword one of pydantic's complaints, with the user's own value in it."""
    value, kind = error.get("input"), error["type"]
    text = _PYTHON_WORDS.sub("", str(error["msg"]))
    text = f"{_NEEDED[kind]} is needed" if kind in _NEEDED else text[:1].lower() + text[1:]
    # What a validator of the stage's own says, says it all.
    if isinstance(value, (str, int, float, bool, type(None))) and kind not in ("value_error", "assertion_error"):
        shown = json.dumps(value, ensure_ascii=False)
        text += f", not {shown}" if len(shown) < _SHOWN else ""
    if kind == "string_type" and isinstance(value, dict) and list(value.values()) == [None]:
        text += f', not a mapping; in quotes, as in "{{{next(iter(value))}}}", it is text'
    if kind in ("literal_error", "enum") and isinstance(value, str):
        text += did_you_mean(value, re.findall(r"'([^']*)'", str(error["ctx"]["expected"])))
    return text


def problems_of(
    error: ValidationError,
    data: Any,
    describe: Callable[[Any], str] = describe,
    keys_at: Callable[[Place], Iterable[str]] = lambda place: (),
) -> list[Problem]:
    """Reword pydantic's complaints, each with its place in the data.

    A union complains once for each of its members, at places that are not in the data; those are joined.
    """
    problems: list[Problem] = []
    joined: dict[Place, dict[str, None]] = {}
    for each in error.errors(include_url=False):
        missing = each["type"] in ("missing", "missing_argument")
        said = each["loc"][:-1] if missing else each["loc"]
        place = place_in(data, said)
        if each["type"] in ("extra_forbidden", "unexpected_keyword_argument") and place == said:
            name = str(place[-1])
            problems.append(Problem(place, f"unknown key {name!r}{did_you_mean(name, keys_at(place[:-1]))}", key=True))
            continue
        text = f"{_entry(each['loc'][-1])} is missing" if missing else describe(each)
        if place == said:
            problems.append(Problem(place, text))
        else:
            joined.setdefault(place, {})[text] = None
    return problems + [Problem(place, "; or ".join(texts)) for place, texts in joined.items()]


def _entry(step: str | int) -> str:
    return f"entry {step + 1}" if isinstance(step, int) else f"key {step!r}"


def place_in(data: Any, place: Place) -> Place:
    """Return the longest beginning of a place that exists in the data."""
    for depth, step in enumerate(place):
        listed = isinstance(data, list) and isinstance(step, int) and step < len(data)
        if not listed and not (isinstance(data, dict) and step in data):
            return place[:depth]
        data = data[step]
    return place


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
    if isinstance(value, BaseModel):
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


def json_schema(parameter: inspect.Parameter) -> dict[str, Any]:
    """Return the JSON Schema of an option with its default; empty for a type that pydantic cannot describe."""
    adapter = _adapter(parameter)
    try:
        said = adapter.json_schema(ref_template="#/definitions/{model}")
    except Exception:  # a type with a validator of its own says no more than that
        said = {}
    if parameter.default not in (parameter.empty, None):
        with contextlib.suppress(PydanticSerializationError):
            said = {**said, "default": to_jsonable_python(parameter.default)}
    return said
