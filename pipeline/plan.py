"""Sources + ledger + config -> the jobs to run, each with its reason; collisions and orphans.

    walk   (byte order) --+
                          +--> one merge --> judge each output --> spool, on disk --> jobs, counts
    ledger (same order) --+

Memory does not depend on how many files there are: what is up to date is counted, the rest is spooled.
"""

from __future__ import annotations

import os
import stat
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

from pipeline.config import Config, StageConfig
from pipeline.discover import Walk, matcher
from pipeline.errors import FileFailure
from pipeline.failures import Failure, Patience
from pipeline.ledger import Follower, Ledger, Row, Span, kept_time
from pipeline.listing import Listing
from pipeline.messages import Source
from pipeline.outputs import Template
from pipeline.recipe import Recipe, Step, recipe_for, why_changed
from pipeline.spans import Digests, Place, spans_of
from pipeline.spool import Action, Spool, Verdict

# Nanoseconds: file systems and copies keep times to 2 s at worst (FAT).
_SAME_TIME_NS = 2_000_000_000
_SECOND_NS = 1_000_000_000


@dataclass(frozen=True)
class Selection:
    """Which of the files with work are done this time; it never says what exists."""

    only: str | None = None
    limit: int | None = None
    force: bool = False
    retry_failed: bool = False
    names: Iterable[bytes] | None = None
    """The names of the files, where they are listed; each may be given once only."""

    @property
    def is_partial(self) -> bool:
        """Whether files may have been passed over, so that nothing can be called gone."""
        return self.only is not None or self.limit is not None or self.names is not None


@dataclass(frozen=True)
class Leaf:
    """One output of the tree: its template, its recipe, and the recipe's number if the ledger knows it."""

    stage: str
    template: Template
    recipe: Recipe
    number: int | None
    route: tuple[StageConfig, ...]
    """The stages from the root of the tree to this one."""


Range = tuple[bytes, bytes | None]
"""From a source on, and before another; None where there is none after it."""


@dataclass
class Plan:
    """All that is to be done, and the counts of what is not."""

    spool: Spool
    leaves: tuple[Leaf, ...]
    walk: Walk
    sources: int = 0
    jobs: int = 0
    """How many sources have something to make."""
    counts: Counter[tuple[Action, str]] = field(default_factory=Counter)
    """How many outputs, by what is to be done and why."""
    judged: list[Range] | None = None
    """The ranges of sources that were not passed over as spans, which they may be after the run; None if none was."""

    def pass_over(self, span: Span) -> None:
        """Count a span of sources of which nothing is to be done."""
        self.sources += span.sources
        for why, count in span.counts.items():
            self.counts["up-to-date", why] += count

    def count(self, action: Action, why: str = "") -> int:
        """How many outputs the plan does this to, for a reason that begins so."""
        return sum(n for (each, said), n in self.counts.items() if each == action and said.startswith(why))


def leaves_of(config: Config, ledger: Ledger, *, record: bool) -> tuple[Leaf, ...]:
    """Every output of the tree with its recipe, which is recorded in the ledger if this is to be a run."""
    known = {digest: number for number, digest in ledger.recipes().items()}
    leaves = []
    for stage in config.leaves:
        assert stage.output is not None
        template, pool, route = stage.output.template, config.pool, _route(config, stage)
        steps = [
            Step(each.stage, each.options, each.least if each.least != each.box else None, each.own_colours)
            for each in route
        ]
        save = stage.output.save
        recipe = recipe_for(steps, save, template.suffix, config.folder, pool.initializer, pool.initargs)
        number = ledger.number_recipe(recipe) if record else known.get(recipe.digest)
        leaves.append(Leaf(stage.name, template, recipe, number, route))
    return tuple(leaves)


def _route(config: Config, stage: StageConfig) -> tuple[StageConfig, ...]:
    above = _route(config, config.stages[stage.parent]) if stage.parent is not None else ()
    return (*above, stage)


