"""Outputs whose path changed and nothing else: found among what is recorded of a source, and moved instead of made.

    plan   what is to be made, and is recorded under another path with the same recipe and source, and intact there
    run    noted as ours under the new path -> moved, never over anything -> recorded, before any job is handed out

A kill leaves the file under one of its two paths, or under both; the next plan knows it there. The parts of a fan-out
are never moved: they are made at their new path, and the old ones are orphans.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from itertools import groupby

from pipeline.errors import FileFailure
from pipeline.files.file_system import is_gone
from pipeline.files.naming import is_one_entry, name_new
from pipeline.files.ownership import OwnedFolders
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.intents import Intent
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Decision, Reason, Rename
from pipeline.planning.file_state import Sources, is_as_left, is_the_same, look
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.recipe import OutputSpec

# Renames that are noted together before they are done.
_BATCH = 256


class RenameFinder:
    """Finds the outputs of one source that are renamed instead of made."""

    def __init__(self, leaves: Sequence[OutputSpec], folder: bytes, sources: Sources) -> None:
        self._recipes = {leaf.stage: leaf.number for leaf in leaves}
        self._folder = folder
        self._sources = sources

    def find(self, source: Source, rows: Sequence[OutputRecord], decisions: list[Decision]) -> list[Decision]:
        """Return the decisions, with a rename for each output to make that lies intact at another path.

        A path may have to be left before another output can take it: renames come in that order. Outputs that wait for
        each other in a circle are made.
        """
        if not any(decision.action == "make" for decision in decisions):
            return decisions
        by_target = {row.target: row for row in rows}
        claims = {decision.target: decision for decision in decisions}
        movable = [row for row in rows if self._is_to_spare(row, claims.get(row.target), source)]
        wanted = [
            number for number, decision in enumerate(decisions)
            if self._may_be_moved_to(decision, by_target.get(decision.target))
        ]  # fmt: skip
        found = list(decisions)
        left: set[bytes] = set()
        while movable and (step := self._next(wanted, found, movable, by_target, left)):
            number, row = step
            found[number] = moved(found[number], row.target)
            wanted.remove(number)
            movable.remove(row)
            left.add(row.target)
        return found

    def _next(
        self,
        wanted: list[int],
        decisions: list[Decision],
        movable: list[OutputRecord],
        by_target: dict[bytes, OutputRecord],
        left: set[bytes],
    ) -> tuple[int, OutputRecord] | None:
        for number in wanted:
            decision = decisions[number]
            at_target = by_target.get(decision.target)
            if at_target is not None and at_target.status != "intended" and decision.target not in left:
                continue
            for row in movable:
                if row.recipe == self._recipes[decision.stage] and self._can_move(row, decision, left):
                    return number, row
        return None

    def _may_be_moved_to(self, decision: Decision, row: OutputRecord | None) -> bool:
        """Return whether an output is to be made since none is recorded for its path, or one of another recipe."""
        if decision.action != "make" or decision.target.startswith(NO_FILE_KEY):
            return False
        return row is None or row.status == "intended" or row.recipe != self._recipes[decision.stage]

    def _is_to_spare(self, row: OutputRecord, claim: Decision | None, source: Source) -> bool:
        """Return whether a row is of a source as it is now, and no decision takes its output as it is."""
        if row.part is not None or row.target.startswith(NO_FILE_KEY):
            return False
        if row.status == "intended" or row.in_flight or self._sources.change(source, row):
            return False
        return claim is None or (claim.action == "make" and row.recipe != self._recipes[claim.stage])

    def _can_move(self, row: OutputRecord, decision: Decision, left: set[bytes]) -> bool:
        there = None if decision.target in left else look(decision.path)
        if row.status == "skipped":  # there is no file
            return row.size is None and there is None
        if there is None:
            old = os.path.join(self._folder, row.target)
            here = look(old)
            return here is not None and is_as_left(old, here, row.size, row.mtime_ns, row.digest)
        if decision.reason.code == "path_changed":  # the file system takes the new path for the old one
            return is_one_entry(os.path.join(self._folder, row.target), decision.path)
        return decision.reason.code == "interrupted" and is_the_same(there, row.size, row.mtime_ns)


def moved(decision: Decision, target: bytes) -> Decision:
    """Return the decision to rename an output instead of making it."""
    return decision._replace(action="rename", reason=Reason("path_changed", (os.fsdecode(target),)), moved_from=target)


class Renamer:
    """Carries out the renames of a plan."""

    def __init__(self, ledger: Ledger, store: PlanStore, folder: bytes, owned: OwnedFolders) -> None:
        self._ledger = ledger
        self._store = store
        self._folder = folder
        self._owned = owned
        self._made = b""
        self._old = b""

    def rename(self) -> int:
        """Move what can be moved, have the rest made, and return how many were moved."""
        done = 0
        for batch in self._batches():
            self._ledger.begin()
            self._ledger.intents.add([Intent(each.target, each.source, each.stage) for each in batch])
            self._ledger.commit()
            self._ledger.begin()
            for _, of_source in groupby(batch, key=lambda rename: rename.source):
                done += self._rename_all(list(of_source))
            self._ledger.intents.delete_ended()
            self._ledger.commit()
        self._owned.remove_if_empty(self._old)
        return done

    def _batches(self) -> Iterator[list[Rename]]:
        """Yield batches of renames, never one that splits the outputs of a source."""
        batch: list[Rename] = []
        for _, of_source in groupby(self._store.renames(), key=lambda rename: rename.source):
            batch += of_source
            if len(batch) >= _BATCH:
                yield batch
                batch = []
        if batch:
            yield batch

    def _rename_all(self, pending: list[Rename]) -> int:
        """Move the outputs of one source, each when its place is free."""
        done = 0
        while pending:
            taken = {each.moved_from for each in pending}
            each = next((each for each in pending if each.target not in taken), pending[0])
            pending.remove(each)
            if each.target not in taken and self._move(each):
                self._ledger.outputs.move(each.moved_from, each.target, each.stage)
                done += 1
            else:
                self._store.make_instead(each)
            self._ledger.intents.end([each.target])
        return done

    def _move(self, each: Rename) -> bool:
        self._ledger.has_news = True
        row = self._ledger.outputs.get(each.moved_from)
        if row is None or row.in_flight or row.status == "intended":
            return False
        if row.status == "skipped":
            return True
        old = os.path.join(self._folder, row.target)
        folder = os.path.dirname(old)
        if folder != self._old:
            self._owned.remove_if_empty(self._old)
            self._old = folder
        here, there = look(old), look(each.path)
        if here is not None and there is not None and is_one_entry(old, each.path):
            is_left = is_as_left(old, here, row.size, row.mtime_ns, row.digest)
            return is_left and self._owned.is_ours(folder) and _respell(old, each.path)
        if there is not None and is_the_same(there, row.size, row.mtime_ns):  # a killed run did half of it
            return here is None or (os.path.samestat(here, there) and _unlink(old))
        if here is None or not is_as_left(old, here, row.size, row.mtime_ns, row.digest):
            return False
        if not self._owned.is_ours(folder):
            return False
        return self._put(old, each.path)

    def _put(self, old: bytes, new: bytes) -> bool:
        """Rename a file unless its new path is taken, on another device or behind a link; return whether it was."""
        if not self._owned.is_ours(os.path.dirname(new)):
            return False
        try:
            if os.path.dirname(new) != self._made:
                os.makedirs(os.path.dirname(new), exist_ok=True)
                self._made = os.path.dirname(new)
            name_new(old, new)
        except (OSError, FileFailure):
            return False
        if not is_gone(old):
            _unlink(new)
            return False
        return True


def _respell(old: bytes, new: bytes) -> bool:
    """Give a file another spelling of its name."""
    try:
        os.rename(old, new)
    except OSError:
        return False
    return True


def _unlink(path: bytes) -> bool:
    try:
        os.unlink(path)
    except OSError:
        return False
    return True
