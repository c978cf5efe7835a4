"""Bring every output of the pipeline up to date; the same line again resumes a run that was stopped."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipeline.commands import importing, parse_duration
from pipeline.errors import (
    SIGNALLED,
    AlreadyRunning,
    ConfigError,
    EnvironmentFailure,
    FilemillError,
    RunHangs,
    StageError,
    UsageError,
)

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.config.model import Config
    from pipeline.operations.guards import Confirmations
    from pipeline.operations.time_limit import MaxTime
    from pipeline.planning.selection import Selection
    from pipeline.report.bar import TerminalObserver
    from pipeline.report.summary import Summary


# Seconds that jobs in hand may still take after a signal.
_GRACE_S = 20.0


def plain_arguments(
    file: str, *, quiet: bool, verbose: bool, if_locked: str = "fail", max_time: str | None = None
) -> Any:
    """Return what the parser of `add_arguments` does where nothing else was said, without importing argparse."""
    return SimpleNamespace(
        pipeline=file, file=file, quiet=quiet, verbose=verbose, grace=_GRACE_S, set=[], only=[],
        if_locked=if_locked, max_time=max_time,
        **dict.fromkeys(("processes", "engine", "limit", "files_from", "sample", "output_root", "seed")),
        **dict.fromkeys(("dry_run", "json", "retry_failed", "force", "rebuild", "take_over"), False),
    )  # fmt: skip


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `run`."""
    parser.add_argument("-j", "--processes", type=int, metavar="N", help="how many workers (pool.processes)")
    parser.add_argument("--engine", choices=("serial", "pool"), help="who runs the jobs (engine)")
    parser.add_argument("--dry-run", action="store_true", help="only say what would be done, like 'plan'")
    parser.add_argument("--json", action="store_true", help="print the summary as one JSON object on stdout")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="show what stages print, tracebacks, and the summary"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help="no bar, and only what is new at the end")
    parser.add_argument(
        "--grace",
        type=_seconds,
        default=_GRACE_S,
        metavar="SECONDS",
        help="how long jobs in hand may still take after a signal",
    )
    locked = "where another run is running: end with 75 (fail), end with 0 (skip), or wait, no longer than wait:10m"
    parser.add_argument("--if-locked", default="fail", metavar="fail|skip|wait[:TIME]", help=locked)
    most = "start no more files than will be done within this time, such as 55m, from now on; the rest is left (exit 5)"
    parser.add_argument("--max-time", metavar="TIME", help=most)
    add_selection(parser)
    sample = "run N files, chosen at random, into the folder of --output-root; nothing else is touched"
    parser.add_argument("--sample", type=_count, metavar="N", help=sample)
    parser.add_argument("--output-root", metavar="DIR", help="where the outputs of --sample go, below their own paths")
    parser.add_argument(
        "--seed", type=int, metavar="N", help="choose the files of --sample that this seed chose before"
    )


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Register the options that select files and confirm unusual situations, for `run` and `plan`."""
    edit = "change one value of pipeline.yaml for this run, such as stages.web.with.width=800; may be repeated"
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help=edit)
    only = "only files that match this pattern, as in .gitignore; if repeated, any of them"
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help=only)
    parser.add_argument("--limit", type=_count, metavar="N", help="only the first N files with something to do")
    listed = "only the files that are named in FILE ('-': stdin), one a line or each ended by NUL"
    parser.add_argument("--files-from", metavar="FILE", help=listed)
    parser.add_argument("--retry-failed", action="store_true", help="try also what is held or dismissed")
    parser.add_argument("--force", action="store_true", help="redo what is up to date, edited or not ours")
    rebuild = "go on although known files or outputs are gone: they were removed on purpose, no disk is missing"
    parser.add_argument("--rebuild", action="store_true", help=rebuild)
    take_over = "take over a state or an output folder that belongs to another pipeline"
    parser.add_argument("--take-over", action="store_true", help=take_over)


def _seconds(text: str) -> float:
    import argparse

    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"a number of seconds is needed, not {text!r}")
    return seconds


def _count(text: str) -> int:
    import argparse

    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a number from 1 is needed, not {text!r}")
    return int(text)


def edits_of(arguments: argparse.Namespace) -> list[str]:
    """Return the arguments that override values of pipeline.yaml, in the form of `--set`."""
    edits = list(arguments.set)
    if getattr(arguments, "processes", None) is not None:
        edits.append(f"pool.processes={arguments.processes}")
    if getattr(arguments, "engine", None):
        edits.append(f"engine={arguments.engine}")
    return edits


def selection_of(arguments: argparse.Namespace) -> Selection:
    """Return the selection that the arguments ask for."""
    from pipeline.planning.selection import Selection, read_names

    names = read_names(arguments.files_from) if arguments.files_from is not None else None
    return Selection(
        only=only_of(arguments),
        limit=arguments.limit,
        force=arguments.force,
        retry_failed=arguments.retry_failed,
        names=names,
    )


def only_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Return the patterns of `--only`. Raises UsageError for one that is not valid in .gitignore."""
    from pipeline.files.walk import pattern_problem

    patterns = tuple(each for each in arguments.only if each)  # an empty one asks for nothing, as in --only "$UNSET"
    for pattern in patterns:
        if problem := pattern_problem(pattern):
            raise UsageError(f"--only: {problem}")
    return patterns


