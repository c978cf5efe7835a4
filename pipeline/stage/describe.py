"""Describes a stage for its user: the types it takes and makes, and each option with type, default and doc."""

from __future__ import annotations

import inspect
import json
import re
from typing import Any

from pipeline.errors import StageError
from pipeline.records import dataclass
from pipeline.stage.signature import Stage
from pipeline.stage.validation import json_schema
from pipeline.stage.values import IMAGE

_TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true or false", "null": "null",
          "object": "mapping", "array": "list"}  # fmt: skip
# What ends a sentence, as people write them in docstrings.
_SENTENCE_END = re.compile(r"(?<=[.!?])\s+(?=[A-Z`'\"])")
# How a docstring shows what may be said.
_EXAMPLE = re.compile(r"`with: (\{[^`]*\})`")


@dataclass(frozen=True)
class Option:
    """One option of a stage, as it is shown to people and to editors."""

    name: str
    schema: dict[str, Any]
    """The JSON Schema of the option, with its default and doc."""
    words: str
    """The type of the option, in the words of YAML."""
    is_required: bool
    default: Any
    doc: str


def takes(stage: Stage) -> str:
    """Return the annotation of a stage's parameter, such as `Iterator[Item[Picture]]`."""
    name = stage.takes.name if stage.takes else ""
    one = (f"Item[{name}]" if name else "Item") if stage.wants_item else name
    return f"Iterator[{one}]" if stage.gathers else one


def makes(stage: Stage) -> str:
    """Return the annotation of a stage's result, such as `Iterator[str]`."""
    name = stage.makes.name if stage.makes else "bool"
    return f"Iterator[{name}]" if stage.fans_out else name


def doc(stage: Stage) -> str:
    """Return the docstring of a stage, which is its help text; empty if it has none."""
    written = inspect.getdoc(stage.target) if getattr(stage.target, "__doc__", None) else None
    return (written or "").strip()


def first_sentence(stage: Stage) -> str:
    """Return the first sentence of a stage's docstring, without a full stop."""
    first = " ".join(doc(stage).partition("\n\n")[0].split())
    return _SENTENCE_END.split(first)[0].rstrip(".")


def options(stage: Stage) -> list[Option]:
    """Describe every option that pipeline.yaml may give. Raises StageError for a type that YAML cannot give."""
    return [option(parameter, doc(stage)) for parameter in stage.options.values()]


def option(parameter: inspect.Parameter, text: str) -> Option:
    """Describe one option, with its text in the docstring."""
    schema = json_schema(parameter)
    said = schema.get("description") or _doc_of(parameter.name, text)
    if said:
        schema = {**schema, "description": said}
    is_required = parameter.default is parameter.empty
    default = None if is_required else parameter.default
    return Option(parameter.name, schema, words(schema), is_required, default, said)


def _doc_of(name: str, text: str) -> str:
    """Return the text of an option in a docstring: its own entry, or the sentences with its name in backquotes."""
    key = rf"(?::param )?(?:{re.escape(name)}|`{re.escape(name)}`)(?: ?\([^)\n]*\))?:"
    if entry := re.search(rf"^[ \t]*{key} +(\S.*(?:\n[ \t]{{4,}}\S.*)*)", text, re.M):
        return " ".join(entry[1].split())
    paragraphs = [" ".join(each.split()) for each in text.split("\n\n")]
    sentences = [each for paragraph in paragraphs for each in _SENTENCE_END.split(paragraph)]
    return " ".join(each for each in sentences if f"`{name}`" in each or f"`{name}:" in each)


def says(stage: Stage, text: str) -> bool:
    """Return whether the stage's docstring contains every sentence of a text."""
    whole = " ".join(doc(stage).split())
    return all(each in whole for each in _SENTENCE_END.split(text))


def words(schema: dict[str, Any]) -> str:
    """Describe a JSON Schema in a few words."""
    if "const" in schema:
        return _shown(schema["const"])
    if "enum" in schema:
        return " | ".join(_shown(each) for each in schema["enum"])
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return " | ".join(dict.fromkeys(words(each) for each in schema[several]))
    if schema.get("type") == "array" and isinstance(schema.get("items"), dict) and schema["items"]:
        return f"list of {words(schema['items'])}"
    if schema.get("format") == "path":
        return "path"
    return _TYPES.get(schema.get("type", "object" if "$ref" in schema else ""), "anything") + _bounds(schema)


def _bounds(schema: dict[str, Any]) -> str:
    low, high = schema.get("minimum"), schema.get("maximum")
    said = [f"from {low}" if low is not None else "", f"to {high}" if high is not None else ""]
    above, below = schema.get("exclusiveMinimum"), schema.get("exclusiveMaximum")
    is_whole = schema.get("type") == "integer"
    if above is not None:
        said[0] = f"from {above + 1}" if is_whole else f"above {above}"
    if below is not None:
        said[1] = f"to {below - 1}" if is_whole else f"below {below}"
    return "".join(f" {each}" for each in said if each)


def _shown(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


# -- an example --------------------------------------------------------------------------------------------------------


def example(stage: Stage) -> dict[str, Any]:
    """Return options for an example of the stage: those in its docstring, or else ones that its check accepts.

    These are the required options, and as many of the others as the check needs.
    """
    if shown := _shown_example(stage):
        return shown
    known = options(stage)
    needed = given = {each.name: _sample(each.schema) for each in known if each.is_required}
    for other in (each for each in known if not each.is_required):
        if _is_accepted(stage, given):
            return given
        given = given | {other.name: _sample(other.schema)}
    return given if _is_accepted(stage, given) else needed


def _shown_example(stage: Stage) -> dict[str, Any] | None:
    """Return the options that a docstring shows as an example; None if it shows none."""
    import yaml

    shown = _EXAMPLE.search(" ".join(doc(stage).split()))
    try:
        given = yaml.safe_load(shown[1]) if shown else None
    except yaml.YAMLError:
        return None
    return given if isinstance(given, dict) and given.keys() <= stage.options.keys() else None


def output_name(stage: Stage, name: str) -> str:
    """Return a name below an output folder that suits what the stage makes."""
    kind = stage.makes
    suffix = kind.suffixes[0] if kind and kind.suffixes else ".jpg" if kind is IMAGE else ""
    suffix = str(example(stage).get("suffix", suffix))
    if stage.gathers:
        return f"{name}{suffix}"
    part = "-{part}" if stage.fans_out else ""
    return f"{{dir}}/{{stem}}{part}{suffix or '{suffix}'}"


def _is_accepted(stage: Stage, given: dict[str, Any]) -> bool:
    defaults = {name: each.default for name, each in stage.options.items() if each.default is not each.empty}
    try:
        stage.check(defaults | given)
    except (ValueError, TypeError, StageError):
        return False
    return True


def _sample(schema: dict[str, Any]) -> Any:
    """Return a valid value of an option, as a placeholder in an example."""
    if schema.get("default") is not None:
        return schema["default"]
    for several in ("anyOf", "oneOf"):
        if several in schema:
            return _sample(schema[several][0])
    match schema:
        case {"enum": [first, *_]} | {"const": first}:
            return first
        case {"type": "boolean"}:
            return True
        case {"type": "integer" | "number"}:  # a size, most likely: as large as it may be, up to a hundred
            low, high = schema.get("minimum", schema.get("exclusiveMinimum", 0)), schema.get("maximum", 100)
            return max(low, min(100, high))
        case {"type": "array"}:
            return [_sample(schema.get("items", {}))]
        case {"type": "object"}:
            return {}
        case {"format": "path"}:
            return "path/of/a.file"
    return "text"