def walk_of(config: Config) -> Walk:
    """The walk over the input root, less what we write ourselves."""
    own = {leaf.output.template.folder for leaf in config.leaves if leaf.output} | {os.fsencode(config.state)}
    return Walk(os.fsencode(config.inputs.root), config.inputs.include, config.inputs.exclude, own)


def make_plan(
    config: Config, ledger: Ledger, leaves: tuple[Leaf, ...], selection: Selection, *, everything: bool = False
) -> Plan:
    """Walk, compare, decide. With `everything` what is up to date is spooled too, to be shown."""
    root, listed, walk = os.fsencode(config.inputs.root), selection.names is not None, walk_of(config)
    sources = Listing(root, walk, ledger, selection.names) if selection.names is not None else walk
    plan = Plan(Spool(ledger), leaves, walk)
    judge = Judge(config, ledger, leaves, selection)
    gone = _Gone(plan, selection)
    work = _Work(plan, judge, gone, selection, everything)
    if everything or selection.force or selection.is_partial:
        work.through(sources, ledger, (b"", None), listed=listed)
    else:
        plan.judged = _by_spans(plan, work, ledger)
    plan.spool.settle(keep_orphans=not selection.is_partial)
    for action, why, count in plan.spool.counts():
        plan.counts[action, why] += count
    plan.jobs = plan.spool.count_jobs()
    return plan


def _by_spans(plan: Plan, work: _Work, ledger: Ledger) -> list[Range]:
    """Pass over the spans that are as they were left, and judge the others file by file; gives their ranges."""
    digests, judged, begin = digests_of(plan.leaves), [], b""
    for sources, after in spans_of(plan.walk):
        first, known = sources[0].path, ledger.span(sources[0].path)
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


def digests_of(leaves: Sequence[Leaf]) -> Digests:
    """The digests of spans for a tree with these outputs."""
    return Digests([Place(leaf.stage, leaf.template, leaf.number) for leaf in leaves])


def settled_spans(ledger: Ledger, leaves: Sequence[Leaf], ranges: Iterable[Range]) -> Iterator[Span]:
    """Those of the ranges in which a run has left nothing to be done, as spans."""
    digests = digests_of(leaves)
    for first, after in ranges:
        has_failed = next(ledger.failures(first, after), None) is not None
        span = None if has_failed else digests.recorded(ledger.rows(first, after))
        if span:
            yield span._replace(after=after)


class _Work:
    """Goes through sources and what is recorded of them in step, and puts every decision into the plan."""

    def __init__(self, plan: Plan, judge: Judge, gone: _Gone, selection: Selection, everything: bool) -> None:
        self._plan = plan
        self._judge = judge
        self._gone = gone
        self._limit = selection.limit
        self._selected = matcher([selection.only]) if selection.only else None
        self._everything = everything

    def through(self, sources: Iterable[Source], ledger: Ledger, within: Range, *, listed: bool = False) -> None:
        """Judge the sources of a range, and pass on what is recorded there of files that are gone."""
        plan = self._plan
        rows = Follower(ledger.rows(*within, listed=listed), self._gone.row)
        failures = Follower(ledger.failures(*within, listed=listed), self._gone.failure)
        for source in sources:
            recorded, failed = rows.take(source.path), failures.take(source.path)
            if self._selected and not self._selected(source.path):
                continue
            plan.sources += 1
            plan.jobs += self._decide(source, recorded, failed)
            if self._limit is not None and plan.jobs >= self._limit:
                return
        rows.pass_the_rest()
        failures.pass_the_rest()

    def _decide(self, source: Source, rows: list[Row], failures: list[Failure]) -> bool:
        """Put one source into the plan; says whether it has something to make."""
        plan = self._plan
        recorded = {row.target: row for row in rows}
        verdicts = self._judge.judge(source, recorded, failures)
        has_work = False
        for verdict in verdicts:
            has_work |= verdict.action == "make"
            if self._everything or verdict.action != "up-to-date":
                # What may fail again comes last: it must not use up the error budget before the rest is done.
                plan.spool.add(source, verdict, late=bool(failures))
            else:
                plan.counts["up-to-date", verdict.why] += 1
        for row in recorded.values():
            self._gone.row(row)
        if failures:
            open_stages = {verdict.stage for verdict in verdicts if verdict.action != "up-to-date"}
            for failure in failures:
                if failure.stage not in open_stages:
                    plan.spool.add_past_failure(failure)
        return has_work


