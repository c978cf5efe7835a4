"""The verbs of the command line, one file for each; a thin layer over `operations`.

verb            the first word after `filemill`, such as `run`; its module docstring is its help text
add_arguments   registers the options of a verb
execute         does what the parsed arguments ask for, and returns the exit code
"""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.machinery import PathFinder
from pathlib import Path
from typing import TYPE_CHECKING

import pipeline
from pipeline.errors import UsageError
from pipeline.text import DURATION_NEEDED, seconds_of

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import Ledger
    from pipeline.operations.state_of_pipeline import StateOfPipeline


# A run has thousands of jobs in memory, none of them in a cycle; to look at them again and again is a tenth of
# the parent's work.
_GC_THRESHOLDS = 100_000, 50, 100


@contextmanager
def importing() -> Iterator[None]:
    """Collect no garbage meanwhile, nor later in what was imported, where this process is only the program."""
    if not pipeline.is_program:
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.set_threshold(*_GC_THRESHOLDS)
        gc.enable()


def parse_duration(option: str, text: str) -> float:
    """Return the seconds of a duration that an option has, written as in pipeline.yaml. Raises UsageError."""
    if (seconds := seconds_of(text)) is None:
        raise UsageError(f"{option}: {DURATION_NEEDED}, not {text!r}")
    return seconds


def warn_of_namesake(folder: Path) -> None:
    """Print a line to stderr if `python -m pipeline` in a folder would run a module that is not this one."""
    found = PathFinder.find_spec("pipeline", [str(folder), *sys.path])
    if found and os.path.realpath(found.origin or "") != os.path.realpath(pipeline.__file__):
        theirs = found.origin or next(iter(found.submodule_search_locations or ()), "pipeline")
        print(f"{theirs}: 'python -m pipeline' in {folder} runs this; say 'filemill' there", file=sys.stderr)


def warn_of_foreign_state(config: Config, ledger: Ledger) -> None:
    """Print a line to stderr if the state, from which a verb shows records, belongs to another pipeline."""
    from pipeline.operations.guards import guards_of

    if sentence := guards_of(config, ledger).describe_state():
        print(sentence, file=sys.stderr)


def warn_of_state(of: StateOfPipeline, ledger: Ledger, unknown: str = "") -> None:
    """Print a line to stderr if a pipeline does not load, with what is not known then, or if its state is another's."""
    if of.config is None:
        print(f"{of.problem}{unknown}", file=sys.stderr)
    else:
        warn_of_foreign_state(of.config, ledger)


def by_whom(hosts: Sequence[str], versions: Sequence[dict[str, str]]) -> list[str]:
    """Return the machines and the versions by which something was made, as phrases."""
    named = [" ".join(("filemill", each.get("filemill", "?"), "Python", each.get("python", "?"))) for each in versions]
    return [*hosts, *(each for each, said in zip(named, versions, strict=True) if said)]
