"""Show everything about one file: its route, what counts for it, its record, and why it is or is not up to date."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from pipeline.commands import by_whom, warn_of_foreign_state
from pipeline.ledger.origins import is_group, origin_of
from pipeline.planning.decisions import text_of
from pipeline.text import as_json, counted, format_bytes, indented, local_time, shown

if TYPE_CHECKING:
    from pipeline.ledger.days import Day
    from pipeline.ledger.failures import Failure
    from pipeline.ledger.outputs import OutputRecord
    from pipeline.ledger.runs import Making
    from pipeline.operations.explain import Explanation, OutputExplained, StageExplained

# Lines of what was printed that are shown; --json has all that is kept.
_PRINTED = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `explain`."""
    parser.add_argument("path", metavar="PATH", help="an input or an output, also one that is gone or not made yet")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in 'run'")
    parser.add_argument("--json", action="store_true", help="one JSON object")


def execute(arguments: argparse.Namespace) -> int:
    """Explain the file on stdout."""
    import sys
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.session import open_to_read
    from pipeline.operations.explain import Explainer

    file, path = in_order(arguments)
    config = load_config(Path(file), arguments.set)
    print(*config.warnings, sep="\n", end="\n" if config.warnings else "", file=sys.stderr)
    with open_to_read(config.state / "ledger.sqlite", tuple(config.output_folders)) as ledger:
        warn_of_foreign_state(config, ledger)
        explainer = Explainer(config, ledger)
        explanation = explainer.explain(explainer.find(os.fsencode(path)))
    if arguments.json:
        print(json.dumps(_as_json(explanation), ensure_ascii=False))
    else:
        print(*_lines(explanation), sep="\n")
    return 0


def in_order(arguments: argparse.Namespace) -> tuple[str, str]:
    """Return the pipeline and the path, which may be given in either order."""
    first, last = arguments.file, arguments.path
    if first == arguments.pipeline and last.endswith((".yaml", ".yml")) and not first.endswith((".yaml", ".yml")):
        return last, first
    return first, last


# -- for people --------------------------------------------------------------------------------------------------------


def _lines(explanation: Explanation) -> Iterator[str]:
    identity = explanation.identity
    size = f", {_file(identity.size_bytes, identity.mtime_ns)}" if identity else ""
    yield f"{origin_of(explanation.source)}: {explanation.standing}{size}"
    for output in explanation.outputs:
        yield from ("", *_output_lines(output))
    for stage in explanation.stages:
        yield from ("", *_stage_lines(stage))
    if explanation.initializer or explanation.contents or explanation.libraries:
        yield from ("", "for every output")
    if explanation.initializer:
        yield f"  initializer: {explanation.initializer} ({', '.join(explanation.code)})"
    if explanation.contents:
        yield f"  contents: {', '.join(shown(os.fsencode(each)) for each in explanation.contents)}"
    if explanation.libraries:
        yield f"  libraries: {', '.join(f'{name} {version}' for name, version in explanation.libraries.items())}"


def _output_lines(output: OutputExplained) -> Iterator[str]:
    text = _why(output)
    why = "" if text in ("up to date", output.action) else f": {text}"
    yield f"{_below_here(output.path)} ({output.stage})" if output.path else f"({output.stage})"
    yield f"  {output.action}{why}"
    if output.save:
        yield f"  save: {_listed(output.save)}"
    if len(output.differences) > 1:
        yield from (f"    {each}" for each in output.differences)
    if row := output.row:
        yield from _recorded_lines(output, row)
    if found := output.found:
        as_left = ", as it was left" if row and output.is_as_left else ""
        yield f"  there now: {_file(found.st_size, found.st_mtime_ns)}{as_left}"
    elif output.path:
        yield "  there now: nothing"
    if failure := output.failure:
        dismissed = f", dismissed {local_time(failure.dismissed_at)}" if failure.dismissed_at else ""
        place = f" at {failure.place}" if failure.place else ""
        yield f"  failed: {failure.kind}: {failure.error}{place}; attempts: {failure.attempts}{dismissed}"
        if printed := output.printed.splitlines()[-_PRINTED:]:
            yield indented("\n".join(printed))


def _why(output: OutputExplained) -> str:
    """Return the reason for the action on an output as a sentence."""
    if output.moves_to:
        return f"belongs at {shown(output.moves_to)} now"
    return f"orphan: {output.fate.why}" if output.fate else text_of(output.reason)


def _record(output: OutputExplained) -> str:
    row = output.row
    assert row is not None
    if row.status == "intended":
        return _intention(output.failure)
    made = f"skipped: {row.reason}" if row.status == "skipped" else _file(row.size, row.mtime_ns)
    made = "done" if row.status == "done" and row.size is None else made
    if is_group(row.source):
        return f"{made}; of {counted(row.source_size, 'member')}"
    return f"{made}; of a source of {_file(row.source_size, row.source_mtime_ns)}"


