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
from pipeline.planning.decisions import Orphan, Verdict
from pipeline.planning.output_state import is_as_left
from pipeline.planning.plan_store import SKIPPED_NOW, Spool
from pipeline.text import PATH_CHANGED


class Gone:
    """Takes the records to which no source and template of today leads: orphans and past failures.

    What it cannot know it leaves out: what lies in a folder that was not listed, or cannot be looked at.
    """

    def __init__(
        self, spool: Spool, walk: Walk, root: bytes, stages: Collection[str], *, is_partial: bool = False
    ) -> None:
        self._spool = spool
        self._walk = walk
        self._root = os.path.join(root, b"")
        self._stages = stages
        self._is_partial = is_partial

    def not_met(self, row: OutputRecord) -> None:
        """The walk did not come by the source of a row."""
        # Of a part of the files too: whose path is free must be known.
        if not self._is_unknown(row.source) and (why := self._why_not_met(row.source)):
            self._spool.add_orphan(row, why)

    def unclaimed(self, row: OutputRecord) -> None:
        """The source of a row is there, and no template leads from it to the row's output."""
        is_skipped = row.part and row.status == "skipped"
        why = SKIPPED_NOW if is_skipped else PATH_CHANGED if row.stage in self._stages else "stage gone"
        self._spool.add_orphan(row, why)

    def skipped(self, row: OutputRecord, verdicts: Sequence[Verdict]) -> None:
        """A row of a source that was left out, and that had an output before."""
        if any(each.target == row.target and each.action == "up-to-date" and os.path.lexists(each.path)
               for each in verdicts):  # fmt: skip
            self._spool.add_orphan(row, SKIPPED_NOW)

    def failure(self, failure: Failure) -> None:
        """The walk did not come by the source of a failure."""
        if not self._is_partial and not self._is_unknown(failure.source):
            self._spool.add_past_failure(failure)

    def _is_unknown(self, source: bytes) -> bool:
        return any(source.startswith(folder) for folder, _ in self._walk.unlisted)

    def _why_not_met(self, source: bytes) -> str:
        """Why, or nothing where that cannot be told; costs a look, but only at what was not met."""
        path = self._root + source
        try:
            return "excluded now" if stat.S_ISREG(os.stat(path).st_mode) else "source gone"
        except (FileNotFoundError, NotADirectoryError):
            # A link that leads nowhere is still there: what it leads to may be on a disk that is away.
            return "" if os.path.islink(path) else "source gone"
        except OSError:
            return ""


class Fate(NamedTuple):
    """What may be done about an orphan."""

    orphan: Orphan
    path: bytes
    action: Literal["prune", "keep", "forget"]
    """`forget` where there is no file any more."""
    why: str


def fates(spool: Spool, folder: Path) -> Iterator[Fate]:
    """Every orphan that was ever made, with what may be done about it; `folder` is the YAML's."""
    base = os.fsencode(folder)
    for orphan in spool.orphans():
        if orphan.status != "intended":
            yield fate_of(orphan, os.path.join(base, orphan.target))


def fate_of(orphan: Orphan, path: bytes) -> Fate:
    """Look at the file: it may be removed if we wrote it and nobody changed it since."""
    try:
        found = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return Fate(orphan, path, "forget", orphan.why)
    except OSError as error:
        return Fate(orphan, path, "keep", f"{orphan.why}, and cannot be looked at: {error.strerror}")
    if is_as_left(found, orphan.size, orphan.mtime_ns):
        return Fate(orphan, path, "prune", orphan.why)
    return Fate(orphan, path, "keep", f"{orphan.why}, edited by someone else")
