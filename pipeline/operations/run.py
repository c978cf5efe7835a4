"""The journey: discover -> plan -> engine -> ledger -> summary, one loop on one screen."""

from __future__ import annotations

import os
import shlex
import sqlite3
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TextIO

from pipeline.config.model import Config
from pipeline.engines import Engine
from pipeline.errors import EnvironmentFailure, FilemillError, PolicyStop, WorkersFailed
from pipeline.files.atomic import refuse_lost, remove_temporaries
from pipeline.files.file_system import describe, describe_room
from pipeline.files.ownership import Places
from pipeline.files.parts import PartList
from pipeline.files.state_dir import State, open_state
from pipeline.files.template import NoFile
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.recovery import is_damage
from pipeline.ledger.session import open_to_write
from pipeline.messages import AnyJob, Kind, Outcome, Result
from pipeline.operations.guards import NOTHING_ODD, Guards, Meant, guards_of
from pipeline.operations.launch import open_engine
from pipeline.operations.prune import Pruner
from pipeline.operations.recorder import COMMIT_EVERY_S, Journal
from pipeline.operations.signals import Signals
from pipeline.planning.decisions import Action, Reason, text_of
from pipeline.planning.estimate import Pace
from pipeline.planning.groups import Gathers
from pipeline.planning.output_spec import Selection
from pipeline.planning.plan import Plan, make_plan, output_specs, settled_spans
from pipeline.planning.recorded_parts import MadeParts
from pipeline.planning.renames import Renamer
from pipeline.report.heartbeat import Heartbeat
from pipeline.report.progress import Progress, Summary
from pipeline.text import NOT_OURS, shown

# Seconds that what is in hand may still take after a signal.
GRACE_S = 20.0
# What is not up to date and yet no worker gets to see, which would clear up beside it.
_NOT_HANDED_OUT: tuple[Action, ...] = ("held", "settling", "refuse")


def run(
    config: Config, selection: Selection, progress: Progress, grace_s: float = GRACE_S, meant: Meant = NOTHING_ODD
) -> Summary:
    """Bring every selected output up to date. Raises FilemillError where nothing was run.

    After a signal what is in hand may go on for `grace_s` seconds; `meant` is what the guards are to let pass.
    """
    state = open_state(config.state, config.name)
    try:
        folders = [leaf.output.template.folder for leaf in config.leaves if leaf.output]
        # A log without a buffer of its own says what there was to say, however the run ends.
        with (
            open_to_write(state, folders, is_run=True) as ledger,
            open(state.log, "w", buffering=1, encoding="utf-8", errors="backslashreplace") as log,
        ):
            log.writelines(f"{note}\n" for note in ledger.notes)
            guards = guards_of(config, ledger, meant)
            return _Run(config, selection, state, ledger, guards, progress, log).go(grace_s)
    except (sqlite3.Error, OSError) as error:
        text = f"the state in {state.folder} cannot be kept: {_text(error, state)}"
        raise EnvironmentFailure(text) from error
    finally:
        state.close()