def _intention(failure: Failure | None) -> str:
    """Describe an output that was handed out to be made, and of which no run has recorded that it was."""
    if failure is None:
        return "about to be made by a run that is at work, or was cut off"
    if failure.kind == "interrupted":
        return "about to be made when the run was stopped"
    return f"about to be made when it failed ({failure.kind}){f' in the run {failure.run}' if failure.run else ''}"


def _recorded_lines(output: OutputExplained, row: OutputRecord) -> Iterator[str]:
    yield f"  recorded: {_record(output)}"
    if making := output.making:
        yield f"  {'made' if row.status == 'done' else 'skipped'} by: {_made_by(making, output.day)}"
    if row.status == "done" and row.reason:
        yield f"  noted: {row.reason}"
    if override := output.override:
        yield f"  decreed: by {override.verb}, {local_time(override.at)}: {_listed(override.details)}"


def _made_by(making: Making, day: Day | None) -> str:
    """Describe the run that made an output, and what that cost."""
    run, at = making.run, local_time(making.recorded_ns / 1e9)
    who = by_whom([run.host], [run.versions]) if run else by_whom(day.hosts, day.versions) if day else []
    said = f" ({run.name})" if run else f" (one of {counted(day.runs, 'run')} of {day.day})" if day else ""
    cost = [] if making.seconds is None else [f"{making.seconds:.3f} s"]
    cost += [] if making.peak_bytes is None else [f"{format_bytes(making.peak_bytes)} of memory"]
    return ", ".join([f"run {making.number}{said}", at, *who, *cost])


def _stage_lines(stage: StageExplained) -> Iterator[str]:
    yield f"{stage.name}: {stage.route}"
    if stage.options:
        yield f"  options: {_listed(stage.options)}"
    counts = f"RECIPE = {stage.recipe} in {stage.code[0]}" if stage.recipe is not None else ", ".join(stage.code)
    yield f"  code: {counts}"
    if stage.contents:
        yield f"  contents: {', '.join(shown(os.fsencode(each)) for each in stage.contents)}"


def _value(value: Any) -> str:
    return value if isinstance(value, str) and value else json.dumps(value, ensure_ascii=False)


def _listed(values: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_value(value)}" for name, value in values.items())


def _file(size_bytes: int | None, mtime_ns: int | None) -> str:
    return f"{counted(size_bytes or 0, 'byte')}, modified {local_time((mtime_ns or 0) / 1e9)}"


def _below_here(path: bytes) -> str:
    here = os.path.join(os.getcwdb(), b"")
    return shown(path.removeprefix(here))


# -- for programs ------------------------------------------------------------------------------------------------------


def _as_json(explanation: Explanation) -> dict[str, Any]:
    identity = explanation.identity
    return {
        **origin_of(explanation.source).as_json(),
        "standing": explanation.standing,
        "size": identity.size_bytes if identity else None,
        "mtime_ns": identity.mtime_ns if identity else None,
        "outputs": [_output_as_json(each) for each in explanation.outputs],
        "stages": [_stage_as_json(each) for each in explanation.stages],
        "initializer": explanation.initializer or None,
        "code": explanation.code,
        "contents": [shown(os.fsencode(each)) for each in explanation.contents],
        "libraries": explanation.libraries,
    }


def _stage_as_json(stage: StageExplained) -> dict[str, Any]:
    return vars(stage) | {"contents": [shown(os.fsencode(each)) for each in stage.contents]}


def _output_as_json(output: OutputExplained) -> dict[str, Any]:
    row, found, failure, override = output.row, output.found, output.failure, output.override
    is_of_group = row is not None and is_group(row.source)
    recorded = None if row is None else {
        "status": row.status, "reason": row.reason, "size": row.size, "mtime_ns": row.mtime_ns,
        "members" if is_of_group else "source_size": row.source_size,
        "source_mtime_ns": None if is_of_group else row.source_mtime_ns,
        "digest": row.digest.hex() if row.digest else None,
        "source_digest": row.source_digest.hex() if row.source_digest else None,
    }  # fmt: skip
    making, day = output.making, output.day
    made = None if making is None else {
        "number": making.number, "run": making.run and making.run.name, "at": making.recorded_ns / 1e9,
        "host": making.run and making.run.host, "versions": making.run and making.run.versions,
        "seconds": making.seconds, "peak_bytes": making.peak_bytes, "day": day and day._asdict(),
    }  # fmt: skip
    failed = None if failure is None else {
        "kind": failure.kind, "error": failure.error, "attempts": failure.attempts,
        "dismissed_at": failure.dismissed_at, "output": output.printed, "place": failure.place,
        "worker": failure.seat, "run": failure.run,
    }  # fmt: skip
    return {
        **as_json(output.path, "output"), "stage": output.stage, "action": output.action,
        "code": output.reason.code, "why": _why(output),
        "differences": output.differences, "save": output.save,
        "recorded": recorded,
        "made": made,
        "found": found and {"size": found.st_size, "mtime_ns": found.st_mtime_ns, "as_left": output.is_as_left},
        "failure": failed,
        "decree": {"verb": override.verb, "at": override.at, "said": override.details} if override else None,
    }  # fmt: skip
