"""The fused pass: one source through the tree of stages, every value made once, every output committed."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFailure, FileFailure, Interrupted, SourceMoved
from pipeline.files.atomic import Check, Committed, GiveName, remove_temporaries
from pipeline.files.file_system import FULL, OPENING, WRITING, blame_machine
from pipeline.files.parts import PartNames, Parts
from pipeline.images import limited_to
from pipeline.messages import Begin, Handed, Job, Kind, Result, Target
from pipeline.notes import Notes, collected
from pipeline.stage.handoff import put, take
from pipeline.stage.values import COLOURED, IMAGE, PATH, PICTURE, convert, first_frame
from pipeline.stage.values import Kind as ValueKind
from pipeline.types import Item, Part, Skip
from pipeline.worker.scratch import Scratch
from pipeline.worker.sharing import Shared
from pipeline.worker.source import GONE, Reading
from pipeline.worker.stage_call import Conduct, check_path, check_returned, failed, refuse_given, said, text_of
from pipeline.worker.tree import Tree
from pipeline.worker.write import write_output

# What no stage can yield.
_END = object()

Enter = Callable[[int], None]
"""Told the index of the stage about to be called, and -1 after it: how a supervisor knows what killed a worker."""


class Pass:
    """One job on its way through the tree."""

    def __init__(self, tree: Tree, job: Job, enter: Enter) -> None:
        self.tree = tree
        self.job = job
        self.enter = enter
        self.course = tree.course_of(tuple([target.stage for target in job.targets]))
        self.path = tree.root + os.fsdecode(job.source.path)
        self.reading = Reading(self.path, job.source, hashes=tree.blueprint.hashes_sources)
        self.results: dict[bytes, Result] = {}
        self.environment = ""
        self.scratch = Scratch(tree.blueprint.scratch)
        self.handed: list[Handed] = []
        """What other pools are to go on with."""
        self._part: str | None = None
        """The name of the part that is on its way."""
        self._parts: dict[bytes, Parts] = {}
        """What is made of each output that is one of parts."""
        self._left_out: dict[bytes, str] = {}
        """Why the first part of an output was left out."""

    def go(self) -> None:
        if unclean_runs := self.tree.blueprint.unclean_runs:
            for target in self.job.targets:
                remove_temporaries(target.path, unclean_runs)
        begin = self.job.begin
        try:
            self.reading.begin()
            if begin and self.reading.source != self.job.source:
                raise SourceMoved("changed")
        except GONE:
            self._fail_all("the file was gone when its turn came", "vanished")
        except SourceMoved as moved:
            self._fail_all(moved.text, moved.kind)
        except (OSError, FileFailure) as error:
            self._fail_all(said(error), "error")
        else:
            with limited_to(self.tree.blueprint.limits):
                if begin:
                    self._go_on(begin)
                else:
                    self._hand_on(None, Path(self.path) if self.course.shows_path else self.path, PATH, {})

    # -- between pools -------------------------------------------------------------------------------------------------

    def _go_on(self, begin: Begin) -> None:
        """Go on with a value from another pool."""
        try:
            value, kind = take(begin, Path(self.path))
        except OSError as error:
            refused = blame_machine(error, begin.file, OPENING)
            for target in self.job.targets:
                self._fail(target, refused)
        else:
            self._hand_on(begin.stage, value, kind, dict.fromkeys(begin.notes))

    def _hand_over(self, parent: int | None, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Leave a value to the stages that read it in other pools, before anything here may change it."""
        others = self.course.elsewhere.get(parent, {})
        for engine, indexes in others.items():
            stages = tuple(dict.fromkeys(target.stage for index in indexes for target in self._below(index)))
            if not stages:
                continue
            is_source = kind is PATH and str(value) == self.path
            file = Path() if is_source else self._handed_file(value, kind)
            try:
                if not is_source:
                    is_last = engine == list(others)[-1]
                    put(value, kind, file, may_move=is_last and kind is PATH and self._may_move(parent, value))
            except BaseException as error:
                for index in indexes:
                    self._fail_below(index, blame_machine(error, file, WRITING))
                continue
            begin = Begin(parent, b"" if is_source else os.fsencode(file), kind.name, tuple(notes))
            self.handed.append(Handed(engine, begin, stages))

    def _handed_file(self, value: Any, kind: ValueKind) -> Path:
        suffix = value.suffix if kind is PATH else kind.scratch_suffix
        name = f"{os.getpid()}-{time.monotonic_ns()}{suffix}"
        return self.tree.blueprint.scratch / "handed" / name

    # -- the tree ------------------------------------------------------------------------------------------------------

    def _hand_on(self, parent: int | None, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Give a value to every stage that reads it, and what they make to their outputs and to those below."""
        if self.course.elsewhere:
            self._hand_over(parent, value, kind, notes)
        children = self.course.children.get(parent)
        if not children:
            return
        wants = [self.tree.stages[index].takes or kind for index in children]
        shared = Shared(value, kind, notes, wants, self.scratch.file)
        for position, index in enumerate(children):
            if self._part is not None and not self._below(index):
                continue  # with an earlier part it went wrong, and so nothing of it is kept
            try:
                if self.tree.stages[index].fans_out:
                    self._fan_out(index, shared, position)
                    continue
                made = self._call(index, shared, position)
            except Skip as skip:
                self._leave_out(index, text_of(skip) or f"left out by stage {self._name(index)!r}")
            except Interrupted:
                raise
            except BaseException as error:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one file
                self._fail_below(index, blame_machine(error, self.scratch.folder or self.tree.blueprint.scratch, FULL))
            else:
                self._deliver(index, *made)

    def _fan_out(self, index: int, shared: Shared, position: int) -> None:
        """Take the parts of a stage one by one, each through all that is below it, and then commit them together."""
        stage, names = self.tree.stages[index], PartNames(self._name(index))
        try:
            with collected() as noted:
                given, kept = self._give(shared, position), shared.kept_path(position)
                parts = self._call_with(index, given, shared.wants[position], kept)
            if not hasattr(parts, "__next__"):
                returned = type(parts).__name__
                raise FileFailure(f"stage {names.stage!r} returned {returned}, not an iterator ({stage.where})")
            notes = shared.notes(shared.wants[position]) | noted
            while self._below(index) and self._next_part(index, parts, names, notes):
                pass
            if not names.count:
                raise FileFailure(f"stage {names.stage!r} yielded nothing; raise Skip(reason) instead ({stage.where})")
            for target in self._below(index):
                self._reveal(target, names.count)
        finally:
            self._part = None
            for each in self._parts.values():
                each.discard()
            shared.taken(position)

    def _next_part(self, index: int, parts: Iterator[Any], names: PartNames, notes: Notes) -> bool:
        """Take the next part, if there is one, through the tree; only that one is in memory."""
        stage, before = self.tree.stages[index], self.scratch.files
        assert stage.makes is not None
        with collected() as noted:
            self.enter(index)
            try:
                made = next(parts, _END)
            finally:
                self.enter(-1)
            if made is _END:
                return False
            self._refuse_changed(index)
            name, value = (made.name, made.value) if isinstance(made, Part) else (None, made)
            self._part = names.take(name)
            check_returned(stage, names.stage, value)
            made = self._made(index, value)
        try:
            self._deliver(index, *made, notes | noted)
        finally:
            self._part = None
            self.scratch.forget_after(before)
        return True

    def _reveal(self, target: Target, count: int) -> None:
        """Commit the parts of one output, if any is left of them."""
        parts = self._parts.get(target.path)
        if parts is None:
            reason = f"{count} {'part' if count == 1 else 'parts'} left out: {self._left_out[target.path]}"
            self.results[target.path] = Result(target.stage, target.path, "skipped", reason)
            return
        try:
            made = parts.reveal(self.reading.refuse_moved)
        except BaseException as error:
            self._fail(target, blame_machine(error, target.path, WRITING))
        else:
            text = "; ".join(parts.notes)
            self.results[target.path] = Result(target.stage, target.path, "done", text, parts=made)

    def _call(self, index: int, shared: Shared, position: int) -> tuple[Any, ValueKind, Notes]:
        """Call a stage with its share of a value; gives what goes on."""
        stage, wanted = self.tree.stages[index], shared.wants[position]
        try:
            with collected() as noted:
                given = self._give(shared, position)
                made = self._call_with(index, given, wanted, shared.kept_path(position))
                check_returned(stage, self._name(index), made)
                if stage.makes is None:  # whatever it noted, the value goes on untouched
                    return shared.pass_by(position, given), shared.kind, shared.notes(shared.kind)
                if wanted is PATH:
                    refuse_given(stage, self._name(index), given, made)
                if self._part is not None and stage.makes is PATH and self.scratch.holds(made):
                    self.scratch.of_part.append(made)
                return *self._made(index, made), shared.notes(wanted) | noted
        finally:
            shared.taken(position)

    def _made(self, index: int, made: Any) -> tuple[Any, ValueKind]:
        """What a stage made, as it goes on."""
        makes = self.tree.stages[index].makes
        assert makes is not None
        if makes is PATH:
            check_path(self._name(index), made, self.tree.root, self.path)
        if self.tree.nodes[index].own_colors and makes is IMAGE:
            return convert(made, makes, COLOURED, self.scratch.file), COLOURED
        return convert(made, makes, makes, self.scratch.file), makes

    def _give(self, shared: Shared, position: int) -> Any:
        """The share of a stage; what the machine refuses here is not the stage's doing."""
        try:
            return shared.give(position)
        except OSError as error:
            if shared.wants[position] is PATH:
                raise blame_machine(error, self.scratch.folder or self.path, WRITING) from error
            raise blame_machine(error, self.path, OPENING) from error

    def _call_with(self, index: int, given: Any, kind: ValueKind, kept: Path | None) -> Any:
        """Call a stage with a value; gives what it made. It must leave as it is what is `kept` for others."""
        stage, node = self.tree.stages[index], self.tree.nodes[index]
        if kind is PICTURE:
            given.least, given.own_colors = node.least, node.own_colors
        elif kind in (IMAGE, COLOURED):
            given = first_frame(given)
        handed = given
        if stage.wants_item:
            handed = Item(given, os.fsdecode(self.job.source.path), self.scratch.made(), self._part)
        conduct = Conduct(stage, node.name, kept if kept and self.scratch.holds(kept) else None)
        self.enter(index)
        try:
            made = self.tree.calls[index](handed)
        finally:
            self.enter(-1)
        conduct.check()
        if kind is PATH:
            self._refuse_changed(index)
        return made

    def _refuse_changed(self, index: int) -> None:
        if self.reading.moved():
            raise FileFailure(f"stage {self._name(index)!r} changed its input ({self.tree.stages[index].where})")

    def _deliver(self, index: int, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Commit the stage's own output, if this job is to make it, and hand the value on."""
        place = self.course.targets.get(index)
        if place is not None:
            target = self.job.targets[place]
            try:
                if self._part is not None:
                    self._commit_part(index, target, value, kind, notes)
                elif self.tree.nodes[index].leaves_no_file:
                    self.results[target.path] = Result(target.stage, target.path, "done", "; ".join(notes))
                else:
                    committed, notes = self._write(index, target.path, value, kind, notes, self.reading.refuse_moved)
                    text = "; ".join(notes)
                    self.results[target.path] = Result(target.stage, target.path, "done", text, None, "", *committed)
            except BaseException as error:
                self._fail(target, blame_machine(error, target.path, WRITING))
        self._hand_on(index, value, kind, notes)

    def _commit_part(self, index: int, target: Target, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Write the part that is on its way, under no name yet."""
        parts = self._parts.get(target.path)
        if parts is None:
            parts = self._parts[target.path] = Parts(self.job.source.path, target, self.tree.parts)
        assert self._part is not None
        if self.tree.nodes[index].leaves_no_file:
            parts.add_nothing(self._part, notes)
            return

        def commit(path: bytes, name: GiveName) -> tuple[Committed, Notes]:
            return self._write(index, path, value, kind, notes, lambda: None, name)

        parts.add(self._part, commit)

    def _write(
        self, index: int, path: bytes, value: Any, kind: ValueKind, notes: Notes, check: Check,
        name: GiveName | None = None,
    ) -> tuple[Committed, Notes]:  # fmt: skip
        """Write a value to its output, which `name` then gives its name; gives what there is to know of it."""
        committer = self.tree.committer.apart(self.job.source.path) if name else self.tree.committer
        is_last = not self.course.elsewhere.get(index)
        may_move = is_last and kind is PATH and self._may_move(index, value)
        save = self.tree.nodes[index].save
        return write_output(
            committer, path, value, kind, notes, check, name, save=save, source=self.path, may_move=may_move
        )

    def _may_move(self, index: int | None, path: Path) -> bool:
        """Whether a file may be renamed, being one that a stage made in the scratch folder; any other is copied."""
        if index is None or self.course.children.get(index) or self.tree.stages[index].is_filter:
            return False
        return self.scratch.holds(path)

    # -- what became of it ---------------------------------------------------------------------------------------------

    def _name(self, index: int) -> str:
        return self.tree.nodes[index].name

    def _below(self, index: int) -> list[Target]:
        """The targets of this job that need this stage."""
        return [
            target
            for target in self.job.targets
            if index in self.tree.route[target.stage] and target.path not in self.results
        ]

    def _leave_out(self, index: int, reason: str) -> None:
        for target in self._below(index):
            if self._part is None:
                self.results[target.path] = Result(target.stage, target.path, "skipped", reason)
            else:
                self._left_out.setdefault(target.path, reason)

    def _fail_below(self, index: int, error: BaseException) -> None:
        for target in self._below(index):
            self._fail(target, error, self._name(index))

    def _fail(self, target: Target, error: BaseException, stage: str = "") -> None:
        if isinstance(error, EnvironmentFailure):
            self.environment = error.text
        self.results[target.path] = failed(target, self.reading.blame(error), stage)

    def _fail_all(self, text: str, kind: Kind) -> None:
        for target in self.job.targets:
            self.results[target.path] = Result(target.stage, target.path, "failed", text, kind)
