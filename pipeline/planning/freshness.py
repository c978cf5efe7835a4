"""Decides whether an output is up to date, and why not: every rule of "Fresh or stale".

decide_recorded     what is recorded of an output, how its source or recipe changed, the file  -> action, reason
decide_unrecorded   who else is recorded at its path, the file                                 -> action, reason
decide_failed       what failed before                                                         -> action, reason
Freshness           asks these for each output of a source
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from dataclasses import field

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.file_system import is_gone
from pipeline.files.ownership import claimed_folders
from pipeline.files.state_dir import known_identity
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.failures import AlikeFailures, Failure, RetryPolicy
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import is_group, key_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.runs import Window
from pipeline.messages import Origin, Source
from pipeline.planning.decisions import (
    EXISTS_NOT_OURS,
    FORCED,
    GUARDED,
    INTERRUPTED,
    NEW,
    SETTLING,
    UP_TO_DATE,
    Action,
    Code,
    Decision,
    Reason,
)
from pipeline.planning.file_state import (
    ByContents,
    ByTime,
    Note,
    OutputFolders,
    Touched,
    compare_file,
    ctime_of,
    same_origin,
)
from pipeline.planning.recipe import OutputSpec, take_parts
from pipeline.planning.recipe_diff import differences_from
from pipeline.planning.same_file import SameFileFinder
from pipeline.planning.selection import Selection
from pipeline.records import dataclass
from pipeline.stage.recognition import can_be, is_enough

Answer = tuple[Action, Reason]

# Why an output is made at whose path there is nothing.
_VACANT = ("new", "output_missing")
# What is decided about an output without regard to what else may lie at its path.
_AS_RECORDED = ("up_to_date", "skipped")
# The code for a part in place of that for an output in one file.
_OF_PART: dict[Code, Code] = {
    "output_missing": "part_missing",
    "output_torn": "part_torn",
    "output_older": "part_older",
    "not_a_file": "part_not_a_file",
}


@dataclass(frozen=True)
class Context:
    """The conditions that hold for every output of one plan."""

    is_forced: bool = False
    retries: RetryPolicy = field(default_factory=lambda: RetryPolicy(None))
    window: Window | None = None
    """The period of which the ledger may not know all that was made."""
    claimed: frozenset[bytes] = frozenset()
    """The output folders that were ours before this run; looked up only where there is such a period."""
    touched: Touched | None = None
    folders: OutputFolders = field(default_factory=OutputFolders)

    def may_be_ours(self, spec: OutputSpec, path: bytes) -> bool:
        """Return whether a file of which nothing is recorded may be of a run that the ledger has forgotten."""
        return self.window is not None and spec.template.folder in self.claimed and self.window.holds(ctime_of(path))


# -- rules -------------------------------------------------------------------------------------------------------------


def decide_recorded(
    spec: OutputSpec, record: OutputRecord, change: Reason | None, path: bytes, context: Context
) -> Answer:
    """Decide about an output that is on record; `change` is how its source or its recipe differs from that."""
    if record.status == "intended":
        return "make", INTERRUPTED if context.folders.has(path) else NEW
    if context.is_forced:
        return "make", FORCED
    # Before any change: somebody may have edited what the killed run had made of the source as it is now.
    if record.in_flight:
        return "make", INTERRUPTED
    if change:
        return ("refuse", EXISTS_NOT_OURS) if is_somebody_elses(spec, record, path, context) else ("make", change)
    if record.status == "skipped":
        return "up-to-date", Reason("skipped", (record.reason,))
    if not spec.template.has_file or spec.has_parts:
        return "up-to-date", UP_TO_DATE
    return compare_file(record, path, context.window, context.touched)


def decide_unrecorded(
    spec: OutputSpec, path: bytes, owner: str | None, others: OutputRecord | None, context: Context
) -> Answer:
    """Decide about an output that is not on record for its source.

    `owner` is the status of what is recorded or intended at its path, of another source or before a kill; `others` is
    that record where it was skipped.
    """
    if owner is None:
        if not spec.template.has_file or context.is_forced or not context.folders.has(path):
            return "make", NEW
        return ("make", INTERRUPTED) if context.may_be_ours(spec, path) else ("refuse", EXISTS_NOT_OURS)
    if owner == "intended":
        return "make", INTERRUPTED if context.folders.has(path) else NEW
    if others and not context.is_forced and is_somebody_elses(spec, others, path, context):
        return "refuse", EXISTS_NOT_OURS
    return "make", NEW


def decide_failed(failure: Failure, retries: RetryPolicy) -> Answer:
    """Decide about an output to make whose stage failed before, on the same source by the same recipe."""
    if not retries.is_over(failure):
        return "make", Reason("failed_before", (failure.kind, failure.attempts, retries.hold_after))
    if failure.dismissed_at is not None:
        return "held", Reason("dismissed", (failure.kind,))
    return "held", Reason("held", (failure.attempts,))


def is_somebody_elses(spec: OutputSpec, record: OutputRecord, path: bytes, context: Context) -> bool:
    """Return whether a file lies where we made none, since the source was left out."""
    made_none = record.status == "skipped" and record.size is None and not record.in_flight
    return made_none and context.folders.has(path) and not context.may_be_ours(spec, path)


def find_alike(config: Config, ledger: Ledger, spec: OutputSpec) -> AlikeFailures | None:
    """Return the failures of a stage since it made an output last, if all are alike and one is held."""
    return ledger.failures.find_alike(
        spec.stage, spec.number, config.errors.hold_after, lambda: ledger.outputs.last_made(spec.stage, spec.number)
    )


# -- sources -----------------------------------------------------------------------------------------------------------


class Freshness:
    """Decides about every output of a source."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        specs: Sequence[OutputSpec],
        selection: Selection,
        note: Note | None = None,
        touched: Touched | None = None,
    ) -> None:
        self._ledger = ledger
        self._specs = specs
        self._stages = {spec.stage for spec in specs}
        retries = RetryPolicy(config.errors.hold_after, selection.retry_failed)
        places = config.output_folders if ledger.window else ()
        claimed = claimed_folders(places, known_identity(config.state))
        self._context = Context(selection.force, retries, ledger.window, claimed, touched)
        self.is_uncertain = self._context.window is not None
        """Whether the ledger may not know of all that was made."""
        self._alike = {spec.stage: alike for spec in specs if (alike := find_alike(config, ledger, spec))}
        self._settle_ns = round((config.inputs.settle_s or 0) * 1e9)
        self._is_listed = selection.names is not None
        by_contents = config.changed_by == "hash" and not selection.force
        root = os.fsencode(config.inputs.root)
        self.sources = ByContents(root, note, fill=note is not None) if by_contents else ByTime(root, note)
        """Compares sources with their records."""
        self._recipe_changes: dict[tuple[int, str], Reason] = {}
        self._source_root = os.path.join(root, b"")
        self._picture_suffixes = config.picture_suffixes
        self._takes_any = all(spec.reads is None for spec in specs)
        self._root = os.path.join(os.path.realpath(root), b"")
        templates = list(config.output_folders.values())
        self._same_files = SameFileFinder(os.fsencode(config.folder), templates, ledger.targets)
        folders = {spec.stage: os.path.realpath(spec.template.folder) for spec in specs if spec.template.has_file}
        self._above_root = {
            stage: folder for stage, folder in folders.items() if self._root.startswith(os.path.join(folder, b""))
        }
        """The output folders in which the input root lies: what is filled in may lead back into it."""

    def decide(
        self, source: Source, recorded: dict[bytes, OutputRecord], failures: Sequence[Failure]
    ) -> list[Decision]:
        """Return a decision for each output that the tree makes of a source; pops what it uses from `recorded`."""
        specs = self._specs
        if not self._takes_any:
            specs = [spec for spec in specs if self.is_taken(source, spec) or _was_made(source, spec, recorded)]
        if self.is_settling(source):
            return self._leave_alone(source, specs, recorded)
        decisions, forced = [], self._context.is_forced
        for spec in specs:
            if not spec.is_plain:
                decisions += self._decide_other(source, spec, recorded, failures)
                continue
            try:
                path = spec.template.fill(source.path)
                if self._above_root:
                    self.refuse_among_inputs(spec, path)
            except FileFailure as error:
                decisions.append(bad_path(source, spec, error))
                continue
            target = spec.template.key(path)
            record = recorded.pop(target, None)
            change = None if record is None or forced else self._change(source, spec, record)
            decision = self.decide_at(source, spec, record, path, target, change)
            decisions.append(self.after_failure(decision, spec, failures) if failures else decision)
        return decisions

    def is_settling(self, source: Source) -> bool:
        """Return whether the source was modified just now, and is left for the next run."""
        return bool(self._settle_ns) and 0 <= time.time_ns() - source.mtime_ns < self._settle_ns

    def is_taken(self, source: Source, spec: OutputSpec) -> bool:
        """Return whether the stage that reads the source for an output can take it, by its suffix and first bytes."""
        return spec.reads is None or can_be(spec.reads, self._source_root, source.path, self._picture_suffixes)

    def is_enough(self, suffix: bytes, spec: OutputSpec) -> bool:
        """Return whether the stage that reads the source for an output can take every file with a suffix."""
        return spec.reads is None or is_enough(spec.reads, suffix, self._picture_suffixes)

    def _decide_other(
        self, source: Source, spec: OutputSpec, recorded: dict[bytes, OutputRecord], failures: Sequence[Failure]
    ) -> list[Decision]:
        """Decide about an output that is not one file for every source; none where the source has no such output."""
        if spec.matches and not spec.matches(source.path):
            return []
        try:
            path = spec.fill(source.path)
            self.refuse_among_inputs(spec, path)
        except FileFailure as error:
            return [bad_path(source, spec, error)]
        target = spec.template.key(path)
        record = recorded.pop(target, None) or self._of_renamed_stage(spec, recorded)
        change = None if record is None or self._context.is_forced else self._change(source, spec, record)
        decision = self.decide_at(source, spec, record, path, target, change)
        parts = take_parts(spec, source.path, recorded) if spec.has_parts else []
        if decision.action == "up-to-date" and parts:
            if record is not None and record.status == "skipped":
                recorded |= {part.target: part for part in parts}
                return [decision]
            of_parts = [_decide_part(source, spec, part, self._context) for part in parts]
            stale = next((each for each in of_parts if each.action != "up-to-date"), None)
            if stale is None:
                return of_parts
            decision = decision._replace(action=stale.action, reason=stale.reason)
        return [self.after_failure(decision, spec, failures)]

    def decide_at(
        self,
        origin: Origin,
        spec: OutputSpec,
        record: OutputRecord | None,
        path: bytes,
        target: bytes,
        change: Reason | None,
    ) -> Decision:
        """Decide about the output at one path; `change` is how its source or its recipe differs from the record."""
        if record is not None:
            action, reason = decide_recorded(spec, record, change, path, self._context)
            is_owned, is_vacant = record.status != "intended", reason.code in _VACANT
            decision = Decision(origin, spec.stage, action, reason, path, target, None, is_owned, None, is_vacant)
            is_settled = is_vacant or action == "refuse" or reason.code in _AS_RECORDED
            return decision if is_settled else self._refuse_shared(decision)
        rival, status = self._ledger.outputs.owner(target) or (None, None)
        others = self._ledger.outputs.get(target) if status == "skipped" else None
        answer = decide_unrecorded(spec, path, status, others, self._context)
        decision = Decision(origin, spec.stage, *answer, path, target)
        if rival is None:
            is_vacant = answer == ("make", NEW) and not (self._context.is_forced and self._context.folders.has(path))
            return decision._replace(is_vacant=True) if is_vacant else self._decide_same_file(decision)
        is_rival = answer[0] == "make" and status != "intended" and not self._is_past(rival)
        return decision._replace(rival=rival) if is_rival else decision

    def _refuse_shared(self, decision: Decision) -> Decision:
        """Return the decision about a recorded output, with a rival where its path leads to another output by now."""
        if decision.path.startswith(NO_FILE_KEY):
            return decision
        recorded = self._same_files.find_listed(decision.path, decision.target)
        if recorded is None or not self._is_current(*recorded, decision.origin):
            return decision
        return decision._replace(action="make", rival=recorded[1])

    def _decide_same_file(self, decision: Decision) -> Decision:
        """Return the decision about an output at whose path lies what is recorded under another path, if that is so.

        A link, or a file system that takes names of other case or form for the same, leads there.
        """
        if decision.path.startswith(NO_FILE_KEY):
            return decision
        recorded = self._same_files.find(decision.path, decision.target)
        if recorded is None:
            return decision
        target, source = recorded
        if self._is_current(target, source, decision.origin):
            return decision._replace(action="make", reason=NEW, rival=source)
        return decision._replace(action="make", reason=Reason("path_changed", (os.fsdecode(target),)))

    def _is_current(self, target: bytes, source: bytes, origin: Origin) -> bool:
        """Return whether what is recorded at a target is an output that its source, be it this one, has now."""
        if source != key_of(origin):
            return is_group(source) or not is_gone(self._root + source)
        if is_group(source):  # it has one output, which is the one to decide about
            return False
        record = self._ledger.outputs.get(target)
        return record is not None and any(_leads_to(spec, record) for spec in self._specs)

    def _is_past(self, source: bytes) -> bool:
        """Return whether a source is gone that a list of names, unlike the walk, does not tell to be gone."""
        return self._is_listed and not is_group(source) and is_gone(self._root + source)

    def _change(self, source: Source, spec: OutputSpec, record: OutputRecord) -> Reason | None:
        if record.status == "intended":
            return None
        if change := self.sources.change(source, record):
            return change
        return None if record.recipe == spec.number else self.recipe_change(spec, record)

    def recipe_change(self, spec: OutputSpec, record: OutputRecord) -> Reason | None:
        """Return how the recipe of an output first differs from the recorded one; None where it does not."""
        if record.recipe == spec.number:
            return None
        key = record.recipe, spec.stage
        if key not in self._recipe_changes:
            first = differences_from(self._ledger.recipe_parts(record.recipe), spec)[0]
            self._recipe_changes[key] = Reason("recipe_changed", (first.stage, first.part, first.text))
        return self._recipe_changes[key]

    def after_failure(self, decision: Decision, spec: OutputSpec, failures: Sequence[Failure]) -> Decision:
        """Return the decision as a former failure of its stage changes it: held, or made with that reason."""
        if decision.action != "make" or self._context.is_forced:
            return decision
        failure = next((each for each in failures if each.stage == spec.stage), None)
        if failure is None or failure.recipe != spec.number or not same_origin(decision.origin, failure):
            return decision
        action, reason = decide_failed(failure, self._context.retries)
        if action == "held":
            action, reason = self._unless_freed(failure, action, reason)
        if action == "make" and decision.reason.code in GUARDED:  # by that code the worker looks at what lies there
            return decision
        return decision._replace(action=action, reason=reason)

    def _unless_freed(self, failure: Failure, action: Action, reason: Reason) -> Answer:
        """Return the decision about a held file, which is to make it where it may succeed by now."""
        if not is_group(failure.source) and failure.is_freed_by(self._source_root + failure.source):
            return "make", Reason("failed_before", (failure.kind, failure.attempts, None))
        alike = self._alike.get(failure.stage)
        if alike and failure.source == alike.first_held:
            self._ledger.failures.tried_for_all[failure.source, failure.stage] = alike
            return "make", Reason("tried_for_all", (alike.files,))
        return action, reason

    def refuse_among_inputs(self, spec: OutputSpec, path: bytes) -> None:
        """Raise FileFailure where an output would lie below the input root by way of what was filled in."""
        if above := self._above_root.get(spec.stage):
            real = above + path[len(spec.template.folder) :]
            if real.startswith(self._root):
                raise FileFailure(f"output {os.fsdecode(path)!r} would lie among the inputs")

    def _of_renamed_stage(self, spec: OutputSpec, recorded: dict[bytes, OutputRecord]) -> OutputRecord | None:
        """Pop what is recorded of an output without a file whose stage had another name."""
        if spec.template.has_file:
            return None
        for record in recorded.values():
            is_open = record.target.startswith(NO_FILE_KEY) and not record.part and record.stage not in self._stages
            if is_open and record.recipe == spec.number:
                return recorded.pop(record.target)
        return None

    def _leave_alone(
        self, source: Source, specs: Sequence[OutputSpec], recorded: dict[bytes, OutputRecord]
    ) -> list[Decision]:
        """Decide nothing about a source that somebody may be writing to: none of it is stale, and none is gone."""
        owned = {record.target for record in recorded.values() if record.status != "intended"}
        recorded.clear()
        decisions = []
        for spec in specs:
            if spec.matches and not spec.matches(source.path):
                continue
            try:
                path = spec.fill(source.path)
            except FileFailure:  # reported once the source has settled
                decisions.append(Decision(source, spec.stage, "settling", SETTLING))
                continue
            target = spec.template.key(path)
            decisions.append(Decision(source, spec.stage, "settling", SETTLING, path, target, None, target in owned))
        return decisions


