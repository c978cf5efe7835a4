"""The Python API: load a pipeline, run it, or iterate over its outcomes while it runs.

    summary = run(load("pipeline.yaml"), processes=4)

An error of the pipeline as a whole is raised as a FilemillError; an error of one file is in its outcome and in the
summary. Nothing is printed unless `progress` asks for it. Stages are imported into this interpreter, so one pipeline at
a time is loaded or run in a process; two can be used in turn.
"""

from __future__ import annotations

import os
import queue
import sys
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Literal, TypedDict, Unpack

from pipeline.config.load import load_config
from pipeline.config.model import Config
from pipeline.errors import UsageError
from pipeline.files.process_limits import start_thread
from pipeline.files.walk import pattern_problem
from pipeline.messages import Outcome
from pipeline.observer import RunObserver
from pipeline.operations.guards import Confirmations
from pipeline.operations.run import GRACE_S
from pipeline.operations.run import run as run_pipeline
from pipeline.planning.selection import Selection
from pipeline.report.bar import terminal_observers
from pipeline.report.summary import Summary
from pipeline.stage.code_guard import changed_file
from pipeline.text import did_you_mean

# Outcomes that may wait for the consumer of `iterate`: enough to even out its pauses, and then the run waits.
_QUEUE_SIZE = 1000
# Seconds between two checks of whether the consumer still exists, while the queue is full.
_CHECK_S = 0.1

_one_at_a_time = threading.Lock()


def load(file: str | Path, edits: Sequence[str] = ()) -> Config:
    """Read and check a pipeline; its stages are imported again if they were imported before.

    Args:
        file: The path of pipeline.yaml.
        edits: Changes of single values in the form of `--set`, such as `stages.web.with.width=800`.

    Returns:
        The pipeline, for `run` and `iterate`.

    Raises:
        ConfigError: The pipeline is wrong; the text has every complaint with its line and column.
        UsageError: Another pipeline is being loaded or run in this process.
    """
    with _alone():
        return load_config(Path(file), edits)


class Options(TypedDict, total=False):
    """The options of `run` and `iterate`, named as on the command line."""

    processes: int
    engine: Literal["pool", "serial"]
    only: str | Sequence[str]
    """Gitignore-style patterns; a file that matches any of them is selected."""
    limit: int
    files: Iterable[str | bytes | Path]
    """The files to do, as paths relative to the input root, or absolute."""
    force: bool
    retry_failed: bool
    rebuild: bool
    take_over: bool


def run(
    pipeline: Config, *, progress: bool = False, grace_s: float = GRACE_S, **options: Unpack[Options]
) -> Summary:  # fmt: skip
    """Bring every output up to date. A file that fails raises nothing and is counted in the summary.

    Args:
        pipeline: What `load` returned.
        progress: Print the summary to stderr, and show a bar before it if that is a terminal.
        grace_s: Seconds that running jobs may take to finish after a first Ctrl-C, which is caught in the main thread;
            a second one ends them at once.
        options: The options of `run` on the command line, such as `processes=4` or `only="*.jpg"`.

    Returns:
        The summary. Its `exit` is the exit code of the command line: 0 if all is up to date, 1 if files failed, 6 if
        none did and files are held that failed before.

    Raises:
        FilemillError: Nothing was run, and the text says why.
    """
    observers = terminal_observers(is_quiet=not progress)
    with _alone():
        summary = _run(pipeline, options, observers, grace_s)
    if progress:
        print("\n".join(summary.lines()), file=sys.stderr)
    return summary


def iterate(pipeline: Config, **options: Unpack[Options]) -> Outcomes:
    """Run a pipeline, and yield the outcome of every file as soon as it is recorded.

    A file has one outcome for each pool that it passes through, where stages have pools of their own; a group has one.
    `close`, or leaving a `with` block, ends the run as Ctrl-C does, with exit code 130: what is done is recorded, and
    the next run does the rest.

    Args:
        pipeline: What `load` returned.
        options: The options of `run`.

    Returns:
        An iterator of outcomes, whose `summary` is set once the run has ended. The run begins with the first `next`.

    Raises:
        FilemillError: Nothing was run, raised by `next`.
    """
    return Outcomes(pipeline, options)


class Outcomes(Iterator[Outcome]):
    """An iterator over the outcomes of a run, in the order in which jobs end; the first `next` begins the run."""

    def __init__(self, pipeline: Config, options: Options) -> None:
        self.summary: Summary | None = None
        """The summary of the run; None until it has ended."""
        self._outcomes = self._follow(pipeline, options)

    def __next__(self) -> Outcome:
        return next(self._outcomes)

    def __enter__(self) -> Outcomes:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """End the run if it has not ended yet, and wait for its end."""
        self._outcomes.close()

    def _follow(self, pipeline: Config, options: Options) -> Generator[Outcome, None, None]:
        """Yield the outcomes of a run in a thread of its own, so that the consumer's thread stays interruptible."""
        outcomes, raised = _OutcomeQueue(), list[BaseException]()

        def go() -> None:
            try:
                with _alone():
                    self.summary = _run(pipeline, options, [outcomes], is_followed=lambda: outcomes.has_consumer)
            except BaseException as error:
                raised.append(error)
            finally:
                outcomes.finish()

        thread = threading.Thread(target=go, name="filemill-run", daemon=True)
        start_thread(thread)
        try:
            yield from outcomes
        finally:
            outcomes.close()
            thread.join()
        if raised:
            raise raised[0]


