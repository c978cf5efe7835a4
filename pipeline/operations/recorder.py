"""Records a run as it proceeds: rows in the ledger, lines in the log, counts in the summary."""

from __future__ import annotations

import os
import time
import traceback
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from itertools import islice
from typing import TextIO, TypeVar

from pipeline.config.model import Errors
from pipeline.engines.made_jobs import MadeJobs
from pipeline.errors import HELD_ONLY, TIME_IS_UP, EnvironmentFailure, PolicyStop
from pipeline.files.atomic import remove_temporaries
from pipeline.files.file_system import has_no_file
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import key_of
from pipeline.messages import KILLED, MOVED, GroupJob, InHand, Job, Origin, Outcome, Result
from pipeline.observer import RunObserver
from pipeline.planning.decisions import Reason, text_of
from pipeline.planning.learnt import Learnt
from pipeline.planning.made_ranges import MadeRanges
from pipeline.planning.recipe import OutputSpec, Recipe, with_unknown_code
from pipeline.planning.recorded_parts import RecordedParts
from pipeline.planning.same_file import SameFileFinder
from pipeline.report.summary import Summary
from pipeline.text import indented, printable

J = TypeVar("J", Job, GroupJob)

# Seconds between commits of the ledger: what a killed run may have to redo.
COMMIT_EVERY_S = 0.1
# Seconds after which what was learnt of the cost of jobs is kept, for the run after a killed one.
_KEEP_LEARNT_EVERY_S = 5.0
# Jobs whose targets are recorded as intended together.
INTEND_AHEAD = 1024
# How many files in a row may move under one stage: so many at a time are no accident of somebody else's.
_MAX_MOVED = 3
# How many files in a row may be unreadable by the machine's fault: so many are no bad sectors, the disk is gone.
_MAX_UNREACHABLE = 3
# The graver exit code wins; a signal is graver than all of these.
_BY_GRAVITY = (0, HELD_ONLY, TIME_IS_UP, 1, 4, 2, 3, 70)


class RunLog:
    """The log file of a run, the notes of its summary, and the reason it stops early, if it does."""

    def __init__(self, file: TextIO, summary: Summary) -> None:
        self.summary = summary
        self._file = file

    @property
    def is_stopped(self) -> bool:
        """True if no more jobs may be started."""
        return bool(self.summary.stopped)

    def write(self, text: str) -> None:
        """Write one or more lines to the log; nothing in them acts on the terminal of whoever looks at it."""
        with suppress(OSError):  # a full disk must not hide what is to be said about it
            self._file.write(f"{printable(text)}\n")

    def note(self, text: str, *, is_routine: bool = False) -> None:
        """Add a note to the summary, and write it to the log; what is routine is no news even if it was never said."""
        self.summary.notes.append(text)
        if not is_routine:
            self.summary.new_notes.append(text)
        self.write(text)

    def stop(self, exit_code: int, why: str) -> None:
        """Make the run stop early with an exit code; of several causes the gravest counts.

        Files that failed may be graver than the one cause.
        """
        self.write(f"stopped: {why}")
        if self.end_with(exit_code) or not self.is_stopped:
            self.summary.stopped = why

    def end_with(self, exit_code: int) -> bool:
        """Have the run end with an exit code, unless that of another cause is as grave; return whether it will."""
        is_graver = gravity(exit_code) > gravity(self.summary.exit)
        self.summary.exit = exit_code if is_graver else self.summary.exit
        return is_graver

    def report_observer(self, observer: RunObserver, error: Exception) -> None:
        """Note that an observer failed and observes no more; its traceback goes to the log."""
        self.note(f"{type(observer).__name__} failed and was left out from then on: {error!r}")
        self.write("".join(traceback.format_exception(error)))


