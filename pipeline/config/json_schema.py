"""The JSON Schema of pipeline.yaml, by which an editor completes and checks it, with the options of every stage.

It is generated from the classes into which the YAML is parsed (`model.py`) and from the signatures of the stages, so it
cannot differ from what a run accepts. It is in draft 7, which the YAML language server supports best.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import inspect
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pipeline.config import model, units
from pipeline.config.catalogue import Entry, visible_stages
from pipeline.config.defaults import WORDS
from pipeline.config.document import SHORT_FORMS
from pipeline.config.schema import vocabulary
from pipeline.config.units import Amount
from pipeline.errors import UsageError
from pipeline.files.file_system import read_regular
from pipeline.files.sync import replace_file
from pipeline.stage import describe as about
from pipeline.stage.isolation import call_despite_deaths
from pipeline.stage.signature import Stage, keyword_options

Schema = dict[str, Any]

_DRAFT = "http://json-schema.org/draft-07/schema#"
SCHEMA_FILE = "pipeline.schema.json"
"""The name of the schema file beside pipeline.yaml."""
# The class that has each key with a short form.
_SHORT_FORM_OWNERS = {"inputs": "PipelineEntry", "output": "StageEntry"}
# A stage that is named by its package or file rather than by its name.
_ELSEWHERE = {"type": "string", "pattern": "[.:/]", "description": "package.module:Name or ./folder/file.py:Name"}


def pipeline_schema(entries: Iterable[Entry]) -> Schema:
    """Return the JSON Schema of a pipeline.yaml that can use these stages."""
    made: Schema = vocabulary().json_schema(ref_template="#/definitions/{model}")
    whole = {"PipelineEntry": made, **made.pop("$defs")}
    _describe(whole)
    for key, inner in SHORT_FORMS.items():
        _add_short_form(whole, _SHORT_FORM_OWNERS[key], key, inner)
    _add_stages(whole, {entry.name: entry.stage for entry in entries if entry.stage})
    _add_save_options(whole["Output"])
    _part_notify(whole["Notify"])
    root = whole.pop("PipelineEntry")
    root["properties"]["stages"]["minItems"] = 1
    return {"$schema": _DRAFT, "title": "pipeline.yaml", **_finished(root), "definitions": _finished(whole)}


def defaults_schema() -> Schema:
    """Return the JSON Schema of a file of defaults for many pipelines."""
    whole = pipeline_schema(())
    known = {word: each for word, each in whole["properties"].items() if word in WORDS}
    about = {"title": "defaults", "description": "What the pipelines of a machine have in common."}
    return {**whole, **about, "properties": known, "required": []}


def read_schema(pipeline: Path) -> tuple[Schema, list[str]]:
    """Return the schema of a pipeline, and why stages are left out of it; another process imports the stages."""
    found: tuple[Schema, list[str]] = call_despite_deaths("pipeline.config.json_schema:schema_for", pipeline)
    return found


def schema_for(pipeline: Path, deaths: Mapping[str, str]) -> tuple[Schema, list[str]]:
    """Return the schema of a pipeline, and why stages are left out of it; the stages are imported into this process."""
    entries = visible_stages(pipeline, deaths)
    return pipeline_schema(entries), [f"{each.name}: {each.problem}" for each in entries if each.problem]


def write_schema(schema: Schema, file: Path) -> None:
    """Write a schema atomically. Raises UsageError if that fails, or if the file exists and is no JSON Schema."""
    written = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        if file.exists() and not _is_schema(file):
            raise UsageError(f"{file} exists and is no JSON Schema; name another file")
        replace_file(file, as_text(schema).encode(), written)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror}") from error


def _is_schema(file: Path) -> bool:
    try:
        return "$schema" in json.loads(read_regular(file))
    except (ValueError, TypeError, RecursionError):
        return False


def as_text(schema: Schema) -> str:
    """Return the text of a schema file."""
    return json.dumps(schema, indent=2, ensure_ascii=False) + "\n"


def modeline(schema: Path, pipeline: Path) -> str:
    """Return the comment at the top of a pipeline by which an editor finds its schema."""
    seen = os.path.relpath(schema.resolve(), pipeline.resolve().parent)
    return f"# yaml-language-server: $schema={seen if seen.startswith('.') else f'./{seen}'}"


def _describe(whole: Schema) -> None:
    """Add to each key its default, as YAML writes it, and its doc, the string below the field in `model.py`."""
    for node in ast.parse(inspect.getsource(model)).body:
        if isinstance(node, ast.ClassDef) and node.name in whole:
            properties, docs = whole[node.name]["properties"], dict(_docs_of(node))
            hints = get_type_hints(getattr(model, node.name), include_extras=True)
            for field in dataclasses.fields(getattr(model, node.name)):
                described = properties[units.yaml_word(field.name)]
                described["description"] = docs[field.name]
                if field.default_factory is not dataclasses.MISSING:
                    described["default"] = field.default_factory()
                elif (amount := _amount_in(hints[field.name])) and field.default not in (None, dataclasses.MISSING):
                    described["default"] = amount.write(field.default)


def _docs_of(model: ast.ClassDef) -> Iterator[tuple[str, str]]:
    """Yield the fields of a class with the text that stands below each."""
    for field, below in zip(model.body, model.body[1:], strict=False):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(below, ast.Expr):
            text = ast.literal_eval(below.value)
            yield field.target.id, " ".join(text.split())


def _amount_in(annotation: Any) -> Amount | None:
    """Find the unit that an annotation asks for, such as that of `Seconds | None`."""
    if isinstance(annotation, Amount):
        return annotation
    return next((found for each in get_args(annotation) if (found := _amount_in(each))), None)


def _add_short_form(whole: Schema, owner: str, key: str, inner: str) -> None:
    """Let `inputs: photos` stand for `inputs: {root: photos}`."""
    long = whole[owner]["properties"][key]
    reference = long.get("$ref") or next(each["$ref"] for each in long["anyOf"] if "$ref" in each)
    short = whole[reference.rpartition("/")[2]]["properties"][inner]
    others = long.get("anyOf", [{"$ref": reference}])
    kept = {word: long[word] for word in ("description",) if word in long}
    whole[owner]["properties"][key] = {**kept, "anyOf": [copy.deepcopy(short), *others]}


def _add_stages(whole: Schema, stages: Mapping[str, Stage]) -> None:
    """Offer the stages under `uses`, and under `with` the options of the stage that `uses` names."""
    stage = whole["StageEntry"]
    offered = [
        {"const": name, "title": name, "description": about.first_sentence(each)} for name, each in stages.items()
    ]
    described = {"description": stage["properties"]["uses"].get("description", "")}
    stage["properties"]["uses"] = {**described, "anyOf": [*offered, _ELSEWHERE]}
    stage["allOf"] = []
    for name, each in stages.items():
        options = about.options(each)
        key = "with-" + re.sub(r"\W", "_", name, flags=re.ASCII)  # as it can stand in a reference
        whole[key] = _mapping_of(options, whole, key)
        then: Schema = {"properties": {"with": {"$ref": f"#/definitions/{key}"}}}
        if any(option.is_required for option in options):
            then["required"] = ["with"]
        stage["allOf"].append({"if": _where("uses", {"const": name}), "then": then})


def _mapping_of(options: Iterable[about.Option], whole: Schema, owner: str) -> Schema:
    """Return the schema of a mapping of these options only; its definitions are named after the owner."""
    properties: Schema = {}
    required = []
    for option in options:
        schema = dict(option.schema)
        for name, definition in schema.pop("$defs", {}).items():
            whole[f"{owner}-{name}"] = _renamed(definition, owner)
        properties[option.name] = _renamed(schema, owner)
        required += [option.name] if option.is_required else []
    return {
        "type": "object", "properties": properties, "additionalProperties": False,
        **({"required": required} if required else {}),
    }  # fmt: skip


def _renamed(schema: Any, owner: str) -> Any:
    """Return a schema with its references changed to the definitions that are named after the owner."""
    if isinstance(schema, dict):
        return {
            key: each.replace("#/definitions/", f"#/definitions/{owner}-") if key == "$ref" else _renamed(each, owner)
            for key, each in schema.items()
        }
    return [_renamed(each, owner) for each in schema] if isinstance(schema, list) else schema


def _add_save_options(output: Schema) -> None:
    """Offer under `save` the options of the format that the path's suffix names."""
    from pipeline.images.encode import SAVERS

    output["allOf"] = []
    for saver in dict.fromkeys(SAVERS.values()):
        options = [about.option(each, inspect.getdoc(saver) or "") for each in keyword_options("save", saver).values()]
        suffixes = "|".join(_in_any_case(suffix) for suffix, its in SAVERS.items() if its is saver)
        path = {"type": "string", "pattern": rf"\.({suffixes})$"}
        then = {"properties": {"save": _mapping_of(options, {}, "save")}}
        output["allOf"].append({"if": _where("path", path), "then": then})


