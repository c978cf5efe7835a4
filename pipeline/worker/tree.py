"""The stages of a pipeline: plain data that crosses to the workers, and the callables built from it there."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files.permissions import Permissions
from pipeline.files.set_aside import SetAside
from pipeline.files.store import store_of
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.records import dataclass
from pipeline.stage.code import NO_STATE, CodeState
from pipeline.stage.code_guard import guard
from pipeline.stage.resolve import find, find_function
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, IMAGE, IMAGE_IN_OWN_COLORS, PATH, PICTURES, TEXT, Kind, is_unchanged
from pipeline.types import FitBox


@dataclass(frozen=True)
class StageSetup:
    """The data from which a worker builds one stage: names and options, never code."""

    name: str
    uses: str
    options: bytes
    """The options of the stage, pickled, since their classes may be in its module, which is imported first."""
    parent: int | None
    """The index of the stage whose value this one reads; None for the source."""
    save: Mapping[str, Any]
    """The save options of the stage's output."""
    mode: int | None = None
    """The permissions of the stage's output; None if they are at most those of what it is made of."""
    decode_box: FitBox | None = None
    """The largest box into which the stage, or another that reads the same picture, fits a picture."""
    own_colors: bool = False
    """True if pictures keep their own color space instead of being converted to sRGB."""
    leaves_no_file: bool = False
    """True if the stage's output is only a row in the ledger."""
    engine: int = 0
    """The number of the engine that runs the stage."""


@dataclass(frozen=True)
class WorkerSetup:
    """The data that a worker needs before its first job."""

    folder: Path
    """The folder of pipeline.yaml, from which stages are found."""
    root: bytes
    """The input root."""
    scratch: Path
    run: str
    unclean_runs: tuple[str, ...]
    """The ids of killed runs whose temporaries may still lie beside the targets."""
    stages: tuple[StageSetup, ...]
    environment: dict[str, str] = field(default_factory=dict)
    """The variables of the environment that are set before anything of the user's is imported."""
    initializers: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """The functions that are called before the stages are built, each with its arguments."""
    limits: Limits = DEFAULT_LIMITS
    hashes_sources: bool = False
    """True if the ledger keeps digests of the sources' contents."""
    output_folders: tuple[bytes, ...] = ()
    """The folders that the run has claimed for its outputs; a worker refuses to write below a missing one."""
    set_aside: Path = Path()
    """The folder for files that may be a person's and must make room for an output."""
    engine: int | None = None
    """The number of the engine that the worker belongs to; None where there is only one."""
    is_traced: bool = False
    """True if it is measured when each job began and what it used, for a trace."""
    code: CodeState = NO_STATE
    """The state of the code files when the run was planned; no worker may load any other."""

    def pack(self) -> bytes:
        """Pickle the setup; options are pickled apart, since their classes may be importable only from its folder."""
        return pickle.dumps((self.folder, self.code, self.environment, pickle.dumps(self)))


class BuiltStage:
    """One stage in a worker: its setup, its signature and the function, or object, that is called."""

    def __init__(self, index: int, setup: StageSetup, signature: Stage, *, is_called_here: bool) -> None:
        self.index = index
        self.setup = setup
        self.name = setup.name
        self.where = signature.where
        self.takes = signature.takes
        self.makes = signature.makes
        makes = signature.makes or PATH
        self.passes_on = IMAGE_IN_OWN_COLORS if makes is IMAGE and setup.own_colors else makes
        """The kind of the value that is passed on; of no meaning for a filter."""
        self.is_passed_on_as_made = makes is not PATH and is_unchanged(makes, self.passes_on)
        self.wants_item = signature.wants_item
        self.is_given_as_taken = not self.wants_item and self.takes not in (None, *PICTURES)
        """True if the value needs no preparation beyond its conversion."""
        self.fans_out = signature.fans_out
        guard.enter(index)  # a class may load more code when it is built
        self.function: Callable[[Any], Any] = (
            signature.build(pickle.loads(setup.options)) if is_called_here else _not_here
        )
        guard.enter(-1)

    def permissions(self, most: Permissions) -> Permissions:
        """Return the permissions of the stage's output, which is made of files that have `most`."""
        mode = self.setup.mode
        return most if mode is None else Permissions(mode, is_exact=True)

    @property
    def is_filter(self) -> bool:
        """Return whether the stage returns True or False, and passes on the value that it was given."""
        return self.makes is None