def confirmations_of(arguments: argparse.Namespace) -> Confirmations:
    """Return the guards that the arguments override."""
    from pipeline.operations.guards import Confirmations

    return Confirmations(rebuild=arguments.rebuild, take_over=arguments.take_over)


def execute(arguments: argparse.Namespace) -> int:
    """Run the pipeline once it may be run, and print the summary."""
    _refuse_half_a_sample(arguments)
    turn = RunTurn.of(arguments)
    while True:
        try:
            return _run(arguments, turn)
        except AlreadyRunning as error:
            if turn.then == "fail" or turn.is_over:
                raise
            _tell_of_lock(error, turn, is_quiet=arguments.quiet)
        except (ConfigError, StageError, EnvironmentFailure) as error:
            _note_refused(arguments, turn, error)
            raise
        if turn.then == "skip":
            return 0
        if ended_by := turn.wait():
            return SIGNALLED + ended_by


def parse_limits(if_locked: str, max_time: str | None) -> tuple[str, float | None, float | None]:
    """Return what is done where another run is running, and for how many seconds it may wait, and run, at the most.

    Raises UsageError.
    """
    max_s = None if max_time is None else parse_duration("--max-time", max_time)
    then, colon, most = if_locked.partition(":")
    if then == "wait" and colon:
        return then, parse_duration("--if-locked wait", most), max_s
    if then not in ("fail", "skip", "wait") or colon:
        raise UsageError(f"--if-locked: fail, skip, wait or wait:10m is needed, not {if_locked!r}")
    return then, None, max_s


