"""Validates options against a stage's signature, and gives their JSON Schema, with pydantic.

It takes longer to be imported than most pipelines to be read: it is asked only of what is not plainly right.
"""

from __future__ import annotations

import contextlib
import inspect
import json
import os
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import PydanticSerializationError, to_jsonable_python

from pipeline.errors import StageError
from pipeline.stage.options import Place, Problem, with_files
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

_PLAIN_DATA = "options are plain data: str, int, float, bool, Path, Literal, list, dict, or a dataclass of these"


def check_option(
    parameter: inspect.Parameter, given: Mapping[str, Any], is_file: Callable[[str], bool]
) -> tuple[dict[str, Any], list[Problem]]:
    """Validate one option, or its default where it is not given; return it by its name, and the problems.

    Raises StageError for an annotation that no YAML value can satisfy.
    """
    name, adapter = parameter.name, _adapter(parameter)
    if name in given:
        try:
            checked, wrong = validate(adapter, given[name])
            checked = with_files(checked, parameter.annotation, is_file)
        except Exception as error:
            raise _no_type(parameter, error) from error
        texts = [Problem((name, *each.place), f"option {name!r}: {each.text}", each.key) for each in wrong]
        return {name: checked}, texts
    if parameter.default is parameter.empty:
        _refuse_odd_type(adapter, parameter)
        return {}, [Problem((), f"option {name!r} is missing")]
    _refuse_odd_default(adapter, parameter)
    return {name: parameter.default}, []


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
