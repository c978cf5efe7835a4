"""Parses a document into a `PipelineEntry`; what is not plainly right, pydantic does, whose complaints are reworded."""

from __future__ import annotations

import json
from dataclasses import fields, is_dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args, get_type_hints

from pipeline.config import units
from pipeline.config.document import SHORT_FORMS, Document
from pipeline.config.model import PipelineEntry
from pipeline.config.telling import check_telling
from pipeline.config.units import yaml_word
from pipeline.stage.options import Place
from pipeline.stage.plain_values import NotPlain, parser_of

if TYPE_CHECKING:
    from pydantic import TypeAdapter

# What a text of each pattern must be, for the messages.
_NEEDED = {form.pattern: form.needed for form in (units.TEXT, units.NAME, units.FUNCTION, units.PING)}


@cache
def vocabulary() -> TypeAdapter[PipelineEntry]:
    """Return the pydantic adapter of `PipelineEntry`, built at the first call."""
    from pipeline.stage.validation import adapter_of

    return adapter_of(PipelineEntry)


def parse_pipeline(document: Document) -> PipelineEntry | None:
    """Parse a document into a PipelineEntry; return None and add complaints to it if it does not fit."""
    _write_out_short_forms(document)
    if document.data.get("stages") == []:
        document.complain(("stages",), "stages: at least one is needed")
    check_telling(document)
    try:
        return parser_of(PipelineEntry)(document.data)  # type: ignore[no-any-return]
    except NotPlain:
        return _parse_strictly(document)


def _parse_strictly(document: Document) -> PipelineEntry | None:
    from pydantic import ValidationError

    from pipeline.stage.validation import problems_of

    try:
        return vocabulary().validate_json(json.dumps(document.data))
    except ValidationError as error:
        problems = problems_of(error, document.data, _describe, _keys_at)
    for each in problems:
        who = who_at(document.data, each.place)
        word = next((step for step in reversed(each.place) if isinstance(step, str)), "")
        plain = each.key or each.text.endswith(" is missing") or each.place[:-1] == ("stages",)
        document.complain(each.place, f"{who}{'' if plain else f'{word}: '}{each.text}", key=each.key)
    return None


def _write_out_short_forms(document: Document) -> None:
    """Replace short forms such as `inputs: photos` and `output: small/{name}` by the mappings they stand for."""
    stages = document.data.get("stages")
    places: list[tuple[Any, Place]] = [(document.data, ("inputs",))]
    for index, stage in enumerate(stages if isinstance(stages, list) else ()):
        places.append((stage, ("stages", index, "output")))
    for holder, place in places:
        key = SHORT_FORMS[str(place[-1])]
        if isinstance(holder, dict) and isinstance(holder.get(place[-1]), str):
            holder[place[-1]] = {key: holder[place[-1]]}
            document.values[(*place, key)] = document.values[place]


def _describe(error: Any) -> str:
    """Reword one of pydantic's complaints in the terms of pipeline.yaml."""
    is_amount = error["type"] == "amount"
    needed: str = error["msg"] if is_amount else _NEEDED.get(error.get("ctx", {}).get("pattern", ""), "")
    if not needed:
        from pipeline.stage.validation import describe

        return describe(error)
    value = error["input"]
    return f"{needed}, not {value!r}" if isinstance(value, (str, int, float)) else needed


def who_at(data: Any, place: Place) -> str:
    """Return the stage of a place, by name or number, as a complaint begins; empty outside the stages."""
    if len(place) < 2 or place[0] != "stages" or not isinstance(place[1], int):
        return ""
    stage = data["stages"][place[1]]
    named = isinstance(stage, dict) and isinstance(stage.get("name"), str) and place[2:] != ("name",)
    return f"stage {stage['name']!r}: " if named else f"stage {place[1] + 1}: "


def _keys_at(place: Place) -> list[str]:
    """Return the keys that the vocabulary knows in the mapping at a place."""
    return _keys_below(tuple(step for step in place if isinstance(step, str)))


@cache
def _keys_below(words: tuple[str, ...]) -> list[str]:
    model: Any = PipelineEntry
    for word in words:
        hints = {yaml_word(name): hint for name, hint in get_type_hints(model).items()}
        model = _mapping_within(hints[word])
    return [yaml_word(field.name) for field in fields(model)]


def _mapping_within(annotation: Any) -> Any:
    """Return the class of a mapping in an annotation such as `tuple[StageEntry, ...]` or `Pool | None`."""
    if is_dataclass(annotation):
        return annotation
    return next((found for each in get_args(annotation) if (found := _mapping_within(each))), None)
