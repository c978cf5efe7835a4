"""Reports the steps of a job to an observer in the same process."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Literal

from pipeline.observer import RunObserver, Step
from pipeline.stage.values import Kind as ValueKind
from pipeline.text import counted, shown
from pipeline.types import Picture, Skip


class StepReporter:
    """Reports the events of one job to an observer as `Step`s, each with the time that it took."""

    def __init__(self, observer: RunObserver) -> None:
        self._observer = observer
        self._began_s = 0.0

    def start_clock(self) -> None:
        """Record the time at which the next step begins."""
        self._began_s = time.perf_counter()

    def converted(self, stage: str, have: ValueKind, value: Any) -> None:
        """Report that a value was converted from its kind to the kind that a stage takes."""
        self._report(Step(stage, "converted", f"{have.name} -> {describe(value)}", self._seconds()))

    def made(self, stage: str, value: Any, part: str | None = None) -> None:
        """Report the value that a stage returned, or the part that it yielded."""
        text = describe(value) if part is None else f"part {part}: {describe(value)}"
        self._report(Step(stage, "made", text, self._seconds()))

    def raised(self, stage: str, text: str, error: BaseException) -> None:
        """Report that the call of a stage raised an exception, with its text."""
        what: Literal["skipped", "raised"] = "skipped" if isinstance(error, Skip) else "raised"
        self._report(Step(stage, what, text, self._seconds(), error))

    def wrote(self, stage: str, path: bytes, size_bytes: int) -> None:
        """Report that an output was written."""
        text = f"{shown(path.rpartition(b'/')[2])}, {counted(size_bytes, 'byte')}"
        self._report(Step(stage, "wrote", text, self._seconds()))

    def failed(self, stage: str, text: str, error: BaseException) -> None:
        """Report that the output of a stage failed, with the text of the exception."""
        self._report(Step(stage, "failed", text, 0.0, error))

    def _report(self, step: Step) -> None:
        self._observer.on_step(step)

    def _seconds(self) -> float:
        return time.perf_counter() - self._began_s


def describe(value: Any) -> str:
    """Describe a value by its type and size, such as `Image RGB 60x40`."""
    name = type(value).__name__
    if isinstance(value, Picture):
        frames = f", {counted(value.frames, 'frame')}" if value.frames > 1 else ""
        return f"Picture {value.format or 'of a stage'} {value.size[0]}x{value.size[1]}{frames}"
    if hasattr(value, "mode") and hasattr(value, "size"):
        return f"{name} {value.mode} {value.size[0]}x{value.size[1]}"
    if isinstance(value, Path):
        return f"Path {_describe_file(value)}"
    if isinstance(value, (bytes, bytearray)):
        return f"{name}, {counted(len(value), 'byte')}"
    if isinstance(value, str):
        return f"{name}, {counted(len(value), 'character')}"
    if hasattr(value, "shape") and hasattr(value, "dtype"):
        return f"{name} {value.dtype} {'x'.join(map(str, value.shape))}"
    return f"{name} {value}" if isinstance(value, (bool, type(None))) else name


def _describe_file(path: Path) -> str:
    """Describe a file by its name and size, or by the reason for which it cannot be read."""
    name = shown(os.fsencode(path.name))
    try:
        return f"{name}, a folder" if path.is_dir() else f"{name}, {counted(path.stat().st_size, 'byte')}"
    except OSError as error:
        return f"{name}: {error.strerror}"
