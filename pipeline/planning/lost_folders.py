"""Finds the folders whose files vanished all at once, or whose disk is not mounted: what was made of them is kept.

    walk     which top folders have files, and how many           --> recorded for the next run
    ledger   which were mounts, and how full, when seen last  --+
    plan     which known files are gone                       --+--> lost folders, whose outputs are no orphans

A folder that is lost stays so until files come back, or a person says that they were removed on purpose.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

from pipeline.files.file_system import folders_above_mount
from pipeline.ledger.input_folders import ROOT, InputFolder
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Source
from pipeline.planning.plan_store import PlanStore
from pipeline.text import counted, shown

# So many files of one folder are not removed at once without a word.
_MANY = 20
# How many lost folders are named.
_NAMED = 10


class LostFolder(NamedTuple):
    """A folder whose known files are gone, and whose outputs are kept."""

    folder: bytes
    """Its path relative to the root, which ends in a slash; empty for the root."""
    files: int
    """How many known files are gone."""
    is_unmounted: bool
    """True if it was on a disk that is not mounted now."""

    def __str__(self) -> str:
        name = f"folder {shown(self.folder)}" if self.folder else "the input root"
        if self.is_unmounted:
            text = f"{name} is not on the disk any more that it was on, and {counted(self.files, 'known file')} of it"
            text += " is gone" if self.files == 1 else " are gone"
        else:
            text = f"all {self.files:,} known files of {name} are gone at once"
        return f"{text}; their outputs are kept; if this is meant, 'run --rebuild' goes on without them"


def describe(lost: Sequence[LostFolder]) -> list[str]:
    """Return a line for each lost folder, the first of them by name."""
    more = len(lost) - _NAMED
    return [*map(str, lost[:_NAMED]), *([f"and {more:,} more folders like these"] if more > 0 else [])]


class SeenFolders:
    """Counts the files that the walk meets in each top folder."""

    def __init__(self, root: bytes, ledger: Ledger, store: PlanStore) -> None:
        self._root = os.path.join(os.path.realpath(root), b"")
        self._ledger = ledger
        self._store = store
        self._folder = b""
        self._files = 0

    def watch(self, sources: Iterable[Source]) -> Iterator[Source]:
        """Yield the sources, counted."""
        for source in sources:
            self.add((source,))
            yield source

    def add(self, sources: Sequence[Source]) -> None:
        """Count sources, which come in byte order."""
        first = _top_of(sources[0])
        if first == _top_of(sources[-1]):  # most often all are in one folder, which need not be told file by file
            if first:
                self._count(first, len(sources))
                return
            if b"/" not in b"".join([source.path for source in sources]):
                return
        for folder, among in groupby(map(_top_of, sources)):
            if folder:
                self._count(folder, sum(1 for _ in among))

    def end(self) -> None:
        """Add the last folder."""
        if self._files:
            below_mount = int(self._device_of(self._folder) == self._device_of(b""))
            if self._files >= _MANY or not below_mount or self._ledger.folders.get(self._folder):
                self._store.add_seen(self._folder, below_mount, min(self._files, _MANY))
        self._files = 0

    def _device_of(self, folder: bytes) -> int | None:
        try:
            return os.stat(self._root + folder).st_dev
        except OSError:
            return None

    def _count(self, folder: bytes, files: int) -> None:
        if folder != self._folder:
            self.end()
            self._folder = folder
        self._files += files


def _top_of(source: Source) -> bytes:
    return source.path[: source.path.find(b"/") + 1]


def find_lost(root: bytes, ledger: Ledger, store: PlanStore) -> list[LostFolder]:
    """Return the lost folders of a plan whose orphans are all known; only the root, if that is lost."""
    real = os.path.join(os.path.realpath(root), b"")
    recorded = ledger.folders.get(ROOT)
    if recorded and folders_above_mount(real) > recorded.below_mount and (gone := store.count_gone()):
        return [LostFolder(ROOT, gone, is_unmounted=True)]
    found = []
    for folder, gone in store.folders_of_gone(_MANY):
        recorded = ledger.folders.get(folder)
        is_unmounted = bool(recorded and not recorded.below_mount and folders_above_mount(real + folder))
        if is_unmounted or _are_all_gone(recorded, gone, ledger.outputs.count_sources_below(folder)):
            found.append(LostFolder(folder, gone, is_unmounted))
    return found


def _are_all_gone(recorded: InputFolder | None, gone: int, known: int) -> bool:
    """Return whether the files of a folder vanished all at once, now or before."""
    if recorded and recorded.lost:
        return gone >= recorded.lost
    return gone == known and min(known, recorded.files if recorded else known) >= _MANY
