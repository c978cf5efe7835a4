"""The fused pass: one source through the tree of stages, every value made once, every output committed."""

from __future__ import annotations

import os
import shutil
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.commit import Check, Committed, GiveName, remove_temporaries
from pipeline.errors import EnvironmentFailure, FileFailure, Interrupted, SourceMoved
from pipeline.limits import limited_to
from pipeline.messages import Job, Kind, Result, Target
from pipeline.names import one_line
from pipeline.notes import Notes, collected
from pipeline.parts import PartNames, Parts
from pipeline.reading import GONE, Reading
from pipeline.refusals import FULL, OPENING, WRITING, blame_machine
from pipeline.tree import Tree
from pipeline.types import Item, Part, Skip
from pipeline.values import COLOURED, IMAGE, PATH, PICTURE, convert, first_frame, in_memory, is_kind, write
from pipeline.values import Kind as ValueKind

_HERE = Path(__file__).parent
# What no stage can yield.
_END = object()

Enter = Callable[[int], None]
"""Told the index of the stage about to be called, and -1 after it: how a supervisor knows what killed a worker."""


class _Shared:
    """One value with several consumers: each conversion is made once, and no consumer can spoil another's.

    All consumers of a loaded value but the last get a copy. A Picture is shared, since none can change it; a file that
    is made only to be read by a program is written for each.
    """

    def __init__(
        self, value: Any, kind: ValueKind, notes: Notes, wants: list[ValueKind], scratch: Callable[[str], Path]
    ) -> None:
        self.kind = kind
        self.wants = wants
        self._scratch = scratch
        self._loaded: dict[ValueKind, Any] = {kind: value}
        self._notes: dict[ValueKind, Notes] = {kind: notes}

    def give(self, position: int) -> Any:
        """The share of the consumer at this position, of the kind it wants."""
        wanted = self.wants[position]
        if wanted not in self._loaded:
            if wanted is PATH:
                return convert(self._loaded[self.kind], self.kind, wanted, self._scratch)
            with collected() as notes:
                converted = convert(self._loaded[self.kind], self.kind, wanted, self._scratch)
            self._loaded[wanted], self._notes[wanted] = converted, self._notes[self.kind] | notes
        return wanted.copy(self._loaded[wanted]) if self._is_needed_after(position, wanted) else self._loaded[wanted]

    def notes(self, kind: ValueKind) -> Notes:
        """What was noted of the value as it is given out in this kind."""
        return self._notes.get(kind, self._notes[self.kind])

    def taken(self, position: int) -> None:
        """Close the picture once no consumer after this one wants it: its pixels are many."""
        picture = self._loaded.get(PICTURE)
        if picture and PICTURE not in self.wants[position + 1 :]:
            picture.close()

    def pass_by(self, position: int, given: Any) -> Any:
        """What goes on after a filter at this position: the value as it was before it."""
        if self.wants[position] is self.kind:
            return given
        value = self._loaded[self.kind]
        return self.kind.copy(value) if self._is_needed_after(position, self.kind) else value

    def _is_needed_after(self, position: int, kind: ValueKind) -> bool:
        later = self.wants[position + 1 :]
        # Every conversion starts from the value itself.
        return bool(later) if kind is self.kind else kind in later


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
        self._scratch: Path | None = None
        self._scratch_files = 0
        self._given_paths: set[Path] = set()
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
                if target.around[0]:
                    self.tree.parts.remove_temporaries(self.job.source.path, target.path, unclean_runs)
        try:
            self.reading.begin()
        except GONE:
            self._fail_all("the file was gone when its turn came", "vanished")
        except SourceMoved as moved:
            self._fail_all(moved.text, moved.kind)
        except (OSError, FileFailure) as error:
            self._fail_all(_said(error), "error")
        else:
            with limited_to(self.tree.blueprint.limits):
                self._hand_on(None, Path(self.path) if self.course.shows_path else self.path, PATH, {})

    def clean_up(self) -> None:
        if self._scratch is not None:
            shutil.rmtree(self._scratch, ignore_errors=True)

    # -- the tree ------------------------------------------------------------------------------------------------------

    def _hand_on(self, parent: int | None, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Give a value to every stage that reads it, and what they make to their outputs and to those below."""
        children = self.course.children.get(parent)
        if not children:
            return
        wants = [self.tree.stages[index].takes or kind for index in children]
        shared = _Shared(value, kind, notes, wants, self._scratch_file)
        for position, index in enumerate(children):
            if self._part is not None and not self._below(index):
                continue  # with an earlier part it went wrong, and so nothing of it is kept
            try:
                if self.tree.stages[index].fans_out:
                    self._fan_out(index, shared, position)
                    continue
                made = self._call(index, shared, position)
            except Skip as skip:
                self._leave_out(index, _text(skip) or f"left out by stage {self._name(index)!r}")
            except Interrupted:
                raise
            except BaseException as error:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one file
                self._fail_below(index, blame_machine(error, self._scratch or self.tree.blueprint.scratch, FULL))
            else:
                self._deliver(index, *made)

    def _fan_out(self, index: int, shared: _Shared, position: int) -> None:
        """Take the parts of a stage one by one, each through all that is below it, and then commit them together."""
        stage, names = self.tree.stages[index], PartNames(self._name(index))
        try:
            with collected() as noted:
                parts = self._call_with(index, self._give(shared, position), shared.wants[position])
            if not hasattr(parts, "__next__"):
                raise FileFailure(f"stage {names.stage!r} returned {_type(parts)}, not an iterator ({stage.where})")
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
        stage, before = self.tree.stages[index], self._scratch_files
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
            self._check(index, value)
            made = self._made(index, value)
        try:
            self._deliver(index, *made, notes | noted)
        finally:
            self._part = None
            self._forget_scratch_files(before)
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

    def _call(self, index: int, shared: _Shared, position: int) -> tuple[Any, ValueKind, Notes]:
        """Call a stage with its share of a value; gives what goes on."""
        stage, wanted = self.tree.stages[index], shared.wants[position]
        try:
            with collected() as noted:
                given = self._give(shared, position)
                made = self._call_with(index, given, wanted)
                self._check(index, made)
                if stage.makes is None:  # whatever it noted, the value goes on untouched
                    return shared.pass_by(position, given), shared.kind, shared.notes(shared.kind)
                if wanted is PATH and made == given:  # it may be a sibling's too, and must be copied
                    self._given_paths.add(given)
                return *self._made(index, made), shared.notes(wanted) | noted
        finally:
            shared.taken(position)

    def _made(self, index: int, made: Any) -> tuple[Any, ValueKind]:
        """What a stage made, as it goes on."""
        makes = self.tree.stages[index].makes
        assert makes is not None
        if makes is PATH:
            self._check_path(index, made)
        if self.tree.nodes[index].own_colours and makes is IMAGE:
            return convert(made, makes, COLOURED, self._scratch_file), COLOURED
        return convert(made, makes, makes, self._scratch_file), makes

    def _give(self, shared: _Shared, position: int) -> Any:
        """The share of a stage; what the machine refuses here is not the stage's doing."""
        try:
            return shared.give(position)
        except OSError as error:
            if shared.wants[position] is PATH:
                raise blame_machine(error, self._scratch or self.path, WRITING) from error
            raise blame_machine(error, self.path, OPENING) from error

    def _call_with(self, index: int, given: Any, kind: ValueKind) -> Any:
        """Call a stage with a value; gives what it made."""
        stage, node = self.tree.stages[index], self.tree.nodes[index]
        if kind is PICTURE:
            given.least, given.own_colours = node.least, node.own_colours
        elif kind in (IMAGE, COLOURED):
            given = first_frame(given)
        handed = given
        if stage.wants_item:
            handed = Item(given, os.fsdecode(self.job.source.path), self._scratch_folder(), self._part)
        self.enter(index)
        try:
            made = self.tree.calls[index](handed)
        finally:
            self.enter(-1)
        if kind is PATH:
            self._refuse_changed(index)
        return made

    def _refuse_changed(self, index: int) -> None:
        if self.reading.moved():
            raise FileFailure(f"stage {self._name(index)!r} changed its input")

    def _check(self, index: int, made: Any) -> None:
        """Hold a stage to its return annotation. Raises Skip where a filter says no."""
        stage = self.tree.stages[index]
        if stage.makes is not None and is_kind(made, stage.makes):
            return
        name = self._name(index)
        if made is None:
            raise FileFailure(f"stage {name!r} returned None; return a value, or raise Skip(reason) ({stage.where})")
        if stage.makes is None:
            if not isinstance(made, bool):
                raise FileFailure(f"stage {name!r} returned {_type(made)}, not True or False ({stage.where})")
            if not made:
                raise Skip(f"left out by stage {name!r}")
        else:
            raise FileFailure(f"stage {name!r} returned {_type(made)}, not {stage.makes.name} ({stage.where})")

    def _check_path(self, index: int, made: Path) -> None:
        """A file that a stage returns must be there, and not among the inputs, where the next run would read it."""
        name, shown = self._name(index), one_line(str(made))
        if not made.is_file():
            what = "is a folder" if made.is_dir() else "does not exist"
            raise FileFailure(f"stage {name!r} returned the Path '{shown}', which {what}")
        root = Path(os.fsdecode(self.tree.blueprint.root))
        if made != Path(self.path) and root in made.parents:
            raise FileFailure(
                f"stage {name!r} made '{shown}' among the inputs; take an Item and write into its scratch folder"
            )

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
        data = in_memory(value, kind)
        if data is not None:
            return committer.put(path, data, check, name), notes
        if kind is PATH and self._may_move(index, value) and (moved := committer.move(value, path, check, name)):
            return moved, notes
        save, suffix = dict(self.tree.nodes[index].save), os.path.splitext(os.fsdecode(path))[1]

        def fill(file: BinaryIO) -> None:
            write(value, kind, file, suffix, save, Path(self.path))

        with collected() as noted:
            return committer.write(path, fill, check, name), notes | noted

    def _may_move(self, index: int, path: Path) -> bool:
        """Whether a file may be renamed, being one that a stage made in the scratch folder; any other is copied."""
        if self.course.children.get(index) or self._scratch is None or path in self._given_paths:
            return False
        return not path.is_symlink() and self._scratch in path.resolve().parents

    # -- the scratch folder --------------------------------------------------------------------------------------------

    def _scratch_folder(self) -> Path:
        if self._scratch is None:
            self._scratch = self.tree.blueprint.scratch / str(os.getpid())
            try:
                self._scratch.mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise blame_machine(error, self._scratch, WRITING) from error
        return self._scratch

    def _scratch_file(self, suffix: str) -> Path:
        self._scratch_files += 1
        return self._scratch_folder() / f"value-{self._scratch_files}{suffix}"

    def _forget_scratch_files(self, before: int) -> None:
        """Remove what was written for the part that is through: a file may have thousands."""
        for number in range(before + 1, self._scratch_files + 1):
            for file in self._scratch_folder().glob(f"value-{number}.*"):
                file.unlink(missing_ok=True)

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
        error = self.reading.blame(error)
        text = _said(error)
        if stage and not isinstance(error, FileFailure):
            text = f"{text} (in stage {stage!r})"
        kind: Kind = "error" if isinstance(error, Exception) else "crashed"
        if isinstance(error, MemoryError):
            kind = "memory"
        if isinstance(error, SourceMoved):
            kind = error.kind
        self.results[target.path] = Result(target.stage, target.path, "failed", text, kind, _traceback(error))

    def _fail_all(self, text: str, kind: Kind) -> None:
        for target in self.job.targets:
            self.results[target.path] = Result(target.stage, target.path, "failed", text, kind)


def _said(error: BaseException) -> str:
    """An exception in one line."""
    text = _text(error)
    if isinstance(error, FileFailure):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _text(error: BaseException) -> str:
    try:
        return one_line(str(error))
    except Exception:
        return "it cannot be printed"


def _traceback(error: BaseException) -> str:
    """Where an exception came from, less our own frames; nothing where we raised it ourselves, and said all there."""
    if isinstance(error, FileFailure):
        return ""
    trace = error.__traceback__
    while trace is not None and Path(trace.tb_frame.f_code.co_filename).parent == _HERE:
        trace = trace.tb_next
    return "".join(traceback.format_exception(type(error), error, trace)) if trace is not None else ""


def _type(value: Any) -> str:
    return type(value).__name__
