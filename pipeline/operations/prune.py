"""Removes orphans: each file first, then its record in the ledger, then the folders left empty.

A kill in between leaves a record without a file, which the next removal deletes.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import field
from pathlib import Path

from pipeline.config.model import Prune
from pipeline.errors import PolicyStop, UsageError
from pipeline.files.atomic import remove_temporaries
from pipeline.files.ownership import OwnedFolders
from pipeline.files.store import store_of
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.ledger import Ledger
from pipeline.planning.orphans import Fate, fates
from pipeline.planning.plan_store import PlanStore
from pipeline.records import dataclass
from pipeline.text import counted, shown

# Seconds between commits of the ledger, as in a run.
_COMMIT_EVERY_S = 0.1
# How many of the orphans that could not be removed are named.
_NAMED = 3


@dataclass
class Pruned:
    """The counts of one removal of orphans."""

    removed: int = 0
    kept: int = 0
    """The number of files kept, since they were edited or lie in a folder of another pipeline."""
    failed: int = 0
    failures: list[str] = field(default_factory=list)
    """The first files that could not be removed, each with the reason."""

    def describe_failures(self) -> str:
        """Return a sentence about the orphans that could not be removed."""
        more = f" and {self.failed - len(self.failures):,} more" if self.failed > len(self.failures) else ""
        return f"{counted(self.failed, 'orphan')} could not be removed: {', '.join(self.failures)}{more}"


class Pruner:
    """Removes the orphans of one pipeline, below its own output folders."""

    def __init__(self, ledger: Ledger, folder: Path, owned: OwnedFolders, unclean: Sequence[str]) -> None:
        self._ledger = ledger
        self._folder = folder
        self._store = store_of(os.fsencode(folder))
        self._owned = owned
        self._unclean = unclean

    def prune_within(self, limit: Prune, store: PlanStore) -> Pruned:
        """Remove a plan's orphans. Raises PolicyStop where they are more than the limit; none is removed then.

        What was made of sources that are elsewhere by now does not count: it was made again there.
        """
        found = (fate for fate in fates(store, self._folder) if fate.orphan.code != "source_moved")
        removable = sum(fate.action == "prune" for fate in found)
        if removable:
            recorded = self._ledger.outputs.count_files()
            if removable > limit.allowance(recorded):
                raise PolicyStop(
                    f"{removable:,} of {counted(recorded, 'output')} are orphans, and prune.max is {limit.max};"
                    " none was removed; if all of them are meant"
                )
        return self.prune(fates(store, self._folder))

    def prune(self, found: Iterable[Fate]) -> Pruned:
        """Remove unchanged orphans, forget those whose files do not exist, and keep all others."""
        pruned, committed_at, folder = Pruned(), time.monotonic(), b""
        self._ledger.begin()
        for fate in found:
            remove_temporaries(fate.path, self._unclean)
            place = os.path.dirname(fate.path)
            if folder != place:
                self._owned.remove_if_empty(folder)
                folder = place
            has_file = not fate.orphan.target.startswith(NO_FILE_KEY)
            if fate.action == "keep" or (has_file and not self._owned.is_ours(place)):
                pruned.kept += 1
            elif fate.action == "forget" or self._remove(fate, pruned):
                self._forget(fate)
            if time.monotonic() - committed_at > _COMMIT_EVERY_S:
                self._ledger.commit()
                self._ledger.begin()
                committed_at = time.monotonic()
        self._owned.remove_if_empty(folder)
        self._ledger.commit()
        return pruned

    def _remove(self, fate: Fate, pruned: Pruned) -> bool:
        try:
            self._store.remove(fate.path)
        except OSError as error:
            pruned.failed += 1
            if pruned.failed <= _NAMED:
                pruned.failures.append(f"{shown(fate.orphan.target)} ({error.strerror})")
            return False
        pruned.removed += 1
        return True

    def _forget(self, fate: Fate) -> None:
        self._ledger.has_news = True
        self._ledger.unchanged.delete_around(fate.orphan.source)
        outputs, target = self._ledger.outputs, fate.orphan.target
        # The record of the skip stays; that of all its parts is one, and those of single parts are none.
        if fate.orphan.code == "skipped_now" and not ((record := outputs.get(target)) and record.part):
            outputs.forget_file(target)
        else:
            outputs.delete([target])


def is_confirmed(*, yes: bool) -> bool:
    """Ask the user whether to go on; `yes` is the answer given beforehand. Raises UsageError without a terminal."""
    if yes:
        return True
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody can be asked here whether to go on, and nothing was done; --yes says so beforehand")
    print("go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