class _Run:
    """One run: what it works with, and its steps in the order of their use."""

    def __init__(
        self,
        config: Config,
        selection: Selection,
        state: State,
        ledger: Ledger,
        guards: Guards,
        progress: Progress,
        log: TextIO,
    ) -> None:
        templates = {stage.name: stage.output.template if stage.output else NoFile(stage.name) for stage in config.ends}
        self.config = config
        self.selection = selection
        self.state = state
        self.ledger = ledger
        self.guards = guards
        self.progress = progress
        self.log = log
        self.summary = Summary(run=state.run, pipeline=config.name)
        self.places = Places(config.folder, state.id)
        self.pace = Pace(0, 0.0)
        self.journal = Journal(ledger, self.summary, log, progress, templates)
        self.unclean: list[str] = []
        """The runs that may have left temporaries."""
        self.engine: Engine | None = None
        self.heartbeat = self.journal.heartbeat = Heartbeat(state, config.name, config.file.name)

    def go(self, grace_s: float) -> Summary:
        began = time.monotonic()
        self.heartbeat.beat(self.summary, stage="planning")
        self.ledger.begin_run(self.state.run)
        for warning in self.config.warnings:
            self.journal.note(warning)
        self.unclean = self.ledger.unclean_runs()
        self.unclean.remove(self.state.run)
        plan = None
        try:
            plan = self._plan()
            self._take_stock(plan)
            self._rename(plan)
            working = time.monotonic()
            self._work(plan, grace_s)
            self.pace = Pace(self.heartbeat.through, time.monotonic() - working)
            self._prune(plan)
        except (FilemillError, sqlite3.Error, OSError) as error:
            is_guards = plan is None and not isinstance(error, WorkersFailed)
            if isinstance(error, FilemillError) and (is_guards or not isinstance(error, EnvironmentFailure)):
                self._refuse(error)
                raise
            self.ledger.is_suspect = isinstance(error, sqlite3.Error) and is_damage(error)
            self.journal.stop(EnvironmentFailure.exit_code, _text(error, self.state))
        except Exception:
            traceback.print_exc(file=self.log)
            raise
        finally:
            if self.engine:
                self.engine.close()
            self.progress.stop()
        self.journal.commit()
        self.summary.seconds = time.monotonic() - began
        self._end(plan)
        self.heartbeat.end(self.summary)
        return self.summary

    def _refuse(self, error: FilemillError) -> None:
        """Put on record that there was a run in which nothing was made, and why."""
        self.summary.exit, self.summary.stopped = error.exit_code, error.text
        self.log.write(f"refused: {error}\n")
        self.heartbeat.end(self.summary)
        self.ledger.end_run(error.exit_code, self.summary.as_json(), swept=False)

    def _plan(self) -> Plan:
        """The plan, if no guard has anything against it. Raises FilemillError."""
        self.guards.check_places()
        self.guards.take_over()
        leaves = output_specs(self.config, self.ledger, record=True)
        self.journal.recipes = {leaf.stage: leaf.number for leaf in leaves if leaf.number is not None}
        # Workers take a while to start, and may do so while it is found out what else there is for them.
        on_work = self._open_engine if self.config.engine == "pool" else lambda: None
        parts, base = PartList(self.state.parts), os.fsencode(self.config.folder)
        self.made_parts = MadeParts(self.ledger, leaves, parts, base, force=self.selection.force)
        self.journal.made_parts = self.made_parts
        self.made_parts.take_over(self.unclean)
        plan = make_plan(self.config, self.ledger, leaves, self.selection, record=True, on_work=on_work)
        self.guards.check_plan(plan, self.selection)
        self.guards.settle(plan, self.selection)
        for note in self.guards.notes:
            self.journal.note(note)
        return plan

    def _open_engine(self) -> Engine:
        if self.engine is None:
            self.engine = open_engine(self.config, self.state, self.unclean)
            self.engine.warm_up()
        return self.engine

    def _work(self, plan: Plan, grace_s: float) -> None:
        """First what is made of files, and then what is made of groups of them."""
        if not plan.jobs and plan.gathers is None:
            return
        with Signals(grace_s) as signals:
            try:
                if plan.jobs:
                    jobs = self.made_parts.told(self.journal.intended(plan.store.jobs()))
                    self._feed(jobs, plan.jobs, signals)
                if plan.gathers and not (signals.first or self.journal.is_stopped):
                    self._gather(plan, plan.gathers, signals)
            finally:
                if self.engine:
                    self.engine.close()
        if signals.first:
            cut = ", what was in hand was cut off" if signals.interrupted else ""
            self.journal.stop(128 + signals.first, f"by {signals.name}{cut}; the same line resumes")

    def _gather(self, plan: Plan, gathers: Gathers, signals: Signals) -> None:
        """Make what is to be made of groups, by what there is of their members now."""
        self.journal.commit()
        self.ledger.begin()
        if plan.jobs or self.summary.renamed:
            gathers.plan_anew(is_made=True)
            plan.count_groups()
        gathers.forget_past_failures()
        self._count_planned(plan.counts_of_groups)
        self._note_refused(plan, of_groups=True)
        self.journal.commit()
        if count := plan.jobs_of_groups:
            scratch = os.fsencode(self.state.scratch)
            jobs = gathers.told(self.journal.intended(plan.store.jobs_of_groups()), scratch)
            self._feed(jobs, count, signals, lambda outcome: gathers.forget_list(outcome, scratch))

    def _feed(
        self, jobs: Iterator[AnyJob], count: int, signals: Signals, is_done: Callable[[Outcome], None] | None = None
    ) -> None:
        """The loop: feed the engine while it has room, record what comes back, stop when nothing is left."""
        self.progress.stop()
        self.progress.start(count)
        self.journal.errors = self.config.errors
        self.journal.planned += count
        self.heartbeat.planned += count
        root, engine = _folder_at(self.config.inputs.root), self._open_engine()
        fed = draining = False
        while engine.busy or not fed:
            if not draining and (signals.first or self.journal.is_stopped):
                if signals.first:
                    self.progress.tell(f"{signals.name}: finishing what is in hand; a second one stops at once")
                engine.drain()
                draining = fed = True
            signals.check_grace()
            self.progress.check_followed()
            while not fed and engine.has_room:
                if job := next(jobs, None):
                    engine.submit(job)
                else:
                    fed = True
            for outcome in engine.poll(COMMIT_EVERY_S):
                self.journal.record(outcome)
                if is_done:
                    is_done(outcome)
            if not self.journal.is_stopped:
                self._check_folders(root)
            self.journal.commit_if_due()

    def _check_folders(self, root: tuple[int, int] | None) -> None:
        """Files that vanish are no matter of ours, unless the whole disk did; nor may that of the outputs."""
        try:
            if self.summary.vanished and _folder_at(self.config.inputs.root) != root:
                text = f"the input root {self.config.inputs.root} is not the folder any more that it was at the start"
                raise EnvironmentFailure(text)
            for leaf in self.config.leaves:
                if leaf.output:
                    refuse_lost(leaf.output.template.folder)
        except EnvironmentFailure as error:
            self.journal.stop(error.exit_code, error.text)

    def _take_stock(self, plan: Plan) -> None:
        """Write down what needs no worker, and clear away what is left of files that are gone."""
        self.summary.sources, self.summary.unmatched = plan.sources, plan.unmatched
        self._count_planned(plan.counts)
        self._note_refused(plan, of_groups=False)
        for action in _NOT_HANDED_OUT if self.unclean else ():
            for spared in plan.store.decisions(action):
                if spared.path:
                    remove_temporaries(spared.path, self.unclean)
        self.ledger.begin()
        for orphan in plan.store.orphans():
            remove_temporaries(os.path.join(os.fsencode(self.config.folder), orphan.target), self.unclean)
            if orphan.status == "intended":
                self.ledger.outputs.delete([orphan.target])
        self.ledger.failures.forget(plan.store.past_failures())
        plan.store.keep_readings()
        for within in [(b"", None)] if plan.judged is None else plan.judged:
            self.ledger.unchanged.delete(*within)
        self.journal.commit()
        self._note_what_was_not_met(plan)

    def _count_planned(self, counts: Counter[tuple[Action, Reason]]) -> None:
        """Count what needs no worker."""
        summary = self.summary
        for (action, reason), outputs in counts.items():
            summary.up_to_date += outputs if action == "up-to-date" else 0
            summary.settling += outputs if action == "settling" else 0
            summary.held += outputs if action == "held" else 0
            summary.dismissed += outputs if reason.code == "dismissed" else 0
        if summary.held > summary.dismissed:
            summary.exit = max(summary.exit, 1)

    def _note_refused(self, plan: Plan, *, of_groups: bool) -> None:
        """Write down what the plan refuses, of files or of groups."""
        for refused in plan.store.decisions("refuse", of_groups=of_groups):
            code, text = refused.reason.code, text_of(refused.reason)
            kind: Kind = "collision" if code in ("collision", "not_ours") else "error"
            text = f"{text}: {shown(refused.target)}" if code in ("not_ours", "not_a_file") else text
            self.journal.refuse(Outcome(refused.origin, (Result(refused.stage, refused.path, "failed", text, kind),)))

    def _rename(self, plan: Plan) -> None:
        """Move what only has another path by now, before a job may write to its old one."""
        if renames := plan.count("rename"):
            renamer = Renamer(self.ledger, plan.store, os.fsencode(self.config.folder), self.places)
            self.summary.renamed = renamer.rename()
            if self.summary.renamed < renames:  # some could not be moved, and are made
                plan.jobs = plan.store.count_jobs()

    def _prune(self, plan: Plan) -> None:
        """Remove what nothing produces any more, if that is asked for and not too much of it."""
        if self.config.prune is None or self.selection.is_partial or self.summary.exit not in (0, 1):
            return
        self.journal.commit()
        if self.summary.skipped:
            plan.store.add_skipped()
        try:
            pruner = Pruner(self.ledger, self.config.folder, self.places, self.unclean)
            pruned = pruner.prune_within(self.config.prune, plan.store)
        except PolicyStop as refused:
            self.journal.stop(
                refused.exit_code, f"{refused}: python -m pipeline prune {shlex.quote(str(self.config.file))}"
            )
            return
        self.summary.pruned = pruned.removed
        if pruned.failed:
            self.summary.exit = 1
            self.journal.note(pruned.describe_failures())

    def _note_what_was_not_met(self, plan: Plan) -> None:
        for folder, why in plan.walk.unlisted:
            self.journal.note(f"folder {shown(folder) or '.'} cannot be listed: {why}; what is in it was left alone")
        for note in plan.walk.describe_left_out():
            self.journal.note(note)
        if plan.walk.unlisted or plan.walk.is_misled:
            self.summary.exit = 1

    def _end(self, plan: Plan | None) -> None:
        """Say what is left to be said; there is no plan where the machine did not let us make one."""
        if self.selection.only and plan and not plan.sources:
            self.journal.note(f"no file matches --only {self.selection.only!r}")
        if any(result.text.startswith(NOT_OURS) for _, result in self.summary.failures):
            note = "what exists and is not in the ledger is left alone; --force makes it anew, 'adopt' takes it as made"
            self.journal.note(note)
        if any(result.detail or result.kind not in ("error", "changed") for _, result in self.summary.failures):
            self.summary.notes.append(f"details: {shown(os.fsencode(self.state.log))}")
        if plan and plan.judged and self.summary.exit in (0, 1):
            self.ledger.begin()
            self.ledger.unchanged.add(settled_spans(self.ledger, plan.leaves, plan.judged))
            self.ledger.commit()
        # Only a run over everything has met all that a killed one may have left beside an output.
        met_all = plan is not None and not self.selection.is_partial and not plan.walk.unlisted
        swept = met_all and self.summary.exit in (0, 1)
        if swept and not self.summary.exit and self.ledger.facts.uncertain_period:
            self.ledger.facts.set_uncertain_period(None)
        self.ledger.end_run(self.summary.exit, self.summary.as_json() | self.pace.as_json(), swept=swept)
        PartList(self.state.parts).clear(self.ledger.unclean_runs())


def _folder_at(path: Path) -> tuple[int, int] | None:
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _text(error: Exception, state: State) -> str:
    if isinstance(error, sqlite3.Error):
        return f"the ledger {state.ledger} fails: {error}{'' if is_damage(error) else describe_room(state.ledger)}"
    return describe(error, error.filename or state.folder) if isinstance(error, OSError) else str(error)
