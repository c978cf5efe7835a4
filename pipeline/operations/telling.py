"""Tells who is named in `notify`, and writes `metrics`, at the end of a run however it ends.

    a run               --> Teller, around it: start pings, then programs, pings and metrics at its end
    nothing was new     --> tell_unchanged, by what the note of the run before has of the pipeline
    refused at load     --> tell_refused
    status --metrics    --> write_live_metrics, during a run

A small file in the state folder has what was told last, so that a change can be told from what goes on, and the figures
of the last run. What could not be told is a warning, and changes neither outputs nor exit codes.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import field, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from pipeline.errors import AlreadyRunning, FilemillError
from pipeline.observer import RunObserver
from pipeline.operations.endings import Ending, Memory, ending_of_error, event_of
from pipeline.records import dataclass
from pipeline.report.metrics import Figures, NotWritten, write_metrics
from pipeline.report.notify import Entry, Sending, new_rid, start_ping, start_program

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import Ledger
    from pipeline.report.statistics import Statistics
    from pipeline.report.summary import Summary

# What ends a process at a signal: nothing of ours, or Python's own handler of SIGINT.
_ENDING = (signal.SIG_DFL, signal.default_int_handler)


@dataclass(frozen=True)
class Settings:
    """What pipeline.yaml says of telling, as plain data, and what is told of the pipeline in any case."""

    pipeline: str
    yaml: str
    folder: str
    """The folder of pipeline.yaml, links resolved, in which programs are started."""
    state: str
    entries: list[Entry]
    metrics: str | None

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Return the settings of a pipeline."""
        entries = [Entry(each.on, each.argv, each.ping or "", each.always) for each in config.notify]
        metrics = None if config.metrics is None else str(config.metrics)
        return cls(config.name, str(config.file.absolute()), str(config.folder), str(config.state), entries, metrics)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Settings:
        """Return the settings that `vars` of others became as JSON."""
        entries = [Entry(tuple(on), tuple(argv), ping, always) for on, argv, ping, always in data["entries"]]
        return cls(**{**data, "entries": entries})


class Teller:
    """Context manager around a run, which tells how it ends.

    It stands around the lock, for what goes wrong before that is held, and within it, so that of two runs one after the
    other each tells in its turn; whichever ends first tells.
    """

    def __init__(self, settings: Settings, *, is_whole: bool) -> None:
        self._settings = settings
        self._is_whole = is_whole
        self._summary: Summary | None = None
        self._at_end = AtEnd()
        self._rid = new_rid()
        self._starts: dict[Entry, Sending] = {}
        self._stuck: list[Sending] = []
        self._has_told = False

    def begin(
        self, summary: Summary, ledger: Ledger, statistics: Callable[[], Statistics | None], hold_after: int | None
    ) -> list[RunObserver]:
        """Say that the run has begun; return the observers that learn what is to be told at its end."""
        self._summary = summary
        for entry in self._settings.entries if self._is_whole else ():
            with suppress(Exception):  # whatever it is, the end meets it too, and the run goes on
                if entry.ping:
                    self._starts[entry] = start_ping(entry, "/start", self._rid, "")
        self._at_end = AtEnd(ledger, statistics, hold_after)
        return [StuckObserver(self._tell_stuck), self._at_end]

    def __enter__(self) -> Teller:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._has_told or isinstance(error, GeneratorExit):
            return
        self._has_told = True
        ending = self._ending(error)
        if ending.exit == AlreadyRunning.exit_code:
            return
        summary = self._summary if error is None else None
        problems = _carefully(lambda: self._telling(ending, summary))
        if summary:
            summary.untold += problems
        elif error:
            for each in problems:
                error.add_note(each)

    def _ending(self, error: BaseException | None) -> Ending:
        if error is None and self._summary:
            return Ending.of(self._summary, is_failing=self._at_end.is_any_failing, is_whole=self._is_whole)
        run, log = (self._summary.run, self._summary.log) if self._summary else ("", "")
        return ending_of_error(error, run=run, log=log, is_whole=self._is_whole)

    def _tell_stuck(self, text: str) -> None:
        """Tell that a file takes far too long; once in a run unless it is to be told always."""
        told = {each.entry for each in self._stuck}
        assert self._summary
        ending = Ending(0, text, self._summary.run, self._summary.log, "", self._summary.done, self._summary.failed)
        for entry in self._settings.entries:
            if "stuck" in entry.on and (entry.always or entry not in told):
                self._stuck.append(_start_program(self._settings, entry, "stuck", ending))

    def _telling(self, ending: Ending, summary: Summary | None) -> Telling:
        memory = Memory.load(self._settings.state)
        memory.figures = self._figures(memory.figures, ending, summary)
        return Telling(self._settings, memory, ending, self._rid, self._starts, self._stuck)

    def _figures(self, before: Figures, ending: Ending, summary: Summary | None) -> Figures:
        """Return the figures after the run; but for its end those of one without a summary are as they were."""
        now = time.time()
        figures = replace(before, exit=ending.exit, last_run=now)
        if ending.is_well and self._is_whole:
            figures = replace(figures, last_success=now)
        if summary is None:
            return figures
        return replace(
            figures, seconds=round(summary.seconds, 3), sources=summary.sources, files=files_by_outcome(summary),
            bytes_in=self._at_end.bytes_in, bytes_out=self._at_end.bytes_out,
            oldest_failure=self._at_end.oldest_failure,
        )  # fmt: skip


