"""The command line: find the verb, parse its arguments, print errors, return the exit code."""

from __future__ import annotations

import atexit
import contextlib
import importlib
import os
import sys
import threading
from collections.abc import Sequence
from types import FrameType, ModuleType
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import pipeline

if not hasattr(pipeline, "is_program"):  # pip lets two distributions write to one folder, and the later one wins
    from importlib import metadata

    owners = {*metadata.packages_distributions().get("pipeline", ())} - {"filemill"}
    print(
        f"{pipeline.__file__}: this belongs to {', '.join(sorted(owners)) or 'another distribution'}, which has the "
        "name 'pipeline' too; install filemill anew, in an environment of its own",
        file=sys.stderr,
    )
    sys.exit(2)

from pipeline import __version__
from pipeline.errors import EnvironmentFailure, FilemillError, UsageError
from pipeline.stdio import discard_stdout, open_missing, outlive_readers, print_error
from pipeline.text import did_you_mean, program

if TYPE_CHECKING:
    import argparse

    from pipeline.planning.ranges import Looked

VERBS = {
    "run": "bring every output up to date (the default)",
    "check": "read pipeline.yaml and report everything that is wrong with it",
    "plan": "show what a run would do, and why",
    "verify": "read every output again and compare it with what is recorded",
    "prune": "remove outputs that nothing produces any more, after showing them",
    "status": "show how far a run has come, or how the last one ended",
    "report": "print where the report of a run lies, or compare two",
    "explain": "show everything about one file, an input or an output",
    "accept": "mark outputs as up to date that are stale because of a change that makes no difference",
    "adopt": "record outputs that exist and are not in the ledger as made",
    "runs": "list the runs, or show everything about one",
    "failures": "group and list the files that failed and have not been done since, or dismiss some",
    "try": "run one file through the pipeline in this process, step by step",
    "stages": "list all stages, or describe one",
    "new": "write a stage with its test, or a pipeline for a folder",
    "schema": "write the JSON Schema of pipeline.yaml, for editors",
}


def be_program() -> NoReturn:
    """Run `main`, and end this process: for `python -m pipeline`, and the console script."""
    code = main()
    run_exit_functions = getattr(atexit, "_run_exitfuncs", None)  # no part of what Python documents
    if run_exit_functions and not _is_needed_after(sys._getframe(1)):
        run_exit_functions()
        with contextlib.suppress(OSError, ValueError):
            sys.stdout.flush()
        # Python would free all that was imported, object by object, which takes longer than a good part of a short run.
        _leave(code)
    sys.exit(code)


