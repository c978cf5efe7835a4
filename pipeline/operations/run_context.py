"""The context that the steps of a run share, the opening and closing of a run, and the handling of its errors.

Every error of a step reaches `end_run_on_error`, the one place that distinguishes a refusal, after which nothing was
made, from a run that the machine stopped part-way.
"""

from __future__ import annotations

import os
import shlex
import sqlite3
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, nullcontext
from dataclasses import field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from pipeline.config.model import RUN_FIELD, Config
from pipeline.engines import Engine
from pipeline.engines.os_process import end_signals_blocked
from pipeline.errors import CodeChanged, EnvironmentFailure, FilemillError, WorkersFailed
from pipeline.files.file_system import describe, describe_room
from pipeline.files.process_limits import describe_refusal, is_start_refused
from pipeline.files.set_aside import SetAside
from pipeline.files.state_dir import State
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import origin_of
from pipeline.ledger.recovery import is_damage
from pipeline.ledger.session import open_to_write
from pipeline.observer import Observers, RunObserver
from pipeline.operations.code_watch import CodeWatch
from pipeline.operations.guards import Confirmations, Guards, guards_of
from pipeline.operations.hand_watch import HandWatch, moves_within_s
from pipeline.operations.launch import open_engine
from pipeline.operations.lock_out import lock_state
from pipeline.operations.news import find_news
from pipeline.operations.recorder import Recorder, RunLog
from pipeline.operations.remaining_time import RemainingTime
from pipeline.operations.time_limit import MaxTime
from pipeline.operations.unchanged_note import UnchangedNote, keep_note, note_of
from pipeline.planning.learnt import Learnt
from pipeline.planning.plan import Plan, settled_groups
from pipeline.planning.ranges import Looked
from pipeline.planning.recorded_parts import RecordedParts
from pipeline.planning.selection import Selection
from pipeline.planning.unchanged import settled_ranges
from pipeline.records import dataclass
from pipeline.report.live import LiveProgress
from pipeline.report.summary import Summary
from pipeline.text import counted, shown

if TYPE_CHECKING:
    from pipeline.operations.telling import Teller
    from pipeline.operations.work import EarlyJobs, Work
    from pipeline.report.statistics import Statistics

# How many of the files that were set aside are named.
_NAMED = 20


@dataclass(frozen=True)
class RunRequest:
    """The arguments of a run; `run` in run.py documents each field."""

    config: Config
    selection: Selection
    observers: tuple[RunObserver, ...]
    grace_s: float
    confirmations: Confirmations
    is_followed: Callable[[], bool] | None
    reload: Callable[[], Config] | None = None
    may_import_here: bool = True
    looked: Looked | None = None
    max_time: MaxTime | None = None


