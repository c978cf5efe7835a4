"""Finds the folders whose files vanished all at once, or whose disk is not mounted: what was made of them is kept.

    walk     which folders have files, and how many; where disks are mounted   --> recorded for the next run
    ledger   which were mount points, and how full, when seen last           --+
    plan     which known files are gone, or left out as another's outputs    --+--> lost folders: nothing is an orphan

A folder that is lost stays so until none of its files is gone, or a person says that they were removed on purpose.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property
from operator import attrgetter
from typing import Literal

from pipeline.files.file_system import MountPoints
from pipeline.files.walk import Walk
from pipeline.ledger.input_folders import ROOT, ROOT_FILES, InputFolder
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Source
from pipeline.planning.decisions import OrphanCode
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.ranges import FolderCount, tops_of
from pipeline.records import NamedTuple
from pipeline.text import counted, shown

# So many files of one folder are not removed at once without a word.
_MANY = 20
# How many lost folders are named.
_NAMED = 10


class LostFolder(NamedTuple):
    """A folder whose known files are gone or left out, and whose outputs are kept."""

    folder: bytes
    """Its path relative to the root, which ends in a slash; or ROOT, or ROOT_FILES."""
    files: int
    """How many known files are gone or left out."""
    cause: Literal["unmounted", "vanished", "owned"]
    """Why they are: their disk is not mounted, all vanished at once, now or before, or outputs lie there now."""
    whose: str = ""
    """Whose outputs, if that is why."""

    def holds(self, source: bytes) -> bool:
        """Return whether a source is in this folder."""
        return b"/" not in source if self.folder == ROOT_FILES else source.startswith(self.folder)

    @property
    def code(self) -> OrphanCode:
        """The reason for which the outputs of its files would be orphans."""
        return "excluded_now" if self.cause == "owned" else "source_gone"

    def __str__(self) -> str:
        return f"{self._describe()}; their outputs are kept; if this is meant, 'run --rebuild' goes on without them"

    def _describe(self) -> str:
        name = _NAMES.get(self.folder) or f"folder {shown(self.folder)}"
        files, are = counted(self.files, "known file"), "is" if self.files == 1 else "are"
        if self.cause == "unmounted":
            return f"{name} is not on the disk any more that it was on, and {files} of it {are} gone"
        if self.cause == "owned":
            return f"{name} holds {self.whose} now, and {files} of it {are} left out"
        return f"{files} of {name} vanished at once and {are} gone"


_NAMES = {ROOT: "the input root", ROOT_FILES: "the input root itself"}


def describe(lost: Sequence[LostFolder]) -> list[str]:
    """Return a line for each lost folder, the first of them by name."""
    more = len(lost) - _NAMED
    return [*map(str, lost[:_NAMED]), *([f"and {more:,} more folders like these"] if more > 0 else [])]


class SeenFolders:
    """Notes the root, its top folders, and the mount points at any depth, in which the walk meets files."""

    def __init__(self, root: bytes, ledger: Ledger, store: PlanStore) -> None:
        self._root = os.path.realpath(root)
        self._ledger = ledger
        self._store = store
        self._folder = b""
        self._files = 0
        self._root_files = 0
        self._has_files = False

    @cached_property
    def _mounts(self) -> MountPoints:
        """The mount points once the first file is met, so that the disk of the root is mounted if it is on demand."""
        return MountPoints()

    @cached_property
    def _nested(self) -> set[bytes]:
        """The folders below the top folders to note that have no file yet: mount points, and what is recorded."""
        nested = {place + b"/" for place in self._mounts.below(self._root) if b"/" in place}
        return nested.union(self._ledger.folders.names_of_nested())

    def watch(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources, counted."""
        for source in sources:
            self.add((source,))
            yield source

    def add(self, sources: Sequence[Source]) -> None:
        """Count sources, which come in byte order."""
        self.add_counts(tops_of(sources))
        if self._nested:
            self._find_nested(sources)

    def add_counts(self, tops: Iterable[FolderCount]) -> None:
        """Count sources by the folders below the root in which they are; not where mount points lie below these."""
        self._has_files = True
        for folder, files in tops:
            self._count(folder, files)

    @property
    def needs_sources(self) -> bool:
        """True if it is not enough to know how many sources each folder below the root has."""
        return bool(self._nested)

    def _find_nested(self, sources: Sequence[Source]) -> None:
        for folder in tuple(self._nested):
            at = bisect_left(sources, folder, key=attrgetter("path"))
            if at < len(sources) and sources[at].path.startswith(folder):
                self._store.add_seen(folder, self._mount_at(folder), 1)
                self._nested.remove(folder)

    def _count(self, folder: bytes, files: int) -> None:
        if not folder:
            self._root_files += files
            return
        if folder != self._folder:
            self._end_folder()
            self._folder = folder
        self._files += files

    def end(self) -> None:
        """Add what was counted last."""
        self._end_folder()
        if self._root_files >= _MANY or (self._root_files and self._ledger.folders.get(ROOT_FILES)):
            self._store.add_seen(ROOT_FILES, b"", min(self._root_files, _MANY))
        if self._has_files:
            self._store.add_seen(ROOT, self._mounts.above(self._root), 1)

    def _end_folder(self) -> None:
        if self._files:
            mount = self._mount_at(self._folder)
            if self._files >= _MANY or mount or self._ledger.folders.get(self._folder):
                self._store.add_seen(self._folder, mount, min(self._files, _MANY))
        self._files = 0

    def _mount_at(self, folder: bytes) -> bytes:
        """Return the path of a folder if it is a mount point, else nothing."""
        path = _path(self._root, folder)
        return path if path in self._mounts else b""


