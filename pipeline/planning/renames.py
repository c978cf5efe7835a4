"""Outputs whose path changed, or that of their source, and nothing else: found on record, and moved instead of made.

    plan   what is to be made, and is recorded under another path with the same recipe and source, and intact there;
           what is to be made of a new source, and is recorded of the one that is gone and had its size and time
    run    noted as ours under the new path -> moved, never over anything -> recorded, before any job is handed out

A kill leaves the file under one of its two paths, or under both; the next plan knows it there. The parts of a fan-out
are never moved: they are made at their new path, and the old ones are orphans. Nor is what may tell the name of its
source.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from itertools import groupby

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.digest import read
from pipeline.files.file_system import is_gone
from pipeline.files.naming import is_one_entry, name_new
from pipeline.files.ownership import OwnedFolders
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Decision, Reason, Rename
from pipeline.planning.file_state import Sources, compare_file, digest_at, is_as_left, is_the_same, look
from pipeline.planning.freshness import Freshness
from pipeline.planning.plan_store import Move, PlanStore
from pipeline.planning.recipe import OutputSpec

# Renames that are noted together before they are done.
_BATCH = 256


class RenameFinder:
    """Finds the outputs of one source that are renamed instead of made."""

    def __init__(
        self, leaves: Sequence[OutputSpec], folder: bytes, sources: Sources, *, reads_outputs: bool = False
    ) -> None:
        """Find nothing yet; with `reads_outputs` contents tell what lies there, since a run has ended unclean."""
        self._recipes = {leaf.stage: leaf.number for leaf in leaves}
        self._folder = folder
        self._sources = sources
        self._reads_outputs = reads_outputs

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
            is_left = here is not None and is_as_left(old, here, row.size, row.mtime_ns, row.digest)
            return is_left and (not self._reads_outputs or digest_at(old) == row.digest)
        if decision.reason.code == "path_changed":  # the file system takes the new path for the old one
            return is_one_entry(os.path.join(self._folder, row.target), decision.path)
        return decision.reason.code == "interrupted" and is_the_same(there, row.size, row.mtime_ns)


class SourceFollower:
    """Has outputs follow their sources, of which only the path changed; what somebody edited follows, too."""

    def __init__(
        self, config: Config, ledger: Ledger, specs: Sequence[OutputSpec], store: PlanStore, freshness: Freshness
    ) -> None:
        self._specs = {spec.stage: spec for spec in specs}
        self._ledger = ledger
        self._store = store
        self._freshness = freshness
        self._folder = os.fsencode(config.folder)
        self._root = os.path.join(os.fsencode(config.inputs.root), b"")

    def follow(self, *, moves_files: bool) -> int:
        """Change the decisions about new sources that were known under another path; return their number.

        Args:
            moves_files: Whether their outputs follow; else it is only known that the former sources did not vanish.
        """
        found = 0
        for move in self._store.moves():
            if not self._has_digest(move):
                self._store.drop_move(move)
                continue
            found += 1
            decisions = self._store.decisions_about(move)
            rows = self._ledger.outputs.of_source(move.gone)
            if any(decision.action == "settling" for _, decision in decisions):
                self._store.leave_alone(rows)
            elif moves_files:
                self._follow(move, decisions, rows)
        self._store.end_moves()
        return found

    def _has_digest(self, move: Move) -> bool:
        """Return whether a source has the contents that are recorded of the one that is gone.

        Where none are, since it is large, its time tells, unless that is a whole second: many files may have that one.
        """
        try:
            if move.digest is None:
                return bool(os.stat(self._root + move.source).st_mtime_ns % 10**9)
            return read(self._root + move.source).digest == move.digest
        except OSError:
            return False

    def _follow(self, move: Move, decisions: list[tuple[int, Decision]], rows: list[OutputRecord]) -> None:
        for seq, decision in decisions:
            spec = self._specs[decision.stage]
            # A stage may have another name now, by which its recipe is known again.
            of_stage = [row for row in rows if row.stage == spec.stage] or [r for r in rows if r.recipe == spec.number]
            for row in of_stage:
                if follows := self._with_output_of(move, decision, spec, row):
                    self._store.take_from(seq, follows, row.target)
                    rows.remove(row)
                    break

    def _with_output_of(self, move: Move, decision: Decision, spec: OutputSpec, row: OutputRecord) -> Decision | None:
        """Return the decision to rename what is recorded of the former source; None where that is made as a new one."""
        is_fresh, is_in_place = row.recipe == spec.number, row.target == decision.target
        if not self._may_follow(spec, row) or decision.action != "make" or decision.reason.code not in _AS_NEW:
            return None
        if not is_in_place and not self._is_free(decision, row):
            return None
        if not is_fresh:  # in its place it is made anew in any case
            is_moved = not is_in_place and row.status == "done" and spec.template.has_file
            change = self._freshness.recipe_change(spec, row)
            return decision._replace(reason=change) if is_moved and change and self._is_there(decision, row) else None
        if row.status == "done" and spec.template.has_file and not self._is_there(decision, row):
            return None
        return decision._replace(
            action="rename", reason=Reason("source_moved", (os.fsdecode(move.gone),)), is_owned=is_in_place
        )

    def _may_follow(self, spec: OutputSpec, row: OutputRecord) -> bool:
        """Return whether an output is one that no name and no unfinished job has a part in."""
        if spec.has_parts or row.part is not None or not spec.is_nameless:
            return False
        if row.status == "intended" or row.in_flight or (row.status == "skipped" and row.size is not None):
            return False
        return spec.template.has_file != row.target.startswith(NO_FILE_KEY)

    def _is_free(self, decision: Decision, row: OutputRecord) -> bool:
        """Return whether an output can be named as the decision has it, in a format that its suffix does not change."""
        owner = self._ledger.outputs.owner(decision.target)
        if _suffix(row.target) != _suffix(decision.target) or (owner and owner[1] != "intended"):
            return False
        there = look(decision.path)
        if there is None or self._is_moved_already(decision, row, there):
            return True
        return is_one_entry(self._path(row), decision.path)  # in another case

    def _is_there(self, decision: Decision, row: OutputRecord) -> bool:
        """Return whether the output of the former source is as we made it, or edited, where it was or is to be."""
        there = look(decision.path)
        if there is not None and self._is_moved_already(decision, row, there):
            return True
        return compare_file(row, self._path(row))[0] == "up-to-date"

    def _is_moved_already(self, decision: Decision, row: OutputRecord, there: os.stat_result) -> bool:
        """Return whether a killed run has renamed an output."""
        return decision.reason.code == "interrupted" and is_the_same(there, row.size, row.mtime_ns)

    def _path(self, row: OutputRecord) -> bytes:
        return os.path.join(self._folder, row.target)


# The reasons for which an output of a source is made that was not there before.
_AS_NEW = ("new", "interrupted", "path_changed")


def _suffix(target: bytes) -> bytes:
    """Return what decides the format of an output."""
    return os.path.splitext(target)[1].lower()


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
            self._ledger.intents.add(
                [field for each in batch for field in (each.target, each.source, each.stage.encode())]
            )
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
            taken = {each.moved_from for each in pending if each.moved_from != each.target}
            each = next((each for each in pending if each.target not in taken), pending[0])
            pending.remove(each)
            if each.target not in taken and self._move(each):
                self._ledger.outputs.move(each.moved_from, each.target, each.stage, each.source)
                done += not each.is_stale
            else:
                self._store.make_instead(each)
            self._ledger.intents.end([each.target])
        return done

    def _move(self, each: Rename) -> bool:
        self._ledger.has_news = True
        row = self._ledger.outputs.get(each.moved_from)
        if row is None or row.in_flight or row.status == "intended":
            return False
        if row.status == "skipped" or each.target == each.moved_from or each.target.startswith(NO_FILE_KEY):
            return True  # there is no file, or none to move
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
        # Beside its source an edited output goes where the source went.
        follows = here is not None and row.source != each.source and stat.S_ISREG(here.st_mode)
        if here is None or not (follows or is_as_left(old, here, row.size, row.mtime_ns, row.digest)):
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
