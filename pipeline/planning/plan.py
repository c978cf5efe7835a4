"""Compares the sources with the ledger and decides about every output: the jobs to run, each with its reason.

    walk   (byte order) --+
                          +--> one merge --> decide about each output --> store, on disk --> jobs, counts
    ledger (same order) --+

Memory does not depend on the number of files: outputs that are up to date are counted, all others stored on disk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import field
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.store import store_of
from pipeline.files.walk import Walk, matcher
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.origins import GROUPS
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Action, Code, Decision, Reason, foremost, without_particulars
from pipeline.planning.file_state import Met
from pipeline.planning.freshness import Freshness
from pipeline.planning.lost_folders import LostFolder, SeenFolders, find_lost
from pipeline.planning.orphans import OrphanCollector, RecordCursor
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.ranges import ranges_of
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.renames import RenameFinder, SourceFollower
from pipeline.planning.respelling import respell
from pipeline.planning.selection import FileList, Selection
from pipeline.planning.unchanged import Range, RangeDigests, reason_in_range
from pipeline.records import dataclass
from pipeline.stage.recognition import suffix_of
from pipeline.text import shown

if TYPE_CHECKING:
    from pipeline.planning.groups import GroupPlanner

_EVERYTHING: Range = b"", None


class WalkedRange(NamedTuple):
    """A range of the walk, by which it is found again in the ledger and on disk."""

    first: bytes
    """The first source that a stage takes; empty where there is none."""
    digest: bytes | None
    """The digest on disk with the sources that no stage takes; None where there are none, empty if it is not known."""


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
    compared: list[Range] | None = None
    """The ranges that were compared file by file, which a run may find unchanged; None where none could be passed over.
    """
    ranges: list[WalkedRange] = field(default_factory=list)
    """All ranges of the walk, in order; none where no range could be passed over."""
    lost: list[LostFolder] = field(default_factory=list)
    """The folders whose known files are gone or left out, for no reason that the plan knows of."""
    is_loss_meant: bool = False
    """True if those files were removed on purpose, so that their outputs are orphans."""
    groups: GroupPlanner | None = None
    """The planner of the outputs of groups; None without groups, and where only some of the files are selected."""
    counts_of_groups: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """The number of outputs of groups, by action and reason; they are not in `counts`."""

    def pass_over(self, unchanged: UnchangedRange) -> None:
        """Count a range of sources whose outputs are all up to date."""
        self.sources += unchanged.sources
        self.meets_known = True
        for kept, (outputs, files) in unchanged.counts.items():
            reason = reason_in_range(kept)
            self.counts["up-to-date", reason] += outputs
            self.files["up-to-date", reason] += files

    def count_unmatched(self, source: Source) -> None:
        """Count a source that no stage reads."""
        self.unmatched[shown(suffix_of(source.path)[1:]) or "without suffix"] += 1

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
    record: bool = False,
    is_loss_meant: bool = False,
    on_work: Callable[[], object] | None = None,
) -> Plan:
    """Compare the sources with the ledger and decide about every output.

    Args:
        config: The pipeline.
        ledger: The memory of former runs; the plan is stored in temporary tables beside it.
        specs: The outputs of the tree.
        selection: The files to process.
        everything: Whether outputs that are up to date are stored too, to be shown.
        record: Whether the digests of sources that were read are stored, for a run to put into the ledger.
        is_loss_meant: Whether known files that are gone were removed on purpose.
        on_work: Function that is called once, at the first source with an output to make.
    """
    respell(config, ledger)
    walk, root = walk_of(config), os.fsencode(config.inputs.root)
    listed = None if selection.names is None else FileList(root, walk, ledger, selection.names)
    plan = Plan(PlanStore(ledger, len(specs)), specs, walk)
    plan.groups = _group_planner(config, ledger, plan, selection, record=record)
    planner = FilePlanner(config, ledger, plan, selection, everything=everything, record=record, on_work=on_work)
    if listed is not None:
        planner.decide_list(planner.seen.watch(listed))
    elif everything or selection.is_partial or not _may_pass_over(config, planner.specs, selection):
        planner.decide_range(planner.seen.watch(walk), _EVERYTHING)
    else:
        planner.decide_changed_ranges()
    planner.seen.end()
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
        plan.groups.plan()
    plan.settle(keep_orphans=not selection.is_partial)
    return plan


def walk_of(config: Config) -> Walk:
    """Return the walk over the input root, which leaves out our own output folders and state."""
    own = {*config.output_folders, os.fsencode(config.state), *config.other_folders}
    root = os.fsencode(config.inputs.root)
    return store_of(root).walk(root, config.inputs.include, config.inputs.exclude, own)


def _may_pass_over(config: Config, specs: Sequence[OutputSpec], selection: Selection) -> bool:
    """Return whether ranges of sources may be compared by one digest, that of the sizes and times of plain files."""
    return not selection.force and config.changed_by != "hash" and all(spec.is_plain for spec in specs)


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


def _digest_of_all(digests: RangeDigests, sources: Sequence[Source]) -> bytes:
    """Return the digest of sources as if a stage took each; empty where one has a name that no output can have."""
    try:
        return digests.found(sources)
    except FileFailure:
        return b""


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

    @cached_property
    def _renames(self) -> RenameFinder | None:
        """The finder of renames, made when first needed; None under `--force`, where all is made anew."""
        if self._is_forced:
            return None
        return RenameFinder(
            self.specs, self._folder, self._freshness.sources, reads_outputs=self._freshness.is_uncertain
        )

    # -- which sources -------------------------------------------------------------------------------------------------

    def decide_changed_ranges(self) -> None:
        """Pass over the unchanged ranges of the walk, and decide about the others file by file."""
        plan, digests, begin = self._plan, RangeDigests(self.specs), b""
        plan.compared = []
        for sources, after in ranges_of(plan.walk):
            self.seen.add(sources)
            taken, others = self._taken(sources)
            first = taken[0].path if taken else b""
            known = self._ledger.unchanged.get(first) if taken else None
            found = digests.found(taken) if known else b""
            if known and (known.after, known.digest) == (after, found):
                if begin < first:  # records before the first source of all are of files that are gone
                    self.decide_range((), (begin, first))
                plan.pass_over(known)
                plan.sources += len(others)
                for source in others:
                    plan.count_unmatched(source)
                plan.ranges.append(WalkedRange(first, _digest_of_all(digests, sources) if others else None))
            else:
                self.decide_range(sources, (begin, after))
                plan.compared.append((begin, after))
                plan.ranges.append(WalkedRange(first, b"" if others else None))
            begin = after or b""
        if not plan.sources:
            self.decide_range((), _EVERYTHING)

    def _taken(self, sources: list[Source]) -> tuple[list[Source], list[Source]]:
        """Return the sources that a stage can take, and the others."""
        if any(spec.reads is None for spec in self.specs):
            return sources, []
        others = [each for each in sources if not any(self._freshness.is_taken(each, spec) for spec in self.specs)]
        if not others:
            return sources, []
        without = set(others)
        return [each for each in sources if each not in without], others

    def decide_range(self, sources: Iterable[Source], within: Range) -> None:
        """Decide about the sources of a range, and about its records without a source."""
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
