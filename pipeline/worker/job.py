"""One job: a source passes through the tree of stages, every value is made once, every output committed."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import EnvironmentFailure, FileFailure, Interrupted, SourceMoved
from pipeline.files.atomic import Committed, GiveName, remove_temporaries
from pipeline.files.file_system import FULL, READING, WRITING, blame_machine, describe, is_of_file
from pipeline.files.permissions import Permissions, permissions_of
from pipeline.images import limited_to
from pipeline.messages import Begin, FailureKind, Handed, Job, Outcome, Result, Target
from pipeline.notes import Notes
from pipeline.observer import RunObserver
from pipeline.records import NamedTuple
from pipeline.stage.handoff import put, take
from pipeline.stage.values import PATH, convert, is_kind
from pipeline.stage.values import Kind as ValueKind
from pipeline.text import shown
from pipeline.types import Skip
from pipeline.worker.call_times import call_times
from pipeline.worker.fan_out import FanOut
from pipeline.worker.scratch import Scratch, naming_of, peak_meter, write_output
from pipeline.worker.source import GONE, SourceReading
from pipeline.worker.stage_call import Enter, SharedValue, StageCaller, error_line, failed, skipped
from pipeline.worker.steps import StepReporter
from pipeline.worker.tree import BuiltStage, Tree


class Taken(NamedTuple):
    """What was done of a job when it turned out to need a JobRunner."""

    began_s: float
    found: os.stat_result
    """The state of the source when it was read."""
    data: bytes
    """The contents of the source."""
    source_digest: bytes
    results: Sequence[Result]
    """The results of the outputs that are committed."""
    stage: BuiltStage
    """The stage that was called last."""
    value: Any
    """What the stage made; of no meaning where it raised."""
    notes: Notes
    """The notes on the value."""
    error: BaseException | None
    """What the stage raised."""
    refused: BaseException | None
    """What prevented that its value was committed; None if that is yet to be tried, or was not to be."""


class JobRunner:
    """Runs one job: gives each value to the stages that read it, and commits those that are outputs.

    There is one for every job, so the constructor sets only what nearly every job needs.
    """

    _environment = ""
    """The text of an error of the machine, such as a full disk; empty if there was none."""
    _refused: Literal["", "source", "folder"] = ""
    """What alone the machine refused, if there was such an error."""
    _moved_under = ""
    """The first stage under which the source changed or vanished."""
    _handed: tuple[Handed, ...] = ()
    """The values left for other engines."""
    _fan_out: FanOut | None = None
    """The fan-out whose parts are being processed; None outside a fan-out."""
    _steps: StepReporter | None = None
    """The receiver of every step; None in a run."""
    _most: Permissions | None = None
    """The permissions that no output of the source exceeds unless the pipeline says so; None before the first."""

    def __init__(self, tree: Tree, job: Job, enter: Enter, observer: RunObserver | None = None) -> None:
        self._tree = tree
        self._job = job
        self._route = tree.routes[tuple([target.stage for target in job.targets])]
        self._path = tree.root_bytes + job.source.path
        self._reading = SourceReading(self._path, job.source, hashes=tree.setup.hashes_sources or job.is_digested)
        self._scratch = Scratch(tree.setup.scratch, tree.setup.folder, self._path)
        if observer:
            self._steps = StepReporter(observer)
        # No method of this object: a cycle of references would keep it, and the contents of its source, for a while.
        refuse_moved = partial(_refuse_moved_under, self._reading, self._scratch)
        self._caller = StageCaller(tree, self._path, job.source.path, self._scratch, refuse_moved, enter, self._steps)
        self._results: dict[bytes, Result] = {}

    def run(self, taken: Taken | None = None) -> Outcome:
        """Make the outputs of the job, or those that are left to make; any failure is in the outcome."""
        began_s = time.perf_counter() if taken is None else taken.began_s
        try:
            if taken is None:
                peak_meter.begin()
                self._run()
            else:
                self._go_on(taken)
        finally:
            if self._scratch.folder:
                self._remove_scratch()
        results = tuple([self._results[each.path] for each in self._job.targets if each.path in self._results])
        reading = self._reading
        outcome = Outcome(
            reading.source, results, time.perf_counter() - began_s, self._environment, self._refused,
            source_digest=reading.digest, peak_bytes=peak_meter.take(),
        )  # fmt: skip
        if self._handed:
            outcome = outcome._replace(handed=self._handed)
        if (read := reading.contents) is not None and read.was_at_rest:
            outcome = outcome._replace(source_ctime_ns=read.ctime_ns)
        return outcome

    def _run(self) -> None:
        setup, begin = self._tree.setup, self._job.begin
        if setup.unclean_runs:
            for target in self._job.targets:
                remove_temporaries(target.path, setup.unclean_runs)
        if not self._begin_reading(begin):
            return
        with limited_to(setup.limits):
            if begin is None:
                source = self._source_file if self._route.needs_path else self._path
                self._pass_on(None, source, PATH, {})
            else:
                self._resume(begin)

    def _go_on(self, taken: Taken) -> None:
        """Go on after the call of a stage."""
        self._reading.resume(taken.found, taken.data, taken.source_digest)
        self._results.update({each.path: each for each in taken.results})
        with limited_to(self._tree.setup.limits):
            if taken.error is not None:
                self._end_below(taken.stage, taken.error)
            elif taken.refused is None:
                self._finish(taken.stage, taken.value, taken.stage.passes_on, taken.notes)
            else:
                target = self._job.targets[self._route.targets[taken.stage.index]]
                self._fail(target, self._tree.committer.blame(taken.refused, target.path))
                self._pass_on(taken.stage.index, taken.value, taken.stage.passes_on, taken.notes)

    def _begin_reading(self, begin: Begin | None) -> bool:
        """Take the present state of the source; return whether it can be read, else all targets have failed."""
        try:
            self._reading.begin()
            if begin and self._reading.source != self._job.source:
                raise SourceMoved("changed")
        except GONE:
            if begin and begin.file:  # what another engine has handed over may be all that is left of the source
                self._keep(begin.file, begin.file)
            if self._job.is_again:
                self._fail_all("vanished while a worker that died had it in hand", "vanished", is_in_hand=True)
            else:
                self._fail_all("the file was gone when its turn came", "vanished")
        except SourceMoved as moved:
            self._fail_all(moved.text, moved.kind)
        except (OSError, FileFailure, EnvironmentFailure) as error:
            for target in self._job.targets:
                self._fail(target, blame_machine(error, self._path, READING))
        else:
            return True
        return False

    @property
    def _source_file(self) -> Path:
        return Path(os.fsdecode(self._path))

    @property
    def _most_permissions(self) -> Permissions:
        if self._most is None:
            self._most = permissions_of(self._path, self._reading.mode, self._reading.group)
        return self._most

    # -- values --------------------------------------------------------------------------------------------------------

    def _pass_on(self, parent: int | None, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Call every stage that reads a value, and pass on the value that each makes."""
        route = self._route
        if route.readers_elsewhere:
            self._hand_over(parent, value, kind, notes)
        readers = route.readers.get(parent)
        if not readers:
            return
        contents = self._reading.data if parent is None else None
        wanted = [stage.takes or kind for stage in readers]
        shared = SharedValue(value, kind, notes, wanted, self._scratch.new_file, contents)
        for position, stage in enumerate(readers):
            if self._fan_out is not None and not self._unfinished_below(stage):
                continue  # an earlier part of the output has failed, and so nothing of it is kept
            try:
                if stage.fans_out:
                    self._run_fan_out(stage, shared, position)
                    continue
                part = self._fan_out.part if self._fan_out else None
                made = self._caller.run(stage, shared, position, part)
            except Interrupted:
                raise
            except BaseException as error:  # SystemExit and KeyboardInterrupt too: a stage's whim costs one file
                self._end_below(stage, error)
            else:
                self._finish(stage, *made)

    def _blame(self, error: BaseException) -> BaseException:
        """Return the reason why a stage failed, which is the machine's fault on a full disk or a lost source."""
        if is_of_file(error, self._path):
            return blame_machine(error, self._path, READING)
        return blame_machine(error, self._scratch.folder or self._tree.setup.scratch, FULL)

    def _run_fan_out(self, stage: BuiltStage, shared: SharedValue, position: int) -> None:
        """Pass the parts of a stage one by one through all stages below it, then commit them together."""
        fan_out = FanOut(stage, self._caller, self._tree.set_aside, is_again=self._job.is_again)
        mark = call_times.begin_fan_out(stage.index)
        try:
            parts, notes = self._caller.start_parts(stage, shared, position)
            while self._unfinished_below(stage) and self._run_part(fan_out, stage, parts, notes):
                call_times.join_fan_out(stage.index, mark)
            for target in self._unfinished_below(stage):
                try:
                    self._results[target.path] = fan_out.commit(target, self._reading.refuse_moved)
                except BaseException as error:
                    self._fail(target, self._tree.committer.blame(error, target.path))
        finally:
            call_times.join_fan_out(stage.index, mark)
            try:
                if self._reading.has_vanished:
                    fan_out.keep(self._keep)
            finally:
                fan_out.discard()
                shared.release(position)

    def _finish(self, stage: BuiltStage, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Commit the output of a stage, if this job makes it, and pass the value on."""
        position = self._route.targets.get(stage.index)
        if position is not None:
            target = self._job.targets[position]
            try:
                if self._fan_out is not None:
                    self._write_part(self._fan_out, stage, target, value, kind, notes)
                elif stage.setup.leaves_no_file:
                    self._results[target.path] = Result(target.stage, target.path, "done", notes=tuple(notes.items()))
                else:
                    name = naming_of(target, self._tree.set_aside, is_again=self._job.is_again)
                    committed, notes = self._write(stage, target.path, value, kind, notes, self._unless_moved(name))
                    said = tuple(notes.items())
                    self._results[target.path] = Result(
                        target.stage, target.path, "done", "", None, "", *committed, (), said
                    )
            except BaseException as error:
                self._fail(target, self._tree.committer.blame(error, target.path))
        self._pass_on(stage.index, value, kind, notes)

    def _run_part(self, fan_out: FanOut, stage: BuiltStage, parts: Iterator[Any], notes: Notes) -> bool:
        """Pass the next part through all stages below its own, and release it; return False after the last."""
        begun = self._scratch.begin_part()
        made = fan_out.next_part(parts, notes)
        if made is None:
            return False
        self._fan_out = fan_out
        try:
            self._finish(stage, *made)
        finally:
            self._fan_out = None
            self._scratch.end_part(begun)
        return True

    # -- outputs -------------------------------------------------------------------------------------------------------

    def _write_part(
        self, fan_out: FanOut, stage: BuiltStage, target: Target, value: Any, kind: ValueKind, notes: Notes
    ) -> None:
        """Write the current part; it gets its name together with all others."""

        def write(path: bytes, name: GiveName) -> tuple[Committed, Notes]:
            return self._write(stage, path, value, kind, notes, name)

        fan_out.write(target, None if stage.setup.leaves_no_file else write, notes)

    def _write(
        self, stage: BuiltStage, path: bytes, value: Any, kind: ValueKind, notes: Notes, name: GiveName
    ) -> tuple[Committed, Notes]:
        """Write a value to its output; `name` renames the temporary, or notes that of a part for later."""
        committer = self._tree.committer
        if self._fan_out is not None:
            committer = committer.apart(self._job.source.path)
        may_move = kind is PATH and not self._route.readers_elsewhere.get(stage.index) and self._may_move(stage, value)
        if self._steps:
            self._steps.start_clock()
        committed, notes = write_output(
            committer, path, value, kind, notes, _accept, name, permissions=stage.permissions(self._most_permissions),
            save=stage.setup.save, source=self._path, may_move=may_move,
        )  # fmt: skip
        if self._steps:
            self._steps.wrote(stage.name, path, committed.size_bytes)
        return committed, notes

    def _may_move(self, stage: BuiltStage, path: Path) -> bool:
        """Return whether a file may be renamed: the stage made it in the scratch folder, and no other reads it."""
        return not self._route.readers.get(stage.index) and not stage.is_filter and self._scratch.holds(path)

    # -- a source that moves -------------------------------------------------------------------------------------------

    def _unless_moved(self, name: GiveName) -> GiveName:
        """Return a function that names a temporary unless the source has moved; if it is gone, it is set aside."""

        def check_and_name(temporary: bytes, target: bytes) -> None:
            if moved := self._reading.moved():
                if moved.kind == "vanished" or self._reading.is_source(temporary):
                    self._keep(temporary, target)
                raise moved
            name(temporary, target)

        return check_and_name

    def _keep(self, file: bytes, target: bytes) -> None:
        """Set aside a file that was made of the source, which is gone, and was to be a target.

        Where the state's disk has no room for it, it stays where it is under a name of its own. Raises
        EnvironmentFailure then, which tells that name.
        """
        try:
            self._tree.set_aside.keep_made(file, self._path, os.path.splitext(target)[1])
        except OSError as error:
            folder = os.path.dirname(file)
            if self._scratch.folder and self._scratch.holds(Path(os.fsdecode(file))):
                raise  # its folder is left for the next run
            name = os.path.basename(self._path)
            kept = os.path.join(folder, b".kept-%d-%s" % (time.monotonic_ns(), name))
            os.rename(file, kept)
            said = f"what was made of {shown(self._path)}, which is gone, is kept as {shown(kept)}"
            raise EnvironmentFailure(f"{describe(error, self._tree.setup.set_aside)}; {said}") from error

    def _remove_scratch(self) -> None:
        """Remove the scratch folder; if the source is gone, the files in it are set aside, else the source itself."""
        try:
            for file in self._scratch.files():
                if self._reading.is_source(file):
                    self._keep(file, file)
            self._scratch.remove(self._tree.setup.set_aside)
        except OSError as error:
            self._environment = describe(error, self._tree.setup.set_aside)

    # -- other engines -------------------------------------------------------------------------------------------------

    def _resume(self, begin: Begin) -> None:
        """Continue with a value from another engine."""
        try:
            value, kind = take(begin, self._source_file)
        except OSError as error:
            refused = blame_machine(error, begin.file, READING)
            for target in self._job.targets:
                self._fail(target, refused)
        else:
            self._pass_on(begin.stage, value, kind, dict(begin.notes))

    def _hand_over(self, parent: int | None, value: Any, kind: ValueKind, notes: Notes) -> None:
        """Hand a value over to its readers in other engines, before any stage here may change it."""
        engines = self._route.readers_elsewhere.get(parent, {})
        for engine, readers in engines.items():
            stages = tuple(dict.fromkeys(target.stage for each in readers for target in self._unfinished_below(each)))
            if not stages:
                continue
            is_source = kind is PATH and os.fsencode(value) == self._path
            file = Path() if is_source else self._handed_file(value, kind)
            try:
                if not is_source:
                    is_last = engine == list(engines)[-1]
                    made_by = None if parent is None else self._tree.stages[parent]
                    may_move = is_last and kind is PATH and made_by is not None and self._may_move(made_by, value)
                    put(value, kind, file, may_move=may_move)
            except BaseException as error:
                for stage in readers:
                    self._fail_below(stage, blame_machine(error, file, WRITING))
                continue
            begin = Begin(parent, b"" if is_source else os.fsencode(file), kind.name, tuple(notes.items()))
            self._handed += (Handed(engine, begin, stages),)

    def _handed_file(self, value: Any, kind: ValueKind) -> Path:
        suffix = value.suffix if kind is PATH else kind.scratch_suffix
        return self._tree.setup.scratch / "handed" / f"{os.getpid()}-{time.monotonic_ns()}{suffix}"

    # -- results -------------------------------------------------------------------------------------------------------

    def _unfinished_below(self, stage: BuiltStage) -> list[Target]:
        """Return the targets of this job at or below a stage that have no result yet."""
        ancestry = self._tree.ancestry
        return [
            target
            for target in self._job.targets
            if stage.index in ancestry[target.stage] and target.path not in self._results
        ]

    def _end_below(self, stage: BuiltStage, error: BaseException) -> None:
        """Skip or fail what is at or below a stage, which has raised an exception."""
        if isinstance(error, Skip):
            self._skip_below(stage, error)
        else:
            self._fail_below(stage, self._blame(error))

    def _skip_below(self, stage: BuiltStage, skip: Skip) -> None:
        moved = self._reading.moved()
        if moved and (moved.kind == "vanished" or self._had_path(stage.name)):
            self._fail_below(stage, moved)
            return
        for target in self._unfinished_below(stage):
            result = skipped(target, skip, stage.name)
            if self._fan_out is None:
                self._results[target.path] = result
            else:
                self._fan_out.skip(target, result.text)

    def _fail_below(self, stage: BuiltStage, error: BaseException) -> None:
        for target in self._unfinished_below(stage):
            self._fail(target, error, stage.name)

    def _fail(self, target: Target, error: BaseException, stage: str = "") -> None:
        if isinstance(error, EnvironmentFailure):
            self._environment = error.text
            self._refused = error.refused
        if self._steps:
            self._steps.failed(target.stage, error_line(error), error)
        error = self._reading.blame(error)
        if isinstance(error, SourceMoved) and not error.was_in_hand and stage and self._had_path(stage):
            error = SourceMoved(error.kind, f"{stage!r} ({self._tree.stages[self._tree.index[stage]].where})")
        result = failed(target, error, stage)
        if isinstance(error, SourceMoved) or self._reading.has_vanished:
            self._moved_under = self._moved_under or stage or target.stage
            result = result._replace(moved_under=self._moved_under)
        self._results[target.path] = result

    def _had_path(self, stage: str) -> bool:
        """Return whether a stage, or one above it, was given the path of the source, be it by a filter."""
        ancestry, stages = self._tree.ancestry, self._tree.stages
        return any(
            stages[index].takes is PATH
            and all(stages[above].is_filter for above in ancestry[stages[index].name] if above != index)
            for index in ancestry[stage]
        )

    def _fail_all(self, text: str, kind: FailureKind, *, is_in_hand: bool = False) -> None:
        for target in self._job.targets:
            result = Result(target.stage, target.path, "failed", text, kind)
            if is_in_hand:
                result = result._replace(code="in_hand", moved_under=target.stage)
            self._results[target.path] = result


def _accept() -> None:
    """Permit an output to be written: whoever gives it its name checks the source."""


def _refuse_moved_under(reading: SourceReading, scratch: Scratch, stage: BuiltStage, made: Any) -> None:
    """Raise SourceMoved if the source changed or vanished while a stage had its path, after keeping what it made.

    What was made of a source that is gone may be all that is left of it: a value goes to the scratch folder, which
    is kept at the end.
    """
    moved = reading.moved()
    if moved is None:
        return
    if moved.kind == "vanished" and stage.makes not in (None, PATH) and is_kind(made, stage.makes):
        convert(made, stage.makes, PATH, scratch.new_file)
    raise SourceMoved(moved.kind, f"{stage.name!r} ({stage.where})")
