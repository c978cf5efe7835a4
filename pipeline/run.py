"""The journey: discover -> plan -> engine -> ledger -> summary, one loop on one screen."""

from __future__ import annotations

import os
import sqlite3
import time
import traceback
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from itertools import islice
from typing import TextIO

from pipeline import worker
from pipeline.config import Config
from pipeline.engines import Engine
from pipeline.errors import EnvironmentFailure
from pipeline.ledger import Ledger
from pipeline.messages import Job, Outcome, Result, StageInfo
from pipeline.names import shown
from pipeline.options import absolute
from pipeline.outputs import remove_temporaries
from pipeline.plan import Plan, Selection, leaves_of, make_plan
from pipeline.progress import Progress, Summary
from pipeline.signals import Signals
from pipeline.state import State, claim, open_state
from pipeline.tree import Blueprint, Node

# Seconds that what is in hand may still take after a signal.
GRACE_S = 20.0
# Seconds between commits of the ledger: what a killed run may have to redo.
_COMMIT_EVERY_S = 0.1
# Jobs whose targets are recorded as intended together.
_INTEND_AHEAD = 256


def run(config: Config, selection: Selection, progress: Progress, grace_s: float = GRACE_S) -> Summary:
    """Bring every selected output up to date. Raises FilemillError where nothing was run.

    After a signal what is in hand may go on for `grace_s` seconds.
    """
    began = time.monotonic()
    state = open_state(config.state, config.name)
    try:
        for leaf in config.leaves:
            assert leaf.output is not None
            claim(leaf.output.template.folder, state, config.name)
        with closing(Ledger(state.ledger)) as ledger, open(state.log, "w", encoding="utf-8") as log:
            summary = Summary(run=state.run, pipeline=config.name)
            ledger.begin_run(state.run)
            try:
                _Journey(config, selection, state, ledger, progress, summary, log).go(grace_s)
            except sqlite3.Error as error:
                raise EnvironmentFailure(f"the ledger {state.ledger} cannot be used: {error}") from error
            except Exception:
                log.write(traceback.format_exc())
                raise
            summary.seconds = time.monotonic() - began
            # Only a run over everything has met all that a killed one may have left beside an output.
            swept = summary.exit in (0, 1) and not selection.is_partial
            ledger.end_run(summary.exit, summary.as_json(), swept=swept)
            return summary
    finally:
        state.close()