def _path(root: bytes, folder: bytes) -> bytes:
    return os.path.join(root, folder[:-1]) if folder else root


def find_lost(
    root: bytes, walk: Walk, ledger: Ledger, store: PlanStore, *, by_contents: bool = False
) -> list[LostFolder]:
    """Return the lost folders of a plan whose orphans are all known; if the root is lost, nothing else is gone.

    With `by_contents` the times of sources tell nothing, so that a file of the same size may be the one that is gone.
    """
    if not store.index_orphans():
        return []
    search = _Search(os.path.realpath(root), walk, ledger, store, by_contents=by_contents)
    return [*search.find_gone(), *search.find_owned()]


class _Search:
    """The search for the lost folders of one plan."""

    def __init__(self, root: bytes, walk: Walk, ledger: Ledger, store: PlanStore, *, by_contents: bool) -> None:
        self._root = root
        self._by_contents = by_contents
        self._walk = walk
        self._ledger = ledger
        self._store = store
        self._mounts = MountPoints()

    def find_gone(self) -> list[LostFolder]:
        """Return the folders of files that are gone; each file is counted in the innermost."""
        if lost := self._judge(ROOT, self._store.count_gone()):
            return [lost]
        found: list[LostFolder] = []
        for folder in sorted(self._store.folders_of_gone(_MANY), reverse=True):
            inner = 0
            for each in reversed(found):
                if not each.folder.startswith(folder):
                    break
                inner += each.files
            if lost := self._judge(folder, self._store.count_gone(folder) - inner):
                found.append(lost)
        return found[::-1]

    def _judge(self, folder: bytes, gone: int) -> LostFolder | None:
        """Return a folder, of which so many files are gone, if it is lost."""
        recorded = self._ledger.folders.get(folder) or InputFolder(folder, b"", _MANY, 0)
        if gone and self._mounts.lacks(recorded.mount, _path(self._root, folder)):
            return LostFolder(folder, gone, "unmounted")
        can_vanish = folder.count(b"/") == 1 and min(gone, recorded.files) >= _MANY
        if not gone or not (recorded.is_lost or (can_vanish and not self._is_any_met(folder))):
            return None
        # Files that are there under another path were renamed or moved, be it some nights ago.
        vanished = gone - self._store.count_elsewhere(folder, by_size=self._by_contents)
        is_lost = vanished > 0 if recorded.is_lost else vanished >= _MANY
        return LostFolder(folder, gone, "vanished") if is_lost else None

    def _is_any_met(self, folder: bytes) -> bool:
        """Return whether the walk met a known file of a folder."""
        unknown = tuple(each for each, _ in self._walk.unlisted)
        others = self._store.others_known_in(folder)
        return any(not source.startswith(unknown) and self._is_there(source) for source in others)

    def _is_there(self, source: bytes) -> bool:
        """Return whether a file is there: no link that dangles, and not behind one in the place of a folder."""
        above, name = os.path.split(os.path.join(self._root, source))
        return os.path.isfile(os.path.join(above, name)) and os.path.realpath(above) == above

    def find_owned(self) -> Iterator[LostFolder]:
        """Yield the folders of known files that have got an owner file, unless a person has said that it is meant."""
        for folder, whose in self._walk.owned.items():
            count = self._store.count_excluded(folder)
            recorded = self._ledger.folders.get(folder)
            if count >= _MANY and (recorded is None or recorded.files):
                yield LostFolder(folder, count, "owned", whose)
