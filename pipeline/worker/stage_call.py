"""One call of a stage: what it returned or raised, and what it must not have left behind."""

from __future__ import annotations

import os
import threading
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from pipeline.errors import FileFailure, SourceMoved
from pipeline.messages import Kind, Result, Target
from pipeline.stage.signature import Stage
from pipeline.stage.values import is_kind
from pipeline.text import one_line
from pipeline.types import Skip


def check_returned(stage: Stage, name: str, made: Any) -> None:
    """Hold a stage, of this name, to its return annotation. Raises Skip where a filter says no."""
    if stage.makes is not None and is_kind(made, stage.makes):
        return
    if made is None:
        raise FileFailure(f"stage {name!r} returned None; return a value, or raise Skip(reason) ({stage.where})")
    if stage.makes is None:
        if not isinstance(made, bool):
            raise FileFailure(f"stage {name!r} returned {_type(made)}, not True or False ({stage.where})")
        if not made:
            raise Skip(f"left out by stage {name!r}")
    else:
        raise FileFailure(f"stage {name!r} returned {_type(made)}, not {stage.makes.name} ({stage.where})")


def check_path(name: str, made: Path, root: str, source: str = "") -> None:
    """A file that a stage returns must be there, and not among the inputs, where the next run would read it."""
    shown = one_line(str(made))
    if not made.is_file():
        what = "is a folder" if made.is_dir() else "does not exist"
        raise FileFailure(f"stage {name!r} returned the Path '{shown}', which {what}")
    if made != Path(source) and Path(root) in made.parents:
        raise FileFailure(
            f"stage {name!r} made '{shown}' among the inputs; take an Item and write into its scratch folder"
        )


def _type(value: Any) -> str:
    return type(value).__name__


# More threads than this that the calls of a stage have left running are a leak; it may well keep a few of its own.
_MOST_THREADS = 32
_known: WeakSet[threading.Thread] = WeakSet(threading.enumerate())
# By the name of the stage.
_left_by: dict[str, WeakSet[threading.Thread]] = {}


class Conduct:
    """Looks at one call of a stage, begun when this is made."""

    def __init__(self, stage: Stage, name: str, read_by_others: Path | None) -> None:
        self._stage = stage
        self._name = name
        self._shared = read_by_others
        """A file that it is given and that is for others too."""
        self._before = _look(read_by_others) if read_by_others else None
        self._threads = threading.active_count()

    def check(self) -> None:
        """Raise FileFailure where it did what it must not."""
        if self._shared and _look(self._shared) != self._before:
            text = f"stage {self._name!r} changed its input, which other stages read too"
            raise FileFailure(f"{text}; change a copy in the scratch folder of an Item ({self._stage.where})")
        if threading.active_count() > self._threads and (left := self._count_threads()) > _MOST_THREADS:
            text = f"stage {self._name!r} leaves its threads running: there are {left} by now"
            raise FileFailure(f"{text}; end them, or keep a few in a class ({self._stage.where})")

    def _count_threads(self) -> int:
        """How many threads this and earlier calls of the stage have left running."""
        new = [each for each in threading.enumerate() if each not in _known]
        _known.update(new)
        left = _left_by.setdefault(self._name, WeakSet())
        left.update(new)
        return sum(each.is_alive() for each in left)


def refuse_given(stage: Stage, name: str, given: Any, made: Any) -> None:
    """Raise FileFailure where a stage returns the very file that it was given: nothing would be made."""
    if isinstance(made, Path) and made == given:
        text = f"stage {name!r} returned the Path of its input"
        raise FileFailure(f"{text}; return a file of its own, in the scratch folder of an Item ({stage.where})")


def _look(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


# The package itself: its frames say nothing to the author of a stage.
_PACKAGE = Path(__file__).parents[1]


def failed(target: Target, error: BaseException, stage: str = "") -> Result:
    """The result of an output that an exception cost, raised in this stage, if it was in one."""
    text = said(error)
    if stage and not isinstance(error, FileFailure):
        text = f"{text} (in stage {stage!r})"
    kind: Kind = "error" if isinstance(error, Exception) else "crashed"
    if isinstance(error, MemoryError):
        kind = "memory"
    if isinstance(error, SourceMoved):
        kind = error.kind
    return Result(target.stage, target.path, "failed", text, kind, _traceback(error))


def said(error: BaseException) -> str:
    """An exception in one line."""
    text = text_of(error)
    if isinstance(error, FileFailure):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def text_of(error: BaseException) -> str:
    """What an exception says, in one line."""
    try:
        return one_line(str(error))
    except Exception:
        return "it cannot be printed"


def _traceback(error: BaseException) -> str:
    """Where an exception came from, less our own frames; nothing where we raised it ourselves, and said all there."""
    if isinstance(error, FileFailure):
        return ""
    trace = error.__traceback__
    while trace is not None and _PACKAGE in Path(trace.tb_frame.f_code.co_filename).parents:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)) if trace is not None else ""