@dataclass
class RunContext:
    """The context of one run's steps; `plan` and `recorder` are set from the step `plan` on."""

    request: RunRequest
    config: Config
    selection: Selection
    state: State
    ledger: Ledger
    log: RunLog
    observers: Observers
    guards: Guards
    unclean_runs: list[str]
    """The ids of runs that may have left temporaries."""
    summary: Summary
    remaining: RemainingTime
    hands: HandWatch
    plan: Plan = field(init=False)
    recorder: Recorder = field(init=False)
    code: CodeWatch = field(init=False)
    work: Work = field(init=False)
    early: EarlyJobs | None = None
    """The jobs of a first run that were taken before the plan was whole; None in any other."""
    parts: RecordedParts | None = None
    """The records of outputs in parts; None where there can be none."""
    unchanged: UnchangedNote | None = None
    """What the next run is told if nothing is left to be done; None where it must look for itself."""
    is_planned: bool = False
    """True once there is a plan that every guard has passed."""
    has_begun: bool = False
    """True once a job was handed out, be it before the plan was whole."""
    engine: Engine | None = None
    work_done: dict[str, Any] | None = None
    """What the engine did, for estimates; None before it did anything.

    The number of files, the seconds it took, those that all workers were at work together, and the number of workers.
    """
    statistics: Statistics | None = None
    """The figures for the report; None before there is a job."""
    measured: list[Engine] = field(default_factory=list)
    """The engines that were closed before the run was planned anew."""
    made_before: Counter[int] = field(default_factory=Counter)
    """The number of outputs made before the run was planned anew, by the number of their recipe."""

    @cached_property
    def learnt(self) -> Learnt:
        """What jobs are expected to take, by what earlier runs and this one have learnt."""
        return Learnt.load(self.ledger)

    @property
    def set_aside(self) -> SetAside:
        """The keeper of files that may be a person's, or all that is left of a source."""
        return SetAside(self.state.set_aside, self.config.folder)

    def note(self, text: str, *, is_routine: bool = False) -> None:
        """Add a note that concerns no single output to the summary; what is routine is no news."""
        self.log.note(text, is_routine=is_routine)
        self.observers.on_note(text)

    def open_engine(self) -> Engine:
        """Return the engine; the first call starts its workers. Raises CodeChanged."""
        if self.engine is None:
            self._count_for_report()
            here = self.request.may_import_here
            # A signal that fell in here would leave a pool behind that nobody closes. A serial engine runs the user's
            # code at once, which must not inherit blocked signals.
            with end_signals_blocked() if self.config.engine == "pool" else nullcontext():
                try:
                    self.engine = open_engine(
                        self.config,
                        self.state,
                        self.unclean_runs,
                        code=self.code.state,
                        may_import_here=here,
                        peaks=self.learnt,
                    )
                except WorkersFailed as error:
                    raise self.code.explain(error) from error
                self.engine.warm_up()
        return self.engine

    def _count_for_report(self) -> None:
        """Have what jobs do be counted from now on."""
        if self.statistics is None:
            from pipeline.report.statistics import Statistics

            self.statistics = Statistics(self.state.run)
            self.observers.add(self.statistics)

    def plan_anew(self, changed: CodeChanged) -> None:
        """Load the pipeline again after a change of its code, and begin the run anew with it.

        Raises CodeChanged where it cannot be loaded, or is another pipeline now.
        """
        if self.engine:
            self.engine.close()
            self.measured.append(self.engine)
            self.engine = None
        if self.request.reload is None:
            raise changed
        try:
            config = self.request.reload()
        except FilemillError as error:
            raise EnvironmentFailure(f"{changed.text}, and cannot be loaded as it is now: {error}") from error
        before = self.config
        if (config.state, config.name, config.inputs.root) != (before.state, before.name, before.inputs.root):
            raise EnvironmentFailure(f"{changed.text}, and so did pipeline.yaml; the same line goes on")
        self.note(f"{os.path.relpath(changed.file)} changed during the run: planned again, and gone on with it")
        self.made_before += self.recorder.made
        self.ledger.forget_plan()
        self.config, self.is_planned = config, False
        self.guards = guards_of(config, self.ledger, self.request.confirmations)
        summary = self.summary
        summary.up_to_date = summary.settling = summary.held = summary.dismissed = 0
        summary.tried_for_all.clear()

    @property
    def folder(self) -> bytes:
        """The folder of pipeline.yaml, to which the ledger's targets are relative."""
        return os.fsencode(self.config.folder)


@contextmanager
def open_run(request: RunRequest) -> Iterator[RunContext]:
    """Lock the state, open ledger and log, and begin the run; close all of them however it ends."""
    config = request.config
    folders = list(config.output_folders)
    teller = _teller(request)
    # Entered twice, and it tells once: the inner one how the run ended, while the lock keeps the next run from being
    # told of before; the outer one that there was none, since the state could not be locked.
    with teller or nullcontext(), closing(lock_state(config.state, config.name)) as state, teller or nullcontext():
        try:
            # A log without a buffer of its own says what there was to say, however the run ends.
            with (
                open_to_write(state, folders, is_run=True) as ledger,
                open(
                    state.log, "x", buffering=1, encoding="utf-8", errors="backslashreplace", opener=_open_private
                ) as file,
            ):
                file.writelines(f"{note}\n" for note in ledger.notes)
                context = _begin(request, state, ledger, file, teller)
                with context.hands:
                    yield context
            if context.unchanged:
                keep_note(context.unchanged, state)
        except (sqlite3.Error, OSError) as error:
            text = f"the state in {state.folder} cannot be kept: {_describe(error, state)}"
            raise EnvironmentFailure(text) from error


