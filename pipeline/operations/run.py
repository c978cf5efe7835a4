"""One run: plan, engine, ledger, report. `STEPS` says in which order, and each step is a function below.

Whatever a step raises comes to `_end_run_on_error`, the one place that tells a refusal, after which nothing was made,
from a run that the machine stopped part-way.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pipeline.config.model import Config
from pipeline.engines import Engine
from pipeline.errors import EnvironmentFailure, FilemillError, PolicyStop, WorkersFailed
from pipeline.files.atomic import remove_temporaries
from pipeline.files.file_system import describe, describe_room
from pipeline.files.ownership import Places
from pipeline.files.parts import PartList
from pipeline.files.state_dir import State, open_state
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.recovery import is_damage
from pipeline.ledger.session import open_to_write
from pipeline.messages import Kind, Outcome, Result
from pipeline.observer import Observers, RunObserver
from pipeline.operations.guards import NOTHING_CONFIRMED, Confirmations, Guards, guards_of
from pipeline.operations.job_loop import JobLoop, Signals
from pipeline.operations.launch import open_engine
from pipeline.operations.recorder import Recorder, RunLog
from pipeline.planning.decisions import Action, Reason, text_of
from pipeline.planning.estimate import Pace
from pipeline.planning.output_spec import Selection
from pipeline.planning.plan import Plan, make_plan, output_specs, settled_spans
from pipeline.planning.recorded_parts import MadeParts
from pipeline.report.live import LiveProgress
from pipeline.report.summary import Summary
from pipeline.text import program, shown

if TYPE_CHECKING:
    from pipeline.planning.groups import GroupPlanner

# Seconds that the jobs in hand may still take after a signal.
GRACE_S = 20.0
# What is not up to date and yet is given to no worker, which would clear up beside it.
_NOT_HANDED_OUT: tuple[Action, ...] = ("held", "settling", "refuse")


_NO_WORK = Pace(0, 0.0)


@dataclass
class RunContext:
    """What the steps of one run share; `plan` and `recorder` are there from the step `plan` on."""

    config: Config
    selection: Selection
    grace_s: float
    is_followed: Callable[[], bool]
    state: State
    ledger: Ledger
    log: RunLog
    observers: Observers
    guards: Guards
    unclean_runs: list[str]
    """The ids of runs that may have left temporaries."""
    summary: Summary
    plan: Plan = field(init=False)
    recorder: Recorder = field(init=False)
    parts: MadeParts | None = None
    """What is recorded of outputs in parts, where there may be any."""
    is_planned: bool = False
    """Whether there is a plan, and no guard refused it."""
    engine: Engine | None = None
    pace: Pace = _NO_WORK

    def note(self, text: str) -> None:
        """Tell a person something that concerns no single output."""
        self.log.note(text)
        self.observers.on_note(text)

    def open_engine(self) -> Engine:
        """Return the engine, whose workers begin to start when it is first asked for."""
        if self.engine is None:
            self.engine = open_engine(self.config, self.state, self.unclean_runs)
            self.engine.warm_up()
        return self.engine

    def folder(self) -> bytes:
        """Return the folder of pipeline.yaml, to which the ledger's targets are relative."""
        return os.fsencode(self.config.folder)


def run(
    config: Config,
    selection: Selection,
    observers: Iterable[RunObserver] = (),
    *,
    grace_s: float = GRACE_S,
    confirmations: Confirmations = NOTHING_CONFIRMED,
    is_followed: Callable[[], bool] = lambda: True,
) -> Summary:
    """Bring every selected output up to date.

    Args:
        config: The pipeline.
        selection: Which of its files are done this time.
        observers: Those that receive the events of the run, in this order.
        grace_s: The seconds that the jobs in hand may still take after a first signal.
        confirmations: What the user confirmed, so that the guards let it pass.
        is_followed: Asked again and again; once it is false, the run stops with exit code 3.

    Returns:
        The summary, whose `exit` is the exit code.

    Raises:
        FilemillError: Nothing was run.
    """
    began = time.monotonic()
    with _open_run(config, selection, observers, grace_s, confirmations, is_followed) as context:
        with _end_run_on_error(context):
            for step in STEPS:
                step(context)
        context.ledger.commit()
        context.summary.seconds = time.monotonic() - began
        _close_run(context)
    return context.summary


