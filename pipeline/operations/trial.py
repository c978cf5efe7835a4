"""Takes one file through a pipeline in this process, into a separate folder, for the author of a stage.

Stages are called and outputs committed by the code that does so in a worker. The ledger, the lock and the outputs of
runs are not touched. Limits of time and memory are not enforced, since there is no supervisor.
"""

from __future__ import annotations

import os
import pdb
import time
import traceback
from dataclasses import replace
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import pipeline
from pipeline.config import relocate
from pipeline.config.model import Config, Output, StageConfig
from pipeline.config.routes import handed_to, reads
from pipeline.errors import FileFailure, UsageError
from pipeline.files.state_dir import State
from pipeline.files.template import ALL_PARTS, NoFile, parse_template
from pipeline.messages import Job, Outcome, Source, Target
from pipeline.observer import RunObserver, Step
from pipeline.operations.launch import worker_setup_of
from pipeline.planning.plan import walk_of
from pipeline.records import dataclass
from pipeline.stage.resolve import set_stage_path
from pipeline.text import counted, did_you_mean, shown
from pipeline.worker.job import JobRunner
from pipeline.worker.process_state import process_state
from pipeline.worker.tree import Tree

# What stands for a run's id in the names of temporaries.
_RUN = "try"


@dataclass(frozen=True)
class Trial:
    """One file, the pipeline that it is tried with, and notes for the user."""

    config: Config
    """The pipeline, with its outputs moved to the trial's folder."""
    job: Job
    folder: Path
    notes: tuple[str, ...]

    def below(self, path: bytes) -> bytes:
        """Return an output's path relative to the folder of the trial's outputs."""
        return path.removeprefix(os.path.join(os.fsencode(self.folder), b"output/"))


def prepare(config: Config, given: str, stage: str | None, folder: Path) -> Trial:
    """Find the file, and move its outputs, or that of one stage, below `folder`. Raises UsageError."""
    config, path, notes = _find(config, given)
    names = _stage_names(config, path, stage)
    left_out = {} if stage else relocate.not_run(config)
    notes += [f"stage {name!r} {why}, and is not run" for name, why in left_out.items()]
    is_kept = relocate.not_run(config).get(stage or "") == "leaves no file"
    moved = relocate.below(config, folder / "output", folder / "state")
    moved = replace(moved, stages=tuple(_with_output(moved, each, folder, names, is_kept) for each in moved.stages))
    found = os.stat(moved.inputs.root / os.fsdecode(path))
    source = Source(path, found.st_size, found.st_mtime_ns)
    targets = tuple(_target(moved, each, path) for each in moved.stages if each.name in names)
    return Trial(moved, Job(source, targets), folder, tuple(notes))


def _find(config: Config, given: str) -> tuple[Config, bytes, list[str]]:
    """Return the file as a source relative to the input root or, where it lies elsewhere, to its own folder."""
    if not given:
        raise UsageError("'': an empty path; name a file")
    bases = (Path.cwd(), config.inputs.root, config.folder)
    files = [each for base in bases if (each := Path(os.path.normpath(base / given))).is_file()]
    if not files:
        is_folder = any((base / given).is_dir() for base in bases)
        what = "a folder; name a file in it" if is_folder else "there is no such file"
        raise UsageError(f"{shown(os.fsencode(given))}: {what}")
    file = files[0]
    for root in dict.fromkeys((config.inputs.root, Path(os.path.realpath(config.inputs.root)))):
        if root in file.parents:
            path = os.fsencode(file.relative_to(root))
            walk = walk_of(config)
            notes = [] if walk.look_up(path) else [f"a run leaves it out: {walk.left_out_names[0][1]}"]
            return replace(config, inputs=replace(config.inputs, root=root)), path, notes
    note = f"it lies outside the input root {config.inputs.root}; {{dir}} is empty"
    return replace(config, inputs=replace(config.inputs, root=file.parent)), os.fsencode(file.name), [note]


