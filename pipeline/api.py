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
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, TypedDict, Unpack

from pipeline.config.load import load_config
from pipeline.config.model import Config
from pipeline.errors import EnvironmentFailure, UsageError
from pipeline.files.walk import pattern_problem
from pipeline.messages import Outcome
from pipeline.operations.guards import Meant
from pipeline.operations.run import GRACE_S
from pipeline.operations.run import run as run_pipeline
from pipeline.planning.output_spec import Selection
from pipeline.report.progress import Progress, Summary
from pipeline.stage.resolve import find, forget_stages, set_stage_path
from pipeline.stdio import stdout_to_stderr
from pipeline.text import did_you_mean

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


class Options(TypedDict, total=False):
    """The options of `run`, by their names on the command line."""

    processes: int
    engine: Literal["pool", "serial"]
    only: str | Sequence[str]
    limit: int
    files: Iterable[str | bytes | Path]
    """Those of `--files-from`: relative to the input root, or absolute."""
    force: bool
    retry_failed: bool
    rebuild: bool
    take_over: bool


def run(
    pipeline: Config, *, progress: bool = False, grace_s: float = GRACE_S, **options: Unpack[Options]
) -> Summary:  # fmt: skip
    """Bring every output up to date, and say what was done; `options` are those of `run` on the command line.

    A failed file raises nothing: `summary.exit` is 1 then, as it would be the program's exit code. Raises
    FilemillError where nothing was run. With `progress` the summary is printed on stderr, and before it a bar if that
    is a terminal. In the main thread a first Ctrl-C lets what is in hand be finished, for `grace_s` seconds, and a
    second one does not.
    """
    with _alone():
        summary = _run(pipeline, options, Progress(quiet=not progress), grace_s)
    if progress:
        print("\n".join(summary.lines()), file=sys.stderr)
    return summary


def iterate(pipeline: Config, **options: Unpack[Options]) -> Outcomes:
    """Run a pipeline, and give the outcome of every file as soon as it is there; `options` are those of `run`.

    There is one for each pool that a file goes through, where stages have their own, and one for each group.
    Who takes no more of them, by `close` or by leaving a `with`, ends the run: what is done is on record, and the next
    one goes on.
    """
    return Outcomes(pipeline, options)


class Outcomes(Iterator[Outcome]):
    """The outcomes of a run that is on, in the order in which they come; it begins with the first one taken."""

    def __init__(self, pipeline: Config, options: Options) -> None:
        self.summary: Summary | None = None
        """What was done, once the run has ended."""
        self._outcomes = self._follow(pipeline, options)

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def __enter__(self) -> Outcomes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the run if it is still on; waits until it has."""
        self._outcomes.close()

    def _follow(self, pipeline: Config, options: Options) -> Generator[Outcome, None, None]:
        """Let the run go on in a thread of its own, so that whoever follows it stays what they are: interruptible."""
        feed, raised = _Feed(), list[BaseException]()

        def go() -> None:
            try:
                with _alone():
                    self.summary = _run(pipeline, options, feed, GRACE_S)
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

    def check_followed(self) -> None:
        if self.is_left or not threading.main_thread().is_alive():
            raise EnvironmentFailure("nobody takes its outcomes any more; the same call resumes")

    def follow(self, outcome: Outcome) -> None:
        self._put(outcome)

    def end(self) -> None:
        """Say that there are no more."""
        self._put(None)

    def _put(self, outcome: Outcome | None) -> None:
        while not self.is_left and threading.main_thread().is_alive():
            with suppress(queue.Full):
                self._queue.put(outcome, timeout=_LOOK_EVERY_S)
                return

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._queue.get, None)


def _run(pipeline: Config, options: Options, progress: Progress, grace_s: float) -> Summary:
    """Run a pipeline with options that anybody may have written."""
    for name in options:
        if name not in Options.__annotations__:
            raise UsageError(f"no option {name!r}{did_you_mean(name, Options.__annotations__)}")
    files, limit = options.get("files"), options.get("limit")
    _refuse_unless(limit is None or limit > 0, "limit", limit, "a number from 1")
    names = None if files is None else map(os.fsencode, files)
    is_forced, is_retrying = options.get("force", False), options.get("retry_failed", False)
    selection = Selection(_patterns(options.get("only", ())), limit, is_forced, is_retrying, names)
    meant = Meant(options.get("rebuild", False), options.get("take_over", False))
    return run_pipeline(_chosen(pipeline, options), selection, progress, grace_s, meant)


def _patterns(only: str | Sequence[str]) -> tuple[str, ...]:
    """The patterns of `only`, of which there may be one alone. Raises UsageError."""
    patterns = (only,) if isinstance(only, str) else tuple(only)
    for pattern in patterns:
        if problem := pattern_problem(pattern):
            raise UsageError(f"only: {problem}")
    return patterns


def _chosen(config: Config, options: Options) -> Config:
    """The pipeline with what is chosen, and with its own stages, if another one was loaded since."""
    processes, engine = options.get("processes"), options.get("engine")
    if processes is not None:
        _refuse_unless(processes > 0, "processes", processes, "a number from 1")
        config = replace(config, pool=replace(config.pool, processes=processes))
    if engine is not None:
        _refuse_unless(engine in ("pool", "serial"), "engine", engine, "'pool' or 'serial'")
        config = replace(config, engine=engine)
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