# -- the steps ---------------------------------------------------------------------------------------------------------


def check_places(context: RunContext) -> None:
    """Ask whose the state and the output folders are, and whether they are there. Raises UsageError and others."""
    context.guards.check_places()
    context.guards.take_over()


def plan(context: RunContext) -> None:
    """Compare the files with the ledger, and decide what is to be made. Raises FilemillError where a guard refuses."""
    config, ledger, guards, selection = context.config, context.ledger, context.guards, context.selection
    leaves = output_specs(config, ledger, record=True)
    if context.unclean_runs or any(leaf.has_parts for leaf in leaves):
        noted = PartList(context.state.parts)
        context.parts = MadeParts(ledger, leaves, noted, context.folder(), force=selection.force)
        context.parts.take_over(context.unclean_runs)
    context.recorder = Recorder(ledger, context.log, context.observers, leaves, config.errors, context.parts)
    # Workers take a while to start, and may do so while it is found out what else there is for them.
    on_work = context.open_engine if config.engine == "pool" else lambda: None
    context.plan = make_plan(config, ledger, leaves, selection, record=True, on_work=on_work)
    guards.check_plan(context.plan, selection)
    guards.settle(context.plan, selection)
    for note in guards.notes:
        context.note(note)
    context.is_planned = True


def record_plan(context: RunContext) -> None:
    """Record what needs no worker: what is up to date, held or refused."""
    context.summary.sources, context.summary.unmatched = context.plan.sources, context.plan.unmatched
    _count_planned(context.summary, context.plan.counts)
    _record_refused(context, of_groups=False)


def clear_up(context: RunContext) -> None:
    """Remove the temporaries that killed runs left where no worker comes, and forget what is gone."""
    plan, ledger, unclean_runs = context.plan, context.ledger, context.unclean_runs
    for action in _NOT_HANDED_OUT if unclean_runs else ():
        for decision in plan.store.decisions(action):
            if decision.path:
                remove_temporaries(decision.path, unclean_runs)
    ledger.begin()
    for orphan in plan.store.orphans():
        remove_temporaries(os.path.join(context.folder(), orphan.target), unclean_runs)
        if orphan.status == "intended":
            ledger.outputs.delete([orphan.target])
    ledger.failures.forget(plan.store.past_failures())
    plan.store.keep_readings()
    for within in [(b"", None)] if plan.judged is None else plan.judged:
        ledger.unchanged.delete(*within)
    context.recorder.commit()


def note_left_out(context: RunContext) -> None:
    """Note the folders that could not be listed, and the files that were left out."""
    walk = context.plan.walk
    for folder, why in walk.unlisted:
        context.note(f"folder {shown(folder) or '.'} cannot be listed: {why}; what is in it was left alone")
    for note in walk.describe_left_out():
        context.note(note)
    if walk.unlisted or walk.is_misled:
        context.summary.exit = 1


def rename(context: RunContext) -> None:
    """Move the outputs that only have another path now, before a job may write to their old one."""
    plan = context.plan
    if renames := plan.count("rename"):
        from pipeline.planning.renames import Renamer

        places = Places(context.config.folder, context.state.id)
        context.summary.renamed = Renamer(context.ledger, plan.store, context.folder(), places).rename()
        if context.summary.renamed < renames:  # some could not be moved, and are made
            plan.jobs = plan.store.count_jobs()


def run_jobs(context: RunContext) -> None:
    """Make what is made of files, and then what is made of groups of them."""
    plan, began = context.plan, time.monotonic()
    if not plan.jobs and plan.groups is None:
        return
    with Signals(context.grace_s) as signals:
        try:
            if plan.jobs:
                jobs = context.recorder.intended(plan.store.jobs())
                _job_loop(context, signals).run(context.parts.told(jobs) if context.parts else jobs, plan.jobs)
            if plan.groups and not (signals.first or context.log.is_stopped):
                _run_groups(context, plan.groups, signals)
        finally:
            if context.engine:
                context.engine.close()
    if signals.first:
        cut = ", what was in hand was cut off" if signals.is_interrupted else ""
        context.log.stop(128 + signals.first, f"by {signals.name}{cut}; the same line resumes")
    context.pace = Pace(context.recorder.done_files, time.monotonic() - began)


