"""One job of a group: the gathering stage reads the members one by one, and the output is committed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFailure, FileFailure, Interrupted, SourceMoved
from pipeline.files.atomic import remove_temporaries
from pipeline.files.file_system import FULL, READING, blame_machine
from pipeline.files.group_manifest import Member, read_members
from pipeline.files.permissions import Permissions, permissions_of
from pipeline.images import limited_to
from pipeline.messages import GroupJob, Outcome, Result
from pipeline.notes import Notes, collected
from pipeline.stage.values import BYTES, PATH, PICTURE, TEXT, convert
from pipeline.stage.values import Kind as ValueKind
from pipeline.text import shown
from pipeline.types import Item, Skip
from pipeline.worker.scratch import Scratch, naming_of, peak_meter, write_output
from pipeline.worker.stage_call import Enter, StageCaller, check_returned, error_line, failed, prepare, skipped
from pipeline.worker.tree import BuiltStage, Tree


class GroupJobRunner:
    """Runs one job of a gathering stage: calls the stage once, with an iterator over the members of the group."""

    def __init__(self, tree: Tree, job: GroupJob, enter: Enter) -> None:
        self._tree = tree
        self._job = job
        self._target = job.target
        self._stage = tree.stages[tree.index[self._target.stage]]
        self._kind = tree.member_kind(self._stage)
        self._scratch = Scratch(tree.setup.scratch, tree.setup.folder, b"")
        self._caller = StageCaller(tree, b"", b"", self._scratch, self._refuse_changed_input, enter, None)
        self._folder = os.path.join(os.fsencode(tree.setup.folder), b"")
        self._read_count = 0
        """The number of members that the stage has read."""
        self._read_bytes = 0
        self._most_permissions = Permissions()
        """The permissions that all members have which the stage has read."""
        self._read_error: BaseException | None = None
        """The exception raised by reading a member; the stage may have caught it."""

    def run(self) -> Outcome:
        """Make the output of the group; any failure is in the outcome."""
        peak_meter.begin()
        began_s, machine = time.perf_counter(), EnvironmentFailure("")
        remove_temporaries(self._target.path, self._tree.setup.unclean_runs)
        try:
            with limited_to(self._tree.setup.limits):
                result = self._commit(*self._make())
        except Skip as skip:
            result = skipped(self._target, skip, self._stage.name)
        except Interrupted:
            raise
        except BaseException as raised:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one output
            error = self._blame(blame_machine(raised, self._scratch.folder or self._tree.setup.scratch, FULL))
            machine = error if isinstance(error, EnvironmentFailure) else machine
            result = failed(self._target, error, self._stage.name)
        finally:
            self._scratch.remove(self._tree.setup.set_aside)
        seconds = time.perf_counter() - began_s
        return Outcome(
            self._job.group,
            (result,),
            seconds,
            machine.text,
            machine.refused,
            bytes_in=self._read_bytes,
            peak_bytes=peak_meter.take(),
        )

    def _make(self) -> tuple[Any, ValueKind | None, Notes]:
        """Call the stage with its members; return its value, kind and notes; the kind of a filter is None."""
        with collected() as notes:
            try:
                made = self._caller.call(self._stage, self._items(), self._kind)
            except Exception:
                if self._read_error is None:
                    raise
            if self._read_error is not None:
                raise self._read_error
            check_returned(self._stage, made)
            if self._stage.is_filter:
                return made, None, notes
            return self._caller.accept(self._stage, made), self._stage.passes_on, notes

    def _commit(self, value: Any, kind: ValueKind | None, notes: Notes) -> Result:
        target, save = self._target, self._stage.setup.save
        if self._stage.setup.leaves_no_file or kind is None:
            self._refuse_changed()
            return Result(target.stage, target.path, "done", notes=tuple(notes.items()))
        may_move = kind is PATH and self._scratch.holds(value)
        name = naming_of(target, self._tree.set_aside, is_again=self._job.is_again)
        try:
            committed, notes = write_output(
                self._tree.committer, target.path, value, kind, notes, self._refuse_changed, name,
                permissions=self._stage.permissions(self._most_permissions), save=save, source=b"", may_move=may_move,
            )  # fmt: skip
        except BaseException as error:
            raise self._tree.committer.blame(error, target.path) from error
        return Result(target.stage, target.path, "done", "", None, "", *committed, (), tuple(notes.items()))

    def _blame(self, error: BaseException) -> BaseException:
        """Return the reason of a failure: `error`, or that a member changed while the stage read it."""
        is_ours = type(error) is FileFailure or isinstance(error, (EnvironmentFailure, MemoryError, SourceMoved))
        if isinstance(error, Exception) and not is_ours and self._has_changed():
            return SourceMoved("changed")
        return error

    # -- the members ---------------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Item[Any]]:
        """Yield the members in the order of their paths, each read on demand and released after use."""
        for member in read_members(self._job.members_file):
            self._read_count += 1
            try:
                if (found := member.as_planned()) is None:
                    raise SourceMoved("changed")
                of_member = permissions_of(member.path, found.st_mode, found.st_gid)
                self._most_permissions = self._most_permissions.and_of(of_member)
                item = self._read(member)
            except BaseException as error:
                self._read_error = error
                raise
            yield item
            if self._kind is PICTURE:
                item.value.close()
            del item

    def _read(self, member: Member) -> Item[Any]:
        path = os.fsdecode(member.path)
        self._read_bytes += member.size_bytes
        try:
            # A Path costs as much as it does to read a small file.
            file = path if self._kind in (TEXT, BYTES) else Path(path)
            value = convert(file, PATH, self._kind, self._scratch.new_file)
        except OSError as error:
            raise blame_machine(error, member.path, READING) from error
        except FileFailure as error:
            raise FileFailure(f"{shown(member.path)}: {error_line(error)}") from error
        value = prepare(self._stage, value, self._kind)
        output = os.fsdecode(member.path.removeprefix(self._folder))
        return Item(value, os.fsdecode(member.source), self._scratch.create(), member.part, output)

    def _refuse_changed_input(self, stage: BuiltStage, made: Any) -> None:
        if self._has_changed():
            raise FileFailure(f"stage {stage.name!r} changed its input ({stage.where})")

    def _refuse_changed(self) -> None:
        if self._has_changed():
            raise SourceMoved("changed")

    def _has_changed(self) -> bool:
        """Return whether a member that was read has changed since it was planned."""
        members = read_members(self._job.members_file)
        return not all(member.as_planned() for member, _ in zip(members, range(self._read_count), strict=False))
