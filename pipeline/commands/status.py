"""Show how far a run has come and what its workers hold, or how the last one ended; `--check` is for monitors."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pipeline.commands import parse_duration
from pipeline.errors import UsageError
from pipeline.stdio import print_error
from pipeline.text import counted, cut_inside, format_duration, local_time, one_line, printable, shown, width_of

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.operations.standing import StatusOf, Verdict
    from pipeline.report.standing import Standing

# How the further rows of a line begin that is broken.
_FURTHER = "  "
# Seconds between two looks of `--watch`, which is how often a run says anything.
_EVERY_S = 1.0


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `status`."""
    parser.add_argument("more", nargs="*", metavar="PIPELINE.yaml", help="further pipelines")
    parser.add_argument("--json", action="store_true", help="one JSON object, a list of them for several pipelines")
    check = "print one line for each, the worst first; end with 1 where one hangs, was killed, or has new failures"
    parser.add_argument("--check", action="store_true", help=check)
    age = "with --check: how old the last success may be, such as 26h"
    parser.add_argument("--max-age", metavar="TIME", help=age)
    parser.add_argument("--watch", action="store_true", help="show it again each second, until none is running")
    now = "write the files of `metrics` as they are now, and print nothing"
    parser.add_argument("--metrics", action="store_true", help=now)


def execute(arguments: argparse.Namespace) -> int:
    """Print how the runs of the pipelines stand, from their progress files."""
    from pipeline.operations.standing import statuses_of

    _refuse_contradictions(arguments)
    max_age_s = None if arguments.max_age is None else parse_duration("--max-age", arguments.max_age)
    files = _files_of(arguments)
    if arguments.watch:
        return _watch(files)
    if arguments.metrics:
        return _write_metrics(files)
    statuses = statuses_of(files)
    if arguments.check:
        return _check(statuses, max_age_s, is_json=arguments.json)
    return _show(statuses, is_json=arguments.json)


def _refuse_contradictions(arguments: argparse.Namespace) -> None:
    if arguments.max_age is not None and not arguments.check:
        raise UsageError("--max-age is for --check; add that, or leave it out")
    if arguments.watch and (arguments.check or arguments.json):
        raise UsageError("--watch is for people; leave out --check and --json")
    if arguments.metrics and (arguments.watch or arguments.check or arguments.json):
        raise UsageError("--metrics prints nothing; leave out --watch, --check and --json")


def _show(statuses: list[StatusOf], *, is_json: bool) -> int:
    """Print how the runs of some pipelines stand, and return the exit code."""
    if len(statuses) == 1 and statuses[0].error:
        raise statuses[0].error
    statuses = [_with_record(each) for each in statuses]
    for status in statuses:
        if status.note:
            print(status.note, file=sys.stderr)
    if is_json:
        _print_json([_as_json(each) for each in statuses])
    else:
        print("\n".join(_lines_of(statuses)))
    return max(each.error.exit_code if each.error else 0 for each in statuses)


def _files_of(arguments: argparse.Namespace) -> list[str]:
    """Return the pipelines that are named, by `-f` or without it."""
    named = [arguments.pipeline, *arguments.more]
    return list(dict.fromkeys(each for each in (arguments.file, *named) if each is not None))


def _with_record(status: StatusOf) -> StatusOf:
    """Return what the ledger says of the last run where there is no progress file."""
    if status.standing != "never" or status.error or status.state is None:
        return status
    standing, fields = _last_recorded(status.state / "ledger.sqlite")
    return replace(status, standing=standing, fields=fields)


