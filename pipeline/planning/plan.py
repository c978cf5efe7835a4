"""Sources + ledger + config -> the jobs to run, each with its reason; collisions and orphans.

    walk   (byte order) --+
                          +--> one merge --> judge each output --> store, on disk --> jobs, counts
    ledger (same order) --+

Memory does not depend on how many files there are: what is up to date is counted, the rest is stored on disk.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Generic, TypeVar

from pipeline.config.model import Config
from pipeline.files.store import store_of
from pipeline.files.template import Template
from pipeline.files.walk import Walk, matcher
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger, UnchangedRange
from pipeline.ledger.origins import GROUPS
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Action, Code, Decision, Reason, foremost, without_particulars
from pipeline.planning.file_state import Met
from pipeline.planning.freshness import Freshness
from pipeline.planning.orphans import OrphanCollector
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.renames import RenameFinder
from pipeline.planning.selection import FileList, Selection
from pipeline.planning.unchanged import Digests, Place, reason_in_span, spans_of

if TYPE_CHECKING:
    from pipeline.planning.groups import GroupPlanner

Range = tuple[bytes, bytes | None]
"""From a source on, and before another; None where there is none after it."""


@dataclass
class Plan:
    """All that is to be done, and the counts of what is not."""

    store: PlanStore
    leaves: tuple[OutputSpec, ...]
    walk: Walk
    sources: int = 0
    jobs: int = 0
    """How many sources have something to make."""
    counts: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """How many outputs, by what is to be done and why."""
    files: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """How many sources, each by what is foremost of its outputs."""
    unmatched: int = 0
    """How many sources no stage reads."""
    meets_known: bool = False
    """Whether any of the sources is one of which an output was on record."""
    judged: list[Range] | None = None
    """The ranges of sources that were not passed over as spans, which they may be after the run; None if none was."""
    groups: GroupPlanner | None = None
    """What is made of groups; None where there is nothing, and where only a part of the files is selected."""
    counts_of_groups: Counter[tuple[Action, Reason]] = field(default_factory=Counter)
    """How many outputs of groups, which are not among the others."""

    def pass_over(self, span: UnchangedRange) -> None:
        """Count a span of sources of which nothing is to be done."""
        self.sources += span.sources
        self.meets_known = True
        for kept, (outputs, files) in span.counts.items():
            reason = reason_in_span(kept)
            self.counts["up-to-date", reason] += outputs
            self.files["up-to-date", reason] += files

    def count_groups(self) -> None:
        """Count what is made of groups, as it is planned by now."""
        self.counts_of_groups = Counter()
        for action, reason, outputs, _ in self.store.counts(of_groups=True):
            self.counts_of_groups[action, reason] += outputs

    @property
    def has_work(self) -> bool:
        """Whether anything may be made or moved."""
        return bool(self.jobs or self.count("rename") or self.groups)

    @property
    def jobs_of_groups(self) -> int:
        """How many groups have something to make."""
        return sum(n for (action, _), n in self.counts_of_groups.items() if action == "make")

    def count(self, action: Action, code: Code | None = None) -> int:
        """How many outputs the plan does this to, for any reason or for one."""
        return sum(n for (each, why), n in self.counts.items() if each == action and code in (None, why.code))


def walk_of(config: Config) -> Walk:
    """The walk over the input root, less what we write ourselves."""
    own = {*config.output_folders, os.fsencode(config.state), *config.other_folders}
    root = os.fsencode(config.inputs.root)
    return store_of(root).walk(root, config.inputs.include, config.inputs.exclude, own)


def _has_groups(ledger: Ledger, leaves: Sequence[OutputSpec]) -> bool:
    """Whether anything is made of groups, or was."""
    if any(leaf.gathers for leaf in leaves):
        return True
    return any(next(found, None) for found in (ledger.outputs.all(*GROUPS), ledger.failures.all(*GROUPS)))


def make_plan(
    config: Config,
    ledger: Ledger,
    leaves: tuple[OutputSpec, ...],
    selection: Selection,
    *,
    everything: bool = False,
    record: bool = False,
    on_work: Callable[[], object] = lambda: None,
) -> Plan:
    """Walk, compare, decide. With `everything` what is up to date is stored too, to be shown.

    With `record`, which is for a run, what was read of sources is stored, for the ledger. `on_work` is called when it
    is first seen that there is something to make.
    """
    root, listed, walk = os.fsencode(config.inputs.root), selection.names is not None, walk_of(config)
    sources = FileList(root, walk, ledger, selection.names) if selection.names is not None else walk
    plan = Plan(PlanStore(ledger, len(leaves)), leaves, walk)
    of_files = tuple(leaf for leaf in leaves if not leaf.gathers)
    if not selection.is_partial and _has_groups(ledger, leaves):
        from pipeline.planning.groups import GroupPlanner

        plan.groups = GroupPlanner(config, ledger, leaves, selection, plan.store)
    notes = (plan.store.add_reading, plan.store.add_touched) if record else ()
    judge = Freshness(config, ledger, of_files, selection, *notes)
    gone = OrphanCollector(plan.store, walk, root, {leaf.stage for leaf in leaves}, is_partial=selection.is_partial)
    # What the ledger may not know of, or is to be made in any case, is not moved.
    is_moving = not (selection.force or ledger.window)
    renames = partial(RenameFinder, of_files, os.fsencode(config.folder), judge.sources) if is_moving else None
    work = _Work(plan, judge, gone, renames, selection, everything, on_work)
    # The digest of a span tells of sizes and times only.
    all_plain = all(leaf.is_plain for leaf in of_files)
    if everything or selection.force or selection.is_partial or config.changed_by == "hash" or not all_plain:
        work.through(sources, ledger, (b"", None), listed=listed)
    else:
        plan.judged = _by_spans(plan, work, ledger)
    if plan.groups:
        plan.groups.plan()
    plan.store.settle(keep_orphans=not selection.is_partial)
    for action, reason, outputs, files in plan.store.counts():
        plan.counts[action, reason] += outputs
        plan.files[action, reason] += files
    if plan.groups and plan.count("refuse"):  # what collides is known since it was settled
        plan.groups.plan_again(is_made=False)
    if plan.groups:
        plan.count_groups()
    plan.jobs = sum(files for (action, _), files in plan.files.items() if action == "make")
    return plan


def _by_spans(plan: Plan, work: _Work, ledger: Ledger) -> list[Range]:
    """Pass over the spans that are as they were left, and judge the others file by file; gives their ranges."""
    digests, judged, begin = digests_of(plan.leaves), [], b""
    for sources, after in spans_of(plan.walk):
        first, known = sources[0].path, ledger.unchanged.get(sources[0].path)
        if known and (known.after, known.digest) == (after, digests.found(sources)):
            if begin < first:  # what is recorded before the first source of all is of files that are gone
                work.through((), ledger, (begin, first))
            plan.pass_over(known)
        else:
            work.through(sources, ledger, (begin, after))
            judged.append((begin, after))
        begin = after or b""
    if not plan.sources:
        work.through((), ledger, (b"", None))
    return judged


def digests_of(leaves: Sequence[OutputSpec]) -> Digests:
    """The digests of spans for a tree with these outputs."""
    of_files = [leaf for leaf in leaves if not leaf.gathers]
    plain = [(each.stage, each.template, each.number) for each in of_files if isinstance(each.template, Template)]
    return Digests([Place(*each) for each in plain])


def settled_spans(ledger: Ledger, leaves: Sequence[OutputSpec], ranges: Iterable[Range]) -> Iterator[UnchangedRange]:
    """Those of the ranges in which a run has left nothing to be done, as spans."""
    digests = digests_of(leaves)
    for first, after in ranges:
        has_failed = next(ledger.failures.all(first, after, of_files=True), None) is not None
        span = None if has_failed else digests.recorded(ledger.outputs.all(first, after, of_files=True))
        if span:
            yield span._replace(after=after)


class _Work:
    """Goes through sources and what is recorded of them in step, and puts every decision into the plan."""

    def __init__(
        self,
        plan: Plan,
        judge: Freshness,
        gone: OrphanCollector,
        open_renames: Callable[[], RenameFinder] | None,
        selection: Selection,
        everything: bool,
        on_work: Callable[[], object],
    ) -> None:
        self._plan = plan
        self._judge = judge
        self._gone = gone
        self._open_renames = open_renames
        self._limit = selection.limit
        self._selected = matcher(selection.only) if selection.only else None
        self._everything = everything
        self._on_work: Callable[[], object] | None = on_work

    @cached_property
    def _renames(self) -> RenameFinder | None:
        """Finds renames; opened when a source is met that may have one, and None where nothing is renamed."""
        return self._open_renames() if self._open_renames else None

    def through(self, sources: Iterable[Source], ledger: Ledger, within: Range, *, listed: bool = False) -> None:
        """Freshness the sources of a range, and pass on what is recorded there of files that are gone."""
        plan = self._plan
        rows = RecordCursor(ledger.outputs.all(*within, listed=listed, of_files=True), self._gone.not_met)
        failures = RecordCursor(ledger.failures.all(*within, listed=listed, of_files=True), self._gone.failure)
        for source, recorded, failed in self._judge.sources.read_ahead(self._met(sources, rows, failures)):
            plan.sources += 1
            if self._decide(source, recorded, failed):
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
        """The selected sources, each with what is recorded of it."""
        for source in sources:
            # Also of those that are not selected: they are there.
            recorded, failed = rows.take(source.path), failures.take(source.path)
            if recorded and not self._plan.meets_known:
                self._plan.meets_known = any(row.status != "intended" for row in recorded)
            if not self._selected or self._selected(source.path):
                yield source, recorded, failed

    def _decide(self, source: Source, rows: list[OutputRecord], failures: list[Failure]) -> bool:
        """Put one source into the plan; says whether it has something to make."""
        plan, recorded = self._plan, {row.target: row for row in rows}
        decisions = self._judge.decide(source, recorded, failures)
        if not decisions:
            plan.unmatched += 1
            self._pass_on(decisions, rows, recorded, failures)
            return False
        if rows and (recorded or len(decisions) > 1) and self._renames:
            decisions = self._renames.find(source, rows, decisions)
        leader = foremost(decisions)
        if leader.action == "up-to-date" and not self._everything:
            plan.files["up-to-date", without_particulars(leader.reason)] += 1
        for decision in decisions:
            if self._everything or decision.action != "up-to-date":
                # What may fail again comes last: it must not use up the error budget before the rest is done.
                plan.store.add(decision, leads=decision is leader, late=bool(failures))
            else:
                plan.counts["up-to-date", without_particulars(decision.reason)] += 1
        if rows or failures:
            self._pass_on(decisions, rows, recorded, failures)
        return leader.action == "make"

    def _pass_on(
        self,
        decisions: list[Decision],
        rows: list[OutputRecord],
        unclaimed: dict[bytes, OutputRecord],
        failures: list[Failure],
    ) -> None:
        """Say of what is recorded of a source that it is an orphan, or moved, or says nothing any more."""
        moved = {decision.moved_from for decision in decisions}
        for row in rows:
            if row.target in moved:
                self._plan.store.add_moved(row)
            elif row.target in unclaimed:
                self._gone.unclaimed(row)
            elif row.status == "skipped" and row.size is not None:
                self._gone.skipped(row, decisions)
        if failures:
            open_stages = {decision.stage for decision in decisions if decision.action not in ("up-to-date", "rename")}
            for failure in failures:
                if failure.stage not in open_stages:
                    self._plan.store.add_past_failure(failure)


T = TypeVar("T", OutputRecord, Failure)


class RecordCursor(Generic[T]):
    """Keeps a stream of records in step with a walk over the same order of sources."""

    def __init__(self, records: Iterator[T], passed: Callable[[T], None]) -> None:
        self._records: Iterator[T] = records
        self._passed: Callable[[T], None] = passed
        self._next: T | None = next(records, None)

    def take(self, source: bytes) -> list[T]:
        """The records of a source; those of sources before it, which the walk did not meet, are passed."""
        found: list[T] = []
        if self._next is None or self._next.source > source:
            return found
        while self._next is not None and self._next.source <= source:
            if self._next.source == source:
                found.append(self._next)
            else:
                self._passed(self._next)
            self._next = next(self._records, None)
        return found

    def pass_the_rest(self) -> None:
        """The walk has ended: no other record was met."""
        while self._next is not None:
            self._passed(self._next)
            self._next = next(self._records, None)
