"""Reads, parses and checks a pipeline, in a process of its own, since that imports the stages.

    text --document, defaults--> data --schema--> PipelineEntry --stages, options, templates, the tree--> Config

All complaints are collected and raised together. The result is plain data.
"""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import chain
from pathlib import Path

from pipeline.config.assembly import Assembler
from pipeline.config.defaults import lay_over_defaults
from pipeline.config.document import Document, apply_edit, read_document
from pipeline.config.load import Reading
from pipeline.config.model import Config, PipelineEntry, StageConfig
from pipeline.config.schema import parse_pipeline
from pipeline.config.stage_finder import StageFinder
from pipeline.stage.code import CodeState
from pipeline.stage.code_reader import CodeReader
from pipeline.stage.counted import stamp_of
from pipeline.stage.isolation import announce_place
from pipeline.stage.options import Place, absolute, plain
from pipeline.stage.recorder import Recorder
from pipeline.stage.signature import Stage, said


def read_pipeline(file: Path, text: bytes, edits: tuple[str, ...], deaths: Mapping[Place, str]) -> Reading:
    """Read and check a pipeline.

    Args:
        file: The path of pipeline.yaml.
        text: The contents of the file.
        edits: The `--set` edits that are applied to it.
        deaths: How earlier readers of it died, by the place whose import or check ended them.

    Returns:
        The pipeline, and every complaint about it.

    Raises:
        ConfigError: The text is no YAML.
    """
    folder = file.resolve().parent
    recorder = Recorder()
    recorder.install()
    document = read_document(str(file), text)
    for edit in edits:
        apply_edit(document, edit)
    defaults = lay_over_defaults(document, folder)
    entry = parse_pipeline(document)
    finder = StageFinder(document, folder, recorder, deaths)
    found = finder.find_all()
    config = Assembler(document, entry, finder).config(file, found) if entry else None
    announce_place(None)
    complaints = document.complaints_as_error()
    if config:
        config = replace(_as_plain_data(config, finder, document), edits=edits, defaults=defaults.file)
        complaints = document.complaints_as_error()
    return Reading(
        config=config,
        complaints=complaints,
        is_only_root_missing=config is not None
        and len(document.complaints) == 1
        and not os.path.exists(config.inputs.root),
        has_moved=bool(finder.code.moved()),
        stamps=finder.code.stamps() | {path: stamp_of(path) for path in finder.looked_for} | defaults.stamps,
        folders=tuple(finder.code.folders()),
        listed=tuple(finder.code.listed()),
        written=tuple(sorted(recorder.writes)),
        places=_places(folder, entry, finder.code.state()) | {path: os.path.realpath(path) for path in defaults.stamps},
        patterns=_patterns(entry) if entry else (),
        digests=defaults.digests,
    )


def _places(folder: Path, entry: PipelineEntry | None, code: CodeState) -> dict[str, str]:
    """Return where the links lead through which stages and their code are found."""
    named = [os.path.join(folder, stage.uses.partition(":")[0]) for stage in entry.stages] if entry else []
    folders = dict.fromkeys(os.path.dirname(path) for path in (*named, *code.stamps))
    return {path: os.path.realpath(path) for path in (os.path.join(folder, "stages"), *named, *folders)}


def _patterns(entry: PipelineEntry) -> tuple[str, ...]:
    return tuple(dict.fromkeys(chain(entry.depends, *(stage.depends for stage in entry.stages))))


# -- what may leave this process --------------------------------------------------------------------------------------


def _as_plain_data(config: Config, finder: StageFinder, document: Document) -> Config:
    """Return the pipeline without objects of its stages' modules."""
    names = [each.name for each in config.stages]
    stages = tuple(
        _without_code(stage, config.folder, document, names.index(stage.name)) for stage in config.stages
    )  # fmt: skip
    unseen = tuple(_describe_unseen(finder.code, config.folder))
    code, suffixes = finder.code.state(), finder.code.picture_suffixes()
    return replace(config, stages=stages, code_state=code, unseen=unseen, picture_suffixes=suffixes)


def _without_code(stage: StageConfig, folder: Path, document: Document, index: int) -> StageConfig:
    assert isinstance(stage.stage, Stage)
    packed = b""
    try:
        packed = pickle.dumps(absolute(stage.options, folder))
    except Exception as error:  # of a class of whoever
        text = f"stage {stage.name!r}: its options cannot be sent to a worker: {said(error)}"
        document.complain(("stages", index, "with"), text)
    return replace(stage, stage=stage.stage.contract, options=plain(stage.options), packed_options=packed)


def _describe_unseen(code: CodeReader, folder: Path) -> Iterator[str]:
    for file, use in code.hidden_uses():
        place = os.path.relpath(file, folder) if file.startswith(os.path.join(folder, "")) else file
        needs = "which does not count; what it needs may be named under 'depends'"
        needs = "which counts from the first run that loads it" if use.is_load else needs
        yield f"{place}:{use.line}: {use.what}, {needs}"
