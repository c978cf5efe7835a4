"""Commits the parts of a fan-out: they are written one by one, and become visible together or not at all.

The names of the parts are known only when they have been made. So the ledger records the path around a part's name,
and the time at which the job was handed out: a younger file there is ours, even if a kill prevented its record.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress

from pipeline.errors import FileFailure, NotOurs
from pipeline.files.atomic import TEMPORARY_PREFIX, Check, Committed, GiveName, give_name, run_of
from pipeline.files.clocks import CLOCK_SLACK_NS, may_be_since
from pipeline.files.naming import SameNames, name_new, taken
from pipeline.files.set_aside import SetAside
from pipeline.files.template import check_components
from pipeline.messages import MadePart, Target
from pipeline.notes import Notes
from pipeline.records import NamedTuple
from pipeline.text import shown

# Digits of a part's index, so that names sort as the parts come.
_DIGITS = 6
_NAME = re.compile(r"[A-Za-z0-9_.-]+")
_EVER_NS = 2**63


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


class FoundPart(NamedTuple):
    """A file that lies where a part of an output belongs."""

    name: str
    path: bytes
    size_bytes: int
    mtime_ns: int
    ctime_ns: int


def find_parts(prefix: bytes, suffix: bytes) -> Iterator[FoundPart]:
    """Yield the files whose paths are a part's name between `prefix` and `suffix`."""
    folder, _, begin = prefix.rpartition(b"/")
    end, _, _ = suffix.partition(b"/")
    try:
        names = os.listdir(folder or b"/")
    except OSError:  # nothing was made there
        return
    for name in sorted(names):
        if not (name.startswith(begin) and name.endswith(end) and len(name) > len(begin) + len(end)):
            continue
        part = os.fsdecode(name[len(begin) : len(name) - len(end)])
        path = prefix + os.fsencode(part) + suffix
        if _NAME.fullmatch(part):
            with suppress(OSError):
                found = os.lstat(path)
                if stat.S_ISREG(found.st_mode):
                    yield FoundPart(part, path, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def remove_temporaries_of(prefix: bytes, suffix: bytes, runs: Sequence[str]) -> None:
    """Remove the temporaries of parts that runs left; each of `runs` has the form of `run_apart`."""
    folder, _, begin = prefix.rpartition(b"/")
    places = {folder}
    if b"/" in suffix:  # the parts lie in folders of their own
        with suppress(OSError):
            places |= {
                os.path.dirname(os.path.join(folder, name + suffix[suffix.index(b"/") :]))
                for name in os.listdir(folder)
                if name.startswith(begin)
            }
    for place in places:
        with suppress(OSError):
            for name in os.listdir(place):
                if name.startswith(TEMPORARY_PREFIX) and run_of(name, whole=True) in runs:
                    os.unlink(os.path.join(place, name))


class Parts:
    """The parts of one output, from the first that is written until all have their final names."""

    def __init__(self, target: Target, set_aside: SetAside, *, is_again: bool = False) -> None:
        self._target = target
        # What a worker that died with this job has made is ours too.
        self._ours = target.ours + (((target.handed_ns - CLOCK_SLACK_NS, _EVER_NS),) if is_again else ())
        self._give_name: GiveName = give_name
        if target.digests is not None or is_again:
            self._give_name = set_aside.guarding(target.digests or (), give_name)
        self.notes: Notes = {}
        self._made: list[MadePart] = []
        self._temporaries: dict[bytes, bytes] = {}
        self._replaced: set[bytes] = set()
        """The paths at which an older part of ours exists."""
        self._taken, self._owned = SameNames(), SameNames(target.owned)

    def add(self, name: str, commit: Callable[[bytes, GiveName], tuple[Committed, Notes]]) -> None:
        """Write one part under a temporary name. Raises FileFailure where a file that is not ours has its path."""
        before, after = self._target.around
        path = before + name.encode() + after
        check_components(path[before.rindex(b"/") :])
        if os.path.lexists(path):
            self._refuse_others(path)
        committed, notes = commit(path, lambda temporary, path: self._temporaries.__setitem__(path, temporary))
        self.notes |= notes
        self._made.append(MadePart(name, path, *committed))

    def add_nothing(self, name: str, notes: Notes) -> None:
        """Record a part that has no file."""
        before, after = self._target.around
        self.notes |= notes
        self._made.append(MadePart(name, before + name.encode() + after, 0, 0, b""))

    def _refuse_others(self, path: bytes) -> None:
        target, ctime_ns = self._target, os.lstat(path).st_ctime_ns
        if self._taken.find(path) is not None:
            raise FileFailure(f"two of its parts want {shown(path)}")
        if self._owned.find(path) is not None or target.is_forced or self._is_ours(ctime_ns):
            self._replaced.add(path)
            self._taken.add(path)
        else:
            raise taken(path)

    def _is_ours(self, ctime_ns: int) -> bool:
        return any(may_be_since(ctime_ns, since) and ctime_ns < until for since, until in self._ours)

    def reveal(self, check: Check) -> tuple[MadePart, ...]:
        """Rename all parts to their targets, new ones first; if one fails, the new ones are removed again."""
        check()
        new: list[bytes] = []
        try:
            for path in sorted(self._temporaries, key=lambda path: path in self._replaced):
                if path in self._replaced:
                    self._give_name(self._temporaries[path], path)
                else:
                    name_new(self._temporaries[path], path)
                    new.append(path)
        except NotOurs as error:
            self._remove(new)
            if error.by in new:
                raise FileFailure(f"two of its parts want {shown(error.by)}") from None
            raise
        except BaseException:
            self._remove(new)
            raise
        finally:
            self.discard()
        return tuple(self._made)

    @staticmethod
    def _remove(paths: Iterable[bytes]) -> None:
        for path in paths:
            os.unlink(path)

    def keep(self, keep: Callable[[bytes, bytes], None]) -> None:
        """Call `keep` with each temporary and the path that it was to have."""
        for path, temporary in self._temporaries.items():
            keep(temporary, path)

    def discard(self) -> None:
        """Remove the temporaries."""
        for temporary in self._temporaries.values():
            with suppress(OSError):
                os.unlink(temporary)
        self._temporaries.clear()