class _Gone:
    """Takes the records that the walk did not meet: orphans and past failures, unless it cannot know."""

    def __init__(self, plan: Plan, selection: Selection) -> None:
        self._plan = plan
        self._is_partial = selection.is_partial

    def row(self, row: Row) -> None:
        # Of a part of the files too: whose path is free must be known.
        if not self._is_unknown(row.source):
            self._plan.spool.add_orphan(row)

    def failure(self, failure: Failure) -> None:
        if not self._is_partial and not self._is_unknown(failure.source):
            self._plan.spool.add_past_failure(failure)

    def _is_unknown(self, source: bytes) -> bool:
        return any(source.startswith(folder) for folder, _ in self._plan.walk.unlisted)


class Judge:
    """Decides for each output of a source whether it is fresh, and says why not."""

    def __init__(self, config: Config, ledger: Ledger, leaves: tuple[Leaf, ...], selection: Selection) -> None:
        self._ledger = ledger
        self._leaves = leaves
        self._force = selection.force
        self._patience = Patience(config.errors.hold_after, selection.retry_failed)
        self._settle_ns = round(config.inputs.settle_s * 1e9)
        self._is_listed = selection.names is not None
        self._whys: dict[tuple[int, str], str] = {}
        self._root = os.path.join(os.path.realpath(os.fsencode(config.inputs.root)), b"")
        folders = {leaf.stage: os.path.realpath(leaf.template.folder) for leaf in leaves}
        self._above_root = {
            stage: folder for stage, folder in folders.items() if self._root.startswith(os.path.join(folder, b""))
        }
        """The output folders in which the input root lies: what is filled in may lead back into it."""

    def judge(self, source: Source, recorded: dict[bytes, Row], failures: list[Failure]) -> list[Verdict]:
        """One verdict for each output that the tree makes of a source; takes what it uses out of the records."""
        if self._settle_ns and 0 <= time.time_ns() - source.mtime_ns < self._settle_ns:
            return self._leave_alone(source, recorded)
        verdicts = []
        for leaf in self._leaves:
            try:
                path = leaf.template.fill(source.path)
                if leaf.stage in self._above_root:
                    self._refuse_among_inputs(leaf, path)
            except FileFailure as error:
                verdicts.append(Verdict(leaf.stage, "refuse", str(error)))
                continue
            target = leaf.template.key(path)
            row = recorded.pop(target, None)
            if row is None:
                verdict = self._unrecorded(leaf, path, target)
            else:
                action, why = self._recorded(source, leaf, row, path)
                verdict = Verdict(leaf.stage, action, why, path, target, None, row.status != "intended")
            if failures and verdict.action == "make" and not self._force:
                verdict = self._after_failure(source, leaf, verdict, failures)
            verdicts.append(verdict)
        return verdicts

    def _leave_alone(self, source: Source, recorded: dict[bytes, Row]) -> list[Verdict]:
        """The verdicts on a source that somebody may be writing to: nothing of it is judged, and nothing is gone."""
        owned = {row.target for row in recorded.values() if row.status != "intended"}
        recorded.clear()
        verdicts = []
        for leaf in self._leaves:
            try:
                path = leaf.template.fill(source.path)
            except FileFailure:  # to be said when it is settled
                verdicts.append(Verdict(leaf.stage, "settling", "settling"))
                continue
            target = leaf.template.key(path)
            verdicts.append(Verdict(leaf.stage, "settling", "settling", path, target, None, target in owned))
        return verdicts

    def _after_failure(self, source: Source, leaf: Leaf, verdict: Verdict, failures: list[Failure]) -> Verdict:
        """The verdict on an output to be made, if it is of a stage that failed before."""
        failure = next((each for each in failures if each.stage == leaf.stage), None)
        if failure is None or failure.recipe != leaf.number or not same_source(source, failure):
            return verdict
        action: Action = "held" if self._patience.is_over(failure) else "make"
        return verdict._replace(action=action, why=self._patience.describe(failure))

    def _refuse_among_inputs(self, leaf: Leaf, path: bytes) -> None:
        real = self._above_root[leaf.stage] + path[len(leaf.template.folder) :]
        if real.startswith(self._root):
            raise FileFailure(f"output {os.fsdecode(path)!r} would lie among the inputs")

    def _unrecorded(self, leaf: Leaf, path: bytes, target: bytes) -> Verdict:
        owner = self._ledger.owner(target)
        if owner is None and not self._force and os.path.lexists(path):
            return Verdict(leaf.stage, "refuse", "exists, not ours", path, target)
        rival = owner[0] if owner and owner[1] != "intended" else None
        if rival is not None and self._is_listed and not os.path.lexists(self._root + rival):
            rival = None  # a list does not come by the sources that are gone
        return Verdict(leaf.stage, "make", "new", path, target, rival)

    def _recorded(self, source: Source, leaf: Leaf, row: Row, path: bytes) -> tuple[Action, str]:
        if row.status == "intended":
            return "make", "interrupted" if os.path.lexists(path) else "new"
        if self._force:
            return "make", "forced"
        if not same_source(source, row):
            return "make", _source_change(source, row)
        if row.recipe != leaf.number:
            return "make", self._recipe_change(row.recipe, leaf)
        if row.at_work:
            return "make", "interrupted"
        if row.status == "skipped":
            return "up-to-date", f"skipped: {row.reason}"
        return _judge_file(row, path)

    def _recipe_change(self, old: int, leaf: Leaf) -> str:
        if (old, leaf.stage) not in self._whys:
            names = [each.name for each in leaf.route]
            files = [os.path.relpath(each.stage.where.rpartition(":")[0]) for each in leaf.route]
            parts = self._ledger.recipe_parts(old)
            self._whys[old, leaf.stage] = why_changed(parts, leaf.recipe.parts, names, files)
        return self._whys[old, leaf.stage]