def tell_unchanged(data: Mapping[str, Any], summary: Summary) -> None:
    """Tell of a run that found nothing to do, by the settings in the note of the run before; it raises nothing."""

    def telling() -> Telling:
        settings, now = Settings.from_json(data), time.time()
        memory = Memory.load(settings.state)
        memory.figures = Figures(
            now, now, round(summary.seconds, 3), 0, summary.sources, files_by_outcome(summary)
        )  # fmt: skip
        return Telling(settings, memory, Ending.of(summary), new_rid())

    summary.untold += _carefully(telling)


def tell_refused(config: Config, error: FilemillError) -> None:
    """Tell of a run that ended before it began; what cannot be told is added to the error."""
    with suppress(FilemillError), Teller(Settings.of(config), is_whole=True):
        raise error


def _carefully(telling: Callable[[], Telling]) -> list[str]:
    """Tell, and return what could not be told; whatever goes wrong is that."""
    try:
        with _signals_noted() as signals:
            return telling().tell(lambda: bool(signals))
    except Exception as error:  # its text may have anything in it
        return [f"notify: failed with {type(error).__name__}"]


@contextmanager
def _signals_noted() -> Iterator[list[int]]:
    """Note signals that would end this process: the run is over, has its exit code, and only its telling is cut short.

    Nothing is raised at whatever place it may be, so that a program that was just started is not left behind.
    """
    noted: list[int] = []
    handlers = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    is_main = threading.current_thread() is threading.main_thread()  # which alone has handlers
    ours = [each for each, handler in handlers.items() if is_main and handler in _ENDING]
    for each in ours:
        signal.signal(each, lambda number, _: noted.append(number))
    try:
        yield noted
    finally:
        for each in ours:
            signal.signal(each, handlers[each])


@dataclass(frozen=True)
class Telling:
    """All that is told of how one run has ended."""

    settings: Settings
    memory: Memory
    ending: Ending
    rid: str
    """The id of the run for pings."""
    starts: Mapping[Entry, Sending] = field(default_factory=dict)
    """The pings of its start."""
    stuck: Sequence[Sending] = ()
    """What was told of it while it was on."""

    def tell(self, is_interrupted: Callable[[], bool]) -> list[str]:
        """Tell, and write the metrics; return what could not be done, in one line each."""
        sendings = self._send()
        try:
            problems = self._measure()
            for each in (*self.stuck, *sendings):
                if (problem := each.wait(is_interrupted)) and not is_interrupted():
                    problems.append(f"notify: {each.entry}: {problem}")
            for each in sendings:
                if each.entry.argv:
                    self.memory.learn(each.entry, self.ending, is_told=not each.wait(is_interrupted))
            cut_short = ["notify: not everybody was told, since it was interrupted"] if is_interrupted() else []
            return problems + cut_short
        finally:
            for each in (*self.stuck, *sendings):
                each.abandon()
            self.memory.keep(self.settings.entries)
            self.memory.save()

    def _send(self) -> list[Sending]:
        """Begin to tell, all at the same time."""
        sendings, ending = [], self.ending
        for entry in self.settings.entries:
            if entry.ping:
                # The end of a run that a person has stopped is told where its start was.
                if ending.concerns_pipeline or entry in self.starts:
                    sendings.append(_start_ping(entry, ending, self.rid, self.starts.get(entry)))
            elif ending.concerns_pipeline:
                if event := event_of(entry, self.memory.exit_known_to(entry), ending):
                    sendings.append(_start_program(self.settings, entry, event, ending))
                else:
                    self.memory.learn(entry, ending, is_told=True)
        return sendings

    def _measure(self) -> list[str]:
        """Write the metrics, if there are any; return why that could not be done."""
        try:
            if self.settings.metrics:
                figures = self.memory.figures
                if self.ending.is_hung:  # the run that hangs is the one that holds files
                    figures = _live(figures, Path(self.settings.state))
                write_metrics(Path(self.settings.metrics), self.settings.pipeline, figures)
        except NotWritten as error:
            return [f"metrics: {error}"]
        return []


