"""Run one file through the pipeline in this process, and print every step with its time, and tracebacks."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from pipeline.errors import EnvironmentFailure, StageError
from pipeline.files.removal import remove_tree
from pipeline.files.template import NO_FILE_KEY
from pipeline.messages import Outcome, Result
from pipeline.observer import RunObserver, Step
from pipeline.text import counted, indented, shown

if TYPE_CHECKING:
    from pipeline.operations.trial import Trial

# How many lines of a text output are printed, how many characters of each, and how many bytes are read for them.
_SHOWN_LINES, _SHOWN_CHARACTERS, _READ_BYTES = 5, 100, 2000


class StepPrinter(RunObserver):
    """Prints every step of the file when it happens, and keeps the exceptions for the debugger."""

    def __init__(self, out: TextIO) -> None:
        self.errors: list[BaseException] = []
        """The exceptions with which outputs failed, in order, each once."""
        self._out = out

    def on_step(self, step: Step) -> None:
        """Print the step with its time."""
        if step.what == "failed":  # the results say that of each output
            if step.error is not None and step.error not in self.errors:
                self.errors.append(step.error)
            return
        what = {"converted": "", "skipped": "left out "}.get(step.what, f"{step.what} ")
        text = f"{step.seconds * 1000:10,.1f} ms  {step.stage}: {what}{step.value}"
        print(text, file=self._out, flush=True)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of `try`."""
    parser.add_argument("path", metavar="FILE", help="an input, or any other file")
    parser.add_argument("--stage", metavar="NAME", help="only as far as this stage, whether it has an output or not")
    parser.add_argument("--pdb", action="store_true", help="open the debugger where a stage raised")
    parser.add_argument("--keep", action="store_true", help="keep the outputs, and print where they are")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in 'run'")


def execute(arguments: argparse.Namespace) -> int:
    """Run the file, print the result of every output, and return the exit code."""
    from pipeline.commands.explain import in_order
    from pipeline.config.load import load_config
    from pipeline.operations.trial import prepare

    file, path = in_order(arguments)
    config = load_config(Path(file), arguments.set, reads_inputs=False)
    folder = Path(tempfile.mkdtemp(prefix="filemill-try-"))
    try:
        trial = prepare(config, path, arguments.stage, folder)
        for note in (*config.warnings, *trial.notes):
            print(f"note: {note}", file=sys.stderr)
        print(f"{shown(trial.job.source.path)}: {counted(trial.job.source.size_bytes, 'byte')}", flush=True)
        outcome, errors = _try(trial, with_debugger=arguments.pdb)
        _print_results(trial, outcome.results)
        if arguments.keep:
            print(f"kept: {folder / 'output'}")
        elif any(result.status == "done" for result in outcome.results):
            print("--keep keeps what was made", file=sys.stderr)
        if arguments.pdb and errors:
            _debug(errors, trial)
        return _exit_code(outcome, errors)
    finally:
        aside = folder / "state" / "set-aside"
        if aside.exists():
            print(f"the file is gone; what was made of it is kept: {aside}", file=sys.stderr)
        elif not arguments.keep:
            remove_tree(folder)


def _try(trial: Trial, *, with_debugger: bool) -> tuple[Outcome, list[BaseException]]:
    """Run the file and print every step; return the outcome, and the exceptions with which outputs failed."""
    from pipeline.operations.trial import run_trial
    from pipeline.stdio import stdout_to_stderr

    try:
        with _our_stdout() as out, stdout_to_stderr():  # what the stages print is no data
            printer = StepPrinter(out)
            return run_trial(trial, printer), printer.errors
    except StageError as error:
        if error.__cause__ is not None:
            traceback.print_exception(error.__cause__)
            if with_debugger:
                _debug([error.__cause__], trial)
        raise


def _debug(errors: Sequence[BaseException], trial: Trial) -> None:
    from pipeline.operations.trial import debug

    if not any(debug(error, trial.config) for error in errors):
        print("no debugger: what failed is not in a stage's own code", file=sys.stderr)


def _exit_code(outcome: Outcome, errors: Sequence[BaseException]) -> int:
    if any(isinstance(error, KeyboardInterrupt) for error in errors):
        raise KeyboardInterrupt
    if outcome.environment:
        return EnvironmentFailure.exit_code
    return int(any(result.status == "failed" for result in outcome.results))


@contextlib.contextmanager
def _our_stdout() -> Iterator[TextIO]:
    """Open a copy of stdout, which is not affected when stdout is redirected."""
    from pipeline.stdio import outliving

    sys.stdout.flush()
    with outliving(os.dup(1), "utf-8", "backslashreplace") as out:
        yield out


def _print_results(trial: Trial, results: Sequence[Result]) -> None:
    """Print the result of each output, with the traceback of a failure and the beginning of a text."""
    for result in results:
        if result.status != "done":
            print(f"{result.stage}: {result.status}: {result.text}")
            if result.detail:
                print(indented(result.detail), file=sys.stderr)
            continue
        note = f" ({result.noted})" if result.notes else ""
        made = result.parts or [result]
        for each in made:
            is_file = each.path.startswith(b"/") and not each.path.startswith(NO_FILE_KEY)
            where = f"{shown(trial.below(each.path))}, {counted(each.size_bytes, 'byte')}" if is_file else "no file"
            print(f"{result.stage}: done: {where}{note}")
            if is_file and len(made) == 1:
                print(*_beginning(Path(os.fsdecode(each.path))), sep="", end="")


def _beginning(file: Path) -> Iterator[str]:
    """Yield the first lines of a text file, indented; nothing for any other file."""
    with open(file, "rb") as opened:
        beginning = opened.read(_READ_BYTES)
    try:
        lines = beginning.decode("utf-8").splitlines() if b"\0" not in beginning else []
    except UnicodeDecodeError:
        return
    for line in lines[:_SHOWN_LINES]:
        yield f"{indented(line[:_SHOWN_CHARACTERS])}\n"
