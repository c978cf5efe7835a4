"""List the runs, the newest last, or show one of them: its counts, files, and what cost it most."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from pipeline.commands import by_whom, warn_of_state
from pipeline.errors import UsageError
from pipeline.ledger.origins import origin_of
from pipeline.text import counted, format_bytes, format_seconds, local_time, one_line, printable, shown

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.ledger.days import Day
    from pipeline.ledger.runs import Cost, PastRun
    from pipeline.operations.past_runs import Costs, PastRuns

# The counts with a column of their own, and the others that are told where they are not 0.
_COLUMNS = ("done", "failed", "new_failed", "held")
_OTHERS = ("up_to_date", "skipped", "recovered", "pruned", "renamed", "vanished", "set_aside")
# What is no count of a run's summary.
_SIZES = ("bytes_in", "bytes_out")
_NO_COUNTS = {"run", "exit", "seconds", "sources", "stopped", "work", "notes", "kinds_unmatched"}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `runs`."""
    what = "show one run: its number, its name, 'last' (the default), or 'last-1' for the one before"
    parser.add_argument("words", nargs="*", metavar="show [RUN]", help=what)
    slowest = "with 'show': the slowest sources, and those with the biggest outputs, so many of each"
    parser.add_argument("--slowest", type=int, metavar="COUNT", help=slowest)
    parser.add_argument("--json", action="store_true", help="one JSON object a line; days have 'day'")


def execute(arguments: argparse.Namespace) -> int:
    """Print a line for each day of older runs and each run, or everything about one run."""
    from pipeline.ledger.days import Day
    from pipeline.operations.past_runs import costs_of, files_of, open_past_runs
    from pipeline.operations.state_of_pipeline import find_state

    file, word = _in_order(arguments)
    of = find_state(file)
    with open_past_runs(of) as (past, ledger):
        warn_of_state(of, ledger)
        if word is None:
            _print_all(past, is_json=arguments.json)
            return 0
        found = past.find(word)
        if isinstance(found, Day):
            print(json.dumps(found._asdict(), ensure_ascii=False) if arguments.json else _day_line(found))
            return 0
        costs = costs_of(ledger, found, arguments.slowest) if arguments.slowest else None
    log, report = files_of(of, found)
    if arguments.json:
        paths = {"log": log and shown(os.fsencode(log)), "report": report and shown(os.fsencode(report))}
        said = _as_json(found) | paths | (_costs_as_json(costs) if costs else {})
        print(json.dumps(said, ensure_ascii=False))
    else:
        print(*map(printable, _described(found, past.on, log, report)), sep="\n")
        print(*_cost_lines(costs) if costs else (), sep="\n", end="\n" if costs else "")
    return 0


def _in_order(arguments: argparse.Namespace) -> tuple[str, str | None]:
    """Return the pipeline and the run to show, if any, which may be given in either order. Raises UsageError."""
    words = [each for each in (arguments.pipeline, *arguments.words) if each is not None]
    file = arguments.file if arguments.file != arguments.pipeline else "pipeline.yaml"
    yamls = [each for each in words if each.endswith((".yaml", ".yml"))]
    if yamls and file == "pipeline.yaml":
        file = yamls[0]
        words.remove(file)
    if words and (words[0] != "show" or len(words) > 2):
        raise UsageError(f"{' '.join(words)!r}: to be asked as 'runs', or 'runs show RUN'")
    if arguments.slowest is not None and (not words or arguments.slowest < 1):
        raise UsageError("--slowest: a number from 1 on, with 'runs show'")
    return file, (words[1:] or ["last"])[0] if words else None


# -- for people --------------------------------------------------------------------------------------------------------


def _print_all(past: PastRuns, *, is_json: bool) -> None:
    if is_json:
        for each in (*(day._asdict() for day in past.days), *map(_as_json, past.runs)):
            print(json.dumps(each, ensure_ascii=False))
        return
    if not past.runs:
        print("no run is on record yet", file=sys.stderr)
        return
    print(*map(_day_line, past.days), sep="\n", end="\n\n" if past.days else "")
    rows = [("run", "started", "took", "exit", "done", "failed", "new", "held", "")]
    print(*_table(rows + [_row(run, past.on) for run in past.runs]), sep="\n")