def _begin(request: RunRequest, state: State, ledger: Ledger, file: TextIO, teller: Teller | None) -> RunContext:
    """Begin the run in the ledger and for all who observe it; return its context."""
    config, summary = request.config, _summary_of(request.config, request.selection, state)
    log = RunLog(file, summary)
    digest = config.evidence.asked.text if config.evidence else ""
    live = LiveProgress(
        state,
        summary,
        config.file.name,
        yaml_digest=digest,
        moves_within_s=moves_within_s(config),
        is_whole=not request.selection.is_partial,
    )
    remaining = RemainingTime(lambda seconds: observers.on_left(seconds))
    # They tell of the run when it ends, or write down each of its jobs; most runs have none of them.
    for_teller = teller.begin(summary, ledger, lambda: context.statistics, config.errors.hold_after) if teller else []
    for_trace = [_trace(config.trace, state, lambda text: context.note(text))] if config.trace else []
    observers = Observers([remaining, *request.observers, *for_teller, live, *for_trace], log.report_observer)
    guards = guards_of(config, ledger, request.confirmations)
    observers.on_start()
    ledger.begin_run(state.run)
    context = RunContext(
        request,
        config,
        request.selection,
        state,
        ledger,
        log,
        observers,
        guards,
        [each for each in ledger.runs.unclean() if each != state.run],
        summary,
        remaining,
        HandWatch(observers, log, live.beat),
    )
    for warning in config.warnings:
        context.note(warning)
    return context


def _summary_of(config: Config, selection: Selection, state: State) -> Summary:
    """Return the summary of a run that begins."""
    return Summary(
        run=state.run,
        pipeline=config.name,
        yaml=str(config.file.absolute()),
        state=str(state.folder),
        log=str(state.log),
        edits=config.edits,
        is_partial=selection.is_partial,
        is_moved=config.is_moved,
    )


def _trace(path: str, state: State, note: Callable[[str], None]) -> RunObserver:
    """Return the observer that writes the trace of a run."""
    from pipeline.report.trace import Trace

    return Trace(Path(path.replace(RUN_FIELD, state.run)), note)


def _teller(request: RunRequest) -> Teller | None:
    """Return who tells how the run ends; None where nobody is told."""
    if not request.config.is_told:
        return None
    from pipeline.operations.telling import Settings, Teller

    return Teller(Settings.of(request.config), is_whole=not request.selection.is_partial)


@contextmanager
def end_run_on_error(context: RunContext) -> Iterator[None]:
    """Record the error of a step: raise a refusal again; on an error of the machine, end the run with exit code 3."""
    try:
        yield
    except (FilemillError, sqlite3.Error, OSError) as error:
        is_begun = context.is_planned or context.has_begun or isinstance(error, WorkersFailed)
        may_end_here = isinstance(error, EnvironmentFailure) or (context.has_begun and not context.is_planned)
        if isinstance(error, FilemillError) and not (is_begun and may_end_here):
            _record_refusal(context, error)
            raise
        context.ledger.is_suspect = isinstance(error, sqlite3.Error) and is_damage(error)
        exit_code = error.exit_code if isinstance(error, FilemillError) else EnvironmentFailure.exit_code
        context.log.stop(exit_code, _describe(error, context.state))
    except Exception as error:
        context.log.write(traceback.format_exc())
        if not is_start_refused(error):
            context.observers.on_jobs_ended()
            raise
        context.log.stop(EnvironmentFailure.exit_code, _describe(error, context.state))
    finally:
        if context.engine:
            context.engine.close()


def _record_refusal(context: RunContext, error: FilemillError) -> None:
    """Record a run in which nothing was made, with the reason."""
    summary = context.summary
    summary.exit, summary.stopped = error.exit_code, error.text
    context.log.write(f"refused: {error}")
    context.ledger.end_run(error.exit_code, _as_recorded(context), swept=False)
    _report(context)
    context.observers.on_end()


