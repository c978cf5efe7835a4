"""What runs inside a pool process: `start()` once, `work()` for every job.

parent                                   worker
------                                   ------
Blueprint (pickled, dotted names) -----> start():  find the stages, load the resources, build the stages
Job ------------------------------------> work():   source -> stage -> stage ...   one pass over the tree,
                                                      |         |                   each value made once
                                                      v         v
Outcome <------ a Result an output ------------- commit     commit                 (temporary, then rename)
"""

from __future__ import annotations

import errno
import os
import pickle
import shutil
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.errors import FileFailure
from pipeline.messages import Job, Kind, Outcome, Result, Source, Target
from pipeline.outputs import Committer, remove_temporaries
from pipeline.stage import Stage, find, find_function, set_stage_path
from pipeline.types import Item, Skip
from pipeline.values import PATH, PICTURE, convert, is_kind, write
from pipeline.values import Kind as ValueKind

# Errors of our own writes that are the machine's and no file's: a rerun on a healed machine needs no retry.
_ENVIRONMENT = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.EIO)

Enter = Callable[[int], None]
"""Told the index of the stage about to be called, and -1 after it: how a supervisor knows what killed a worker."""


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

    def pack(self) -> bytes:
        """Pickle it, options apart: they may be of a stage module's own classes, importable only from its folder."""
        return pickle.dumps((self.folder, pickle.dumps(self)))


class Tree:
    """The stages of a pipeline, built, and the one pass that makes all their outputs from a source."""

    def __init__(self, blueprint: Blueprint) -> None:
        self.blueprint = blueprint
        self.nodes = blueprint.nodes
        if blueprint.initializer:
            find_function(blueprint.initializer)(*blueprint.initargs)
        self.stages: list[Stage] = [find(node.uses, blueprint.folder) for node in self.nodes]
        self.calls = [stage.build(dict(node.options)) for stage, node in zip(self.stages, self.nodes, strict=True)]
        self.committer = Committer(blueprint.run)
        self.children: dict[int | None, list[int]] = {}
        for index, node in enumerate(self.nodes):
            self.children.setdefault(node.parent, []).append(index)
        self.index = {node.name: index for index, node in enumerate(self.nodes)}
        self.route = {node.name: self._route(index) for index, node in enumerate(self.nodes)}

    def _route(self, index: int) -> frozenset[int]:
        """A stage and all it descends from."""
        parent = self.nodes[index].parent
        return frozenset({index}) | (self._route(parent) if parent is not None else frozenset())


_tree: Tree | None = None


def start(packed: bytes) -> None:
    """Build the stages of this process; the Pool's initializer. Raises whatever they raise."""
    global _tree
    folder, blueprint = pickle.loads(packed)
    set_stage_path(folder)
    _tree = Tree(pickle.loads(blueprint))


def work(job: Job, enter: Enter = lambda index: None) -> Outcome:
    """Make the outputs of one job; what goes wrong is in its outcome."""
    assert _tree is not None
    began = time.perf_counter()
    run = _JobRun(_tree, job, enter)
    try:
        run.run()
    finally:
        run.clean_up()
    results = tuple(run.results[target.path] for target in job.targets)
    return Outcome(run.source, results, time.perf_counter() - began, run.environment)


