"""One call of a stage: its value is converted, its contract is checked, and its exception becomes a result."""

from __future__ import annotations

import os
import threading
import traceback
from _thread import _count as count_threads  # what threading counts, which takes a lock for it
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any
from weakref import WeakSet

from pipeline.allowance import MoreMemoryNeeded
from pipeline.errors import FileFailure, FilemillError, NotOurs, SourceMoved
from pipeline.files.file_system import READING, WRITING, blame_machine
from pipeline.messages import FailureKind, Result, Target
from pipeline.notes import Notes, collected
from pipeline.stage.counted import counts
from pipeline.stage.values import IMAGE, IMAGE_IN_OWN_COLORS, PATH, PICTURE, convert, first_frame, is_kind
from pipeline.stage.values import Kind as ValueKind
from pipeline.text import one_line, shortened
from pipeline.types import Item, Part, Skip
from pipeline.worker.process_state import process_state
from pipeline.worker.scratch import Scratch
from pipeline.worker.steps import StepReporter
from pipeline.worker.tree import BuiltStage, Tree

Enter = Callable[[int], None]
"""A function that receives the index of a stage before its call, and -1 after, so that a death can be blamed."""


RefuseChangedInput = Callable[[BuiltStage, Any], None]
"""A function that receives a stage and what it has made, and raises FileFailure if its input is not as it was."""


def announce_nothing(index: int) -> None:
    """Do nothing, as the `Enter` of a process without a supervisor."""


NO_MORE = object()
"""The value that `next_part` returns after the last part; no stage can yield it."""


class SharedValue:
    """One value with several consumers: each conversion is made once, and no consumer can change the value of another.

    All consumers of a loaded value but the last get a copy. A Picture is shared, since none can change it; a file that
    is made only to be read by a program is written for each.
    """

    def __init__(
        self,
        value: Any,
        kind: ValueKind,
        notes: Notes,
        wanted: Sequence[ValueKind],
        new_file: Callable[[str], Path],
        contents: bytes | None = None,
    ) -> None:
        self.kind = kind
        self.wanted = wanted
        """The kind that each consumer wants, in the order in which they are called."""
        self._new_file = new_file
        self._contents = contents
        """The contents of the file that the value is, if they were read already."""
        self._loaded: dict[ValueKind, Any] = {kind: value}
        self._notes = notes
        self._notes_by_kind: dict[ValueKind, Notes] | None = None
        """The notes on the value up to its conversion to a kind; None before any conversion is noted apart."""

    def take(self, position: int) -> Any:
        """Return the value for the consumer at this position, converted to the kind that it takes.

        What the conversion notes for a sole consumer is left to whoever collects the notes on its call.
        """
        wanted, loaded = self.wanted[position], self._loaded
        if len(self.wanted) == 1:
            if wanted is not self.kind:
                loaded[wanted] = self._convert(wanted)
            return loaded[wanted]
        if wanted not in loaded:
            if wanted is PATH:
                return self._convert(wanted)
            with collected() as notes:
                loaded[wanted] = self._convert(wanted)
            if notes:
                self._notes_by_kind = (self._notes_by_kind or {}) | {wanted: self._notes | notes}
        return wanted.copy(loaded[wanted]) if self._is_needed_after(position, wanted) else loaded[wanted]

    def _convert(self, wanted: ValueKind) -> Any:
        if self._contents is not None and wanted.decode is not None:
            return wanted.decode(self._contents)
        return convert(self._loaded[self.kind], self.kind, wanted, self._new_file)

    def after_filter(self, position: int, taken: Any) -> Any:
        """Return the value that is passed on after a filter at this position: the value before the filter."""
        if self.wanted[position] is self.kind:
            return taken
        value = self._loaded[self.kind]
        return self.kind.copy(value) if self._is_needed_after(position, self.kind) else value

    def notes(self, kind: ValueKind) -> Notes:
        """Return the notes on the value up to its conversion to this kind."""
        return self._notes_by_kind.get(kind, self._notes) if self._notes_by_kind else self._notes

    def shared_path(self, position: int) -> Path | None:
        """Return the file for the consumer at this position if other consumers share it, else None."""
        is_shared = self.kind is PATH and self.wanted[position] is PATH and len(self.wanted) > 1
        return self._loaded[PATH] if is_shared else None

    def release(self, position: int) -> None:
        """Close the picture if no consumer after this position takes it, since its pixels take much memory."""
        picture = self._loaded.get(PICTURE)
        if picture and PICTURE not in self.wanted[position + 1 :]:
            picture.close()

    def _is_needed_after(self, position: int, kind: ValueKind) -> bool:
        later = self.wanted[position + 1 :]
        # Every conversion starts from the value itself.
        return bool(later) if kind is self.kind else kind in later


