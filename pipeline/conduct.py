"""What a stage must not do while it is called: change what others read, leave threads, hand back what it was given."""

from __future__ import annotations

import os
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from pipeline.errors import FileFailure
from pipeline.signature import Stage

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