class Recorder:
    """Records the outcome of every job in the ledger, the log and the summary, and then notifies the observers."""

    def __init__(
        self,
        ledger: Ledger,
        log: RunLog,
        observers: RunObserver,
        leaves: Sequence[OutputSpec],
        errors: Errors,
        learnt: Learnt,
        parts: RecordedParts | None = None,
        root: bytes = b"",
    ) -> None:
        self.planned_files = 0
        """The number of files planned for the run."""
        self._is_whole = False
        """True once it is known how many files the run has work for."""
        self.done_files = 0
        """The number of planned files that have ended, whatever their results."""
        self._ledger = ledger
        self._log = log
        self._summary = log.summary
        self._observers = observers
        self._templates = {leaf.stage: leaf.template for leaf in leaves}
        self._recipes = {leaf.stage: leaf.number for leaf in leaves if leaf.number is not None}
        self._errors = errors
        self._root = root
        self._folder = os.path.join(os.path.dirname(self._summary.yaml), "")
        """The folder of pipeline.yaml."""
        self._leaves = leaves
        self.is_streaming = False
        """True while jobs run whose rivals are neither on record nor in the plan yet."""
        self.made_ranges: MadeRanges | None = None
        """The ranges of a first run; None in any other."""
        self._unnamed: list[Outcome] = []
        """The outcomes of jobs whose path another has that is not known yet."""
        self.made: Counter[int] = Counter()
        """The number of outputs made, by the number of their recipe."""
        self._parts = parts
        self.same_files: SameFileFinder | None = None
        """Finder of the sources whose outputs have the same path; None before there is a plan."""
        self._routes = {leaf.stage: [stage.name for stage in leaf.route] for leaf in leaves}
        self._moved_in_a_row: Counter[str] = Counter()
        """The number of files in a row whose source changed or vanished under a stage, by the name of the stage."""
        self._unreachable_in_a_row = 0
        self.refused: list[str] = []
        """What the machine refused of single files, in words."""
        self.origins_cut_off: list[Origin] = []
        """The sources and groups that workers had in hand when the run was stopped at once."""
        self._failed_on_their_way: set[bytes] = set()
        """The files that failed in one pool and are still expected from another."""
        self._spent_s: dict[bytes, float] = {}
        """The seconds that a file has taken in one pool, as long as another goes on with it."""
        self._learnt = learnt
        self._committed_at = self._learnt_kept_at = time.monotonic()

    def expect(self, files: int) -> None:
        """Count the files of the plan, once it is whole, or its groups."""
        self.planned_files += files
        self._is_whole = True
        self._observers.on_planned(files)
        self._check_errors()

    def intended(self, jobs: Iterator[J]) -> Iterator[J]:
        """Yield the jobs, each after its targets are recorded as intended."""
        while ahead := list(islice(jobs, INTEND_AHEAD)):
            self.intend(ahead)
            yield from ahead

    def intend(self, jobs: Sequence[J]) -> None:
        """Record the targets of jobs as intended, before the jobs are handed out."""
        self._ledger.begin()
        self._ledger.intend(jobs, self._key)
        self.commit()

    def cut_off(self, jobs: Sequence[InHand]) -> None:
        """Record the jobs that workers are running as the run ends without waiting for them; it counts no attempt."""
        self._ledger.begin()
        for each in jobs:
            where = f" in stage {each.stage!r}" if each.stage else ""
            text = f"cut off after {each.seconds:,.1f} s{where}, since the run was stopped"
            self._log.write(f"{each.job.origin}: {text}")
            self._summary.cut_off.append(f"{each.job.origin}: {text}")
            self.origins_cut_off.append(each.job.origin)
            for target in each.job.targets:
                result = Result(target.stage, target.path, "failed", text, "interrupted")
                self._ledger.record_cut_off(Outcome(each.job.origin, ()), result, self._recipes.get(target.stage))
        self.commit()

    def refuse(self, outcome: Outcome) -> None:
        """Record an output that the plan refused, so that no worker tried to make it."""
        self._record(outcome, is_attempt=False)

    def record_made(self, outcomes: MadeJobs) -> None:
        """Record the outcomes of jobs that made all that they were to make."""
        if self._parts or self._moved_in_a_row or self._failed_on_their_way:
            for outcome in outcomes:
                self.record(outcome)
            return
        self._unreachable_in_a_row = 0
        self._ledger.begin()
        for stages, jobs, rows, seat in outcomes.groups:
            self._ledger.record_made(stages, jobs, rows, seat, self._key, self._recipes)
            self._learnt.add_made(stages, jobs, rows)
            if self.made_ranges:
                self.made_ranges.add(stages, jobs, rows)
            self._summary.done += len(stages) * len(jobs)
            for stage in stages:
                self.made[self._recipes[stage]] += len(jobs)
        self.done_files += len(outcomes)
        self._observers.on_outcomes(outcomes)

    def record(self, outcome: Outcome) -> None:
        """Record the outcome of a job, and stop the run if too many files have failed."""
        if outcome.refused:
            self._record_refused(outcome)
            return
        if self.is_streaming and any(each.taken_by and not self._rival_of(each) for each in outcome.results):
            self._unnamed.append(outcome)
            return
        if outcome.environment:
            self._log.stop(EnvironmentFailure.exit_code, outcome.environment)
            # What the machine did not let us write is no attempt of the file's.
            kept = tuple(result for result in outcome.results if result.status != "failed")
            outcome = outcome._replace(results=kept)
        self._unreachable_in_a_row = 0
        self._learnt.add(outcome)
        self._count_moved(outcome)
        failed_before = self._summary.failed
        outcome = self._record(outcome, is_attempt=True)
        if self._summary.failed > failed_before:
            self._count_failed(outcome)
        self._end(outcome)

    def record_unnamed(self) -> None:
        """Record the outcomes that waited until all others are on record, since another job may have their path."""
        self.is_streaming = False
        if self._unnamed and self.same_files:
            self.same_files.read_again()
        for outcome in self._unnamed:
            self.record(outcome)
        self._unnamed.clear()

    def _record_refused(self, outcome: Outcome) -> None:
        """Record what the machine refused of one file: no attempt of the file's, and no reason to leave the others."""
        self._unreachable_in_a_row += outcome.refused == "source"
        self.refused.append(outcome.environment)
        outcome = self._record(outcome, is_attempt=False)
        if self._unreachable_in_a_row >= _MAX_UNREACHABLE:
            text = f"{self._unreachable_in_a_row} files in a row cannot be read: {outcome.environment}"
            self._log.stop(EnvironmentFailure.exit_code, text)
        self._end(outcome)

    def _end(self, outcome: Outcome) -> None:
        if not outcome.goes_on:
            if outcome.source:
                self._failed_on_their_way.discard(outcome.source.path)
            self.done_files += 1
        self._observers.on_outcome(outcome)

    def record_as_stale(self, outcome: Outcome) -> None:
        """Record outputs made with code other than the plan's as ours but stale, so that they are made anew."""
        kept = tuple(result for result in outcome.results if result.status == "done")
        self._ledger.begin()
        if self._parts:
            self._parts.update(outcome)
        self._ledger.record(outcome._replace(results=kept), self._key, self._stale_recipes, False)

    def _count_moved(self, outcome: Outcome) -> None:
        """Count the file for the stage under which its source moved; one that is done ends the row of its stages."""
        for result in outcome.results:
            if result.status == "done":
                for stage in self._routes[result.stage]:
                    self._moved_in_a_row.pop(stage, None)
        if outcome.source and any(result.kind in KILLED for result in outcome.results):
            outcome = self._with_source_gone(outcome)
        if any(result.kind in MOVED and not result.moved_under for result in outcome.results):
            self._moved_in_a_row.clear()  # before any stage had it: somebody else is at work
        self._moved_in_a_row.update({result.moved_under for result in outcome.results if result.moved_under})

    def _with_source_gone(self, outcome: Outcome) -> Outcome:
        """Return the outcome of a job whose worker was killed, as one under which the source vanished if it is gone."""
        assert outcome.source
        if not has_no_file(os.path.join(self._root, outcome.source.path)):
            return outcome
        return outcome._replace(
            results=tuple(
                result._replace(moved_under=result.stage) if result.kind in KILLED else result
                for result in outcome.results
            )
        )

    @property
    def has_moved(self) -> bool:
        """True if a source has vanished, or one has changed or vanished under a stage."""
        return self._summary.vanished > 0 or bool(self._moved_in_a_row)

    def stop_consumer(self) -> None:
        """Stop the run if the sources of several files in a row changed or vanished under one stage."""
        for stage, files in self._moved_in_a_row.items():
            if files >= _MAX_MOVED and not self._log.is_stopped:
                what = f"the inputs of {files} files in a row changed or vanished while stage {stage!r} had them"
                ways = "inputs are only read; have it make a file of its own, or run when nobody else is at work there"
                self._log.stop(EnvironmentFailure.exit_code, f"{what}; {ways}")

    def _with_seconds_before(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the seconds that other pools had the file before."""
        source = outcome.source
        if source is None or not (outcome.goes_on or self._spent_s):
            return outcome
        before_s = self._spent_s.pop(source.path, 0.0)
        if outcome.goes_on:
            self._spent_s[source.path] = before_s + outcome.spent_s
        return outcome._replace(seconds=before_s + outcome.seconds)

    def _count_failed(self, outcome: Outcome) -> None:
        """Count a file in which a stage failed, once even if it fails in several pools."""
        source = outcome.source
        if source and source.path in self._failed_on_their_way:
            return
        if self._summary.count_tried(outcome):
            if source and outcome.goes_on:
                self._failed_on_their_way.add(source.path)
            self._check_errors()

    def _check_errors(self) -> None:
        if not self._is_whole and self._errors.is_share:
            return
        allowance, failed = self._errors.allowance(self.planned_files), self._summary.failed_files
        if allowance is not None and failed > allowance and not self._log.is_stopped:
            of_all = f" of {self.planned_files:,}" if self._is_whole else ""
            text = f"{failed:,}{of_all} files failed already, and errors.max is {self._errors.max}"
            why = f"{text}; what was in hand was finished, and the same line does the rest"
            self._summary.remedy = "failures"
            self._log.stop(PolicyStop.exit_code, why)

    def _record(self, outcome: Outcome, *, is_attempt: bool) -> Outcome:
        """Record an outcome; return it with `place` and `is_new` filled in, for the observers."""
        self._ledger.begin()
        if any(result.taken_by for result in outcome.results):
            outcome = outcome._replace(results=tuple(self._name_rival(outcome, each) for each in outcome.results))
        if is_attempt and self._ledger.failures.tried_for_all:
            outcome = self._with_held(outcome)
        if self._parts:
            self._parts.update(outcome)
        outcome = self._with_places(outcome)
        if new := self._ledger.record(self._with_seconds_before(outcome), self._key, self._recipes, is_attempt):
            results = (each._replace(is_new=each.status == "failed" and each.stage in new) for each in outcome.results)
            outcome = outcome._replace(results=tuple(results))
        self._summary.add(outcome)
        self.made.update(
            self._recipes[result.stage] for result in outcome.results if result.status == "done"
        )  # fmt: skip
        for result in outcome.results:
            if result.status == "failed":
                name = f"{outcome.origin} ({result.stage})"
                self._log.write(f"{name}: {result.kind}: {result.text}\n{indented(result.detail + outcome.output)}")
                if result.kind in KILLED:
                    remove_temporaries(result.path, [self._summary.run])
            elif result.notes:
                self._log.write(f"{outcome.origin} ({result.stage}): {result.noted}")
        return outcome

    def _with_held(self, outcome: Outcome) -> Outcome:
        """Return an outcome in which those outputs stay held that were tried for all and failed as before."""
        tried, source = self._ledger.failures.tried_for_all, key_of(outcome.origin)
        results = (
            each._replace(code="held")
            if (alike := tried.get((source, each.stage))) and alike.has_failed_again(each)
            else each
            for each in outcome.results
        )
        return outcome._replace(results=tuple(results))

    def _with_places(self, outcome: Outcome) -> Outcome:
        """Return an outcome with the places of its failures relative to the folder of pipeline.yaml, if below that."""
        if not any(result.place for result in outcome.results):
            return outcome
        results = (each._replace(place=each.place.removeprefix(self._folder)) for each in outcome.results)
        return outcome._replace(results=tuple(results))

    def _name_rival(self, outcome: Outcome, result: Result) -> Result:
        """Return a result with the name of the source whose output has the same path, if a run made that."""
        found = self._rival_of(result)
        if found is None:
            return result
        other, source = found
        rival = os.fsdecode(source) if source != key_of(outcome.origin) else ""
        return result._replace(text=text_of(Reason("collision", (rival, os.fsdecode(other)))), code="")

    def _rival_of(self, result: Result) -> tuple[bytes, bytes] | None:
        """Return target and source of the output that has a result's path, if it is on record or planned."""
        target = self._key(result.stage, result.path)
        return self.same_files.find(result.taken_by, target) if result.taken_by and self.same_files else None

    def commit_if_due(self) -> None:
        """Commit to the ledger, unless that was done a moment ago."""
        if time.monotonic() - self._committed_at > COMMIT_EVERY_S:
            self.commit()

    def commit(self) -> None:
        """Commit the recorded outcomes to the ledger."""
        if time.monotonic() - self._learnt_kept_at > _KEEP_LEARNT_EVERY_S:
            self._learnt.save(self._ledger)
            self._learnt_kept_at = time.monotonic()
        self._ledger.commit()
        self._committed_at = time.monotonic()

    @cached_property
    def _stale_recipes(self) -> dict[str, int]:
        """The number of a recipe with unknown code for each stage, which no planned recipe equals."""
        recipes = {leaf.stage: Recipe(with_unknown_code(leaf.recipe.parts)) for leaf in self._leaves}
        return {stage: self._ledger.number_recipe(each.digest, each.parts) for stage, each in recipes.items()}

    def _key(self, stage: str, path: bytes) -> bytes:
        return self._templates[stage].key(path)


def gravity(exit_code: int) -> int:
    """Return the place of an exit code among all: of two causes the one with the higher place counts."""
    return _BY_GRAVITY.index(exit_code) if exit_code in _BY_GRAVITY else len(_BY_GRAVITY)