class StageCaller:
    """Calls the stages of one job, announces each call to the supervisor, and checks its result."""

    def __init__(
        self, tree: Tree, path: bytes, source: bytes, scratch: Scratch, refuse_changed_input: RefuseChangedInput,
        enter: Enter, steps: StepReporter | None,
    ) -> None:  # fmt: skip
        self.scratch = scratch
        self.steps = steps
        """The receiver of every step; None in a run."""
        self._root = tree.root
        self._path = path
        """The file that the job reads; empty for a group."""
        self._source = source
        self._refuse_changed_input = refuse_changed_input
        self._enter = enter

    def run(
        self, stage: BuiltStage, value: SharedValue, position: int, part: str | None
    ) -> tuple[Any, ValueKind, Notes]:
        """Call a stage with its share of a value; return the value to pass on. Raises any exception of the stage."""
        wanted = value.wanted[position]
        try:
            with collected() as noted:
                given = self._take(stage, value, position)
                argument = given if stage.is_given_as_taken else self._argument(stage, given, wanted, part)
                made = self.call(stage, argument, wanted, value.shared_path(position) if wanted is PATH else None)
                if stage.makes is None or not is_kind(made, stage.makes):
                    check_returned(stage, made)
                if stage.makes is None:  # whatever it noted, the value goes on untouched
                    return value.after_filter(position, given), value.kind, value.notes(value.kind)
                if wanted is PATH:
                    refuse_given(stage, given, made)
                if part is not None and stage.makes is PATH:
                    self.scratch.add_part_file(made)
                if not stage.is_passed_on_as_made:
                    made = self.accept(stage, made)
            notes = value.notes(wanted)
            return made, stage.passes_on, notes | noted if noted else notes
        finally:
            value.release(position)

    def start_parts(self, stage: BuiltStage, value: SharedValue, position: int) -> tuple[Iterator[Any], Notes]:
        """Call a fan-out stage with its share of a value; return the iterator over its parts, and the notes."""
        wanted = value.wanted[position]
        with collected() as noted:
            given = self._take(stage, value, position)
            parts = self.call(stage, self._argument(stage, given, wanted, None), wanted, value.shared_path(position))
        if not hasattr(parts, "__next__"):
            raise FileFailure(f"stage {stage.name!r} returned {type(parts).__name__}, not an iterator ({stage.where})")
        return parts, value.notes(wanted) | noted

    def next_part(self, stage: BuiltStage, parts: Iterator[Any]) -> Any:
        """Return the next part that a stage yields, or NO_MORE. Raises any exception of the stage."""
        if self.steps:
            self.steps.start_clock()
        self._enter(stage.index)
        try:
            made = next(parts, NO_MORE)
        finally:
            changed = process_state.restore()
            self._enter(-1)
        refuse_changed_process(stage, changed)
        if made is not NO_MORE:
            self._refuse_changed_input(stage, made.value if isinstance(made, Part) else made)
        return made

    def call(self, stage: BuiltStage, argument: Any, wanted: ValueKind, shared_path: Path | None = None) -> Any:
        """Call a stage; return its result. Raises any exception of the stage, and FileFailure for a breach of contract.

        `shared_path` is the file given to the stage, if other stages read it too.
        """
        if self.steps:
            return self._call_in_steps(self.steps, stage, argument, wanted, shared_path)
        made = self._call_and_check(stage, argument, shared_path)
        if wanted is PATH:
            self._refuse_changed_input(stage, made)
        return made

    def _call_in_steps(
        self, steps: StepReporter, stage: BuiltStage, argument: Any, wanted: ValueKind, shared_path: Path | None
    ) -> Any:
        """Call a stage as `call` does, and report how that ends."""
        steps.start_clock()
        try:
            made = self._call_and_check(stage, argument, shared_path)
            if wanted is PATH:
                self._refuse_changed_input(stage, made)
        except BaseException as error:
            text = error_text(error) if isinstance(error, Skip) else error_line(error)
            steps.raised(stage.name, text, error)
            raise
        if not stage.fans_out:
            steps.made(stage.name, made)
        return made

    def _call_and_check(self, stage: BuiltStage, argument: Any, shared_path: Path | None) -> Any:
        """Make a call; raise FileFailure if the stage changed its process or a shared file."""
        if shared_path is None or not self.scratch.holds(shared_path):
            return call_and_check(stage, argument, self._enter)
        before = _state_of(shared_path)
        made = call_and_check(stage, argument, self._enter)
        if _state_of(shared_path) != before:
            text = f"stage {stage.name!r} changed its input, which other stages read too"
            raise FileFailure(f"{text}; change a copy in the scratch folder of an Item ({stage.where})")
        return made

    def accept(self, stage: BuiltStage, made: Any) -> Any:
        """Return a stage's result as the value to pass on. Raises FileFailure for an unusable file."""
        makes = stage.makes
        assert makes is not None
        if makes is PATH:
            check_path(stage.name, made, self._root, os.fsdecode(self._path))
        return convert(made, makes, stage.passes_on, self.scratch.new_file)

    def _take(self, stage: BuiltStage, value: SharedValue, position: int) -> Any:
        """Take the stage's share of a value; an error of the machine on the way is not blamed on the stage."""
        if self.steps:
            self.steps.start_clock()
        try:
            given = value.take(position)
        except OSError as error:
            if value.wanted[position] is PATH:
                raise blame_machine(error, self.scratch.folder or self._path, WRITING) from error
            raise blame_machine(error, self._path, READING) from error
        if self.steps and value.wanted[position] is not value.kind:
            self.steps.converted(stage.name, value.kind, given)
        return given

    def _argument(self, stage: BuiltStage, given: Any, kind: ValueKind, part: str | None) -> Any:
        given = prepare(stage, given, kind)
        if stage.wants_item:
            return Item(given, os.fsdecode(self._source), self.scratch.create(), part)
        return given


