"""Bring every output of the pipeline up to date; the same line again resumes a run that was stopped."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

from pipeline.commands import importing
from pipeline.errors import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterable
    from pathlib import Path

    from pipeline.config.model import Config
    from pipeline.operations.guards import Confirmations
    from pipeline.planning.selection import Selection
    from pipeline.report.bar import TerminalObserver
    from pipeline.report.summary import Summary


# Seconds that jobs in hand may still take after a signal.
_GRACE_S = 20.0


def plain_arguments(file: str, *, quiet: bool, verbose: bool) -> Any:
    """Return what the parser of `add_arguments` does where nothing else was said, without importing argparse."""
    return SimpleNamespace(
        pipeline=file, file=file, quiet=quiet, verbose=verbose, grace=_GRACE_S, set=[], only=[],
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
    """Run the pipeline, and print the summary."""
    from pathlib import Path

    _refuse_half_a_sample(arguments)
    file, edits = Path(arguments.file), edits_of(arguments)
    with importing():
        config = _load(file, edits)
        from pipeline.config.load import load_config
        from pipeline.operations.run import run
        from pipeline.report.bar import terminal_observers
        from pipeline.report.summary import print_summary

    is_quiet = arguments.quiet or arguments.json
    observers = terminal_observers(is_quiet=is_quiet, is_verbose=arguments.verbose)
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
            looked=arguments.looked,
        )
    if arguments.json:
        print(json.dumps(summary.as_json()))
    is_quiet = arguments.quiet or (arguments.json and not arguments.verbose)
    print_summary(summary, is_quiet=is_quiet, is_verbose=arguments.verbose)
    return summary.exit


def _load(file: Path, edits: list[str]) -> Config:
    """Load the pipeline, and start its forkserver."""
    from pipeline.config.load import Loading

    loading = Loading(file, edits)
    # Meanwhile another process reads the pipeline, unless it is known; and the forkserver is a copy that has all this.
    import pipeline.operations.run  # noqa: F401

    config = loading.config()
    from pipeline.operations.early_start import start_forkserver

    start_forkserver(config)
    return config


def _refuse_half_a_sample(arguments: argparse.Namespace) -> None:
    """Raise UsageError if --sample, --output-root or --seed lacks another of them, or contradicts another option."""
    if arguments.sample is None:
        for word, given in (("--output-root", arguments.output_root), ("--seed", arguments.seed)):
            if given is not None:
                raise UsageError(f"{word} is for --sample N; say how many files")
        return
    if arguments.output_root is None:
        raise UsageError("--sample needs --output-root DIR, a folder for the outputs of the sample")
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
