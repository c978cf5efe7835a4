"""The stages of a pipeline: as plain data that crosses to the workers, and built there."""

from __future__ import annotations

import inspect
import os
import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.commit import Committer
from pipeline.limits import DEFAULT_LIMITS, Limits
from pipeline.parts import PartList
from pipeline.signature import Stage
from pipeline.stage import find, find_function
from pipeline.types import FitBox
from pipeline.values import BYTES, TEXT


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
    own_colours: bool = False
    """Whether pictures stay in their own colours."""
    leaves_no_file: bool = False
    """Whether that it was done is all there is to say."""


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
    initializer: str | None = None
    initargs: tuple[Any, ...] = ()
    limits: Limits = DEFAULT_LIMITS
    hashes_sources: bool = False
    """Whether the contents of sources are remembered."""
    output_folders: tuple[bytes, ...] = ()
    """The folders that are claimed for outputs, and must not get lost."""
    parts: Path = Path()
    """The folder for the lists of parts."""

    def pack(self) -> bytes:
        """Pickle it, options apart: they may be of a stage module's own classes, importable only from its folder."""
        return pickle.dumps((self.folder, pickle.dumps(self)))


class Course:
    """The part of the tree that a job with certain targets goes through; worked out once for all that have the same."""

    def __init__(self, tree: Tree, stages: tuple[str, ...]) -> None:
        self.targets = {tree.index[name]: place for place, name in enumerate(stages)}
        """For each stage that has an output to be made, its place among the job's targets."""
        needed = frozenset[int]().union(*(tree.route[name] for name in stages))
        self.children = {
            parent: [index for index in below if index in needed] for parent, below in tree.children.items()
        }
        """For each stage on the way, and None for the source, those that read from it."""
        takes = [tree.stages[index].takes for index in self.children.get(None, ())]
        # A Path costs as much as it does to read a small file.
        self.shows_path = not all(kind in (TEXT, BYTES) for kind in takes)
        """Whether a stage gets to see the source's own Path."""


class Tree:
    """The stages of a pipeline, built and ready to be called."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.nodes = blueprint.nodes
        if blueprint.initializer:
            _initialize(find_function(blueprint.initializer), blueprint)
        self.stages: list[Stage] = [find(node.uses, blueprint.folder) for node in self.nodes]
        self.calls = [stage.build(dict(node.options)) for stage, node in zip(self.stages, self.nodes, strict=True)]
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

    def _route(self, index: int) -> frozenset[int]:
        """A stage and all it descends from."""
        parent = self.nodes[index].parent
        return frozenset({index}) | (self._route(parent) if parent is not None else frozenset())


def _initialize(function: Callable[..., Any], blueprint: Blueprint) -> None:
    """Call the pool's initializer; an argument that it annotates as a Path is relative to the YAML's folder."""
    hints = inspect.get_annotations(function, eval_str=True)
    names = list(inspect.signature(function).parameters)
    arguments = [
        blueprint.folder / each if name and hints.get(name) is Path else each
        for name, each in zip(names + [""] * len(blueprint.initargs), blueprint.initargs, strict=False)
    ]
    function(*arguments)