def _write_metrics(files: Sequence[str]) -> int:
    """Write the metrics of pipelines as they are now; where that cannot be, a warning says so."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.operations.telling import write_live_metrics
    from pipeline.report.metrics import NotWritten

    for file in files:
        config = load_config(Path(file), reads_inputs=False)
        if config.metrics is None:
            raise UsageError(f"{config.file} has no 'metrics', which names the file to write")
        try:
            write_live_metrics(config)
        except NotWritten as error:
            print_error(f"warning: metrics: {error}")
    return 0


def _last_recorded(ledger_file: Path) -> tuple[Standing, dict[str, Any]]:
    """Return the standing of the last run in the ledger, and the fields of its record."""
    from pipeline.ledger.session import open_to_read

    with open_to_read(ledger_file) as ledger:
        last = ledger.runs.last()
    if last is None:
        return "never", {}
    return ("ended" if last.get("ended") else "killed"), last


# -- for programs ------------------------------------------------------------------------------------------------------


def _check(statuses: Sequence[StatusOf], max_age_s: float | None, *, is_json: bool) -> int:
    """Print the verdict on each pipeline, the worst first, and return 1 unless all is well with all of them."""
    from pipeline.operations.standing import verdict_on

    heads = _heads_of(statuses)
    judged = [(head, status, verdict_on(status, max_age_s)) for head, status in zip(heads, statuses, strict=True)]
    judged.sort(key=lambda each: -each[2].gravity)
    if is_json:
        _print_json([_as_json(status, verdict) for _, status, verdict in judged])
    else:
        print("\n".join(one_line(_headed(head, verdict.text), 1000) for head, _, verdict in judged))
    return int(any(verdict.gravity for _, _, verdict in judged))


def _as_json(status: StatusOf, verdict: Verdict | None = None) -> dict[str, Any]:
    told = {"standing": status.standing, "pipeline": status.name, "file": shown(os.fsencode(status.file))}
    if status.error:
        told |= {"standing": "unknown", "error": status.error.text}
    judged = {"ok": not verdict.gravity, "verdict": verdict.text} if verdict else {}
    return told | judged | {key: value for key, value in status.fields.items() if key not in ("written", "pipeline")}


def _print_json(objects: list[dict[str, Any]]) -> None:
    print(json.dumps(objects if len(objects) > 1 else objects[0]))


# -- for people --------------------------------------------------------------------------------------------------------


def _headed(head: str, text: str) -> str:
    """Return a text about a pipeline; one that begins with the pipeline's file, or a place in it, names it already."""
    return text if text.startswith(f"{head}:") else f"{head}: {text}"


def _heads_of(statuses: Sequence[StatusOf]) -> list[str]:
    """Return what each pipeline is called: by its name, or by its file where others have the same name."""
    names = Counter(each.name for each in statuses)
    return [each.name if names[each.name] == 1 else shown(os.fsencode(each.file)) for each in statuses]


def _lines_of(statuses: Sequence[StatusOf]) -> list[str]:
    """Return the lines about some pipelines, each of which is one, whatever the names in it."""
    return [
        printable(line.replace("\n", "\\n"))
        for head, status in zip(_heads_of(statuses), statuses, strict=True)
        for line in _lines_about(head, status)
    ]  # fmt: skip


def _lines_about(head: str, status: StatusOf) -> list[str]:
    from pipeline.report.standing import LIVE

    if status.error:
        return [_headed(head, status.problem)]
    fields, is_live = status.fields, status.standing in LIVE
    lines = [f"{head}: {_headline(status.name, status.standing, fields)}"]
    if is_live or status.standing == "killed":
        lines += [f"  {_in_hand(each, status)}" for each in fields.get("in_hand", ())]
    if is_live:
        failures = fields.get("failures", ())
        lines += [f"  failed: {_failed(each)}" for each in failures]
        if fields["failed"] > len(failures):
            lines.append(f"  ... and {fields['failed'] - len(failures):,} more failed")
        if last := fields.get("last"):
            lines.append(f"  the run before: {_end_of(status.name, last['standing'], last)}")
    return lines


def _headline(name: str, standing: Standing, fields: dict[str, Any]) -> str:
    from pipeline.report.standing import describe_hang, describe_suspension, describe_work

    if standing == "never":
        return "has not run yet"
    if standing in ("ended", "killed"):
        return _end_of(name, standing, fields)
    if standing == "hung":
        return describe_hang(fields)
    seconds = max(0.0, time.time() - fields["started"])
    who = f"for {format_duration(seconds)} (pid {fields['pid']} on {fields['host']})"  # last, since it matters least
    failed = f", {counted(fields['failed'], 'output')} failed" if fields["failed"] else ""
    at = describe_work(fields) if fields["stage"] == "running" else ""
    if standing == "suspended":
        return f"{describe_suspension(fields)}{f'; {at}' if at else ''}{failed}"
    return f"{fields['stage']}{f' {at}' if at else ''}{failed}{',' if at or failed else ''} {who}"