class RunTurn:
    """When a run may begin, where another is running, and until when it must end."""

    def __init__(self, then: str = "fail", most_s: float | None = None, max_time: MaxTime | None = None) -> None:
        """`then` is what is done where another run is running, `most_s` the seconds to wait at the most."""
        self.then, self.max_time = then, max_time
        self.has_waited = False
        self.config: Config | None = None
        """The pipeline, once it was loaded."""
        ends = [max_time.deadline] if max_time else []
        if most_s is not None:
            ends.append(time.monotonic() + most_s)
        self._deadline = min(ends, default=None)

    @classmethod
    def of(cls, arguments: argparse.Namespace) -> RunTurn:
        """Return what the arguments ask for. Raises UsageError."""
        began = time.monotonic()
        then, most_s, max_s = parse_limits(arguments.if_locked, arguments.max_time)
        if max_s is None:
            return cls(then, most_s)
        from pipeline.operations.time_limit import MaxTime

        return cls(then, most_s, MaxTime(arguments.max_time, began + max_s, max_s))

    @property
    def is_over(self) -> bool:
        """True once the lock is waited for no longer."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def wait(self) -> int:
        """Wait for the lock of the state; return the number of the signal that ended this, 0 if none did."""
        from pipeline.operations.lock_out import wait_for_turn

        assert self.config
        self.has_waited = True
        try:
            return wait_for_turn(self.config.state, self.config.name, self._deadline)
        except RunHangs as error:
            _tell_refused(self.config, error)
            raise


def _tell_of_lock(error: AlreadyRunning, turn: RunTurn, *, is_quiet: bool) -> None:
    """Print, on a terminal, that another run is running, once."""
    import sys

    if sys.stderr.isatty() and not is_quiet and not turn.has_waited:
        print(f"{error.text}; {'waiting' if turn.then == 'wait' else 'so nothing is done'}", file=sys.stderr)


def _run(arguments: argparse.Namespace, turn: RunTurn) -> int:
    """Run the pipeline as it is now, and print the summary. Raises AlreadyRunning where another run is running."""
    from pathlib import Path

    file, edits = Path(arguments.file), edits_of(arguments)
    with importing():
        config = _load(file, edits, turn)
        from pipeline.config.load import load_config
        from pipeline.operations.run import run
        from pipeline.report.bar import terminal_observers
        from pipeline.report.summary import print_summary, print_untold

    has_no_bar = arguments.quiet or arguments.json
    observers = terminal_observers(is_quiet=has_no_bar, is_verbose=arguments.verbose)
    if arguments.sample is not None:
        summary = _run_sample(config, arguments, observers)
    else:
        selection, confirmations = selection_of(arguments), confirmations_of(arguments)
        # The names of files are read once only.
        reload = None if selection.names is not None else lambda: load_config(file, edits)
        summary = run(
            config,
            selection,
            observers,
            grace_s=arguments.grace,
            confirmations=confirmations,
            reload=reload,
            # What was found before the wait is of then.
            looked=None if turn.has_waited else arguments.looked,
            max_time=turn.max_time,
        )
    if arguments.json:
        print(json.dumps(summary.as_json()))
    is_quiet = arguments.quiet or (arguments.json and not arguments.verbose)
    print_summary(summary, is_quiet=is_quiet, is_verbose=arguments.verbose)
    print_untold(summary)
    return summary.exit


def _load(file: Path, edits: list[str], turn: RunTurn) -> Config:
    """Load the pipeline, and start its forkserver, unless another run is running that is to be waited for."""
    from pipeline.config.load import Loading

    loading = Loading(file, edits)
    # Meanwhile another process reads the pipeline, unless it is known; and the forkserver is a copy that has all this.
    import pipeline.operations.run  # noqa: F401

    try:
        turn.config = config = loading.config()
        if turn.then != "fail":
            from pipeline.operations.lock_out import refuse_beside_another_run

            refuse_beside_another_run(config.state, config.name)
    except EnvironmentFailure as error:
        turn.config = turn.config or loading.refused
        _tell_refused(turn.config, error)
        raise
    from pipeline.operations.early_start import start_forkserver

    start_forkserver(config)
    return config


def _note_refused(arguments: argparse.Namespace, turn: RunTurn, error: FilemillError) -> None:
    """Have `status` know that a run ended before it began, unless its own options are wrong."""
    if arguments.sample is not None or any(line.startswith("--set ") for line in error.text.splitlines()):
        return
    from pathlib import Path

    from pipeline.operations.refusal import note_refused

    is_part = arguments.only or arguments.limit is not None or arguments.files_from is not None
    note_refused(Path(arguments.file), turn.config, error, is_whole=not is_part)


def _tell_refused(config: Config | None, error: EnvironmentFailure) -> None:
    """Tell that a run ended before it began, if it is known who is to be told."""
    if config and config.is_told:
        from pipeline.operations.telling import tell_refused

        tell_refused(config, error)


def _refuse_half_a_sample(arguments: argparse.Namespace) -> None:
    """Raise UsageError if --sample, --output-root or --seed lacks another of them, or contradicts another option."""
    if arguments.sample is None:
        for word, given in (("--output-root", arguments.output_root), ("--seed", arguments.seed)):
            if given is not None:
                raise UsageError(f"{word} is for --sample N; say how many files")
        return
    if arguments.output_root is None:
        raise UsageError("--sample needs --output-root DIR, a folder for the outputs of the sample")
    if arguments.max_time is not None or arguments.if_locked != "fail":
        raise UsageError("--max-time and --if-locked are for runs over everything, a sample is small; leave them out")
    for word, given in (("--limit", arguments.limit), ("--files-from", arguments.files_from)):
        if given is not None:
            raise UsageError(f"--sample and {word} each say which files; leave one of them out")


def _run_sample(
    config: Config, arguments: argparse.Namespace, observers: Iterable[TerminalObserver]
) -> Summary:  # fmt: skip
    """Run a sample, and print the seed with which it can be repeated."""
    import sys
    from pathlib import Path

    from pipeline.operations.sample import Sample, new_seed, run_sample

    seed = arguments.seed if arguments.seed is not None else new_seed()
    sample = Sample(arguments.sample, Path(arguments.output_root), seed, only_of(arguments))
    summary = run_sample(config, sample, observers, arguments.grace)
    if not (sys.stderr.isatty() or arguments.verbose or arguments.quiet):  # where no summary says it
        print(summary.notes[-1], file=sys.stderr)
    return summary
