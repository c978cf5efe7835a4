"""The stages of a pipeline: as plain data that crosses to the workers, and built there."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.files.atomic import Committer
from pipeline.files.parts import PartList
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.stage.resolve import find, find_function
from pipeline.stage.signature import Stage
from pipeline.stage.values import BYTES, PATH, TEXT, Kind
from pipeline.types import FitBox


@dataclass(frozen=True)
class Node:
    """One stage of the tree, as plain data: only names and options cross to the workers."""

    name: str
    uses: str
    options: Mapping[str, Any]
    parent: int | None
    """The index of the stage it reads from; None for the source itself."""
    save: Mapping[str, Any]
    """The save options of its output."""
    least: FitBox | None = None
    """The largest box that it, or one that reads the same picture, fits a picture into."""
    own_colors: bool = False
    """Whether pictures stay in their own colours."""
    leaves_no_file: bool = False
    """Whether that it was done is all there is to say."""
    engine: int = 0
    """Which of the engines runs it."""


@dataclass(frozen=True)
class Blueprint:
    """All that a worker needs to know before its first job."""

    folder: Path
    """The folder of pipeline.yaml, from which stages are found."""
    root: bytes
    """The input root."""
    scratch: Path
    run: str
    unclean_runs: tuple[str, ...]
    """The killed runs whose temporaries may still lie beside the targets."""
    nodes: tuple[Node, ...]
    initializers: tuple[tuple[str, tuple[Any, ...]], ...] = ()
    """The functions to be called before the stages are built, each with its arguments."""
    limits: Limits = DEFAULT_LIMITS
    hashes_sources: bool = False
    """Whether the contents of sources are remembered."""
    output_folders: tuple[bytes, ...] = ()
    """The folders that are claimed for outputs, and must not get lost."""
    parts: Path = Path()
    """The folder for the lists of parts."""
    engine: int | None = None
    """Which of the engines this is for; None for the only one."""

    def pack(self) -> bytes:
        """Pickle it, options apart: they may be of a stage module's own classes, importable only from its folder."""
        return pickle.dumps((self.folder, pickle.dumps(self)))


class Course:
    """The part of the tree that a job with certain targets goes through; worked out once for all that have the same."""

    def __init__(self, tree: Tree, stages: tuple[str, ...]) -> None:
        self.targets = {tree.index[name]: place for place, name in enumerate(stages)}
        """For each stage that has an output to be made, its place among the job's targets."""
        needed = frozenset[int]().union(*(tree.route[name] for name in stages))
        self.children: dict[int | None, list[int]] = {}
        """For each stage on the way, and None for the source, those that read from it..."""
        self.elsewhere: dict[int | None, dict[int, list[int]]] = {}
        """...and those that do in other pools, by engine."""
        for parent, below in tree.children.items():
            for index in filter(needed.__contains__, below):
                engine = tree.nodes[index].engine
                if tree.blueprint.engine in (None, engine):
                    self.children.setdefault(parent, []).append(index)
                else:
                    self.elsewhere.setdefault(parent, {}).setdefault(engine, []).append(index)
        takes = [tree.stages[index].takes for index in self.children.get(None, ())]
        # A Path costs as much as it does to read a small file.
        self.shows_path = not all(kind in (TEXT, BYTES) for kind in takes)
        """Whether a stage gets to see the source's own Path."""


class Tree:
    """The stages of a pipeline, built and ready to be called."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.nodes = blueprint.nodes
        for name, arguments in blueprint.initializers:
            _initialize(find_function(name), arguments, blueprint.folder)
        self.stages: list[Stage] = [find(node.uses, blueprint.folder) for node in self.nodes]
        self.calls = {
            index: stage.build(dict(node.options))
            for index, (stage, node) in enumerate(zip(self.stages, self.nodes, strict=True))
            if blueprint.engine in (None, node.engine)
        }
        """What is called for each stage that runs here."""
        self.committer = Committer(blueprint.run, blueprint.output_folders)
        self.parts = PartList(blueprint.parts, blueprint.run)
        self.children: dict[int | None, list[int]] = {}
        for index, node in enumerate(self.nodes):
            self.children.setdefault(node.parent, []).append(index)
        self.index = {node.name: index for index, node in enumerate(self.nodes)}
        self.route = {node.name: self._route(index) for index, node in enumerate(self.nodes)}
        self.root = os.path.join(os.fsdecode(blueprint.root), "")
        self._courses: dict[tuple[str, ...], Course] = {}

    def course_of(self, stages: tuple[str, ...]) -> Course:
        """The part of the tree that leads to these stages' outputs."""
        course = self._courses.get(stages)
        if course is None:
            course = self._courses[stages] = Course(self, stages)
        return course

    def gathers(self, index: int) -> Kind:
        """As what a stage that gathers is given each file: as it says, or as what was written there was made."""
        above: int | None = index
        while above is not None:
            stage = self.stages[above]
            if kind := stage.takes if above == index else stage.makes:
                return kind
            above = self.nodes[above].parent
        return PATH

    def _route(self, index: int) -> frozenset[int]:
        """A stage and all it descends from."""
        parent = self.nodes[index].parent
        return frozenset({index}) | (self._route(parent) if parent is not None else frozenset())


def _initialize(function: Callable[..., Any], arguments: Sequence[Any], folder: Path) -> None:
    """Call the pool's initializer; an argument that it annotates as a Path is relative to the YAML's folder."""
    hints = inspect.get_annotations(function, eval_str=True)
    names = list(inspect.signature(function).parameters)
    given = [
        folder / each if name and hints.get(name) is Path else each
        for name, each in zip(names + [""] * len(arguments), arguments, strict=False)
    ]
    function(*given)
