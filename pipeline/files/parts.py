"""Commits the parts of a fan-out: they are written one by one, and become visible together or not at all.

Which parts there are is known only when they have been made, so the plan cannot record the intent to write them.
Instead a worker writes each path into a list of its run before it writes the file: by that list the next run knows
what a killed one left, under its name or as a temporary.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import FileFailure, NotOurs
from pipeline.files.atomic import Check, Committed, GiveName, give_name
from pipeline.files.template import check_components
from pipeline.messages import MadePart, Target
from pipeline.notes import Notes
from pipeline.text import NO_FILE, NOT_OURS, shown

# Digits of a part's index, so that names sort as the parts come.
_DIGITS = 6
_NAME = re.compile(r"[A-Za-z0-9_.-]+")


class PartNames:
    """The names of one source's parts, of which invalid and repeated ones are refused."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._names: set[str] = set()

    @property
    def count(self) -> int:
        """The number of parts named so far."""
        return len(self._names)

    def take(self, name: str | None) -> str:
        """Return the name of the next part: its own, or its index. Raises FileFailure for a name that cannot be one."""
        if name is None:
            name = f"{self.count + 1:0{_DIGITS}}"
            if len(name) > _DIGITS:
                raise FileFailure(f"stage {self.stage!r} yielded too many parts; name them: Part(value, name=...)")
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            may = "letters, digits, '_', '.' and '-' may be in it"
            raise FileFailure(f"stage {self.stage!r} yielded a part named {name!r}; {may}")
        if name in self._names:
            raise FileFailure(f"stage {self.stage!r} yielded two parts named {name!r}")
        self._names.add(name)
        return name


class Noted(NamedTuple):
    """A part that a worker was about to write, or had written."""

    source: bytes
    target: bytes
    """The path of the output, which stands for all its parts."""
    name: bytes
    path: bytes
    size_bytes: int
    mtime_ns: int
    """Size and time are -1 while the part is incomplete."""


class PartList:
    """The lists of the parts that runs were about to write: one file for each run and worker."""

    def __init__(self, folder: Path, run: str = "") -> None:
        self._folder = folder
        self._run = run
        self._fd = -1

    def note(self, part: Noted) -> None:
        """Append a part: once before it is written, and once with size and time before it gets its name."""
        if self._fd < 0:
            self._folder.mkdir(parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC
            self._fd = os.open(self._folder / f"{self._run}.{os.getpid()}", flags, 0o666)
        os.write(self._fd, b"\0".join([*part[:4], b"%d" % part.size_bytes, b"%d" % part.mtime_ns, b""]))

    def noted(self, run: str = "") -> Iterator[Noted]:
        """Yield the parts that a run noted, or all runs; an incomplete note at the end of a file is left out."""
        for file in sorted(self._folder.glob(f"{run}.*" if run else "*")):
            fields = file.read_bytes().split(b"\0")[:-1]
            columns = [fields[column :: len(Noted._fields)] for column in range(len(Noted._fields))]
            for source, target, name, path, size_bytes, mtime_ns in zip(*columns, strict=False):
                yield Noted(source, target, name, path, int(size_bytes), int(mtime_ns))

    def is_ours(self, source: bytes, path: bytes) -> bool:
        """Return whether this run made a file as a part of a source, in a worker that died before it reported that."""
        found = os.lstat(path)
        wanted = source, path, found.st_size, found.st_mtime_ns
        return any((each.source, each.path, each.size_bytes, each.mtime_ns) == wanted for each in self.noted(self._run))

    def clear(self, kept_runs: Iterable[str]) -> None:
        """Remove the lists of all runs except those in `kept_runs`."""
        kept = set(kept_runs)
        for file in self._folder.glob("*"):
            if file.name.partition(".")[0] not in kept:
                file.unlink(missing_ok=True)


class Parts:
    """The parts of one output, from the first that is written until all have their final names."""

    def __init__(self, source: bytes, target: Target, noted: PartList) -> None:
        self._source = source
        self._target = target
        self._noted = noted
        self.notes: Notes = {}
        self._made: list[MadePart] = []
        self._temporaries: dict[bytes, bytes] = {}
        self._replaced: set[bytes] = set()
        """The paths at which an older part of ours exists."""

    def add(self, name: str, commit: Callable[[bytes, GiveName], tuple[Committed, Notes]]) -> None:
        """Write one part under a temporary name. Raises FileFailure where a file that is not ours has its path."""
        before, after = self._target.around
        path = before + name.encode() + after
        check_components(path[before.rindex(b"/") :])
        if os.path.lexists(path):
            self._refuse_others(path)
        noted = Noted(self._source, self._target.path, name.encode(), path, -1, -1)
        self._noted.note(noted)
        committed, notes = commit(path, lambda temporary, path: self._temporaries.__setitem__(path, temporary))
        self._noted.note(noted._replace(size_bytes=committed.size_bytes, mtime_ns=committed.mtime_ns))
        self.notes |= notes
        self._made.append(MadePart(name, path, *committed))

    def add_nothing(self, name: str, notes: Notes) -> None:
        """Record a part that has no file."""
        before, after = self._target.around
        self.notes |= notes
        self._made.append(MadePart(name, before + name.encode() + after, 0, 0, b""))

    def _refuse_others(self, path: bytes) -> None:
        target = self._target
        if path in target.owned or target.is_forced or self._noted.is_ours(self._source, path):
            self._replaced.add(path)
        else:
            raise NotOurs(f"{NOT_OURS}: {shown(path)}")

    def reveal(self, check: Check) -> tuple[MadePart, ...]:
        """Rename all parts to their targets, new ones first; if one fails, the new ones are removed again."""
        check()
        new: list[bytes] = []
        try:
            for path in sorted(self._temporaries, key=lambda path: path in self._replaced):
                if path in self._replaced:
                    give_name(self._temporaries[path], path)
                else:
                    _link(self._temporaries[path], path)
                    new.append(path)
        except BaseException:
            for path in new:
                os.unlink(path)
            raise
        finally:
            self.discard()
        return tuple(self._made)

    def discard(self) -> None:
        """Remove the temporaries."""
        for temporary in self._temporaries.values():
            with suppress(OSError):
                os.unlink(temporary)
        self._temporaries.clear()


def _link(temporary: bytes, path: bytes) -> None:
    """Give a new part its name without replacing any file. Raises NotOurs if the name is taken."""
    try:
        os.link(temporary, path)
    except FileExistsError:
        if os.path.isdir(path):
            raise FileFailure(f"{NO_FILE}: {shown(path)}") from None
        raise NotOurs(f"{NOT_OURS}: {shown(path)}") from None
    except OSError:  # for instance, the file system has no hard links
        if os.path.lexists(path):
            raise NotOurs(f"{NOT_OURS}: {shown(path)}") from None
        give_name(temporary, path)
