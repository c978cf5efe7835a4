"""The command line: arguments in, exit code out, and the only place that prints errors."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import importlib
import sys
import tempfile
import traceback
from collections.abc import Sequence

from pipeline import __version__
from pipeline.errors import EnvironmentFailure, FilemillError, UsageError
from pipeline.stdio import discard_stdout, open_missing

VERBS = {
    "run": "bring every output up to date (the default)",
    "check": "read pipeline.yaml and say all that is wrong with it",
    "plan": "say what a run would do, and why",
    "verify": "read every output again and compare it with what is recorded",
    "prune": "remove outputs that nothing produces any more, after showing them",
    "status": "say whether a run is on and how far it has come, or how the last one ended",
    "explain": "tell everything about one file, an input or an output",
    "accept": "take what is stale because of a change that makes no difference as up to date",
    "adopt": "take outputs that are there, and not on record, as made",
    "failures": "list the files that failed and have not been done since",
    "try": "take one file through the pipeline in this process, step by step",
    "stages": "list every stage there is, or tell all about one",
    "new": "write a stage with its test, or a pipeline for a folder",
    "schema": "write the JSON Schema of pipeline.yaml, for editors",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; gives the exit code. No exception leaves it."""
    open_missing()
    try:
        return _execute(list(sys.argv[1:] if arguments is None else arguments))
    except FilemillError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # whoever read our stdout has seen enough
        discard_stdout()
        return 0
    except OSError as error:
        discard_stdout()
        print(f"stopped by the machine: {error}", file=sys.stderr)
        return EnvironmentFailure.exit_code
    except Exception as error:
        return _confess(error)


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
    command = importlib.import_module(f"pipeline.commands.{verb}")
    parser = argparse.ArgumentParser(prog=f"python -m pipeline {verb}", description=command.__doc__, allow_abbrev=False)
    parser.add_argument("pipeline", nargs="?", metavar="PIPELINE.yaml", help="default: ./pipeline.yaml")
    parser.add_argument("-f", "--file", help="the pipeline, whatever its name ends in")
    command.add_arguments(parser)
    # Options may stand anywhere, also between the pipeline and a path.
    parsed = parser.parse_intermixed_args(_spell_out(rest))
    parsed.file = parsed.file or parsed.pipeline or "pipeline.yaml"
    with contextlib.suppress(AttributeError):  # a closed stream
        if getattr(parsed, "json", False):  # JSON is UTF-8, whatever the locale
            sys.stdout.reconfigure(encoding="utf-8")  # type: ignore[union-attr]
        sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
        sys.stderr.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code: int = command.execute(parsed)
    sys.stdout.flush()
    return code


def _spell_out(arguments: list[str]) -> list[str]:
    """The arguments without a "--": what comes after one is a path, also where it begins with a dash."""
    if "--" not in arguments:
        return arguments
    at = arguments.index("--")
    return arguments[:at] + [f"./{each}" if each.startswith("-") else each for each in arguments[at + 1 :]]


def _refuse_unknown_verb(arguments: list[str]) -> None:
    word = arguments[0] if arguments else ""
    if word and not word.startswith("-") and not word.endswith((".yaml", ".yml")):
        close = difflib.get_close_matches(word, VERBS, 1)
        asks = f"; did you mean {close[0]!r}?" if close else f"; there are {', '.join(VERBS)}"
        raise UsageError(f"no verb {word!r}{asks}", hint=f"a pipeline of that name: python -m pipeline -f {word}")


def _help() -> str:
    verbs = "\n".join(f"  {verb:<10}{text}" for verb, text in VERBS.items())
    return f"""\
usage: python -m pipeline [VERB] [PIPELINE.yaml] [options]

Runs the stages of a pipeline over its input files and brings every output up to date.

verbs:
{verbs}

options:
  -h, --help      this text; python -m pipeline VERB --help: the options of a verb
  --version       the version

exit codes: 0 all up to date, 1 some files failed or are held, 2 wrong use, 3 stopped by the machine,
            4 stopped by a limit of your own, 75 already running, 128+N stopped by signal N; the same line again resumes
"""


def _confess(error: Exception) -> int:
    """A bug of ours: one line for the terminal, the traceback into a file."""
    with tempfile.NamedTemporaryFile("w", prefix="filemill-", suffix=".log", delete=False, encoding="utf-8") as log:
        traceback.print_exception(error, file=log)
    said = " ".join(f"{type(error).__name__}: {error}".split())
    print(f"filemill has a bug: {said} (traceback in {log.name})", file=sys.stderr)
    return 70
