"""Outputs that nothing produces any more: which they are and why, and whether they may be removed."""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pipeline.files.walk import Walk
from pipeline.ledger.failures import Failure
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.decisions import Decision, Orphan, OrphanCode, Reason, text_of
from pipeline.planning.file_state import SAME_TIME_NS, is_as_left, look
from pipeline.planning.plan_store import PlanStore


class OrphanCollector:
    """Takes the records to which no source and template of today leads: orphans and past failures.

    What it cannot know it leaves out: what lies in a folder that was not listed, or cannot be looked at.
    """

    def __init__(
        self, store: PlanStore, walk: Walk, root: bytes, stages: Collection[str], *, is_partial: bool = False
    ) -> None:
        self._store = store
        self._walk = walk
        self._root = os.path.join(root, b"")
        self._stages = stages
        self._is_partial = is_partial

    def not_met(self, row: OutputRecord) -> None:
        """The walk did not come by the source of a row."""
        # Of a part of the files too: whose path is free must be known.
        if not self._is_unknown(row.source) and (code := self._why_not_met(row.source)):
            self._store.add_orphan(row, code)

    def unclaimed(self, row: OutputRecord) -> None:
        """The source of a row is there, and no template leads from it to the row's output."""
        is_skipped = row.part and row.status == "skipped"
        code: OrphanCode = "path_changed" if row.stage in self._stages else "stage_gone"
        self._store.add_orphan(row, "skipped_now" if is_skipped else code)

    def skipped(self, row: OutputRecord, decisions: Sequence[Decision]) -> None:
        """A row of a source that was left out, and that had an output before."""
        if any(each.target == row.target and each.action == "up-to-date" and os.path.lexists(each.path)
               for each in decisions):  # fmt: skip
            self._store.add_orphan(row, "skipped_now")

    def failure(self, failure: Failure) -> None:
        """The walk did not come by the source of a failure."""
        if not self._is_partial and not self._is_unknown(failure.source) and self._why_not_met(failure.source):
            self._store.add_past_failure(failure)

    def _is_unknown(self, source: bytes) -> bool:
        return any(source.startswith(folder) for folder, _ in self._walk.unlisted)

    def _why_not_met(self, source: bytes) -> OrphanCode | None:
        """Return why the walk did not meet a source; None where that cannot be told."""
        path = self._root + source
        try:
            return "excluded_now" if stat.S_ISREG(os.stat(path).st_mode) else "source_gone"
        except OSError as error:
            # A link that leads nowhere is still there: what it leads to may be on a disk that is away.
            if os.path.islink(path):
                return None
            if isinstance(error, (FileNotFoundError, NotADirectoryError)):
                return "source_gone"
            self._walk.cannot_look_at(source, error)
            return None


class Fate(NamedTuple):
    """What may be done about an orphan."""

    orphan: Orphan
    path: bytes
    action: Literal["prune", "keep", "forget"]
    """`forget` where there is no file any more, or one that is a current output by another path."""
    obstacle: Literal["", "edited", "unreadable"] = ""
    """Why it is kept."""
    error: str = ""
    """What the system said, where it cannot be looked at."""

    @property
    def why(self) -> str:
        """Why it is an orphan, and why it is kept, as a person reads it."""
        why = text_of(Reason(self.orphan.code))
        if self.obstacle == "edited":
            return f"{why}, edited by someone else"
        return f"{why}, and cannot be looked at: {self.error}" if self.obstacle else why


def fates(store: PlanStore, folder: Path) -> Iterator[Fate]:
    """Yield what may be done about every orphan that was ever made; `folder` is the YAML's."""
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
    found = {_identity(os.path.join(base, target)) for target in store.outputs_like_orphans(SAME_TIME_NS)}
    return found - {None}


def _identity(path: bytes) -> tuple[int, int] | None:
    found = look(path)
    return (found.st_dev, found.st_ino) if found else None


def fate_of(orphan: Orphan, path: bytes) -> Fate:
    """Look at the file: it may be removed if we wrote it and nobody changed it since."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Fate(orphan, path, "forget")
    except OSError as error:
        return Fate(orphan, path, "keep", "unreadable", str(error.strerror))
    if is_as_left(found, orphan.size, orphan.mtime_ns):
        return Fate(orphan, path, "prune")
    return Fate(orphan, path, "keep", "edited")