def _part_notify(notify: Schema) -> None:
    """Let an entry of `notify` have either a program with its events or an address."""
    for word in ("on", "argv"):
        notify["properties"][word]["minItems"] = 1
    notify["oneOf"] = [
        {"required": ["argv", "on"], "not": {"required": ["ping"]}},
        {"required": ["ping"], "not": {"anyOf": [{"required": ["argv"]}, {"required": ["on"]}]}},
    ]


def _in_any_case(suffix: str) -> str:
    return "".join(f"[{letter}{letter.upper()}]" for letter in suffix.removeprefix("."))


def _where(key: str, schema: Schema) -> Schema:
    return {"properties": {key: schema}, "required": [key]}


def _finished(schema: Any) -> Any:
    """Return a schema translated to draft 7, without titles and null defaults, and closed to unknown keys."""
    if isinstance(schema, list):
        return [_finished(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    made = {key: _finished(each) for key, each in schema.items()}
    if isinstance(made.get("title"), str) and "const" not in made:
        del made["title"]
    if made.get("default", "") is None or ("default" in made and "$ref" in made):
        del made["default"]
    if isinstance(made.get("prefixItems"), list):
        made["items"] = made.pop("prefixItems")
    if made.get("type") == "object" and "properties" in made:
        made.setdefault("additionalProperties", False)
    return made