def _stage_names(config: Config, path: bytes, stage: str | None) -> list[str]:
    """Return the names of the stages of which the trial makes an output. Raises UsageError where there is none."""
    every = [each.name for each in config.stages]
    if stage is not None:
        if stage not in every:
            raise UsageError(f"no stage {stage!r}{did_you_mean(stage, every) or f'; there are {every}'}")
        if config.stages[every.index(stage)].stage.gathers:
            raise UsageError(f"stage {stage!r} gathers many files, and cannot be tried with one")
        return [stage]
    names = [each.name for each in config.leaves if not each.stage.gathers and reads(config, each, path)]
    if not names:
        text = "no stage that has an output reads it, by their 'match'"
        raise UsageError(f"{shown(path)}: {text}", hint="--stage NAME tries one all the same")
    return names


def _with_output(config: Config, stage: StageConfig, folder: Path, names: list[str], is_kept: bool) -> StageConfig:
    """Return a stage, with an output if the trial shows its value and it has none of its own."""
    if stage.name not in names or stage.output is not None:
        return stage
    if is_kept:
        return replace(stage, leaves_no_file=True)
    kind = stage.stage.makes or handed_to(config, stage)
    part = "-{part}" if _has_parts(config, stage) else ""
    name = f"{stage.name}/{{dir}}/{{stem}}{part}{kind.scratch_suffix or '{suffix}'}"
    return replace(stage, output=Output(parse_template(name, folder / "output"), {}))


def _has_parts(config: Config, stage: StageConfig) -> bool:
    parent = config.stages[stage.parent] if stage.parent is not None else None
    return stage.stage.fans_out or (parent is not None and _has_parts(config, parent))


def _target(config: Config, stage: StageConfig, path: bytes) -> Target:
    template = stage.output.template if stage.output else NoFile(stage.name)
    has_parts = _has_parts(config, stage)
    try:
        filled = template.fill(path, ALL_PARTS if has_parts else "")
    except FileFailure as error:
        raise UsageError(f"{shown(path)}: {error}") from None
    return Target(stage.name, filled, around=template.around_part(path) if has_parts else (b"", b""))


def run_trial(trial: Trial, observer: RunObserver) -> Outcome:
    """Take the file through the tree; the observer sees every step. Raises StageError where a stage cannot be built."""
    set_stage_path(trial.config.folder)
    pipeline.has_run_stages = True
    state = State(trial.folder / "state", "", _RUN, -1)
    began_s = time.perf_counter()
    # Nobody claims the folder: it is ours, and removed at the end.
    tree = Tree(replace(worker_setup_of(trial.config, state, []), output_folders=()))
    seconds = time.perf_counter() - began_s
    observer.on_step(Step("pipeline", "built", counted(len(tree.stages), "stage"), seconds))
    with process_state.kept():
        return JobRunner(tree, trial.job, lambda index: None, observer).run()


# -- the debugger ------------------------------------------------------------------------------------------------------


class _AtStage(pdb.Pdb):
    """A debugger that opens at the last frame of a file, however deep below it an exception was raised."""

    def __init__(self, files: frozenset[str]) -> None:
        super().__init__()
        self._files = files

    def get_stack(self, frame: FrameType | None, trace: TracebackType | None) -> tuple[list[Any], int]:
        stack, at = super().get_stack(frame, trace)
        own = [place for place, (each, _) in enumerate(stack) if each.f_code.co_filename in self._files]
        return stack, own[-1] if own else at


def debug(error: BaseException, config: Config) -> bool:
    """Open the debugger where a stage raised `error`; return False if no stage did."""
    files = frozenset(stage.stage.where.rpartition(":")[0] for stage in config.stages)
    if not any(frame.f_code.co_filename in files for frame, _ in traceback.walk_tb(error.__traceback__)):
        return False
    debugger = _AtStage(files)
    debugger.reset()
    debugger.interaction(None, error.__traceback__)
    return True
