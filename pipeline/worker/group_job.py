"""One group of files through the stage that gathers it: read one by one, and what is made of them committed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFailure, FileFailure, Interrupted, SourceMoved
from pipeline.files.atomic import remove_temporaries
from pipeline.files.file_system import FULL, OPENING, WRITING, blame_machine
from pipeline.files.group_manifest import Member, read_members
from pipeline.images import limited_to
from pipeline.messages import Job, Result
from pipeline.notes import Notes, collected
from pipeline.stage.values import BYTES, COLOURED, IMAGE, PATH, PICTURE, TEXT, convert, first_frame
from pipeline.text import shown
from pipeline.types import Item, Skip
from pipeline.worker.scratch import Scratch
from pipeline.worker.stage_call import Conduct, check_path, check_returned, failed, said, text_of
from pipeline.worker.tree import Tree
from pipeline.worker.write import write_output

Enter = Callable[[int], None]


class Gathering:
    """One job of a stage that gathers."""

    def __init__(self, tree: Tree, job: Job, enter: Enter) -> None:
        self.target = job.targets[0]
        self.result = Result(self.target.stage, self.target.path, "failed")
        self.environment = ""
        self.scratch = Scratch(tree.blueprint.scratch)
        self._tree = tree
        self._folder = os.path.join(os.fsencode(tree.blueprint.folder), b"")
        self._index = tree.index[self.target.stage]
        self._stage = tree.stages[self._index]
        self._node = tree.nodes[self._index]
        self._enter = enter
        self._kind = tree.gathers(self._index)
        self._read = 0
        """How many members were read by now."""
        self._error: BaseException | None = None
        """Why the reading of one ended, which the stage may not have let through."""

    def go(self) -> None:
        """Make the output of the group; what becomes of it is in `result`."""
        remove_temporaries(self.target.path, self._tree.blueprint.unclean_runs)
        try:
            with limited_to(self._tree.blueprint.limits):
                self.result = self._commit(*self._make())
        except Skip as skip:
            reason = text_of(skip) or f"left out by stage {self.target.stage!r}"
            self.result = Result(self.target.stage, self.target.path, "skipped", reason)
        except Interrupted:
            raise
        except BaseException as error:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one output
            self._fail(blame_machine(error, self.scratch.folder or self._tree.blueprint.scratch, FULL))

    def _fail(self, error: BaseException) -> None:
        if isinstance(error, EnvironmentFailure):
            self.environment = error.text
        # Any stage may fail over a file of which it saw one half before a change.
        is_ours = type(error) is FileFailure or isinstance(error, (EnvironmentFailure, MemoryError, SourceMoved))
        if isinstance(error, Exception) and not is_ours and self._has_moved():
            error = SourceMoved("changed")
        self.result = failed(self.target, error, self.target.stage)

    def _make(self) -> tuple[Any, Notes]:
        """Call the stage with its members; gives what it made."""
        with collected() as notes:
            conduct = Conduct(self._stage, self.target.stage, None)
            self._enter(self._index)
            try:
                made = self._tree.calls[self._index](self._items())
            except Exception:
                if self._error is None:
                    raise
            finally:
                self._enter(-1)
            if self._error is not None:
                raise self._error
            conduct.check()
            if self._kind is PATH and self._has_moved():
                raise FileFailure(f"stage {self.target.stage!r} changed its input ({self._stage.where})")
            check_returned(self._stage, self.target.stage, made)
            if self._stage.makes is PATH:
                check_path(self.target.stage, made, self._tree.root)
        return made, notes

    def _commit(self, made: Any, notes: Notes) -> Result:
        target, makes = self.target, self._stage.makes
        if self._node.leaves_no_file or makes is None:
            self._refuse_moved()
            return Result(target.stage, target.path, "done", "; ".join(notes))
        try:
            kind = COLOURED if self._node.own_colors and makes is IMAGE else makes
            with collected() as noted:
                value = convert(made, makes, kind, self.scratch.file)
            committed, notes = write_output(
                self._tree.committer, target.path, value, kind, notes | noted, self._refuse_moved,
                save=self._node.save, source="", may_move=kind is PATH and self.scratch.holds(value),
            )  # fmt: skip
        except BaseException as error:
            raise blame_machine(error, target.path, WRITING) from error
        return Result(target.stage, target.path, "done", "; ".join(notes), None, "", *committed)

    # -- the members ---------------------------------------------------------------------------------------------------

    def _items(self) -> Iterator[Item[Any]]:
        """The members in the order of their paths, each read when the stage asks for it, and then let go."""
        for member in read_members(self.target.members):
            self._read += 1
            try:
                if not member.is_as_planned:
                    raise SourceMoved("changed")
                item = self._item(member)
            except BaseException as error:
                self._error = error
                raise
            yield item
            if self._kind is PICTURE:
                item.value.close()
            del item

    def _item(self, member: Member) -> Item[Any]:
        path = os.fsdecode(member.path)
        try:
            # A Path costs as much as it does to read a small file.
            file = path if self._kind in (TEXT, BYTES) else Path(path)
            value = convert(file, PATH, self._kind, self.scratch.file)
        except OSError as error:
            raise blame_machine(error, member.path, OPENING) from error
        except FileFailure as error:
            raise FileFailure(f"{shown(member.path)}: {said(error)}") from error
        if self._kind is PICTURE:
            value.least, value.own_colors = self._node.least, self._node.own_colors
        elif self._kind is IMAGE:
            value = first_frame(value)
        output = os.fsdecode(member.path.removeprefix(self._folder))
        return Item(value, os.fsdecode(member.source), self.scratch.made(), member.part, output)

    def _refuse_moved(self) -> None:
        if self._has_moved():
            raise SourceMoved("changed")

    def _has_moved(self) -> bool:
        """Whether any of the members that were read is not what it was."""
        members = read_members(self.target.members)
        return not all(member.is_as_planned for member, _ in zip(members, range(self._read), strict=False))