def _was_made(source: Source, spec: OutputSpec, recorded: dict[bytes, OutputRecord]) -> bool:
    """Return whether an output was made of a source before, so that it could be taken then."""
    try:
        record = recorded.get(spec.template.key(spec.fill(source.path)))
    except FileFailure:
        return False
    return record is not None and record.status == "done"


def bad_path(origin: Origin, spec: OutputSpec, error: FileFailure) -> Decision:
    """Return the decision about an output whose template leads nowhere."""
    return Decision(origin, spec.stage, "refuse", Reason("bad_path", (str(error),)))


def _leads_to(spec: OutputSpec, record: OutputRecord) -> bool:
    """Return whether the source of a record has the recorded path by an output of the tree."""
    if spec.has_parts != bool(record.part) or (spec.matches and not spec.matches(record.source)):
        return False
    try:
        return spec.template.key(spec.template.fill(record.source, record.part or "")) == record.target
    except FileFailure:
        return False


def _decide_part(source: Source, spec: OutputSpec, record: OutputRecord, context: Context) -> Decision:
    """Decide about one part of an output that is as its recipe has it."""
    path = spec.template.fill(source.path, record.part or "")
    answer: Answer = "up-to-date", UP_TO_DATE
    if spec.template.has_file:
        action, reason = compare_file(record, path, context.window, context.touched)
        if code := _OF_PART.get(reason.code):
            reason = Reason(code, (record.part, *reason.detail))
        answer = action, reason
    return Decision(source, spec.stage, *answer, path, record.target, None, True)
