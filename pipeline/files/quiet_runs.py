"""The runs that were over before the ledger was opened, since nothing had changed: one line of a fixed size for each.

The next writer of the ledger brings them in, and removes the file. Once it has so many lines that it would grow large,
the note answers no run, so that an ordinary one does that.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.files.file_system import read_regular
from pipeline.files.state_dir import QUIET_RUNS_FILE
from pipeline.records import NamedTuple

_FLAGS = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_NAME = r"\d{8}-\d{6}-[0-9a-f]{4}"
_LINE = re.compile(rf"({_NAME}) ({_NAME}) (\d{{19}}) (\d{{19}}) (\d{{12}}) (\d{{12}})", re.ASCII)


# Bytes of a line, and the lines at which the ledger is to take them: more than a night of runs every five minutes has.
_LINE_BYTES, _MOST_LINES = 108, 400


class QuietRun(NamedTuple):
    """A run that found nothing to do by the note of another."""

    name: str
    after: str
    """The name of the last run in the ledger, which left the note."""
    started_ns: int
    ended_ns: int
    sources: int
    up_to_date: int


def add_quiet_run(state_folder: Path, run: QuietRun) -> None:
    """Add a run to those of a locked state. Raises OSError."""
    line = (
        f"{run.name} {run.after} {run.started_ns:019d} {run.ended_ns:019d} {run.sources:012d} {run.up_to_date:012d}\n"
    )
    fd = os.open(state_folder / QUIET_RUNS_FILE, _FLAGS, 0o666)
    try:
        os.write(fd, line.encode())
    finally:
        os.close(fd)


def quiet_runs(state_folder: Path) -> Iterator[QuietRun]:
    """Yield the quiet runs since the ledger was last written to; a line that is not whole is passed over."""
    try:
        lines = read_regular(state_folder / QUIET_RUNS_FILE).decode("ascii", "replace").splitlines()
    except OSError:
        return
    for line in lines:
        if found := _LINE.fullmatch(line):
            name, after, *numbers = found.groups()
            yield QuietRun(name, after, *map(int, numbers))


def has_many_quiet_runs(state_folder: Path) -> bool:
    """Return whether the quiet runs are so many that the ledger is to take them. Raises OSError."""
    try:
        return os.stat(state_folder / QUIET_RUNS_FILE).st_size >= _MOST_LINES * _LINE_BYTES
    except FileNotFoundError:
        return False


def forget_quiet_runs(state_folder: Path) -> None:
    """Remove the file of quiet runs, as far as that is possible."""
    with suppress(OSError):
        os.unlink(state_folder / QUIET_RUNS_FILE)
