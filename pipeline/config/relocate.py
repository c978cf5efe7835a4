"""Moves the outputs and the state of a pipeline to another folder, for `try` and `run --sample`."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

from pipeline.config.model import Config, StageConfig
from pipeline.errors import UsageError
from pipeline.files.template import Template


def below(config: Config, folder: Path, state: Path) -> Config:
    """Return a pipeline with every output below a folder, under the path that its template has in pipeline.yaml.

    Stages with `output: none` do not run, since their effect could not be kept to the folder; `not_run` names them.
    Nobody is told how such a run ends.
    """
    return replace(
        config,
        stages=tuple(_moved(stage, config, folder) for stage in config.stages),
        state=state,
        is_moved=True,
        prune=None,
        trace=None,
        notify=(),
        metrics=None,
        other_folders=(
            *own_folders(config),
            *config.other_folders,
            os.fsencode(folder),
            *([os.fsencode(config.metrics)] if config.metrics else ()),
        ),
    )


def own_folders(config: Config) -> tuple[bytes, ...]:
    """Return the output folders and the state folder of a pipeline."""
    return (*config.output_folders, os.fsencode(config.state))


def not_run(config: Config) -> dict[str, str]:
    """Return the stages that do not run after `below`, each with the reason."""
    gathers = {stage.name: "gathers many files" for stage in config.stages if stage.stage.gathers}
    return {stage.name: "leaves no file" for stage in config.stages if stage.leaves_no_file} | gathers


def _moved(stage: StageConfig, config: Config, folder: Path) -> StageConfig:
    stage = replace(stage, leaves_no_file=False)
    if stage.output is None:
        return stage
    return replace(stage, output=replace(stage.output, template=_template_below(stage.output.template, folder)))


def _template_below(template: Template, folder: Path) -> Template:
    """Return a template moved below a folder; one that leads out of the project keeps its absolute path there."""
    written = template.written_folder
    if written.startswith((b"/", b"..")):
        written = template.folder.lstrip(b"/")
    moved = os.path.normpath(os.path.join(os.fsencode(folder), written))
    return replace(template, folder=moved, written_folder=moved)


def refuse_overlap(config: Config, folder: Path) -> None:
    """Raise UsageError where outputs below a folder would lie among the pipeline's own outputs, state or inputs."""
    place = os.path.realpath(os.fsencode(folder))
    moved = below(config, folder, folder)
    places = set(map(os.path.realpath, moved.output_folders))
    for own in map(os.path.realpath, own_folders(config)):
        if _lies_in(place, [own]) or any(_lies_in(each, [own]) or _lies_in(own, [each]) for each in places):
            raise UsageError(f"--output-root {folder}: {os.fsdecode(own)} is the pipeline's own; name another folder")
    if _lies_in(place, [os.path.realpath(os.fsencode(config.inputs.root))]):
        raise UsageError(f"--output-root {folder}: it lies among the inputs; name another folder")


def _lies_in(path: bytes, folders: Iterable[bytes]) -> bool:
    return any(os.path.join(path, b"").startswith(os.path.join(each, b"")) for each in folders)