def prepare(stage: BuiltStage, value: Any, kind: ValueKind) -> Any:
    """Return a value prepared for a stage: a Picture with its settings for decoding, or an image's first frame."""
    if kind is PICTURE:
        value.decode_for(stage.setup.decode_box, own_colors=stage.setup.own_colors)
    elif kind is IMAGE or kind is IMAGE_IN_OWN_COLORS:
        return first_frame(value)
    return value


def call_and_check(stage: BuiltStage, argument: Any, enter: Enter) -> Any:
    """Announce and make a call; return its result. Raises any exception of the stage.

    Raises FileFailure if the stage changed its process, or leaves files or threads behind.
    """
    threads = count_threads()
    enter(stage.index)
    try:
        made = stage.function(argument)
    finally:
        changed = process_state.restore()
        enter(-1)
    if changed or process_state.may_leak:
        refuse_changed_process(stage, changed)
    if count_threads() > threads:
        refuse_leaked_threads(stage)
    return made


# -- what a stage must not do ------------------------------------------------------------------------------------------


def check_returned(stage: BuiltStage, made: Any) -> None:
    """Check a result against the stage's return annotation. Raises FileFailure, and Skip if a filter returned False."""
    if stage.makes is not None and is_kind(made, stage.makes):
        return
    if made is None:
        raise FileFailure(f"stage {stage.name!r} returned None; return a value, or raise Skip(reason) ({stage.where})")
    returned = type(made).__name__
    if stage.makes is not None:
        raise FileFailure(f"stage {stage.name!r} returned {returned}, not {stage.makes.name} ({stage.where})")
    if not isinstance(made, bool):
        raise FileFailure(f"stage {stage.name!r} returned {returned}, not True or False ({stage.where})")
    if not made:
        raise Skip(f"left out by stage {stage.name!r}")


def check_path(stage: str, made: Path, root: str, source: str) -> None:
    """Raise FileFailure if a file that a stage returns is missing, or lies among the inputs of the next run."""
    shown = one_line(str(made))
    if not made.is_file():
        what = "is a folder" if made.is_dir() else "does not exist"
        raise FileFailure(f"stage {stage!r} returned the Path '{shown}', which {what}")
    if made != Path(source) and Path(root) in made.parents:
        raise FileFailure(
            f"stage {stage!r} made '{shown}' among the inputs; take an Item and write into its scratch folder"
        )


