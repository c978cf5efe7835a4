"""Say in one line whether a run is on and how far it has come, or how the last one ended."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING, Any

from pipeline.text import shown

if TYPE_CHECKING:
    from pathlib import Path

    from pipeline.report.live import Standing


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `status` takes."""
    parser.add_argument("--json", action="store_true", help="one JSON object, with the key 'standing'")


def execute(arguments: argparse.Namespace) -> int:
    """Print the line. The ledger is not opened while a run is on."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.report.live import read_progress

    config = load_config(Path(arguments.file), reads_inputs=False)
    standing, said = read_progress(config.state)
    if (yaml := said.pop("yaml", config.file.name)) != config.file.name:
        state = shown(os.fsencode(os.path.relpath(config.state, config.folder)))
        whose = f"{shown(os.fsencode(yaml))}: what is said here is of that"
        print(f"the last run with the state {state} was one of {whose}", file=sys.stderr)
    if standing == "never":
        standing, said = _recorded(config.state / "ledger.sqlite")
    if arguments.json:
        print(json.dumps({"standing": standing, "pipeline": config.name} | said))
    else:
        print(_line(config.name, standing, said))
    return 0


def _recorded(ledger_file: Path) -> tuple[Standing, dict[str, Any]]:
    """The last run on record, where none has left word of itself."""
    from pipeline.ledger.session import open_to_read

    with open_to_read(ledger_file) as ledger:
        last = ledger.last_run()
    if last is None:
        return "never", {}
    return ("ended" if last.get("ended") else "killed"), last


def _line(name: str, standing: str, said: dict[str, Any]) -> str:
    if standing == "never":
        return f"{name}: has not run yet"
    if standing == "killed":
        return f"{name}: the run that began {_moment(said['started'])} was cut off; the same line again resumes"
    if standing == "ended":
        head = said.get("said") or f"{name}: run {said['run']}"
        why = f", stopped: {said['stopped']}" if said.get("stopped") else ""
        return f"{head} ended {_moment(said.get('at') or said['ended'])} with exit {said['exit']}{why}"
    seconds = time.time() - said["started"]
    who = f"for {seconds:,.0f} s (pid {said['pid']} on {said['host']})"
    if said["stage"] == "planning":
        return f"{name}: planning {who}"
    failed = f", {said['failed']:,} outputs failed" if said["failed"] else ""
    return f"{name}: running {who}, {said['through']:,} of {said['planned']:,} files{failed}"


def _moment(at: float) -> str:
    return time.strftime("%F %T", time.localtime(at))