def _table(rows: Sequence[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows as lines with their columns below each other; all but the last, of text, are flush right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (cell.rjust(width) for cell, width in zip(row[:-1], widths[:-1], strict=True))
        yield "  ".join((*cells, row[-1])).rstrip()


def _row(run: PastRun, on: str) -> tuple[str, ...]:
    counts = (f"{run.summary[key]:,}" if run.summary.get(key) else "" for key in _COLUMNS)
    ending = "" if run.exit is None else str(run.exit)
    return (str(run.number), local_time(run.started_ns / 1e9), _took(run), ending, *counts, _said(run, on))


def _took(run: PastRun) -> str:
    return "" if run.seconds is None else format_seconds(run.seconds)


def _said(run: PastRun, on: str) -> str:
    """Return the last column: its state, why it stopped, or its other counts."""
    if run.exit is None:
        return "is running" if run.name == on else "was cut off"
    if stopped := run.summary.get("stopped"):
        return one_line(f"stopped: {stopped}")
    return ", ".join(_counted(key, run.summary[key]) for key in _OTHERS if run.summary.get(key))


def _counted(key: str, count: int) -> str:
    """Return a count of a summary as text, such as `2,000 up to date`, or `1.2 MB in`."""
    if key in _SIZES:
        return f"{format_bytes(count)} {key.removeprefix('bytes_')}"
    return f"{count:,} {'new' if key == 'new_failed' else key.replace('_', ' ')}"


def _day_line(day: Day) -> str:
    numbers = str(day.first_run) if day.first_run == day.last_run else f"{day.first_run}-{day.last_run}"
    exits = ", ".join(f"{code}: {count:,}" for code, count in day.exits.items())
    counts = [_counted(key, int(total)) for key, total in day.totals.items() if key != "seconds"]
    took = format_seconds(day.totals.get("seconds", 0))
    parts = [f"{counted(day.runs, 'run')} ({numbers})", f"{took} in all", f"exit {exits}", *counts]
    return printable(f"{day.day}  {', '.join(parts)}")


def _described(run: PastRun, on: str, log: Path | None, report: Path | None) -> Iterator[str]:
    """Yield the lines about one run."""
    yield f"run {run.number} ({run.name})"
    yield f"  started: {local_time(run.started_ns / 1e9)}"
    if run.exit is None:
        yield f"  {_said(run, on)}"
    else:
        ended = "" if run.ended_ns is None else f"{local_time(run.ended_ns / 1e9)}, "
        yield f"  ended: {ended}after {_took(run)}, with exit {run.exit}"
    if stopped := run.summary.get("stopped"):
        yield f"  stopped: {one_line(stopped)}"
    yield f"  by: {', '.join(by_whom([run.host], [run.versions])) or 'unknown'}"
    if counts := {key: count for key, count in run.summary.items() if key not in _NO_COUNTS}:
        sizes = [_counted(key, count) for key, count in counts.items() if count and key in _SIZES]
        outputs = [_counted(key, count) for key, count in counts.items() if count and key not in _SIZES]
        yield f"  outputs: {', '.join(outputs) or 'none'}; of {counted(run.summary.get('sources', 0), 'source')}"
        if sizes:
            yield f"  sizes: {', '.join(sizes)}"
    for note, count in run.summary.get("notes", {}).items():
        yield f"  noted: {note} ({count:,})"
    if work := run.summary.get("work"):
        yield f"  work: {counted(work['files'], 'file')} in {format_seconds(work['seconds'])}"
    yield f"  log: {shown(os.fsencode(log)) if log else 'not kept'}"
    yield f"  report: {shown(os.fsencode(report)) if report else 'none'}"


def _cost_lines(costs: Costs) -> Iterator[str]:
    for title, found in (("slowest", costs.slowest), ("biggest", costs.biggest)):
        yield ""
        yield f"{title}:" if found else f"{title}: nothing on record was made by this run"
        if found:
            rows = [("seconds", "memory", "in", "out", "worker", "source (stages)")]
            yield from (f"  {line}" for line in _table(rows + list(map(_cost_row, found))))


def _cost_row(cost: Cost) -> tuple[str, ...]:
    sizes = (_size(cost.peak_bytes), _size(cost.bytes_in), _size(cost.bytes_out))
    seat = "" if cost.seat is None else str(cost.seat)
    return (f"{cost.seconds:.3f}", *sizes, seat, f"{origin_of(cost.source)} ({', '.join(cost.stages)})")


def _size(size_bytes: int | None) -> str:
    return "" if size_bytes is None else format_bytes(size_bytes)


# -- for programs ------------------------------------------------------------------------------------------------------


def _as_json(run: PastRun) -> dict[str, Any]:
    """Return the object of a run: its summary, with its number, times, exit, host and versions."""
    said = {key: value for key, value in run.summary.items() if key != "work"}
    times = {"started": run.started_ns / 1e9, "ended": run.ended_ns and run.ended_ns / 1e9, "exit": run.exit}
    return {"number": run.number, "run": run.name} | times | said | {"host": run.host, "versions": run.versions}


def _costs_as_json(costs: Costs) -> dict[str, Any]:
    return {"slowest": list(map(_cost_as_json, costs.slowest)), "biggest": list(map(_cost_as_json, costs.biggest))}


def _cost_as_json(cost: Cost) -> dict[str, Any]:
    return origin_of(cost.source).as_json() | {key: value for key, value in cost._asdict().items() if key != "source"}