def refuse_given(stage: BuiltStage, given: Any, made: Any) -> None:
    """Raise FileFailure if a stage returns the file that it was given, so that nothing was made."""
    if isinstance(made, Path) and made == given:
        text = f"stage {stage.name!r} returned the Path of its input"
        raise FileFailure(f"{text}; return a file of its own, in the scratch folder of an Item ({stage.where})")


def refuse_changed_process(stage: BuiltStage, changed: str) -> None:
    """Raise FileFailure if a call changed its process for the next files, or has left too many files open."""
    if changed:
        text = f"stage {stage.name!r} left {changed} changed for the next files"
        raise FileFailure(f"{text}; set back what a call changes, or change it in the initializer ({stage.where})")
    if count := process_state.leaked():
        raise FileFailure(f"stage {stage.name!r} leaves its files open: there are {count} by now ({stage.where})")


# More threads than this that the calls of a stage have left running are a leak; it may well keep a few of its own.
_MAX_THREADS = 32
_known_threads: WeakSet[threading.Thread] = WeakSet(threading.enumerate())
# By the name of the stage.
_threads_left_by: dict[str, WeakSet[threading.Thread]] = {}


def refuse_leaked_threads(stage: BuiltStage) -> None:
    """Raise FileFailure if this and earlier calls of a stage have left too many threads running."""
    new = [each for each in threading.enumerate() if each not in _known_threads]
    _known_threads.update(new)
    left = _threads_left_by.setdefault(stage.name, WeakSet())
    left.update(new)
    if (count := sum(each.is_alive() for each in left)) > _MAX_THREADS:
        text = f"stage {stage.name!r} leaves its threads running: there are {count} by now"
        raise FileFailure(f"{text}; end them, or keep a few in a class ({stage.where})")


def _state_of(path: Path) -> tuple[int, int, int] | None:
    with suppress(OSError):
        found = os.stat(path)
        return found.st_ino, found.st_size, found.st_mtime_ns
    return None


# -- what it raised ----------------------------------------------------------------------------------------------------

# The package itself: its frames say nothing to the author of a stage.
_PACKAGE = Path(__file__).parents[1]


def skipped(target: Target, skip: Skip, stage: str) -> Result:
    """Return the result of an output that a stage left out."""
    return Result(target.stage, target.path, "skipped", error_text(skip) or f"left out by stage {stage!r}")


def failed(target: Target, error: BaseException, stage: str = "") -> Result:
    """Return the result of an output that an exception prevented; `stage` is empty if no stage raised it."""
    text = error_line(error)
    if stage and not isinstance(error, FilemillError):
        text = f"{text} (in stage {stage!r})"
    kind: FailureKind = "error" if isinstance(error, Exception) else "crashed"
    if isinstance(error, (MemoryError, MoreMemoryNeeded)):
        kind = "memory"
    if isinstance(error, SourceMoved):
        kind = error.kind
    result = Result(target.stage, target.path, "failed", text, kind, _traceback(error), place=_place(error))
    if isinstance(error, SourceMoved) and error.was_in_hand:
        return result._replace(code="in_hand")
    if isinstance(error, NotOurs):
        return result._replace(kind="collision", code="not_ours", taken_by=error.by)
    return result


def error_line(error: BaseException) -> str:
    """Return the type and text of an exception in one line; the text alone for our own exceptions."""
    text = error_text(error)
    if isinstance(error, FilemillError):
        return text
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def error_text(error: BaseException) -> str:
    """Return the text of an exception in one line."""
    try:
        return one_line(str(error))
    except BaseException:  # whatever a stage's own class of errors does
        return "it cannot be printed"


def _place(error: BaseException) -> str:
    """Return file and line of the last call in the user's own code that an exception came through; else empty.

    What filemill itself says of a file, such as that it is no picture, is found by any code that reads it.
    """
    if isinstance(error, FileFailure):
        return ""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if counts(frame.f_code.co_filename):
            found = one_line(f"{frame.f_code.co_filename}:{line}")
    return found


def _traceback(error: BaseException) -> str:
    """Return the traceback of an exception from the stage on; empty for our own exceptions."""
    if isinstance(error, FileFailure):
        return ""
    trace = error.__traceback__
    while trace is not None and _PACKAGE in Path(trace.tb_frame.f_code.co_filename).parents:
        trace = trace.tb_next
    if trace is None:
        return ""
    return shortened("".join(traceback.format_exception(type(error), error, trace)))