def _end_of(name: str, standing: str, fields: dict[str, Any]) -> str:
    """Say how a run of a pipeline ended."""
    from pipeline.operations.standing import first_line
    from pipeline.report.standing import describe_cut_off

    if standing == "killed":
        return describe_cut_off(fields)
    said = str(fields.get("said", "")).removeprefix(f"{name}: ") or f"run {fields['run']}"
    why = f", stopped: {first_line(fields['stopped'])}" if fields.get("stopped") else ""
    return f"{said} ended {local_time(fields.get('at') or fields['ended'])} with exit {fields['exit']}{why}"


def _in_hand(each: dict[str, Any], status: StatusOf) -> str:
    """Describe a job that a worker of the run holds, or held about when it was cut off."""
    from pipeline.report.standing import held_s, name_of

    where = f"stage {each['stage']!r}, " if each["stage"] else ""
    held = "was in hand"
    if status.standing != "killed":
        seconds = held_s(each, status.fields)
        since = time.strftime("%T", time.localtime(time.time() - seconds))
        held = f"in hand for {format_duration(seconds)}, since {since}"
    return f"{name_of(each)}: {held} ({where}process {each['pid']})"


def _failed(each: dict[str, Any]) -> str:
    from pipeline.report.standing import name_of

    return f"{name_of(each)} ({each['stage']}): {each['text']}"


# -- again and again ---------------------------------------------------------------------------------------------------


def _watch(files: list[str]) -> int:
    """Show how the pipelines stand until none is running: on a terminal in place, elsewhere whenever there is news."""
    from pipeline.operations.standing import statuses_of
    from pipeline.report.standing import LIVE

    is_screen = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"
    drawn: list[str] = []
    known: object = None
    while True:
        statuses = [_with_record(each) for each in statuses_of(files)]
        if is_screen:
            drawn = _draw(_lines_of(statuses), drawn)
        elif (news := [_news_of(each) for each in statuses]) != known:
            known = news
            print("\n".join(_lines_of(statuses)), flush=True)
        if not any(each.standing in LIVE for each in statuses):
            return max(each.error.exit_code if each.error else 0 for each in statuses)
        time.sleep(_EVERY_S)


def _news_of(status: StatusOf) -> object:
    """Return what a person wants to be told of again when it has changed."""
    return status.standing, *(status.fields.get(key) for key in ("run", "stage", "planned", "through", "failed"))


def _draw(lines: list[str], drawn: list[str]) -> list[str]:
    """Draw lines over those that were drawn before, and return them as they fit on the screen."""
    width, height = os.get_terminal_size(sys.stdout.fileno())
    width, height = width or 80, height or 24
    # A screen that was made narrower since has broken the lines that were there.
    rows = sum(max(1, -(-width_of(each) // width)) for each in drawn)
    fitting = [part for line in lines for part in _broken(line, width - 1)][: height - 1]
    above = f"\x1b[{rows}F" if rows else ""
    sys.stdout.write(f"{above}\x1b[J" + "".join(f"{each}\n" for each in fitting))
    sys.stdout.flush()
    return fitting


def _broken(line: str, columns: int) -> list[str]:
    """Break a line between words, so that nothing of it is lost where the screen is narrow; a longer name is cut."""
    if width_of(line) <= columns:
        return [line]
    text, rows = line.lstrip(" "), list[str]()
    indent = line[: len(line) - len(text)]
    for word in text.split(" "):
        if rows and width_of(row := f"{rows[-1]} {word}") <= columns:
            rows[-1] = row
        else:
            start = f"{indent}{_FURTHER if rows else ''}"
            rows.append(start + cut_inside(word, max(1, columns - len(start))))
    return rows
