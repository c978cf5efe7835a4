"""The fused pass, watched: each call, conversion and commit of one file as it happens, with its time and value."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.files.atomic import Committed
from pipeline.messages import Job, Target
from pipeline.notes import Notes
from pipeline.stage.values import Kind as ValueKind
from pipeline.text import counted, shown
from pipeline.types import Picture, Skip
from pipeline.worker.job import Pass
from pipeline.worker.sharing import Shared
from pipeline.worker.stage_call import said, text_of
from pipeline.worker.tree import Tree


class Event(NamedTuple):
    """One thing that happened to a file on its way."""

    stage: str
    what: str
    """Such as `made` or `wrote`."""
    value: str
    """What came of it, with its size."""
    seconds: float


class WatchedPass(Pass):
    """One job on its way through the tree, of which every step is told as it happens."""

    def __init__(self, tree: Tree, job: Job, tell: Callable[[Event], None]) -> None:
        super().__init__(tree, job, self._entered)
        self.errors: list[BaseException] = []
        """What was raised, by the stages or over what they made, in order."""
        self._tell = tell
        self._at = 0
        """The stage that is given its value."""
        self._began = self._seconds = 0.0

    def _entered(self, index: int) -> None:
        """Take the time of each call of a stage."""
        now = time.perf_counter()
        if index >= 0:
            self._began = now
        else:
            self._seconds = now - self._began

    def _call(self, index: int, shared: Shared, position: int) -> tuple[Any, ValueKind, Notes]:
        self._at = index
        return super()._call(index, shared, position)

    def _fan_out(self, index: int, shared: Shared, position: int) -> None:
        self._at = index
        super()._fan_out(index, shared, position)

    def _give(self, shared: Shared, position: int) -> Any:
        wanted, began = shared.wants[position], time.perf_counter()
        given = super()._give(shared, position)
        if wanted is not shared.kind:
            self._tell(Event(self._name(self._at), f"{shared.kind.name} ->", describe(given), _since(began)))
        return given

    def _call_with(self, index: int, *given: Any, **also: Any) -> Any:
        try:
            made = super()._call_with(index, *given, **also)
        except Skip as skip:
            self._tell(Event(self._name(index), "left out", text_of(skip), self._seconds))
            raise
        except BaseException as error:
            self._tell(Event(self._name(index), "raised", said(error), self._seconds))
            raise
        if not self.tree.stages[index].fans_out:
            self._tell(Event(self._name(index), "made", describe(made), self._seconds))
        return made

    def _made(self, index: int, made: Any) -> tuple[Any, ValueKind]:
        if self._part is not None and self.tree.stages[index].fans_out:
            self._tell(Event(self._name(index), "made", f"part {self._part}: {describe(made)}", self._seconds))
        return super()._made(index, made)

    def _write(self, index: int, path: bytes, *value: Any, **also: Any) -> tuple[Committed, Notes]:
        began = time.perf_counter()
        committed, notes = super()._write(index, path, *value, **also)
        wrote = f"{shown(path.rpartition(b'/')[2])}, {counted(committed.size_bytes, 'byte')}"
        self._tell(Event(self._name(index), "wrote", wrote, _since(began)))
        return committed, notes

    def _fail(self, target: Target, error: BaseException, stage: str = "") -> None:
        if error not in self.errors:
            self.errors.append(error)
        super()._fail(target, error, stage)


def _since(began: float) -> float:
    return time.perf_counter() - began


def describe(value: Any) -> str:
    """A value by its type and size."""
    name = type(value).__name__
    if isinstance(value, Picture):
        frames = f", {counted(value.frames, 'frame')}" if value.frames > 1 else ""
        return f"Picture {value.format or 'of a stage'} {value.size[0]}x{value.size[1]}{frames}"
    if hasattr(value, "mode") and hasattr(value, "size"):
        return f"{name} {value.mode} {value.size[0]}x{value.size[1]}"
    if isinstance(value, Path):
        return f"Path {_described_file(value)}"
    if isinstance(value, (bytes, bytearray)):
        return f"{name}, {counted(len(value), 'byte')}"
    if isinstance(value, str):
        return f"{name}, {counted(len(value), 'character')}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{name} {value.dtype} {'x'.join(map(str, value.shape))}"
    return f"{name} {value}" if isinstance(value, (bool, type(None))) else name


def _described_file(path: Path) -> str:
    """A file by its name and size, or what is in its place."""
    name = shown(os.fsencode(path.name))
    try:
        return f"{name}, a folder" if path.is_dir() else f"{name}, {counted(path.stat().st_size, 'byte')}"
    except OSError as error:
        return f"{name}: {error.strerror}"