class _Journey:
    """One run: what it works with, and its steps in the order of their use."""

    def __init__(
        self,
        config: Config,
        selection: Selection,
        state: State,
        ledger: Ledger,
        progress: Progress,
        summary: Summary,
        log: TextIO,
    ) -> None:
        self.config = config
        self.selection = selection
        self.state = state
        self.ledger = ledger
        self.progress = progress
        self.summary = summary
        self.log = log
        self.templates = {leaf.name: leaf.output.template for leaf in config.leaves if leaf.output}
        self.recipes: dict[str, int] = {}
        self.committed_at = time.monotonic()

    def go(self, grace_s: float) -> None:
        unclean = [each for each in self.ledger.unclean_runs() if each != self.state.run]
        leaves = leaves_of(self.config, self.ledger, record=True)
        self.recipes = {leaf.stage: leaf.number for leaf in leaves if leaf.number is not None}
        plan = make_plan(self.config, self.ledger, leaves, self.selection)
        self._take_stock(plan, unclean)
        try:
            if plan.jobs:
                signals = Signals(grace_s)
                with signals:
                    self._work(plan, signals, unclean)
                if signals.first:
                    self._stop(128 + signals.first, f"by {signals.name}")
        except (EnvironmentFailure, sqlite3.Error, OSError) as error:
            self._stop(EnvironmentFailure.exit_code, str(error))
        finally:
            self.progress.stop()
        self._commit()

    def _work(self, plan: Plan, signals: Signals, unclean: list[str]) -> None:
        """The loop: feed the engine while it has room, record what comes back, stop when nothing is left."""
        self.progress.start(plan.jobs)
        jobs = self._intended(plan.spool.jobs())
        with closing(self._engine(unclean)) as engine:
            fed = False
            while engine.busy or not fed:
                if signals.first or self.summary.stopped:
                    signals.check_grace()
                    engine.drain()
                    fed = True
                while not fed and engine.has_room:
                    job = next(jobs, None)
                    if job is None:
                        fed = True
                    else:
                        engine.submit(job)
                for outcome in engine.poll(_COMMIT_EVERY_S):
                    self._record(outcome)
                if time.monotonic() - self.committed_at > _COMMIT_EVERY_S:
                    self._commit()

    # -- the steps -----------------------------------------------------------------------------------------------------

    def _take_stock(self, plan: Plan, unclean: list[str]) -> None:
        """Count what the plan needs no worker for, and clear away what is left of files that are gone."""
        summary = self.summary
        summary.sources, summary.up_to_date = plan.sources, plan.count("up-to-date")
        self.ledger.begin()
        for refused in plan.spool.decisions("refuse"):
            result = Result(refused.stage, refused.path, "failed", refused.why, "collision")
            self._record(Outcome(refused.source, (result,)))
        only_intended = [target for target, _, status in plan.spool.orphans() if status == "intended"]
        for target in only_intended:
            remove_temporaries(os.fsencode(self.config.folder / os.fsdecode(target)), unclean)
        self.ledger.forget(targets=only_intended, failures=plan.spool.past_failures())
        self._commit()
        for folder, why in plan.walk.unlisted:
            summary.notes.append(f"folder {shown(folder) or '.'} cannot be listed: {why}; what is in it was left alone")
            summary.exit = max(summary.exit, 1)
        for reason, count in plan.walk.left_out.items():
            names = [shown(path) for path, each in plan.walk.left_out_names if each == reason]
            summary.notes.append(f"left out, {reason}: {', '.join(names[:3])}{' ...' if count > 3 else ''}")

    def _intended(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """The same jobs, each recorded as intended before it is handed out."""
        while ahead := list(islice(jobs, _INTEND_AHEAD)):
            self.ledger.begin()
            self.ledger.intend(ahead, self._key)
            self._commit()
            yield from ahead

    def _record(self, outcome: Outcome) -> None:
        if outcome.environment:
            self._stop(EnvironmentFailure.exit_code, outcome.environment)
            kept = tuple(result for result in outcome.results if result.status != "failed")
            outcome = replace(outcome, results=kept)
        self.ledger.begin()
        self.ledger.record(outcome, self._key, self.recipes)
        self.summary.add(outcome)
        for result in outcome.results:
            if result.status == "failed":
                self.summary.exit = max(self.summary.exit, 1)
                name = f"{shown(outcome.source.path)} ({result.stage})"
                self.log.write(f"{name}: {result.kind}: {result.text}\n{result.detail}{outcome.output}\n")
                if result.kind in ("crashed", "timeout", "memory"):  # a killed worker cannot clear up after itself
                    remove_temporaries(result.path, [self.state.run])
        self.progress.step(outcome)

    def _stop(self, exit_code: int, why: str) -> None:
        """End the run before its time; of several causes the graver one counts."""
        if _gravity(exit_code) > _gravity(self.summary.exit):
            self.summary.exit, self.summary.stopped = exit_code, why
            self.log.write(f"stopped: {why}\n")

    def _commit(self) -> None:
        self.ledger.commit()
        self.committed_at = time.monotonic()

    def _key(self, stage: str, path: bytes) -> bytes:
        return self.templates[stage].key(path)

    def _engine(self, unclean: list[str]) -> Engine:
        config, blueprint = self.config, _blueprint(self.config, self.state, unclean).pack()
        if config.engine == "serial":
            from pipeline.engines.serial import SerialEngine

            return SerialEngine(blueprint)
        from pipeline.engines.pool import PoolEngine, PoolSettings, available_processes

        pool = config.pool
        return PoolEngine(
            PoolSettings(
                processes=pool.processes or available_processes(),
                maxtasksperchild=pool.maxtasksperchild,
                context=pool.context,
                timeout_s=config.timeout_s,
                max_memory_bytes=pool.max_memory_bytes,
                start_timeout_s=pool.start_timeout_s,
                retries=config.retries,
                backoff_s=config.backoff_s,
            ),
            [StageInfo(stage.name, stage.parent, stage.timeout_s) for stage in config.stages],
            worker.start,
            blueprint,
            worker.work,
            self.state.folder / "slots",
            close_fds=(self.state.lock_fd,),
        )


def _blueprint(config: Config, state: State, unclean: list[str]) -> Blueprint:
    """What the workers need to know of the pipeline, as plain data."""
    nodes = tuple(
        Node(
            name=stage.name,
            uses=stage.stage.uses,
            options=absolute(stage.options, config.folder),
            parent=stage.parent,
            save=stage.output.save if stage.output else {},
        )
        for stage in config.stages
    )
    return Blueprint(
        folder=config.folder,
        root=os.fsencode(config.inputs.root),
        scratch=state.scratch,
        run=state.run,
        unclean_runs=tuple(unclean),
        nodes=nodes,
        initializer=config.pool.initializer,
        initargs=config.pool.initargs,
    )


def _gravity(exit_code: int) -> int:
    """The graver exit code wins: a signal, a bug, the environment, wrong use, policy, failed files, the clock."""
    order = (0, 5, 1, 4, 2, 3, 70)
    return order.index(exit_code) if exit_code in order else len(order)