class _OutcomeQueue(RunObserver):
    """A bounded queue of outcomes from a run to a consumer in another thread; the run waits while it is full."""

    def __init__(self) -> None:
        self._queue: queue.Queue[Outcome | None] = queue.Queue(_QUEUE_SIZE)
        self._is_closed = False

    @property
    def has_consumer(self) -> bool:
        """True while the consumer takes outcomes."""
        return not self._is_closed and threading.main_thread().is_alive()

    def on_outcome(self, outcome: Outcome) -> None:
        self._put(outcome)

    def finish(self) -> None:
        """Tell the consumer that there are no more outcomes."""
        self._put(None)

    def close(self) -> None:
        """Tell the run that the consumer takes no more outcomes."""
        self._is_closed = True

    def _put(self, outcome: Outcome | None) -> None:
        while self.has_consumer:
            with suppress(queue.Full):
                self._queue.put(outcome, timeout=_CHECK_S)
                return

    def __iter__(self) -> Iterator[Outcome]:
        return iter(self._queue.get, None)


def _run(
    pipeline: Config,
    options: Options,
    observers: Iterable[RunObserver],
    grace_s: float = GRACE_S,
    is_followed: Callable[[], bool] | None = None,
) -> Summary:
    """Check the options and run the pipeline. Raises UsageError for an unknown option or a wrong value."""
    for name in options:
        if name not in Options.__annotations__:
            raise UsageError(f"no option {name!r}{did_you_mean(name, Options.__annotations__)}")
    limit = options.get("limit")
    _refuse_unless(limit is None or limit > 0, "limit", limit, "a number from 1")
    files = options.get("files")
    selection = Selection(
        only=_patterns(options.get("only", ())),
        limit=limit,
        force=options.get("force", False),
        retry_failed=options.get("retry_failed", False),
        names=None if files is None else map(os.fsencode, files),
    )
    confirmations = Confirmations(options.get("rebuild", False), options.get("take_over", False))
    return run_pipeline(
        _with_choices(pipeline, options),
        selection,
        observers,
        grace_s=grace_s,
        confirmations=confirmations,
        is_followed=is_followed,
        reload=None
        if files is not None
        else lambda: _with_choices(load_config(pipeline.file, pipeline.edits), options),
        may_import_here=False,
    )


def _patterns(only: str | Sequence[str] | None) -> tuple[str, ...]:
    """Return the patterns of `only`, a single one or several; an empty one, or None, asks for nothing.

    Raises UsageError for an invalid gitignore pattern, and for what is not text.
    """
    given = (only,) if only is None or isinstance(only, str) else only
    is_text = isinstance(given, Sequence) and all(each is None or isinstance(each, str) for each in given)
    _refuse_unless(is_text and not isinstance(given, bytes), "only", only, "a pattern or a list of patterns")
    patterns = tuple(each for each in given if each)
    for pattern in patterns:
        if problem := pattern_problem(pattern):
            raise UsageError(f"only: {problem}")
    return patterns


def _with_choices(config: Config, options: Options) -> Config:
    """Return the pipeline with the chosen processes and engine; loaded again if its code was edited since."""
    if changed_file(config.code_state):
        config = load_config(config.file, config.edits)
    processes, engine = options.get("processes"), options.get("engine")
    if processes is not None:
        _refuse_unless(processes > 0, "processes", processes, "a number from 1")
        config = replace(config, pool=replace(config.pool, processes=processes))
    if engine is not None:
        _refuse_unless(engine in ("pool", "serial"), "engine", engine, "'pool' or 'serial'")
        config = replace(config, engine=engine)
    return config


def _refuse_unless(is_right: bool, name: str, given: object, needed: str) -> None:
    if not is_right:
        raise UsageError(f"{name}: {needed} is needed, not {given!r}")


@contextmanager
def _alone() -> Iterator[None]:
    """Hold the lock that lets one pipeline at a time import stages. Raises UsageError if another holds it."""
    if not _one_at_a_time.acquire(blocking=False):
        text = "another pipeline is being loaded or run in this process, which can do one at a time"
        raise UsageError(text, hint="load both before, and run one after the other, or each in a process of its own")
    try:
        yield
    finally:
        _one_at_a_time.release()
