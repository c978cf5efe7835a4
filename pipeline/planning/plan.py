"""Compares the sources with the ledger and decides about every output: the jobs to run, each with its reason.

    walk   (byte order) --+
                          +--> one merge --> decide about each output --> store, on disk --> jobs, counts
    ledger (same order) --+

Memory does not depend on the number of files: outputs that are up to date are counted, all others stored on disk.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, Any

from pipeline.config.model import Config
from pipeline.files.walk import Walk, matcher
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.origins import GROUPS
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Job, Source
from pipeline.planning.decisions import NEW, Action, Code, Decision, Reason, foremost, without_particulars
from pipeline.planning.file_state import Met
from pipeline.planning.first_run import FirstJobs, JobTaker
from pipeline.planning.freshness import Freshness
from pipeline.planning.lost_folders import LostFolder, SeenFolders, find_lost
from pipeline.planning.orphans import OrphanCollector, RecordCursor
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.ranges import FolderCount, HeldRange, Looked, ranges_of, tops_of, walk_by
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.renames import RenameFinder, SourceFollower
from pipeline.planning.respelling import respell
from pipeline.planning.selection import FileList, Selection
from pipeline.planning.unchanged import (
    ComparedRange,
    GroupDigests,
    Range,
    RangeDigests,
    digest_of_ranges,
    reason_in_range,
    unmatched_kind,
)
from pipeline.records import NamedTuple, dataclass
from pipeline.stage.recognition import suffix_of
from pipeline.text import shown

if TYPE_CHECKING:
    from pipeline.planning.groups import GroupPlanner

_EVERYTHING: Range = b"", None


class WalkedRange(NamedTuple):
    """A range of the walk, by which it is found again in the ledger."""

    first: bytes
    tops: list[FolderCount]
    """How many sources each folder below the root has in it."""


@dataclass
class Plan:
    """The outputs to make, on disk, and the counts of all outputs and sources."""

    store: PlanStore
    specs: tuple[OutputSpec, ...]
    walk: Walk
    sources: int = 0
    jobs: int = 0
    """The number of sources with an output to make."""
    counts: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """The number of outputs, by action and reason."""
    files: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """The number of sources by action and reason, each counted once, under the foremost decision about its outputs."""
    unmatched: Counter[str] = field(default_factory=Counter)
    """The number of sources that no stage reads, by their suffix without its dot."""
    meets_known: bool = False
    """True if any source of the walk has an output on record."""
    compared: list[ComparedRange] | None = None
    """The ranges that were compared file by file, which a run may find unchanged; None where none could be passed over.
    """
    ranges: list[WalkedRange] = field(default_factory=list)
    """All ranges of the walk, in order; none where no range could be passed over."""
    other_sources: list[Source] | None = None
    """The sources of the range in hand that no stage takes; None where ranges are not passed over."""
    lost: list[LostFolder] = field(default_factory=list)
    """The folders whose known files are gone or left out, for no reason that the plan knows of."""
    is_loss_meant: bool = False
    """True if those files were removed on purpose, so that their outputs are orphans."""
    jobs_taken: int = 0
    """The number of jobs that were handed out while the plan was made; they are counted, and not in the store."""
    groups: GroupPlanner | None = None
    """The planner of the outputs of groups; None without groups, and where only some of the files are selected."""
    counts_of_groups: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """The number of outputs of groups, by action and reason; they are not in `counts`."""

    def pass_over(self, unchanged: UnchangedRange) -> None:
        """Count a range of sources whose outputs are all up to date."""
        self.sources += unchanged.sources
        for kept, (outputs, files) in unchanged.counts.items():
            if (kind := unmatched_kind(kept)) is not None:
                self.unmatched[kind] += files
                continue
            reason = reason_in_range(kept)
            self.counts["up-to-date", reason] += outputs
            self.files["up-to-date", reason] += files
            self.meets_known = True

    def pass_over_groups(self, unchanged: UnchangedRange) -> None:
        """Count the outputs of groups, which are all up to date."""
        self.groups = None
        for kept, (outputs, _) in unchanged.counts.items():
            self.counts_of_groups["up-to-date", reason_in_range(kept)] += outputs

    def count_unmatched(self, source: Source) -> None:
        """Count a source that no stage reads."""
        self.unmatched[_kind_of(source)] += 1
        if self.other_sources is not None:
            self.other_sources.append(source)

    def settle(self, *, keep_orphans: bool) -> None:
        """Refuse the outputs that collide, and count all stored decisions."""
        self.store.settle(keep_orphans=keep_orphans)
        for each in self.store.counts():
            self.counts[each.action, each.reason] += each.outputs
            self.files[each.action, each.reason] += each.sources
        if self.groups and self.count("refuse"):  # a group may have had a refused output for a member
            self.groups.plan_again(is_made=False)
        if self.groups:
            self.count_groups()
        self.jobs = sum(files for (action, _), files in self.files.items() if action == "make")

    @property
    def kept(self) -> list[LostFolder]:
        """The lost folders whose outputs are kept."""
        return [] if self.is_loss_meant else self.lost

    def count_groups(self) -> None:
        """Count the outputs of groups by their present decisions."""
        self.counts_of_groups = Counter()
        for each in self.store.counts(of_groups=True):
            self.counts_of_groups[each.action, each.reason] += each.outputs

    @property
    def has_work(self) -> bool:
        """True if anything may be made or moved."""
        return bool(self.jobs or self.count("rename") or self.groups)

    @property
    def jobs_of_groups(self) -> int:
        """The number of groups with an output to make."""
        return sum(n for (action, _), n in self.counts_of_groups.items() if action == "make")

    def count(self, action: Action, code: Code | None = None) -> int:
        """Return the number of outputs with an action, for one reason or for any."""
        return sum(n for (each, why), n in self.counts.items() if each == action and code in (None, why.code))


# -- making a plan -----------------------------------------------------------------------------------------------------


def make_plan(
    config: Config,
    ledger: Ledger,
    specs: tuple[OutputSpec, ...],
    selection: Selection,
    *,
    everything: bool = False,
    every_group: bool = False,
    record: bool = False,
    is_loss_meant: bool = False,
    on_work: Callable[[], object] | None = None,
    taker: JobTaker | None = None,
    looked: Looked | None = None,
) -> Plan:
    """Compare the sources with the ledger and decide about every output.

    Args:
        config: The pipeline.
        ledger: The memory of former runs; the plan is stored in temporary tables beside it.
        specs: The outputs of the tree.
        selection: The files to process.
        everything: Whether outputs that are up to date are stored too, to be shown.
        every_group: Whether outputs of groups that are up to date are stored too, where all of them are.
        record: Whether the digests of sources that were read are stored, for a run to put into the ledger.
        is_loss_meant: Whether known files that are gone were removed on purpose.
        on_work: Function that is called once, at the first source with an output to make.
        taker: Who does jobs while the plan is made, which only a first run allows; see first_run.py.
        looked: What was found by who has looked at all files just before.
    """
    respell(config, ledger)
    walk, root = walk_of(config), os.fsencode(config.inputs.root)
    listed = None if selection.names is None else FileList(root, walk, ledger, selection.names)
    plan = Plan(PlanStore(ledger, len(specs)), specs, walk)
    plan.groups = _group_planner(config, ledger, plan, selection, record=record)
    planner = FilePlanner(
        config, ledger, plan, selection, everything=everything, record=record, on_work=on_work, taker=taker
    )
    if listed is not None:
        planner.decide_list(planner.seen.watch(listed))
    elif everything or selection.is_partial or not may_pass_over(config, selection):
        planner.decide_range(planner.seen.watch(walk), _EVERYTHING)
    else:
        planner.decide_changed_ranges(looked)
    planner.end()
    if not selection.is_partial:
        planner.follow_moved()
    # Where no known file is met, be it that all are in folders of other pipelines, a guard stops the run.
    if not selection.is_partial and (plan.meets_known or walk.owned or is_loss_meant):
        by_contents = config.changed_by == "hash"
        plan.lost = find_lost(root, walk, ledger, plan.store, by_contents=by_contents)
        plan.is_loss_meant = is_loss_meant
        for each in plan.kept:
            plan.store.keep(each.folder, each.code)
    if plan.groups:
        if not every_group and (known := _unchanged_groups(config, ledger, plan)):
            plan.pass_over_groups(known)
        else:
            if plan.compared is not None:
                plan.compared.append(ComparedRange(GROUPS))
            plan.groups.plan()
    plan.settle(keep_orphans=not selection.is_partial)
    return plan


def walk_of(config: Config) -> Walk:
    """Return the walk over the input root, which leaves out our own output folders and state."""
    return walk_by(walk_arguments(config))


def walk_arguments(config: Config) -> dict[str, Any]:
    """Return the arguments of the walk, as JSON can hold them."""
    own = {*config.output_folders, os.fsencode(config.state), *config.other_folders}
    own |= {os.fsencode(config.metrics)} if config.metrics else set()
    return {
        "root": str(config.inputs.root),
        "include": list(config.inputs.include),
        "exclude": list(config.inputs.exclude),
        "without": sorted(map(os.fsdecode, own)),
    }


def may_pass_over(config: Config, selection: Selection) -> bool:
    """Return whether ranges of sources may be compared by one digest, which has no more than sizes and times."""
    return not selection.force and config.changed_by != "hash"


def _unchanged_groups(config: Config, ledger: Ledger, plan: Plan) -> UnchangedRange | None:
    """Return what is recorded of the outputs of all groups, if they and all files are as they were; else None."""
    if plan.compared != [] or plan.lost or plan.walk.unlisted:
        return None
    known = ledger.unchanged.get(GROUPS[0])
    if known is None:
        return None
    members = _digest_of_recorded(ledger, plan)
    return known if GroupDigests(config, plan.specs).found([], known.layout, members) == known.digest else None


def settled_groups(config: Config, ledger: Ledger, plan: Plan) -> UnchangedRange | None:
    """Return the outputs of all groups, if a run without failures has left all of them, and all files, up to date."""
    if plan.groups is None or plan.compared is None:
        return None
    is_open = any(n for (action, _), n in plan.counts_of_groups.items() if action not in ("up-to-date", "make"))
    has_failed = next(ledger.failures.all(*GROUPS), None) is not None
    members = _digest_of_recorded(ledger, plan)
    if is_open or has_failed or not members or next(plan.store.orphans(), None) is not None:
        return None
    outputs = plan.counts_of_groups.total()
    return GroupDigests(config, plan.specs).recorded(ledger.outputs.all(*GROUPS), outputs, members)


def _digest_of_recorded(ledger: Ledger, plan: Plan) -> bytes:
    """Return the digest of all ranges of a plan, as they are on record; empty where one is not."""
    known = [ledger.unchanged.get(each.first) for each in plan.ranges]
    return digest_of_ranges([each.digest for each in known if each]) if all(known) else b""


def _group_planner(
    config: Config, ledger: Ledger, plan: Plan, selection: Selection, *, record: bool
) -> GroupPlanner | None:
    """Return the planner of groups where there are any; a selection of files leaves groups alone."""
    if selection.is_partial or not (any(spec.gathers for spec in plan.specs) or _has_recorded_groups(ledger)):
        return None
    from pipeline.planning.groups import GroupPlanner

    touched = plan.store.add_touched if record else None
    return GroupPlanner(config, ledger, plan.specs, selection, plan.store, plan.walk, touched)


def _has_recorded_groups(ledger: Ledger) -> bool:
    return any(next(records, None) for records in (ledger.outputs.all(*GROUPS), ledger.failures.all(*GROUPS)))


def _kind_of(source: Source) -> str:
    return shown(suffix_of(source.path)[1:]) or "without suffix"


# -- files -------------------------------------------------------------------------------------------------------------


class FilePlanner:
    """Goes through the sources and their records in step, and adds every decision to the plan."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        plan: Plan,
        selection: Selection,
        *,
        everything: bool,
        record: bool,
        on_work: Callable[[], object] | None,
        taker: JobTaker | None,
    ) -> None:
        self._plan = plan
        self._config = config
        self._ledger = ledger
        self.specs = tuple(spec for spec in plan.specs if not spec.gathers)
        """The outputs of the tree that are made of single files."""
        root, stages = os.fsencode(config.inputs.root), {spec.stage for spec in plan.specs}
        notes = (plan.store.add_reading, plan.store.add_touched) if record else ()
        self._freshness = Freshness(config, ledger, self.specs, selection, *notes)
        self.seen = SeenFolders(root, ledger, plan.store)
        """The count of files in each folder that can be lost."""
        self._orphans = OrphanCollector(plan.store, plan.walk, root, stages, is_partial=selection.is_partial)
        self._is_forced = selection.force
        self._folder = os.fsencode(config.folder)
        self._limit = selection.limit
        self._selected = matcher(selection.only) if selection.only else None
        self._everything = everything
        self._on_work = on_work
        self.taker = taker
        """Who does jobs while the plan is made; None where the plan must be whole first."""
        self._first_jobs = FirstJobs(self.specs, self._freshness)
        self._outputs_taken = 0

    @cached_property
    def _renames(self) -> RenameFinder | None:
        """The finder of renames, made when first needed; None under `--force`, where all is made anew."""
        if self._is_forced:
            return None
        return RenameFinder(
            self.specs, self._folder, self._freshness.sources, reads_outputs=self._freshness.is_uncertain
        )

    # -- which sources -------------------------------------------------------------------------------------------------

    def decide_changed_ranges(self, looked: Looked | None) -> None:
        """Pass over the unchanged ranges of the walk, and decide about the others file by file."""
        plan, digests = self._plan, RangeDigests(self._config, self.specs)
        plan.compared = []
        begin: bytes | None = b""
        for held, known in self._still_held(looked, digests):
            if begin != held.first:
                self._decide_part(digests, begin or b"", held.first)
            self.seen.add_counts(held.tops)
            plan.pass_over(known)
            plan.ranges.append(WalkedRange(held.first, held.tops))
            begin = held.after
        if begin is not None:
            self._decide_part(digests, begin, None)

    def _still_held(self, looked: Looked | None, digests: RangeDigests) -> Iterator[tuple[HeldRange, UnchangedRange]]:
        """Yield the ranges that need not be looked at, since that was done just before, with what is recorded of them.

        It tells nothing where mount points lie in deeper folders, of which the sources must be known.
        """
        if looked is None or looked.tree != digests.tree or self.seen.needs_sources:
            return
        if looked.walk == json.dumps(walk_arguments(self._config)):
            for held in looked.held:
                known = self._ledger.unchanged.get(held.first)
                if known and (known.after, known.digest) == (held.after, held.digest):
                    yield held, known

    def _decide_part(self, digests: RangeDigests, begin: bytes, end: bytes | None) -> None:
        """Walk over a part of the root, pass over the unchanged ranges in it, and decide about the others."""
        plan, at, is_empty = self._plan, begin, True
        for sources, next_one in ranges_of(plan.walk.within(begin, end)):
            self.seen.add(sources)
            first, after = sources[0].path, next_one or end
            if at < first and self._is_any_known((at, first)):  # only before the first source of the part
                self._compare((), (at, first))
            known = self._ledger.unchanged.get(first)
            if known and known.after == after and digests.found(sources, known.layout) == known.digest:
                plan.pass_over(known)
            else:
                self._compare(sources, (first, after))
            plan.ranges.append(WalkedRange(first, tops_of(sources)))
            at, is_empty = after or b"", False
        if is_empty and self._is_any_known((begin, end)):
            self._compare((), (begin, end))

    def _is_any_known(self, within: Range) -> bool:
        """Return whether the ledger has anything of files within a range."""
        records = self._ledger.outputs.all(*within, of_files=True), self._ledger.failures.all(*within, of_files=True)
        return any(next(each, None) for each in records) or self._ledger.unchanged.any_within(*within)

    def _compare(self, sources: Sequence[Source], within: Range) -> None:
        """Decide about a range file by file, and have the run see whether all of it is settled then."""
        plan = self._plan
        assert plan.compared is not None
        plan.other_sources = []
        self.decide_range(sources, within)
        others, plan.other_sources = plan.other_sources, None
        compared = ComparedRange.of(within, sources, others, _kind_of) if sources else ComparedRange(within)
        plan.compared.append(compared)
        if self.taker:
            self.taker.expect(compared, sources)

    def decide_range(self, sources: Iterable[Source], within: Range) -> None:
        """Decide about the sources of a range, and about its records without a source."""
        if self.taker:
            self._decide_first_ones(sources)
            return
        outputs, failures = self._ledger.outputs, self._ledger.failures
        self._decide_all(sources, outputs.all(*within, of_files=True), failures.all(*within, of_files=True))

    def decide_list(self, sources: Iterable[Source]) -> None:
        """Decide about listed sources; records of others are left alone."""
        self._decide_all(sources, self._ledger.outputs.all(listed=True), self._ledger.failures.all(listed=True))

    def _decide_all(
        self, sources: Iterable[Source], records: Iterator[OutputRecord], failed: Iterator[Failure]
    ) -> None:
        plan = self._plan
        rows = RecordCursor(records, self._orphans.not_met)
        failures = RecordCursor(failed, self._orphans.failure)
        for source, recorded, failed_before in self._freshness.sources.read_ahead(self._met(sources, rows, failures)):
            plan.sources += 1
            if self._decide(source, recorded, failed_before):
                plan.jobs += 1
                if self._on_work:
                    self._on_work()
                    self._on_work = None
            if self._limit is not None and plan.jobs >= self._limit:
                return
        rows.pass_the_rest()
        failures.pass_the_rest()

    def _met(
        self, sources: Iterable[Source], rows: RecordCursor[OutputRecord], failures: RecordCursor[Failure]
    ) -> Iterator[Met]:
        """Yield the selected sources, each with its records."""
        for source in sources:
            # The records of sources that are not selected are taken too: those sources are not gone.
            recorded, failed = rows.take(source.path), failures.take(source.path)
            if recorded and not self._plan.meets_known:
                self._plan.meets_known = any(row.status != "intended" for row in recorded)
            if not self._selected or self._selected(source.path):
                yield source, recorded, failed

    def end(self) -> None:
        """Say that the walk is at its end."""
        plan = self._plan
        for job, is_alone in self._first_jobs.rest():
            self._add_first(job, is_alone=is_alone)
        if plan.jobs_taken:
            plan.meets_known = True  # of what is handed out something is recorded
            plan.counts["make", NEW] += self._outputs_taken
            plan.files["make", NEW] += plan.jobs_taken
        self.seen.end()

    def follow_moved(self) -> None:
        """Have the outputs of sources follow that are known under another path, once all sources are known."""
        follower = SourceFollower(self._config, self._ledger, self.specs, self._plan.store, self._freshness)
        # After an unclean end the records do not tell where the files of another source lie.
        moves_files = not (self._is_forced or self._freshness.is_uncertain)
        if moved := follower.follow(moves_files=moves_files):
            # A root of which all was moved is the one that it was; one with a few of its files may not be.
            self._plan.meets_known = self._plan.meets_known or moved >= self._plan.store.count_gone()

    # -- one source ----------------------------------------------------------------------------------------------------

    def _decide(self, source: Source, rows: list[OutputRecord], failures: list[Failure]) -> bool:
        """Add the decisions about one source to the plan; return whether it has an output to make."""
        recorded = {row.target: row for row in rows}
        decisions = self._freshness.decide(source, recorded, failures)
        if not decisions:
            self._plan.count_unmatched(source)
        if rows and (recorded or len(decisions) > 1) and decisions and self._renames:
            decisions = self._renames.find(source, rows, decisions)
        action = self._add(decisions, is_late=bool(failures)) if decisions else None
        if rows or failures:
            self._add_leftovers(decisions, rows, recorded, failures)
        return action == "make"

    def _decide_first_ones(self, sources: Iterable[Source]) -> None:
        """Have the jobs of sources that nothing is recorded of be done now, or add them to the plan."""
        plan, first = self._plan, self._first_jobs
        for source in sources:
            plan.sources += 1
            job = first.job_of(source)
            if job and not job.targets:
                plan.count_unmatched(source)
                continue
            if first.have_rivals:
                for each, is_alone in first.in_turn(source, job):
                    self._add_first(each, is_alone=is_alone)
            elif job:
                self._add_first(job, is_alone=True)
            if job is None:
                self._decide(source, [], [])
                if self.taker:
                    self.taker.go_on()

    def _add_first(self, job: Job, *, is_alone: bool) -> None:
        """Have a job be done now if no other source contends with it and there is room, else add it to the plan."""
        plan = self._plan
        if is_alone and self.taker and self.taker.take(job):
            plan.jobs_taken += 1
            self._outputs_taken += len(job.targets)
            return
        keys = {spec.stage: spec.template.key for spec in self.specs}
        decisions = [
            Decision(job.source, each.stage, "make", NEW, each.path, keys[each.stage](each.path), is_vacant=True)
            for each in job.targets
        ]
        self._add(decisions, is_late=False)

    def _add(self, decisions: list[Decision], *, is_late: bool) -> Action:
        """Store or count the decisions about one source; return the foremost action.

        A source that failed before comes late, so that it does not use up the error budget before the others.
        """
        plan, leader = self._plan, foremost(decisions)
        if leader.action == "up-to-date" and not self._everything:
            plan.files["up-to-date", without_particulars(leader.reason)] += 1
        for decision in decisions:
            if self._everything or decision.action != "up-to-date":
                plan.store.add(decision, leads=decision is leader, late=is_late)
            else:
                plan.counts["up-to-date", without_particulars(decision.reason)] += 1
        return leader.action

    def _add_leftovers(
        self,
        decisions: list[Decision],
        rows: list[OutputRecord],
        unclaimed: dict[bytes, OutputRecord],
        failures: list[Failure],
    ) -> None:
        """Add the records of a source that are orphans, renamed outputs or past failures."""
        moved = {decision.moved_from for decision in decisions}
        for row in rows:
            if row.target in moved:
                self._plan.store.add_moved(row)
            elif row.target in unclaimed:
                self._orphans.unclaimed(row)
            elif row.status == "skipped" and row.size is not None:
                self._orphans.skipped(row, decisions)
        if failures:
            open_stages = {decision.stage for decision in decisions if decision.action not in ("up-to-date", "rename")}
            for failure in failures:
                if failure.stage not in open_stages:
                    self._plan.store.add_past_failure(failure)
