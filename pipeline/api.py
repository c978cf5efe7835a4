"""The program for Python: a pipeline loaded, run, and followed while it runs; what the command line does, and no exit.

    summary = run(load("pipeline.yaml"), processes=4)

Everything that goes wrong with the whole is raised as a FilemillError; what goes wrong with a file is in its outcome
and in the summary. Nothing is printed unless it is asked for. Stages are found through the interpreter's own import
state, and so one pipeline at a time is loaded or at work in a process; two can be used in turn.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType

from pipeline.config import Config
from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.guards import Meant
from pipeline.judge import Selection
from pipeline.load import load_config
from pipeline.messages import Outcome
from pipeline.progress import Progress, Summary
from pipeline.run import GRACE_S
from pipeline.run import run as run_pipeline
from pipeline.stage import find, forget_stages, set_stage_path
from pipeline.stdio import stdout_to_stderr

# Outcomes that wait for whoever follows a run; while there are more, the run waits.
_WAITING = 1000
# Seconds between two looks at whether somebody still follows.
_LOOK_EVERY_S = 0.1

_one_at_a_time = threading.Lock()


def load(file: str | Path, edits: Sequence[str] = ()) -> Config:
    """Read and check a pipeline, and its stages as they are now, also where they were loaded before.

    `edits` are those of `--set`, such as `stages.web.with.width=800`. Raises ConfigError with every complaint.
    """
    with _alone():
        forget_stages()
        return load_config(Path(file), edits)


def run(
    pipeline: Config,
    *,
    processes: int | None = None,
    engine: str | None = None,
    only: str | None = None,
    limit: int | None = None,
    files: Iterable[str | bytes | Path] | None = None,
    force: bool = False,
    retry_failed: bool = False,
    rebuild: bool = False,
    take_over: bool = False,
    progress: bool = False,
    grace_s: float = GRACE_S,
) -> Summary:
    """Bring every output up to date, and say what was done; the arguments are the options of `run`, by their names.

    A failed file raises nothing: `summary.exit` is 1 then, as it would be the program's exit code. Raises
    FilemillError where nothing was run. With `progress` the summary is printed on stderr, and before it a bar if that
    is a terminal. In the main thread a first Ctrl-C lets what is in hand be finished, and a second one does not.
    """
    chosen = _Choice(pipeline, processes, engine, only, limit, files, force, retry_failed, rebuild, take_over, grace_s)
    with _alone():
        summary = chosen.run(Progress(quiet=not progress))
    if progress:
        print("\n".join(summary.lines()), file=sys.stderr)
    return summary


def iterate(
    pipeline: Config,
    *,
    processes: int | None = None,
    engine: str | None = None,
    only: str | None = None,
    limit: int | None = None,
    files: Iterable[str | bytes | Path] | None = None,
    force: bool = False,
    retry_failed: bool = False,
    rebuild: bool = False,
    take_over: bool = False,
) -> Outcomes:
    """Run a pipeline, and give the outcome of every file as soon as it is there; the arguments are those of `run`.

    Who takes no more of them, by `close` or by leaving a `with`, ends the run: what is done is on record, and the next
    one goes on.
    """
    return Outcomes(
        _Choice(pipeline, processes, engine, only, limit, files, force, retry_failed, rebuild, take_over, GRACE_S)
    )


class Outcomes(Iterator[Outcome]):
    """The outcomes of a run that is on, in the order in which they come; it begins with the first one taken."""

    def __init__(self, chosen: _Choice) -> None:
        self.summary: Summary | None = None
        """What was done, once the run has ended."""
        self._outcomes = self._follow(chosen)

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def __enter__(self) -> Outcomes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the run if it is still on; waits until it has."""
        self._outcomes.close()

    def _follow(self, chosen: _Choice) -> Generator[Outcome, None, None]:
        """Let the run go on in a thread of its own, so that whoever follows it stays what they are: interruptible."""
        feed, raised = _Feed(), list[BaseException]()

        def go() -> None:
            try:
                with _alone():
                    self.summary = chosen.run(feed)
            except BaseException as error:
                raised.append(error)
            finally:
                feed.end()

        thread = threading.Thread(target=go, name="filemill-run", daemon=True)
        thread.start()
        try:
            yield from feed
        finally:
            feed.is_left = True
            thread.join()
        if raised:
            raise raised[0]


class _Feed(Progress):
    """Stands where the bar does, and hands every outcome on to whoever follows the run."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.is_left = False
        """Whether nobody follows any more."""
        self._queue: queue.Queue[Outcome | None] = queue.Queue(_WAITING)

    def follow(self, outcome: Outcome) -> None:
        if not self._put(outcome):
            raise EnvironmentFailure("nobody takes its outcomes any more; the same call resumes")

    def end(self) -> None:
        """Say that there are no more."""
        self._put(None)

    def _put(self, outcome: Outcome | None) -> bool:
        while not self.is_left and threading.main_thread().is_alive():
            try:
                self._queue.put(outcome, timeout=_LOOK_EVERY_S)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._queue.get, None)


@dataclass(frozen=True)
class _Choice:
    """A pipeline, and what is chosen for one run of it."""

    pipeline: Config
    processes: int | None
    engine: str | None
    only: str | None
    limit: int | None
    files: Iterable[str | bytes | Path] | None
    force: bool
    retry_failed: bool
    rebuild: bool
    take_over: bool
    grace_s: float

    def run(self, progress: Progress) -> Summary:
        names = None if self.files is None else (os.fsencode(each) for each in self.files)
        selection = Selection(self.only, self.limit, self.force, self.retry_failed, names)
        config = self._config()
        return run_pipeline(config, selection, progress, self.grace_s, Meant(self.rebuild, self.take_over))

    def _config(self) -> Config:
        """The pipeline with what is chosen, and with its own stages, if another one was loaded since."""
        config = self.pipeline
        if self.processes is not None:
            _refuse_unless(self.processes > 0, "processes", self.processes, "a number from 1")
            config = replace(config, pool=replace(config.pool, processes=self.processes))
        if self.engine is not None:
            _refuse_unless(self.engine in ("pool", "serial"), "engine", self.engine, "'pool' or 'serial'")
            config = replace(config, engine=self.engine)
        _refuse_unless(self.limit is None or self.limit > 0, "limit", self.limit, "a number from 1")
        with stdout_to_stderr():
            set_stage_path(config.folder)
            stages = [replace(each, stage=find(each.stage.uses, config.folder)) for each in config.stages]
        return replace(config, stages=tuple(stages))


def _refuse_unless(is_right: bool, name: str, given: object, needed: str) -> None:
    if not is_right:
        raise UsageError(f"{name}: {needed} is needed, not {given!r}")


@contextmanager
def _alone() -> Iterator[None]:
    """Keep a second pipeline from changing where stages are found, while it matters. Raises UsageError."""
    if not _one_at_a_time.acquire(blocking=False):
        text = "another pipeline is being loaded or is at work in this process; one at a time can be"
        raise UsageError(text, hint="load both before, and run one after the other, or each in a process of its own")
    try:
        yield
    finally:
        _one_at_a_time.release()
