"""Finds the recorded outputs that nothing produces any more, with the reason, and tells which may be removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pipeline.files.walk import IN_LINKED, Walk
from pipeline.ledger.failures import Failure
from pipeline.ledger.outputs import OutputRecord, split_digests
from pipeline.planning.decisions import Decision, Orphan, OrphanCode, Reason, text_of
from pipeline.planning.file_state import is_ours, look
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.same_time import GRANULARITIES_NS
from pipeline.records import NamedTuple

T = TypeVar("T", OutputRecord, Failure)


class RecordCursor(Generic[T]):
    """Keeps a stream of records in step with a walk over the same order of sources."""

    def __init__(self, records: Iterator[T], passed: Callable[[T], None]) -> None:
        self._records: Iterator[T] = records
        self._passed: Callable[[T], None] = passed
        self._next: T | None = next(records, None)

    def take(self, source: bytes) -> list[T]:
        """Return the records of a source; pass on those of sources before it, which the walk did not meet."""
        found: list[T] = []
        record = self._next
        while record is not None and record.source <= source:
            if record.source == source:
                found.append(record)
            else:
                self._passed(record)
            record = next(self._records, None)
        self._next = record
        return found

    def pass_the_rest(self) -> None:
        """Pass on the records after the last source of the walk."""
        while self._next is not None:
            self._passed(self._next)
            self._next = next(self._records, None)


class OrphanCollector:
    """Adds the records that no current source and template leads to: orphans and past failures.

    Records of sources that cannot be looked at, as in a folder that was not listed, are left out.
    """

    def __init__(
        self, store: PlanStore, walk: Walk, root: bytes, stages: Collection[str], *, is_partial: bool = False
    ) -> None:
        self._store = store
        self._walk = walk
        self._root = os.path.join(root, b"")
        self._stages = stages
        self._is_partial = is_partial

    def not_met(self, record: OutputRecord) -> None:
        """Add a record whose source the walk did not meet."""
        # Under a selection too: the plan must know which paths are free.
        if not self._is_unknown(record.source) and (code := self._why_not_met(record.source)):
            self._store.add_orphan(record, code)

    def unclaimed(self, record: OutputRecord) -> None:
        """Add a record whose source exists, and leads to its target by no template."""
        is_skipped = record.part and record.status == "skipped"
        code: OrphanCode = "path_changed" if record.stage in self._stages else "stage_gone"
        self._store.add_orphan(record, "skipped_now" if is_skipped else code)

    def skipped(self, record: OutputRecord, decisions: Sequence[Decision]) -> None:
        """Add a skipped record whose output was made before, if the file still exists."""
        if any(each.target == record.target and each.action == "up-to-date" and os.path.lexists(each.path)
               for each in decisions):  # fmt: skip
            self._store.add_orphan(record, "skipped_now")

    def failure(self, failure: Failure) -> None:
        """Add a failure whose source the walk did not meet."""
        if not self._is_partial and not self._is_unknown(failure.source) and self._why_not_met(failure.source):
            self._store.add_past_failure(failure)

    def _is_unknown(self, source: bytes) -> bool:
        return any(source.startswith(folder) for folder, _ in self._walk.unlisted)

    def _why_not_met(self, source: bytes) -> OrphanCode | None:
        """Return why the walk did not meet a source; None where that is unknown."""
        if any(source.startswith(folder) for folder in self._walk.owned):  # whether it is still there or not
            return "excluded_now"
        path = self._root + source
        try:
            if not stat.S_ISREG(os.stat(path).st_mode):
                return "source_gone"
            # An input that the walk missed, since it was replaced while its folder was listed, is not gone. Nor is what
            # somebody has moved to another disk, with a link in its place.
            why = self._walk.why_left_out(source)
            return None if why == IN_LINKED or (not why and _is_spelt_so(path)) else "excluded_now"
        except OSError as error:
            # A dangling link is not gone: its target may be on a disk that is not mounted.
            if os.path.islink(path):
                return None
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                return "source_gone"
            self._walk.cannot_look_at(source, error)
            return None


def _is_spelt_so(path: bytes) -> bool:
    """Return whether a file has just this name, and none that its file system takes for the same."""
    folder, name = os.path.split(path)
    try:
        return name in os.listdir(folder)
    except OSError:
        return True


# -- removal -----------------------------------------------------------------------------------------------------------


class Fate(NamedTuple):
    """An orphan, and whether its file may be removed."""

    orphan: Orphan
    path: bytes
    action: Literal["prune", "keep", "forget"]
    """`forget` where there is no file any more, or one that is a current output by another path."""
    obstacle: Literal["", "edited", "unreadable"] = ""
    """The reason why the file is kept."""
    error: str = ""
    """The system's error where the file cannot be read."""

    @property
    def why(self) -> str:
        """The reasons why it is an orphan and is kept, as a sentence."""
        why = text_of(Reason(self.orphan.code))
        if self.obstacle == "edited":
            return f"{why}, edited by someone else"
        return f"{why}, and cannot be looked at: {self.error}" if self.obstacle else why


def fates(store: PlanStore, folder: Path) -> Iterator[Fate]:
    """Yield the fate of every orphan that was ever made; `folder` is that of the YAML file."""
    base, current = os.fsencode(folder), None
    for orphan in store.orphans():
        if orphan.status != "intended":
            fate = fate_of(orphan, os.path.join(base, orphan.target))
            if fate.action == "prune":
                current = _files_like_orphans(store, base) if current is None else current
                if _identity(fate.path) in current:
                    fate = fate._replace(action="forget")
            yield fate


def _files_like_orphans(store: PlanStore, base: bytes) -> set[tuple[int, int] | None]:
    """Return the device and inode of each output that is no orphan and may be the same file as one.

    It is the same where the file system takes two names for one, or a link leads to one folder by two paths.
    """
    found = {_identity(os.path.join(base, target)) for target in store.outputs_like_orphans(max(GRANULARITIES_NS))}
    return found - {None}


def _identity(path: bytes) -> tuple[int, int] | None:
    found = look(path)
    return (found.st_dev, found.st_ino) if found else None


def fate_of(orphan: Orphan, path: bytes) -> Fate:
    """Look at an orphan's file: it may be removed if we wrote it and nobody changed it since."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Fate(orphan, path, "forget")
    except OSError as error:
        return Fate(orphan, path, "keep", "unreadable", str(error.strerror))
    if is_ours(path, found, orphan.size, orphan.mtime_ns, split_digests(orphan.digests)):
        return Fate(orphan, path, "prune")
    return Fate(orphan, path, "keep", "edited")