def _not_here(value: Any) -> Any:
    raise AssertionError("this stage is called by another engine")


class Route:
    """The part of the tree that a job for the outputs of certain stages passes through.

    It is computed once for all jobs that make outputs of the same stages.
    """

    def __init__(self, tree: Tree, wanted: tuple[str, ...]) -> None:
        self.targets = {tree.index[name]: position for position, name in enumerate(wanted)}
        """The position of a stage's output among the job's targets, by the index of the stage."""
        self.readers: dict[int | None, list[BuiltStage]] = {}
        """The stages that read the value of a stage, by its index; None is the key of those that read the source."""
        self.readers_elsewhere: dict[int | None, dict[int, list[BuiltStage]]] = {}
        """The readers of a stage's value in other engines, by its index and the number of the engine."""
        needed = frozenset[int]().union(*(tree.ancestry[name] for name in wanted))
        for stage in tree.stages:
            if stage.index not in needed:
                continue
            parent, engine = stage.setup.parent, stage.setup.engine
            if tree.setup.engine in (None, engine):
                self.readers.setdefault(parent, []).append(stage)
            else:
                self.readers_elsewhere.setdefault(parent, {}).setdefault(engine, []).append(stage)
        # A Path costs as much as it does to read a small file.
        are_contents = (stage.takes in (TEXT, BYTES) and not stage.is_filter for stage in self.readers.get(None, ()))
        self.needs_path = not all(are_contents)
        """True if the source is passed on as a Path, to a stage that takes one or through a filter."""


class Routes(dict[tuple[str, ...], Route]):
    """The routes of past jobs, by the names of the stages whose outputs they make."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, wanted: tuple[str, ...]) -> Route:
        route = self[wanted] = Route(self._tree, wanted)
        return route


class Tree:
    """The built stages of a pipeline, with the committer of their outputs."""

    def __init__(self, setup: WorkerSetup) -> None:
        self.setup = setup
        for name, arguments in setup.initializers:
            _initialize(find_function(name), arguments, setup.folder)
        found = {uses: find(uses, setup.folder) for uses in dict.fromkeys(stage.uses for stage in setup.stages)}
        self.stages = [
            BuiltStage(index, stage, found[stage.uses], is_called_here=setup.engine in (None, stage.engine))
            for index, stage in enumerate(setup.stages)
        ]
        self.index = {stage.name: stage.index for stage in self.stages}
        self.ancestry = {stage.name: self._ancestry(stage.index) for stage in self.stages}
        """The indexes of a stage and of its ancestors, by the name of the stage."""
        self.root = store_of(setup.root).read(setup.root)
        self.root_bytes = os.fsencode(self.root)
        self.committer = store_of(*setup.output_folders).put(setup.run, setup.output_folders)
        self.routes = Routes(self)

    @cached_property
    def set_aside(self) -> SetAside:
        """The keeper of files that may be a person's, for use before outputs take their place."""
        return SetAside(self.setup.set_aside, self.setup.folder)

    def member_kind(self, stage: BuiltStage) -> Kind:
        """Return the kind of value in which a gathering stage receives its members.

        It is the kind that the stage asks for, or else the kind that was written into the files.
        """
        kind, above = stage.takes, stage.setup.parent
        while kind is None and above is not None:
            kind, above = self.stages[above].makes, self.stages[above].setup.parent
        return kind or PATH

    def _ancestry(self, index: int) -> frozenset[int]:
        parent = self.setup.stages[index].parent
        return frozenset({index}) | (self._ancestry(parent) if parent is not None else frozenset())


def _initialize(function: Callable[..., Any], arguments: Sequence[Any], folder: Path) -> None:
    """Call an initializer of the pool; an argument annotated as a Path is relative to the folder of pipeline.yaml."""
    hints = inspect.get_annotations(function, eval_str=True)
    names = list(inspect.signature(function).parameters)
    given = [
        folder / each if name and hints.get(name) is Path else each
        for name, each in zip(names + [""] * len(arguments), arguments, strict=False)
    ]
    function(*given)