def _is_needed_after(frame: FrameType | None) -> bool:
    """Return whether something goes on after the program: another thread, a person at the prompt, or who has called it.

    Python itself calls it by way of three frames at most; a profiler, or another runner of modules, has its own below.
    """
    frames = 0
    while frame:
        frame, frames = frame.f_back, frames + 1
    others = [each for each in threading.enumerate() if each is not threading.main_thread()]
    is_watched = frames > 3 or sys.getprofile() or sys.gettrace()
    return bool(is_watched or sys.flags.inspect or not all(each.daemon for each in others))


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command, and return its exit code; errors are printed, and only argparse raises SystemExit.

    Args:
        arguments: The words after the program's name; those of this process by default.

    Returns:
        The exit code, such as 0 where every output is up to date; see the table in README.md.
    """
    open_missing()
    pipeline.is_program = arguments is None
    if pipeline.is_program:
        outlive_readers()
    try:
        code = _flushed(_exit_code_of(list(sys.argv[1:] if arguments is None else arguments)))
        if pipeline.is_program and pipeline.has_run_stages:
            _leave(code)
        return code
    except SystemExit as left:  # argparse has printed its help, or how a verb is used
        raise SystemExit(_flushed(left.code if isinstance(left.code, int) else int(left.code is not None))) from None


def _exit_code_of(arguments: list[str]) -> int:
    """Run one command and print the error that it may end with."""
    try:
        return _execute(arguments)
    except FilemillError as error:
        print_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        return _report_machine(error)
    except Exception as error:
        if isinstance(error.__cause__, KeyboardInterrupt):  # it fell into a class body, where Python wraps it
            return 130
        return _report_bug(error)


def _flushed(code: int) -> int:
    """Write out what stdout has been given, and return the exit code: 3 where it cannot be, unless `code` is graver."""
    try:
        sys.stdout.flush()
    except OSError as error:
        reported = _report_machine(error)
        return code if code >= FilemillError.exit_code else reported
    except KeyboardInterrupt:  # the reader takes nothing any more
        discard_stdout()
        return 130
    return code


def _leave(code: int) -> NoReturn:
    """End this process without waiting for threads and exit functions that a stage has left in it."""
    with contextlib.suppress(OSError, ValueError):
        sys.stderr.flush()
    os._exit(code)


def _execute(arguments: list[str]) -> int:
    if not arguments or arguments[0] not in VERBS:
        _refuse_unknown_verb(arguments)
        if arguments[:1] in (["-h"], ["--help"]):
            print(_help(), end="")
            return 0
        if arguments[:1] == ["--version"]:
            print(f"filemill {__version__}")
            return 0
        arguments = ["run", *arguments]
    verb, rest = arguments[0], arguments[1:]
    if verb == "run" and "--dry-run" in rest:
        verb, rest = "plan", [each for each in rest if each != "--dry-run"]
    plain, looked = _plain_run(rest) if verb == "run" else None, None
    if plain and (looked := _answer_unchanged(plain["file"], plain["quiet"], plain["verbose"])) is True:
        return 0
    command = importlib.import_module(f"pipeline.commands.{verb}")
    parsed = command.plain_arguments(**plain) if plain else _parse(verb, command, rest)
    parsed.looked = looked
    _make_streams_lenient(is_json=getattr(parsed, "json", False))
    code: int = command.execute(parsed)
    return code


# The options of `run` that change nothing of what it does.
_ONLY_SAYS = {"-q": "quiet", "--quiet": "quiet", "-v": "verbose", "--verbose": "verbose"}


# Options with a value that cannot change the answer of a run that has nothing to do.
_ONLY_LIMITS = {"--if-locked": "if_locked", "--max-time": "max_time"}


def _plain_run(words: list[str]) -> dict[str, Any] | None:
    """Return the options of a run in which none matters, which argparse need not be imported to read; else None."""
    said: dict[str, Any] = {"quiet": False, "verbose": False}
    files, left = list[str](), iter(words)
    for word in left:
        name, equals, value = word.partition("=")
        if word in _ONLY_SAYS:
            said[_ONLY_SAYS[word]] = True
        elif name in _ONLY_LIMITS and (value := value if equals else next(left, "")):
            said[_ONLY_LIMITS[name]] = value
        elif word.startswith("-") or not word:
            return None
        else:
            files.append(word)
    if len(files) > 1:
        return None
    if said.keys() & _ONLY_LIMITS.values():
        from pipeline.commands.run import parse_limits

        # What is wrong with them is refused whatever the answer.
        parse_limits(said.get("if_locked", "fail"), said.get("max_time"))
    return {"file": files[0] if files else "pipeline.yaml", **said}


def _answer_unchanged(file: str, quiet: bool, verbose: bool) -> Literal[True] | Looked | None:
    """Answer a run from the note of the one before.

    Returns True if that could be done; else which files need not be looked at, if that is known.
    """
    from pathlib import Path

    from pipeline.commands import importing

    with importing():
        from pipeline.operations.unchanged_note import answer_unchanged
        from pipeline.planning.ranges import Looked

    answer = answer_unchanged(Path(file))
    if answer is None or isinstance(answer, Looked):
        return answer
    from pipeline.report.summary import print_summary, print_untold

    _make_streams_lenient(is_json=False)
    print_summary(answer, is_quiet=quiet, is_verbose=verbose)
    print_untold(answer)
    return True


def _parse(verb: str, command: ModuleType, arguments: list[str]) -> argparse.Namespace:
    import argparse  # here, since a run without options needs none

    parser = argparse.ArgumentParser(prog=f"{program()} {verb}", description=command.__doc__, allow_abbrev=False)
    parser.add_argument("pipeline", nargs="?", metavar="PIPELINE.yaml", help="default: ./pipeline.yaml")
    parser.add_argument("-f", "--file", help="the pipeline file, whatever its suffix")
    command.add_arguments(parser)
    # Options may stand anywhere, also between the pipeline and a path.
    parsed = parser.parse_intermixed_args(_protect_dashes(arguments))
    parsed.file = parsed.file or parsed.pipeline or "pipeline.yaml"
    return parsed


def _make_streams_lenient(*, is_json: bool) -> None:
    """Have stdout and stderr escape the characters that they cannot encode; JSON is UTF-8, whatever the locale."""
    with contextlib.suppress(AttributeError):  # a closed stream
        if is_json:
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def _protect_dashes(arguments: list[str]) -> list[str]:
    """Remove the first "--", and put "./" before each path after it that begins with a dash."""
    if "--" not in arguments:
        return arguments
    at = arguments.index("--")
    return arguments[:at] + [f"./{each}" if each.startswith("-") else each for each in arguments[at + 1 :]]


def _refuse_unknown_verb(arguments: list[str]) -> None:
    word = arguments[0] if arguments else ""
    if word and not word.startswith("-") and not word.endswith((".yaml", ".yml")):
        asks = did_you_mean(word, VERBS) or f"; there are {', '.join(VERBS)}"
        raise UsageError(f"no verb {word!r}{asks}", hint=f"a pipeline of that name: {program()} -f {word}")


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return f"""\
usage: {program()} [VERB] [PIPELINE.yaml] [options]

Runs the stages of a pipeline over its input files and brings every output up to date.

verbs:
{verbs}

options:
  -h, --help      this text; {program()} VERB --help: the options of a verb
  --version       the version

exit codes: 0 all up to date, 1 some files failed, 2 wrong use, 3 stopped by the machine,
            4 stopped by a limit of your own, or a folder of inputs is lost, 5 stopped by its time limit,
            6 no file failed; files are held from earlier runs, 70 a fault of filemill itself,
            75 already running, 128+N stopped by signal N; the same line again resumes
"""


def _report_machine(error: Exception) -> int:
    """Print one line about an error of the machine, stop printing to stdout, and return the exit code."""
    from pipeline.files.process_limits import describe_refusal, is_start_refused

    discard_stdout()
    print_error(f"stopped by the machine: {describe_refusal() if is_start_refused(error) else error}")
    return EnvironmentFailure.exit_code


def _report_bug(error: Exception) -> int:
    """Print one line about a bug in filemill, write its traceback to a file, and return the exit code.

    That no thread could be started is no bug, though Python has no error of the machine for it.
    """
    import tempfile
    import traceback

    from pipeline.files.process_limits import is_start_refused

    if is_start_refused(error):
        return _report_machine(error)
    text = "".join(traceback.format_exception(error))
    try:
        with tempfile.NamedTemporaryFile("w", prefix="filemill-", suffix=".log", delete=False, encoding="utf-8") as log:
            log.write(text)
        where = f"traceback in {log.name}"
    except OSError as full:
        where = f"no file takes its traceback: {full}\n{text}"
    print_error(f"filemill has a bug: {' '.join(f'{type(error).__name__}: {error}'.split())} ({where})")
    return 70