def same_source(source: Source, record: Row | Failure) -> bool:
    """Whether a source is as it was when something was recorded of it."""
    if source.size_bytes != record.source_size or record.source_mtime_ns is None:
        return False
    if source.mtime_ns == record.source_mtime_ns:
        return True
    now, then = kept_time(source.mtime_ns), record.source_mtime_ns
    # A copy may have cut the time to whole seconds.
    cut = (now % _SECOND_NS == 0 or then % _SECOND_NS == 0) and now // _SECOND_NS == then // _SECOND_NS
    return now == then or cut


def _source_change(source: Source, row: Row) -> str:
    if source.size_bytes != row.source_size:
        return f"source changed (size {row.source_size} -> {source.size_bytes})"
    return "source changed (its time)"


def _judge_file(row: Row, path: bytes) -> tuple[Action, str]:
    """Whether the output is as we left it."""
    try:
        found = os.stat(path)
    except OSError:
        return "make", "output missing"
    if found.st_size == row.size and found.st_mtime_ns == row.mtime_ns:
        return "up-to-date", "up to date"
    if not stat.S_ISREG(found.st_mode):
        return "refuse", "something that is no file stands in its place"
    near = abs(kept_time(found.st_mtime_ns) - (row.mtime_ns or 0)) <= _SAME_TIME_NS
    if found.st_size == row.size and near:
        return "up-to-date", "up to date"
    # A time in whole seconds may be the recorded one, cut; any other that differs is an edit's.
    same_time = near and (found.st_mtime_ns == row.mtime_ns or found.st_mtime_ns % _SECOND_NS == 0)
    if same_time or found.st_size == 0:
        return "make", f"output torn (size {row.size} -> {found.st_size})"
    return "up-to-date", "edited by someone else: kept"