def prune(context: RunContext) -> None:
    """Remove the outputs that nothing produces any more, if that is asked for and they are not too many."""
    config, summary = context.config, context.summary
    if config.prune is None or context.selection.is_partial or summary.exit not in (0, 1):
        return
    from pipeline.operations.prune import Pruner

    context.recorder.commit()
    if summary.skipped:
        context.plan.store.add_skipped()
    places = Places(config.folder, context.state.id)
    try:
        pruner = Pruner(context.ledger, config.folder, places, context.unclean_runs)
        pruned = pruner.prune_within(config.prune, context.plan.store)
    except PolicyStop as refused:
        command = f"{program()} prune {shlex.quote(str(config.file))}"
        context.log.stop(refused.exit_code, f"{refused}: {command}")
        return
    summary.pruned = pruned.removed
    if pruned.failed:
        summary.exit = 1
        context.note(pruned.describe_failures())


STEPS: tuple[Callable[[RunContext], None], ...] = (
    check_places,
    plan,
    record_plan,
    clear_up,
    note_left_out,
    rename,
    run_jobs,
    prune,
)


# -- how a run is opened and closed, and what ends it before its time --------------------------------------------------


@contextmanager
def _open_run(
    config: Config,
    selection: Selection,
    observers: Iterable[RunObserver],
    grace_s: float,
    confirmations: Confirmations,
    is_followed: Callable[[], bool],
) -> Iterator[RunContext]:
    """Lock the state, open ledger and log, and begin the run; all of it is closed however the run ends."""
    folders = [leaf.output.template.folder for leaf in config.leaves if leaf.output]
    with closing(open_state(config.state, config.name)) as state:
        try:
            # A log without a buffer of its own says what there was to say, however the run ends.
            with (
                open_to_write(state, folders, is_run=True) as ledger,
                open(state.log, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as file,
            ):
                file.writelines(f"{note}\n" for note in ledger.notes)
                summary = Summary(run=state.run, pipeline=config.name)
                log = RunLog(file, summary)
                live = LiveProgress(state, summary, config.file.name)
                told = Observers([*observers, live], log.report_observer)
                guards = guards_of(config, ledger, confirmations)
                told.on_start()
                ledger.begin_run(state.run)
                unclean_runs = [each for each in ledger.unclean_runs() if each != state.run]
                context = RunContext(
                    config, selection, grace_s, is_followed, state, ledger, log, told, guards, unclean_runs, summary
                )
                for warning in config.warnings:
                    context.note(warning)
                yield context
        except (sqlite3.Error, OSError) as error:
            text = f"the state in {state.folder} cannot be kept: {_describe(error, state)}"
            raise EnvironmentFailure(text) from error


@contextmanager
def _end_run_on_error(context: RunContext) -> Iterator[None]:
    """Record what a step raised: a refusal is raised on, what the machine did ends the run with exit code 3."""
    try:
        yield
    except (FilemillError, sqlite3.Error, OSError) as error:
        is_refused = not context.is_planned and not isinstance(error, WorkersFailed)
        if isinstance(error, FilemillError) and (is_refused or not isinstance(error, EnvironmentFailure)):
            _record_refusal(context, error)
            raise
        context.ledger.is_suspect = isinstance(error, sqlite3.Error) and is_damage(error)
        context.log.stop(EnvironmentFailure.exit_code, _describe(error, context.state))
    except Exception:
        context.log.write(traceback.format_exc())
        raise
    finally:
        if context.engine:
            context.engine.close()


def _record_refusal(context: RunContext, error: FilemillError) -> None:
    """Record that there was a run in which nothing was made, and why."""
    summary = context.summary
    summary.exit, summary.stopped = error.exit_code, error.text
    context.log.write(f"refused: {error}")
    context.observers.on_end()
    context.ledger.end_run(error.exit_code, summary.as_json(), swept=False)


def _close_run(context: RunContext) -> None:
    """Add the notes that need the whole summary, and end the run in the ledger."""
    plan, ledger, summary = context.plan if context.is_planned else None, context.ledger, context.summary
    _note_next_steps(context)
    if plan and plan.judged and summary.exit in (0, 1):
        ledger.begin()
        ledger.unchanged.add(settled_spans(ledger, plan.leaves, plan.judged))
        ledger.commit()
    # Only a run over everything has met all that a killed one may have left beside an output.
    met_all = plan is not None and not context.selection.is_partial and not plan.walk.unlisted
    swept = met_all and summary.exit in (0, 1)
    if swept and not summary.exit and ledger.facts.uncertain_period:
        ledger.facts.set_uncertain_period(None)
    ledger.end_run(summary.exit, summary.as_json() | context.pace.as_json(), swept=swept)
    PartList(context.state.parts).clear(ledger.unclean_runs())
    context.observers.on_end()


def _note_next_steps(context: RunContext) -> None:
    """Note what a person may do about what the run has met."""
    summary, only = context.summary, context.selection.only
    if only and context.is_planned and not context.plan.sources:
        patterns = " ".join(f"--only {shlex.quote(pattern)}" for pattern in only)
        context.note(f"no file matches {patterns}")
    if any(result.code == "not_ours" for _, result in summary.failures):
        context.note(
            "what exists and is not in the ledger is left alone; --force makes it anew, 'adopt' takes it as made"
        )
    if any(result.detail or result.kind not in ("error", "changed") for _, result in summary.failures):
        summary.notes.append(f"details: {shown(os.fsencode(context.state.log))}")


def _describe(error: Exception, state: State) -> str:
    """Describe what the machine did, with the file it concerns."""
    if isinstance(error, sqlite3.Error):
        return f"the ledger {state.ledger} fails: {error}{'' if is_damage(error) else describe_room(state.ledger)}"
    return describe(error, error.filename or state.folder) if isinstance(error, OSError) else str(error)


# -- what steps share --------------------------------------------------------------------------------------------------


def _job_loop(context: RunContext, signals: Signals) -> JobLoop:
    return JobLoop(
        context.open_engine(),
        context.recorder,
        context.log,
        context.observers,
        context.guards,
        signals,
        context.is_followed,
    )


def _run_groups(context: RunContext, groups: GroupPlanner, signals: Signals) -> None:
    """Make what is made of groups, of those members that there are now."""
    plan, recorder = context.plan, context.recorder
    recorder.commit()
    context.ledger.begin()
    if plan.jobs or context.summary.renamed:
        groups.plan_again(is_made=True)
        plan.count_groups()
    groups.forget_past_failures()
    _count_planned(context.summary, plan.counts_of_groups)
    _record_refused(context, of_groups=True)
    recorder.commit()
    if count := plan.jobs_of_groups:
        scratch = os.fsencode(context.state.scratch)
        jobs = groups.with_members(recorder.intended(plan.store.jobs_of_groups()), scratch)
        loop = _job_loop(context, signals)
        loop.run(jobs, count, lambda outcome: groups.remove_members_file(outcome, scratch))


def _count_planned(summary: Summary, counts: Counter[tuple[Action, Reason]]) -> None:
    for (action, reason), outputs in counts.items():
        summary.up_to_date += outputs if action == "up-to-date" else 0
        summary.settling += outputs if action == "settling" else 0
        summary.held += outputs if action == "held" else 0
        summary.dismissed += outputs if reason.code == "dismissed" else 0
    if summary.held > summary.dismissed:
        summary.exit = max(summary.exit, 1)


def _record_refused(context: RunContext, *, of_groups: bool) -> None:
    """Record the outputs that the plan refuses, of files or of groups."""
    for refused in context.plan.store.decisions("refuse", of_groups=of_groups):
        code, text = refused.reason.code, text_of(refused.reason)
        kind: Kind = "collision" if code in ("collision", "not_ours") else "error"
        text = f"{text}: {shown(refused.target)}" if code in ("not_ours", "not_a_file") else text
        result = Result(refused.stage, refused.path, "failed", text, kind)
        if code == "not_ours" or code == "members_failed":
            result = result._replace(code=code)
        context.recorder.refuse(Outcome(refused.origin, (result,)))
