"""One run, as the list of its steps: `STEPS`, at the end of this file.

    walk + ledger -> plan -> guards -> engine (-> workers) -> ledger, summary and observers

Each step is a function over the run's context, and raises the errors it cannot handle; see run_context.py.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from itertools import chain
from typing import TYPE_CHECKING

from pipeline.config.model import Config
from pipeline.errors import HELD_ONLY, CodeChanged, PolicyStop
from pipeline.files.atomic import remove_temporaries
from pipeline.files.file_system import is_regular
from pipeline.files.ownership import OwnedFolders, claimed_folders
from pipeline.messages import FailureKind, Job, Outcome, Result
from pipeline.observer import RunObserver
from pipeline.operations.code_watch import CodeWatch
from pipeline.operations.guards import NOTHING_CONFIRMED, Confirmations
from pipeline.operations.launch import count_workers
from pipeline.operations.recorder import Recorder
from pipeline.operations.run_context import (
    RunContext,
    RunRequest,
    close_run,
    end_run_on_error,
    open_run,
)
from pipeline.operations.time_limit import MaxTime
from pipeline.operations.work import EarlyJobs, Work
from pipeline.planning.decisions import MEMBERS_UNKNOWN, SETTLING, Action, Reason, text_of
from pipeline.planning.estimate import Expected, efficiency
from pipeline.planning.first_run import is_first_run, why_whole_plan
from pipeline.planning.late_code import LateCode
from pipeline.planning.lost_folders import describe
from pipeline.planning.made_ranges import MadeRanges
from pipeline.planning.plan import Plan, make_plan, may_pass_over
from pipeline.planning.plan_store import LONG_S
from pipeline.planning.ranges import Looked
from pipeline.planning.recipe import OutputSpec, output_specs
from pipeline.planning.recorded_parts import RecordedParts
from pipeline.planning.same_file import SameFileFinder
from pipeline.planning.selection import Selection
from pipeline.planning.unchanged import RangeDigests
from pipeline.report.summary import Summary
from pipeline.text import shown

if TYPE_CHECKING:
    from pipeline.planning.groups import GroupPlanner

# Seconds that the jobs in hand may still take after a signal.
GRACE_S = 20.0
# At the third change the run ends: somebody is at work on the code.
MAX_CHANGES = 3
# What is not up to date and yet is given to no worker, which would clear up beside it.
_NOT_HANDED_OUT: tuple[Action, ...] = ("held", "settling", "refuse")


def check_places(context: RunContext) -> None:
    """Check that the state and the output folders exist and are ours. Raises UsageError, EnvironmentFailure."""
    context.guards.check_places()
    context.guards.take_over()


def plan(context: RunContext) -> None:
    """Compare the files with the ledger; decide which outputs to make. Raises FilemillError where a guard refuses."""
    config, ledger, guards, selection = context.config, context.ledger, context.guards, context.selection
    late = LateCode(config, ledger)
    context.code = CodeWatch(config, late)
    leaves = output_specs(config, ledger, record=True, late=late)
    root = os.fsencode(config.inputs.root)
    if context.unclean_runs or any(leaf.has_parts for leaf in leaves):
        claimed = claimed_folders(config.output_folders, context.state.id)
        context.parts = RecordedParts(ledger, leaves, context.folder, root, claimed, force=selection.force)
        context.parts.recover(context.unclean_runs)
    context.recorder = Recorder(
        ledger, context.log, context.observers, leaves, config.errors, context.learnt, context.parts, root
    )
    context.plan = _plan_jobs(context, leaves)
    guards.check_plan(context.plan, selection)
    guards.settle(context.plan, selection)
    for note in guards.notes:
        context.note(note)
    context.is_planned = True


def record_plan(context: RunContext) -> None:
    """Record the outputs that need no worker, those up to date, held or refused."""
    context.summary.sources, context.summary.kinds_unmatched = context.plan.sources, context.plan.unmatched
    _count_planned(context.summary, context.plan.counts)
    if context.plan.groups is None:  # those that were passed over
        _count_planned(context.summary, context.plan.counts_of_groups)
    numbers = {leaf.number for leaf in context.plan.specs if leaf.number is not None}
    context.summary.up_to_date -= sum(context.made_before[number] for number in numbers)
    context.observers.on_held(context.summary.held - context.summary.dismissed)
    _record_refused(context, of_groups=False)


def clear_up(context: RunContext) -> None:
    """Remove the temporaries of killed runs where no worker will, and forget failures that no longer apply."""
    plan, ledger, unclean_runs = context.plan, context.ledger, context.unclean_runs
    for action in _NOT_HANDED_OUT if unclean_runs else ():
        for decision in plan.store.decisions(action):
            if decision.path:
                remove_temporaries(decision.path, unclean_runs)
    ledger.begin()
    for orphan in plan.store.orphans():
        path = os.path.join(context.folder, orphan.target)
        remove_temporaries(path, unclean_runs)
        if orphan.status == "intended":
            # A killed run may have made it of a source that is gone now; nothing else tells of it.
            if is_regular(path):
                context.set_aside.keep_made(path, path, os.path.splitext(path)[1])
            ledger.outputs.delete([orphan.target])
    ledger.failures.forget(plan.store.past_failures())
    plan.store.keep_readings()
    for within in [(b"", None)] if plan.compared is None else [each.within for each in plan.compared]:
        ledger.unchanged.delete(*within)
    context.recorder.commit()


def note_left_out(context: RunContext) -> None:
    """Note the folders that could not be listed, the effect of that, and the files that were left out."""
    walk = context.plan.walk
    for note in walk.describe_unlisted():
        context.note(note)
    if groups := context.plan.counts_of_groups["settling", MEMBERS_UNKNOWN]:
        those = "1 output of a group was" if groups == 1 else f"{groups:,} outputs of groups were"
        context.note(f"{those} {text_of(MEMBERS_UNKNOWN)}", is_routine=True)
    # A list of names may well have some that are no inputs; none that is not there.
    is_routine = context.selection.is_partial and not walk.is_misled
    for note in walk.describe_left_out():
        context.note(note, is_routine=is_routine)
    for note in describe(context.plan.kept):
        context.note(note)
    if walk.unlisted or walk.is_misled:
        context.log.end_with(1)


def rename(context: RunContext) -> None:
    """Move the outputs of which only the path has changed, before a job may write to the old path."""
    plan = context.plan
    if plan.store.has_renames:
        from pipeline.planning.renames import Renamer

        owned = OwnedFolders(context.config.folder, context.state.id)
        context.summary.renamed = Renamer(context.ledger, plan.store, context.folder, owned).rename()
        if context.summary.renamed < plan.count("rename"):  # some could not be moved, and are made
            plan.jobs = plan.store.count_jobs()


def run_jobs(context: RunContext) -> None:
    """Make the outputs of files, and then those of groups."""
    plan, recorder, work = context.plan, context.recorder, context.work
    if not plan.jobs and plan.groups is None:
        return
    _expect(context)
    if plan.jobs:
        jobs: Iterator[Job] = plan.store.jobs(context.learnt)
        jobs = recorder.intended(context.parts.with_parts(jobs) if context.parts else jobs)
        recorder.expect(plan.jobs)
        work.loop().run(chain(context.early.rest() if context.early else (), jobs))
    if plan.groups and not work.is_stopped:
        _run_groups(context, plan.groups)
    work.end()


def prune(context: RunContext) -> None:
    """Remove orphans, if the pipeline has `prune` and they are within its limit."""
    config, summary = context.config, context.summary
    if config.prune is None or context.selection.is_partial or not summary.ended_in_order:
        return
    from pipeline.operations.prune import Pruner

    context.recorder.commit()
    if summary.skipped:
        context.plan.store.add_skipped()
    context.plan.store.spare_old_outputs()
    owned = OwnedFolders(config.folder, context.state.id)
    try:
        pruner = Pruner(context.ledger, config.folder, owned, context.unclean_runs)
        pruned = pruner.prune_within(config.prune, context.plan.store)
    except PolicyStop as refused:
        summary.remedy = "prune"
        command = summary.command("prune")
        context.log.stop(refused.exit_code, f"{refused}: {command}" if command else str(refused))
        return
    summary.pruned = pruned.removed
    if pruned.failed:
        context.log.end_with(1)
        context.note(pruned.describe_failures())


def judge(context: RunContext) -> None:
    """End with the exit code of a limit where outputs are kept whose sources are gone, or are held."""
    if context.plan.kept:
        context.log.end_with(PolicyStop.exit_code)
    if context.summary.held > context.summary.dismissed:
        context.log.end_with(HELD_ONLY)


# -- what steps share -------------------------------------------------------------------------------------------------


def _plan_jobs(context: RunContext, leaves: tuple[OutputSpec, ...]) -> Plan:
    """Make the plan; a first run may have jobs of it done meanwhile."""
    config, ledger, selection, request = context.config, context.ledger, context.selection, context.request
    templates = list(config.output_folders.values())
    context.recorder.same_files = SameFileFinder(context.folder, templates, ledger.targets)
    is_first = not why_whole_plan(config, leaves) and is_first_run(config, ledger, selection)
    if is_first and may_pass_over(config, selection):
        of_files = [leaf for leaf in leaves if not leaf.gathers]
        context.recorder.made_ranges = MadeRanges(RangeDigests(config, of_files))
    with EarlyJobs(context) if is_first else nullcontext() as context.early:
        plan = make_plan(
            config, ledger, leaves, selection, record=True, is_loss_meant=request.confirmations.rebuild,
            # Workers take a while to start, and may do so while it is found out what else there is for them.
            on_work=context.open_engine if config.engine == "pool" else None,
            # After a change of the code everything is looked at again.
            looked=request.looked if config is request.config else None,
            taker=context.early,
        )  # fmt: skip
    context.recorder.same_files = SameFileFinder(context.folder, templates, ledger.targets, plan.store.targets)
    return plan


def _expect(context: RunContext) -> None:
    """Estimate what the jobs take, if some take long enough for a person to wait for them."""
    workers, expected = count_workers(context.config), Expected()
    if context.learnt.slowest_s >= LONG_S:
        expected = context.plan.store.expect(context.learnt, workers)
    done = context.recorder.done_files
    context.remaining.expect(expected, context.learnt, workers * efficiency(context.ledger), done=done)


def _run_groups(context: RunContext, groups: GroupPlanner) -> None:
    """Make the outputs of groups, from the members that exist now."""
    plan, recorder = context.plan, context.recorder
    recorder.commit()
    context.ledger.begin()
    if plan.jobs or context.summary.renamed:
        groups.plan_again(is_made=True)
        plan.count_groups()
    groups.forget_past_failures()
    _count_planned(context.summary, plan.counts_of_groups)
    context.observers.on_held(context.summary.held - context.summary.dismissed)
    _record_refused(context, of_groups=True)
    recorder.commit()
    if count := plan.jobs_of_groups:
        scratch = os.fsencode(context.state.scratch)
        jobs = groups.with_members(recorder.intended(plan.store.jobs_of_groups()), scratch)
        recorder.expect(count)
        context.work.loop().run(jobs, lambda outcome: groups.remove_members_file(outcome, scratch))


def _count_planned(summary: Summary, counts: Counter[tuple[Action, Reason]]) -> None:
    for (action, reason), outputs in counts.items():
        is_edited = reason.code == "edited"
        summary.edited += outputs if is_edited else 0
        summary.up_to_date += outputs if action == "up-to-date" and not is_edited else 0
        summary.settling += outputs if reason == SETTLING else 0
        summary.held += outputs if action == "held" else 0
        summary.dismissed += outputs if reason.code == "dismissed" else 0


def _record_refused(context: RunContext, *, of_groups: bool) -> None:
    """Record the outputs that the plan refuses, of files or of groups."""
    for refused in context.plan.store.decisions("refuse", of_groups=of_groups):
        code, text = refused.reason.code, text_of(refused.reason)
        kind: FailureKind = "collision" if code in ("collision", "not_ours") else "error"
        text = f"{text}: {shown(refused.target)}" if code in ("not_ours", "not_a_file") else text
        result = Result(refused.stage, refused.path, "failed", text, kind)
        if code == "not_ours" or code == "members_failed":
            result = result._replace(code=code)
        context.recorder.refuse(Outcome(refused.origin, (result,)))


# -- the run ----------------------------------------------------------------------------------------------------------

STEPS: tuple[Callable[[RunContext], None], ...] = (
    check_places,
    plan,
    record_plan,
    clear_up,
    note_left_out,
    rename,
    run_jobs,
    prune,
    judge,
)


def _follow_steps(context: RunContext) -> None:
    """Take every step, and begin again with the new code where the code changes meanwhile."""
    for changes in range(1, MAX_CHANGES + 1):
        try:
            with Work(context) as context.work:
                for step in STEPS:
                    step(context)
            return
        except CodeChanged as changed:
            if changes == MAX_CHANGES:
                raise
            context.plan_anew(changed)


def run(
    config: Config,
    selection: Selection,
    observers: Iterable[RunObserver] = (),
    *,
    grace_s: float = GRACE_S,
    confirmations: Confirmations = NOTHING_CONFIRMED,
    is_followed: Callable[[], bool] | None = None,
    reload: Callable[[], Config] | None = None,
    may_import_here: bool = True,
    looked: Looked | None = None,
    max_time: MaxTime | None = None,
) -> Summary:
    """Bring every selected output up to date.

    Args:
        config: The pipeline.
        selection: The files to process in this run.
        observers: The observers that receive the events of the run, in this order.
        grace_s: Seconds that the jobs in hand may still take after a first signal.
        confirmations: The user's confirmations, which let the run pass guards.
        is_followed: Function that is called repeatedly; the run stops with exit code 130, as by Ctrl-C, once it
            returns False.
        reload: Function that loads the pipeline again where its code changes during the run; without it the run then
            stops with exit code 3.
        may_import_here: Whether a serial run may import the stages into this process; else it has one worker.
        looked: What was found by who has looked at all files just before.
        max_time: When the run must end; it stops with exit code 5 where not all could be done by then.

    Returns:
        The summary, whose `exit` is the exit code.

    Raises:
        FilemillError: Nothing was run.
    """
    began = time.monotonic()
    request = RunRequest(
        config, selection, tuple(observers), grace_s, confirmations, is_followed, reload, may_import_here, looked,
        max_time,
    )  # fmt: skip
    with open_run(request) as context:
        with end_run_on_error(context):
            _follow_steps(context)
        context.ledger.commit()
        context.summary.seconds = time.monotonic() - began
        close_run(context)
    return context.summary
