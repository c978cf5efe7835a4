"""The stages of a pipeline: as plain data that crosses to the workers, and built there, ready to be called."""

from __future__ import annotations

import inspect
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.files.set_aside import SetAside
from pipeline.files.store import store_of
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.stage.code import NO_STATE, CodeState
from pipeline.stage.resolve import find, find_function
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, PATH, TEXT, Kind
from pipeline.types import FitBox


@dataclass(frozen=True)
class StageSetup:
    """One stage as it crosses to a worker: names and options, never code."""

    name: str
    uses: str
    options: bytes
    """The pickled options; their classes may be of the stage's own module, which is imported first."""
    parent: int | None
    """The index of the stage it reads from; None for the source itself."""
    save: Mapping[str, Any]
    """The save options of its output."""
    decode_box: FitBox | None = None
    """The largest box into which it, or a stage that reads the same picture, fits a picture."""
    own_colors: bool = False
    """Whether pictures keep their own color space instead of being converted to sRGB."""
    leaves_no_file: bool = False
    """Whether its output is only a row in the ledger."""
    engine: int = 0
    """The number of the engine that runs it."""


@dataclass(frozen=True)
class WorkerSetup:
    """All that a worker needs to know before its first job."""

    folder: Path
    """The folder of pipeline.yaml, from which stages are found."""
    root: bytes
    """The input root."""
    scratch: Path
    run: str
    unclean_runs: tuple[str, ...]
    """The killed runs whose temporaries may still lie beside the targets."""
    stages: tuple[StageSetup, ...]
    initializers: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """The functions that are called before the stages are built, each with its arguments."""
    limits: Limits = DEFAULT_LIMITS
    hashes_sources: bool = False
    """Whether the ledger keeps digests of the sources' contents."""
    output_folders: tuple[bytes, ...] = ()
    """The folders that the run has claimed for its outputs; a worker refuses to write below one that is gone."""
    set_aside: Path = Path()
    """The folder for what may be a person's and must make room for an output."""
    engine: int | None = None
    """The number of the engine that the worker belongs to; None where there is only one."""
    code: CodeState = NO_STATE
    """The state of the code's files when the run was planned; a worker may load no other."""

    def pack(self) -> bytes:
        """Pickle it, options apart: they may be of a stage module's own classes, importable only from its folder."""
        return pickle.dumps((self.folder, self.code, pickle.dumps(self)))


class BuiltStage:
    """One stage as a worker calls it: its setup, its signature and the function, or object, that is called."""

    def __init__(self, index: int, setup: StageSetup, signature: Stage, *, is_called_here: bool) -> None:
        self.index = index
        self.setup = setup
        self.name = setup.name
        self.where = signature.where
        self.takes = signature.takes
        self.makes = signature.makes
        self.wants_item = signature.wants_item
        self.fans_out = signature.fans_out
        self.function: Callable[[Any], Any] = (
            signature.build(pickle.loads(setup.options)) if is_called_here else _not_here
        )

    @property
    def is_filter(self) -> bool:
        """Whether it answers True or False, and the value before it goes on."""
        return self.makes is None


def _not_here(value: Any) -> Any:
    raise AssertionError("this stage is called by another engine")


class Route:
    """The part of the tree that a job for the outputs of certain stages passes through.

    It is the same for all jobs that want outputs of the same stages, and computed once for all of them.
    """

    def __init__(self, tree: Tree, wanted: tuple[str, ...]) -> None:
        self.targets = {tree.index[name]: position for position, name in enumerate(wanted)}
        """The position among the job's targets, by the index of the stage."""
        self.readers: dict[int | None, list[BuiltStage]] = {}
        """The stages that read the value of a stage, by its index; by None those that read the source."""
        self.readers_elsewhere: dict[int | None, dict[int, list[BuiltStage]]] = {}
        """The stages that do so in other engines, by the index and the number of the engine."""
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
        """Whether the source goes on as a Path: to a stage that takes one, or through a filter to whatever is below."""


class Routes(dict[tuple[str, ...], Route]):
    """The route of every set of wanted stages that a job has had, by their names."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, wanted: tuple[str, ...]) -> Route:
        route = self[wanted] = Route(self._tree, wanted)
        return route


class Tree:
    """The stages of a pipeline, built, with what their outputs are committed by."""

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
        """The indexes of a stage and of all that it descends from, by its name."""
        self.root = store_of(setup.root).read(setup.root)
        self.committer = store_of(*setup.output_folders).put(setup.run, setup.output_folders)
        self.routes = Routes(self)

    @cached_property
    def set_aside(self) -> SetAside:
        """The keeper of files that may be a person's, before outputs take their place."""
        return SetAside(self.setup.set_aside, self.setup.folder)

    def member_kind(self, stage: BuiltStage) -> Kind:
        """Return the kind of value as which a gathering stage is given its members.

        It is the kind that the stage asks for, or else the kind that was written into those files.
        """
        kind, above = stage.takes, stage.setup.parent
        while kind is None and above is not None:
            kind, above = self.stages[above].makes, self.stages[above].setup.parent
        return kind or PATH

    def _ancestry(self, index: int) -> frozenset[int]:
        parent = self.setup.stages[index].parent
        return frozenset({index}) | (self._ancestry(parent) if parent is not None else frozenset())


def _initialize(function: Callable[..., Any], arguments: Sequence[Any], folder: Path) -> None:
    """Call the pool's initializer; an argument that it annotates as a Path is relative to the YAML's folder."""
    hints = inspect.get_annotations(function, eval_str=True)
    names = list(inspect.signature(function).parameters)
    given = [
        folder / each if name and hints.get(name) is Path else each
        for name, each in zip(names + [""] * len(arguments), arguments, strict=False)
    ]
    function(*given)