class _JobRun:
    """One job on its way through the tree."""

    def __init__(self, tree: Tree, job: Job, enter: Enter) -> None:
        self.tree = tree
        self.job = job
        self.enter = enter
        self.path = Path(os.fsdecode(os.path.join(tree.blueprint.root, job.source.path)))
        self.source = job.source
        self.targets = {tree.index[target.stage]: target for target in job.targets}
        self.needed = frozenset().union(*(tree.route[target.stage] for target in job.targets))
        self.results: dict[bytes, Result] = {}
        self.environment = ""
        self._scratch: Path | None = None
        self._scratch_files = 0

    def run(self) -> None:
        for target in self.job.targets:
            remove_temporaries(target.path, self.tree.blueprint.unclean_runs)
        try:
            self.source = self._identity()
        except FileNotFoundError:
            self._fail_all("the file was gone when its turn came", "vanished")
        except OSError as error:
            self._fail_all(_said(error), "error")
        else:
            self._hand_on(None, self.path, PATH)

    def clean_up(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # -- the tree ------------------------------------------------------------------------------------------------------

    def _hand_on(self, parent: int | None, value: Any, kind: ValueKind) -> None:
        """Give a value to every stage that reads it, each conversion made once.

        All consumers of a loaded value but the last get a copy: none can spoil its sibling's.
        """
        children = [index for index in self.tree.children.get(parent, ()) if index in self.needed]
        wants = [self.tree.stages[index].takes or kind for index in children]
        loaded: dict[ValueKind, Any] = {kind: value}
        for position, (index, wanted) in enumerate(zip(children, wants, strict=True)):
            later = wants[position + 1 :]
            try:
                if wanted not in loaded and wanted not in (PATH, PICTURE):
                    loaded[wanted] = convert(value, kind, wanted, self._scratch_file)
                given = loaded[wanted] if wanted in loaded else convert(value, kind, wanted, self._scratch_file)
                if wanted in later or (wanted is kind and later):
                    given = wanted.copy(given)
                made = self._call(index, given, wanted)
            except Skip as skip:
                self._leave_out(index, str(skip) or f"left out by stage {self._name(index)!r}")
            except BaseException as error:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one file
                self._fail_below(index, error)
            else:
                if made is True and self.tree.stages[index].is_filter:
                    self._deliver(index, given if wanted is kind else value, kind)
                else:
                    self._deliver(index, made, self.tree.stages[index].makes or kind)

    def _call(self, index: int, given: Any, kind: ValueKind) -> Any:
        """Call a stage, and check what it made."""
        stage = self.tree.stages[index]
        handed = Item(given, os.fsdecode(self.source.path), self._scratch_folder()) if stage.wants_item else given
        self.enter(index)
        try:
            made = self.tree.calls[index](handed)
        finally:
            self.enter(-1)
            if kind is PICTURE:
                given.close()
        if kind is PATH and self._source_changed():
            raise FileFailure(f"stage {self._name(index)!r} changed its input")
        return self._checked(index, made)

    def _checked(self, index: int, made: Any) -> Any:
        stage, name = self.tree.stages[index], self._name(index)
        if made is None:
            raise FileFailure(f"stage {name!r} returned None; return a value, or raise Skip(reason) ({stage.where})")
        if stage.makes is None:
            if not isinstance(made, bool):
                raise FileFailure(f"stage {name!r} returned {_type(made)}, not True or False ({stage.where})")
            if not made:
                raise Skip(f"left out by stage {name!r}")
        elif not is_kind(made, stage.makes):
            raise FileFailure(f"stage {name!r} returned {_type(made)}, not {stage.makes.name} ({stage.where})")
        return made

    def _deliver(self, index: int, value: Any, kind: ValueKind) -> None:
        """Commit the stage's own output, if this job is to make it, and hand the value on."""
        target = self.targets.get(index)
        if target is not None:
            try:
                self._commit(index, target, value, kind)
            except BaseException as error:
                self._fail(target, error)
                if isinstance(error, OSError) and error.errno in _ENVIRONMENT:
                    self.environment = f"{os.fsdecode(target.path)}: {error.strerror}"
        self._hand_on(index, value, kind)

    def _commit(self, index: int, target: Target, value: Any, kind: ValueKind) -> None:
        committer, save = self.tree.committer, dict(self.tree.nodes[index].save)
        committed = None
        if kind is PATH and not any(child in self.needed for child in self.tree.children.get(index, ())):
            committed = self._move(value, target)
        if committed is None:
            suffix = os.path.splitext(os.fsdecode(target.path))[1]

            def fill(file: BinaryIO) -> None:
                write(value, kind, file, suffix, save)
                self._refuse_changed_source()

            committed = committer.write(target.path, fill)
        self.results[target.path] = Result(
            target.stage, target.path, "done", size_bytes=committed.size_bytes, mtime_ns=committed.mtime_ns
        )

    def _move(self, path: Path, target: Target) -> Any:
        """Commit a file that a stage made in the scratch folder by renaming it; any other is copied."""
        if self._scratch is None or path.is_symlink() or self._scratch not in path.resolve().parents:
            return None
        self._refuse_changed_source()
        return self.tree.committer.move(path, target.path)

    # -- the source and the scratch folder -----------------------------------------------------------------------------

    def _identity(self) -> Source:
        stat = os.stat(self.path)
        return Source(self.job.source.path, stat.st_size, stat.st_mtime_ns)

    def _source_changed(self) -> bool:
        try:
            return self._identity() != self.source
        except FileNotFoundError:
            return True

    def _refuse_changed_source(self) -> None:
        if self._source_changed():
            raise FileFailure("changed while reading; the next run does it")

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            self._scratch = self.tree.blueprint.scratch / str(os.getpid())
            self._scratch.mkdir(parents=True, exist_ok=True)
        return self._scratch

    def _scratch_file(self, suffix: str) -> Path:
        self._scratch_files += 1
        return self._scratch_folder() / f"value-{self._scratch_files}{suffix}"

    # -- what became of it ---------------------------------------------------------------------------------------------

    def _name(self, index: int) -> str:
        return self.tree.nodes[index].name

    def _below(self, index: int) -> list[Target]:
        """The targets of this job that need this stage."""
        return [
            target
            for target in self.job.targets
            if index in self.tree.route[target.stage] and target.path not in self.results
        ]

    def _leave_out(self, index: int, reason: str) -> None:
        for target in self._below(index):
            self.results[target.path] = Result(target.stage, target.path, "skipped", reason)

    def _fail_below(self, index: int, error: BaseException) -> None:
        for target in self._below(index):
            self._fail(target, error, self._name(index))

    def _fail(self, target: Target, error: BaseException, stage: str = "") -> None:
        text = _said(error)
        if stage and not isinstance(error, FileFailure):
            text = f"{text} (in stage {stage!r})"
        kind: Kind = "memory" if isinstance(error, MemoryError) else "error"
        detail = "".join(traceback.format_exception(error))
        self.results[target.path] = Result(target.stage, target.path, "failed", text, kind, detail)

    def _fail_all(self, text: str, kind: Kind) -> None:
        for target in self.job.targets:
            self.results[target.path] = Result(target.stage, target.path, "failed", text, kind)


def _said(error: BaseException) -> str:
    """An exception in one line."""
    if isinstance(error, FileFailure):
        return str(error)
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")


def _type(value: Any) -> str:
    return type(value).__name__
