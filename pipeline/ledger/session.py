"""Opens and closes the ledger of a state folder: checks it, and replaces it by its good copy if it is damaged.

    writer   one at a time, holding the lock of the state: checks, opens in place, syncs, keeps a copy
    reader   at any time: copies file and log to a temporary folder, checks and opens the copy, repairs nothing

What the ledger may then not know is one period, `Ledger.window`: outputs of that time are compared by their contents.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files.file_system import open_regular
from pipeline.files.quiet_runs import forget_quiet_runs, quiet_runs
from pipeline.files.state_dir import State, refuse_irregular
from pipeline.ledger.checkpoint import Checkpoints, copy_of, keep_copy, log_of, mark_as_suspect
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.recovery import (
    Damaged,
    find_window,
    is_new,
    look_at,
    open_checked,
    remove_old_temporaries,
    replace_damaged,
)
from pipeline.ledger.schema import create

# Seconds that a reader waits for a writer to bring its log into the file.
_PATIENCE_S = 5.0
# Quiet runs that are recorded before it is looked whether there are too many.
_TOGETHER = 1000


@contextmanager
def open_to_write(state: State, folders: Sequence[bytes] = (), *, is_run: bool = False) -> Iterator[Ledger]:
    """Open the ledger of a locked state, or its good copy; bring it to the disk when the writer ends.

    Args:
        state: The state folder, locked.
        folders: The output folders. What is written below them is synced every few seconds.
        is_run: Whether the writer is a run, which makes a new copy only if there is anything new to keep.
    """
    state.remove_note()
    ledger = _open(state, folders)
    try:
        state.prepare()
        _bring_in_quiet_runs(state, ledger)
        for note in ledger.notes:
            print(note, file=sys.stderr)
        checkpoints = Checkpoints(state, ledger, folders)
        ledger.on_commit = checkpoints.committed
        try:
            yield ledger
        except BaseException:
            with suppress(EnvironmentFailure):  # what ended it comes first
                _end(state, ledger, checkpoints, is_run=is_run)
            raise
        _end(state, ledger, checkpoints, is_run=is_run)
    finally:
        ledger.close()


@contextmanager
def open_to_read(file: Path, folders: Sequence[bytes] = ()) -> Iterator[Ledger]:
    """Open a copy of the ledger as it is, or an empty one if there is none, without disturbing a run.

    Args:
        file: The ledger's file.
        folders: The output folders, by which an older ledger, or older outputs, are noticed.
    """
    refuse_irregular(file.parent)
    if is_new(file):
        ledger = Ledger(None)
        try:
            yield ledger
        finally:
            ledger.close()
        return
    with tempfile.TemporaryDirectory(prefix="filemill-") as folder:
        place = Path(folder) / file.name
        try:
            _copy_as_it_is(file, place)
            ledger, remains = open_checked(place, look_at(place))
        except Damaged as damage:
            text = (
                f"the ledger {file} {damage}; the next run sets it aside and takes its last good copy, if there is one"
            )
            raise EnvironmentFailure(text) from None
        except OSError as error:
            raise EnvironmentFailure(f"the ledger {file} cannot be read: {error}") from error
        try:
            ledger.window = find_window(ledger, file, remains, "", folders)
            if ledger.window:
                ledger.unchanged.delete()
            yield ledger
        finally:
            ledger.close()


def _copy_as_it_is(file: Path, place: Path) -> None:
    """Copy file and log in one consistent state, with their times."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        before = _state_of(file)
        # The log first: what is brought into the file meanwhile is in there too.
        for each in (log_of(file), file, copy_of(file)):
            copy = place.with_name(each.name)
            copy.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                if each != copy_of(file):
                    shutil.copyfile(each, copy)
                else:  # only its time is asked for
                    copy.touch()
                shutil.copystat(each, copy)
        if before == _state_of(file) or time.monotonic() > until:
            return
        time.sleep(0.02)


def _state_of(file: Path) -> tuple[object, ...]:
    """Return what changes when a log is brought into its file, but not while it grows."""
    found = file.stat() if file.exists() else None
    try:
        with open_regular(log_of(file)) as log:
            head = log.read(32)
    except FileNotFoundError:
        head = b""
    return found and (found.st_ino, found.st_size, found.st_mtime_ns), head


def _open(state: State, folders: Sequence[bytes]) -> Ledger:
    file = state.ledger
    try:
        if is_new(file):
            create(file)
            return Ledger(file)
        remains, replaced = look_at(file), ""
        try:
            ledger, remains = open_checked(file, remains)
        except Damaged as damage:
            ledger, replaced = replace_damaged(file, damage)
        if not remains.is_as_left:
            with suppress(OSError, sqlite3.Error):  # on a disk without room the copy is the one before
                keep_copy(ledger, file)
        ledger.window = find_window(ledger, file, remains, replaced, folders)
        if ledger.window:
            ledger.unchanged.delete()
            remove_old_temporaries(state, ledger, folders)
        return ledger
    except sqlite3.Error as error:
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def _bring_in_quiet_runs(state: State, ledger: Ledger) -> None:
    """Record the runs that needed no ledger, unless it is uncertain whether they ran after the last one on record."""
    quiet = list(quiet_runs(state.folder))
    if quiet and ledger.window is None:
        ledger.begin()
        new = ledger.runs.quiet_ones(quiet)
        while some := list(islice(new, _TOGETHER)):  # so that the file does not grow by what is folded at once
            ledger.runs.add_quiet(some)
            ledger.fold_runs()
        ledger.commit()
    if quiet:
        forget_quiet_runs(state.folder)


def _end(state: State, ledger: Ledger, checkpoints: Checkpoints, *, is_run: bool) -> None:
    """Close the writer in order, unless SQLite could not use the file."""
    ledger.on_commit = None
    ledger.rollback()
    if ledger.is_suspect:
        mark_as_suspect(state.ledger)
    else:
        checkpoints.end(is_changed=not is_run or ledger.has_news)