def close_run(context: RunContext) -> None:
    """Add the notes that need the whole summary, and end the run in the ledger."""
    plan, ledger, summary = context.plan if context.is_planned else None, context.ledger, context.summary
    summary.recovered = ledger.failures.recovered
    summary.first_recovered = [(origin_of(source), stage) for source, stage in ledger.failures.first_recovered]
    _note_next_steps(context)
    _note_set_aside(context)
    if plan and plan.compared and summary.ended_in_order:
        ledger.begin()
        made = context.recorder.made_ranges
        found = made.found if made else {}
        ledger.unchanged.add(settled_ranges(context.config, ledger, plan.specs, plan.compared, found))
        if summary.exit == 0 and (groups := settled_groups(context.config, ledger, plan)):
            ledger.unchanged.add([groups])
        ledger.commit()
    context.learnt.save(ledger)
    context.unchanged = note_of(context)
    if context.config.seal:
        context.state.keep_seal(context.config.seal)
    # Only a run over everything has met all that a killed one may have left beside an output.
    met_all = plan is not None and not context.selection.is_partial and not plan.walk.unlisted
    swept = met_all and summary.ended_in_order
    ledger.end_run(summary.exit, _as_recorded(context), swept=swept)
    _report(context)
    find_news(context)
    context.observers.on_end()


def _as_recorded(context: RunContext) -> dict[str, Any]:
    """Return what the ledger keeps of a run: its counts, its bytes, and why it stopped."""
    summary, statistics = context.summary, context.statistics
    recorded = summary.as_json() | ({"stopped": summary.stopped} if summary.stopped else {})
    if statistics and statistics.files:
        recorded |= {"bytes_in": statistics.bytes_in, "bytes_out": statistics.bytes_out}
    return recorded | ({"work": context.work_done} if context.work_done else {})


def _report(context: RunContext) -> None:
    """Write the report of a run that made, tried or removed anything, or did not come to its end."""
    summary, statistics = context.summary, context.statistics
    has_tried = (statistics and statistics.files) or summary.failed or summary.cut_off
    if has_tried or summary.renamed or summary.pruned or not summary.ended_in_order:
        from pipeline.operations.report import write_report

        write_report(context)


def _note_next_steps(context: RunContext) -> None:
    """Note the user's next steps after the problems of the run."""
    summary, only = context.summary, context.selection.only
    if only and context.is_planned and not context.plan.sources:
        patterns = " ".join(f"--only {shlex.quote(pattern)}" for pattern in only)
        context.note(f"no file matches {patterns}")
    if any(result.code == "not_ours" for _, result in summary.failures):
        context.note(
            "what exists and is not in the ledger is left alone; --force makes it anew, 'adopt' takes it as made"
        )
    for stage, files in context.ledger.failures.freed.items():
        what = f"{files:,} files that had failed alike in stage {stage!r}"
        context.note(f"{what} are tried again by the next run, since one of their kind is made now")


def _note_set_aside(context: RunContext) -> None:
    """Note the files that were set aside: for outputs, or since their source is gone."""
    folder = context.state.set_aside
    names = [shown(path) for path in context.set_aside.kept()]
    context.summary.set_aside = len(names)
    if names:
        more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
        where = shown(os.fsencode(os.path.relpath(folder, context.config.folder)))
        those = f"{counted(len(names), 'file')} kept in {where}: {', '.join(names[:_NAMED])}{more}"
        context.note(f"{those}; outputs took their place, or what they were made of is gone")


def _open_private(path: str, flags: int) -> int:
    """Open a new file that nobody else may read: what stages print may be of sources that nobody else may read."""
    return os.open(path, flags, 0o600)


def _describe(error: Exception, state: State) -> str:
    """Describe an error of the machine, with the file it concerns."""
    if isinstance(error, sqlite3.Error):
        return f"the ledger {state.ledger} fails: {error}{'' if is_damage(error) else describe_room(state.ledger)}"
    if is_start_refused(error):
        return describe_refusal()
    return describe(error, error.filename or state.folder) if isinstance(error, OSError) else str(error)
