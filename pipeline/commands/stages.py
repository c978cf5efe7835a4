"""List every stage that a pipeline here can use by name, with what it takes and makes; or describe one."""

from __future__ import annotations

import argparse
import json
import os
import re
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.errors import UsageError
from pipeline.text import as_json, one_line

if TYPE_CHECKING:
    from pipeline.config.catalogue import Entry
    from pipeline.stage.signature import Stage

# Characters to a line.
_WIDTH = 110


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `stages`."""
    parser.add_argument("name", nargs="?", metavar="STAGE", help="describe this stage, named as under 'uses'")
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every stage")


def execute(arguments: argparse.Namespace) -> int:
    """Print all stages, or the description of one."""
    from pipeline.stage.isolation import call_despite_deaths

    file, name = pipeline_and_stage(arguments)
    folder = Path(file).resolve().parent
    for line in call_despite_deaths("pipeline.commands.stages:describe", folder, name, arguments.json):
        print(line)
    return 0


def describe(folder: Path, name: str | None, as_json_lines: bool, deaths: Mapping[str, str]) -> list[str]:
    """Return the lines that are printed, in a process that may import the stages."""
    from pipeline.config.catalogue import find_stage, list_stages

    entries = list_stages(folder, deaths) if name is None else [find_stage(name, folder, deaths)]
    if as_json_lines:
        return [json.dumps(_as_json(entry), ensure_ascii=False) for entry in entries]
    return list(_list(entries) if name is None else _described(entries[0]))


def pipeline_and_stage(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the pipeline's file and the stage's name, given in either order; the name is None if absent."""
    file, first, last = arguments.file, arguments.pipeline, arguments.name
    if first is None or (last is not None and _is_pipeline(first)):
        return file, last
    if last is not None and not _is_pipeline(last):
        raise UsageError(f"{first!r} and {last!r}: name one stage at a time")
    if last is not None:
        return last, first
    if _is_pipeline(first):
        return file, None
    return (file if file != first else "pipeline.yaml"), first


def _is_pipeline(word: str) -> bool:
    return word.endswith((".yaml", ".yml"))


def _as_json(entry: Entry) -> dict[str, Any]:
    from pipeline.stage import describe as about

    row: dict[str, Any] = {"name": entry.name, "bundled": entry.is_bundled} | as_json(os.fsencode(entry.file), "file")
    if entry.stage is None:
        return row | {"problem": entry.problem}
    options = [
        {"name": option.name, "type": option.words, "required": option.is_required}
        | {"default": option.schema.get("default"), "doc": option.doc}
        for option in about.options(entry.stage)
    ]
    return row | {
        "where": entry.stage.where,
        "takes": about.takes(entry.stage),
        "makes": about.makes(entry.stage),
        "doc": about.doc(entry.stage),
        "options": options,
    }


# -- for people --------------------------------------------------------------------------------------------------------


def _list(entries: list[Entry]) -> Iterator[str]:
    """Yield the lines of a table of the pipeline's own stages, one of the bundled ones, and the unusable ones."""
    width = max(len(entry.name) for entry in entries)
    for is_bundled, title in ((False, "stages/"), (True, "bundled")):
        listed = [entry for entry in entries if entry.stage and entry.is_bundled == is_bundled]
        if listed:
            yield title
            yield from _rows(listed, width)
    for entry in entries:
        if entry.stage is None:
            yield f"cannot be used: {entry.name}: {one_line(entry.problem)}"


def _rows(entries: list[Entry], width: int) -> Iterator[str]:
    from pipeline.stage import describe as about

    signs = [f"{about.takes(each.stage)} -> {about.makes(each.stage)}" for each in entries if each.stage]
    for entry, sign in zip(entries, signs, strict=True):
        assert entry.stage
        says = one_line(about.first_sentence(entry.stage))
        yield f"  {entry.name:<{width}}  {sign:<{max(map(len, signs))}}  {says}".rstrip()


def _described(entry: Entry) -> Iterator[str]:
    from pipeline.stage import describe as about

    stage = entry.stage
    assert stage is not None
    yield f"{entry.name}: {about.takes(stage)} -> {about.makes(stage)}"
    yield stage.where
    if written := about.doc(stage):
        yield from ("", written)
    options = about.options(stage)
    yield from ("", "options" if options else "no options")
    for option in options:
        default = "required" if option.is_required else f"default {json.dumps(option.schema.get('default'))}"
        yield from _wrapped(f"{option.name}: {option.words}; {default}", "  ")
        if not about.says(stage, option.doc):
            yield from _wrapped(option.doc, "      ")
    yield from ("", "example", *_example(entry.name, stage))


def _wrapped(text: str, indent: str) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=indent, subsequent_indent="      ", break_on_hyphens=False)


def _example(uses: str, stage: Stage) -> Iterator[str]:
    """Yield an example of the stage's entry in a pipeline.yaml, line by line."""
    import yaml

    from pipeline.stage import describe as about

    name = re.sub(r"\W+", "_", uses.rpartition(":")[2] or uses).strip("_")
    yield f"  - name: {name}"
    yield f"    uses: {uses}"
    if given := about.example(stage):
        yield f"    with: {yaml.safe_dump(given, default_flow_style=True, sort_keys=False, width=1000).strip()}"
    if stage.gathers:
        yield "    from: web                      # a stage that has an output"
        yield "    gather: true"
    if not stage.is_filter:
        yield f"    output: out/{about.output_name(stage, name)}"