def _start_ping(entry: Entry, ending: Ending, rid: str, start: Sending | None) -> Sending:
    what = "/log" if ending.is_signalled else "" if ending.is_well else "/fail"
    return start_ping(entry, what, rid, f"exit {ending.exit}\n{ending.text}\n", start)


def _start_program(settings: Settings, entry: Entry, event: str, ending: Ending) -> Sending:
    exit_code = "" if event == "stuck" and not ending.is_hung else ending.exit
    facts = {
        "EVENT": event, "PIPELINE": settings.pipeline, "EXIT": exit_code,
        "RUN": ending.run, "YAML": settings.yaml, "STATE": settings.state, "LOG": ending.log, "REPORT": ending.report,
        "DONE": ending.done, "FAILED": ending.failed, "NEW_FAILED": ending.new_failed, "HELD": ending.held,
    }  # fmt: skip
    named = {f"FILEMILL_{name}": str(value) for name, value in facts.items()}
    return start_program(entry, named, f"{ending.text}\n", settings.folder)


# -- what a run is watched for -----------------------------------------------------------------------------------------


class StuckObserver(RunObserver):
    """Tells of a file that takes far longer than others."""

    def __init__(self, tell: Callable[[str], None]) -> None:
        self._tell = tell

    def on_slow(self, text: str) -> None:
        self._tell(text)


class AtEnd(RunObserver):
    """Asks at the end of a run, while the ledger is open, what it has read and written, and what is failing."""

    def __init__(
        self,
        ledger: Ledger | None = None,
        statistics: Callable[[], Statistics | None] = lambda: None,
        hold_after: int | None = None,
    ) -> None:
        self._ledger = ledger
        self._statistics = statistics
        self._hold_after = hold_after
        self.bytes_in = 0
        self.bytes_out = 0
        self.oldest_failure: float | None = None
        self.is_any_failing = False

    def on_end(self) -> None:
        if statistics := self._statistics():
            self.bytes_in, self.bytes_out = statistics.bytes_in, statistics.bytes_out
        if self._ledger:
            failures = self._ledger.failures
            self.is_any_failing = failures.are_any_failing(self._hold_after)
            self.oldest_failure = oldest_ns / 1e9 if (oldest_ns := failures.oldest_ns()) else None


def files_by_outcome(summary: Summary) -> dict[str, int]:
    """Return the outputs of a run by what became of them."""
    outcomes = ("done", "renamed", "up_to_date", "edited", "skipped", "failed", "settling", "vanished", "pruned")
    held = {"held": summary.held - summary.dismissed, "dismissed": summary.dismissed}
    return {each: getattr(summary, each) for each in outcomes} | held


# -- during a run ------------------------------------------------------------------------------------------------------


def write_live_metrics(config: Config) -> None:
    """Write the metrics of a pipeline as they are now, also during a run. Raises NotWritten.

    During a run, what it has done so far takes the place of what the one before has done.
    """
    assert config.metrics is not None
    before = None
    while before != (memory := Memory.load(str(config.state))):  # else a run has ended and written its own meanwhile
        before = memory
        write_metrics(config.metrics, config.name, _live(memory.figures, config.state))


def _live(figures: Figures, state: Path) -> Figures:
    """Return figures in which what a run has done so far, if one is running, takes the place of what the last did."""
    from pipeline.report.standing import LIVE, read_progress

    standing, progress = read_progress(state)
    if standing not in LIVE:
        return figures
    files = {each: progress.get(each, 0) for each in ("done", "skipped", "failed")}
    seconds = round(time.time() - progress["started"], 3)
    return replace(figures, seconds=seconds, files=files, in_hand=len(progress.get("in_hand", ())))
