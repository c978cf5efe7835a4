"""Show in one line how far a run has come, or how the last one ended."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from pipeline.stdio import print_error
from pipeline.text import format_duration, local_time, printable, shown

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.config.model import Config
    from pipeline.report.live import Standing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `status`."""
    parser.add_argument("--json", action="store_true", help="one JSON object, with the key 'standing'")
    now = "write the file of `metrics` as it is now, and print nothing"
    parser.add_argument("--metrics", action="store_true", help=now)


def execute(arguments: argparse.Namespace) -> int:
    """Print the progress of the run, from progress.json, or the end of the last one, from the ledger."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.report.live import read_progress

    config = load_config(Path(arguments.file), reads_inputs=False)
    if arguments.metrics:
        return _write_metrics(config)
    standing, fields = read_progress(config.state)
    if (yaml := fields.pop("yaml", config.file.name)) != config.file.name:
        state = shown(os.fsencode(os.path.relpath(config.state, config.folder)))
        whose = f"{shown(os.fsencode(yaml))}: what is said here is of that"
        print(f"the last run with the state {state} was one of {whose}", file=sys.stderr)
    if standing == "never":
        standing, fields = _last_recorded(config.state / "ledger.sqlite")
    if arguments.json:
        print(json.dumps({"standing": standing, "pipeline": config.name} | fields))
    else:
        print(printable(_line(config.name, standing, fields)))
        for each in fields.get("in_hand", ()) if standing in ("running", "killed") else ():
            print(printable(f"  {_in_hand(each, standing)}"))
    return 0


def _write_metrics(config: Config) -> int:
    """Write the metrics of a pipeline as they are now; where that cannot be, a warning says so."""
    from pipeline.errors import UsageError
    from pipeline.operations.telling import write_live_metrics
    from pipeline.report.metrics import NotWritten

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


def _in_hand(each: dict[str, Any], standing: str) -> str:
    """Describe a job that a worker of the run holds, or held about when it was cut off."""
    name = each.get("source") or f"group {each.get('group')!r}"
    where = f"stage {each['stage']!r}, " if each["stage"] else ""
    held = "was in hand" if standing == "killed" else f"in hand for {each['seconds']:,.0f} s"
    return f"{name}: {held} ({where}process {each['pid']})"


def _line(name: str, standing: str, fields: dict[str, Any]) -> str:
    if standing == "never":
        return f"{name}: has not run yet"
    if standing == "killed":
        return f"{name}: the run that began {local_time(fields['started'])} was cut off; the same line again resumes"
    if standing == "ended":
        head = fields.get("said") or f"{name}: run {fields['run']}"
        why = f", stopped: {fields['stopped']}" if fields.get("stopped") else ""
        return f"{head} ended {local_time(fields.get('at') or fields['ended'])} with exit {fields['exit']}{why}"
    seconds = time.time() - fields["started"]
    who = f"for {seconds:,.0f} s (pid {fields['pid']} on {fields['host']})"
    if fields["stage"] == "planning":
        return f"{name}: planning {who}"
    failed = f", {fields['failed']:,} outputs failed" if fields["failed"] else ""
    left = f", {format_duration(fields['left_s'])} left" if "left_s" in fields else ""
    of_all = f" of {fields['planned']:,}" if fields["planned"] else ""  # a first run that still lists its files
    return f"{name}: running {who}, {fields['through']:,}{of_all} files{failed}{left}"
