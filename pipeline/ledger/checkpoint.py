"""Brings what a writer makes to the disk, every few seconds and at its end, and keeps a good copy of the ledger."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import EnvironmentFailure, WorkersFailed
from pipeline.files.file_system import FULL
from pipeline.files.process_limits import start_thread
from pipeline.files.sync import sync_file_systems, sync_folder
from pipeline.ledger.schema import has_lost_tables

if TYPE_CHECKING:
    from pipeline.files.state_dir import State
    from pipeline.ledger.ledger import Ledger

# Seconds between two syncs: what a power cut may cost, in work that is redone. docs/durability.md has the figures.
SYNC_EVERY_S = 5.0
# Bytes of log at which it is brought into the file, or half the file's size if that is more.
_LOG_MOST_BYTES = 1 << 24


JUDGED = "judged"
"""The fact that holds the number of the run whose log a later writer has brought in: nothing of it can be lost."""


def log_of(file: Path) -> Path:
    """Return the path of the write-ahead log of a ledger's file."""
    return file.with_name(f"{file.name}-wal")


def size_of(file: Path) -> int:
    """Return the size of a file in bytes; 0 if there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


class Checkpoints:
    """Follows the commits of one writer: syncs what it makes, and notices a state folder that is gone."""

    def __init__(self, state: State, ledger: Ledger, folders: Sequence[bytes]) -> None:
        self._state = state
        self._ledger = ledger
        self._folders = folders
        self._found = os.stat(state.ledger)
        self._syncing: threading.Thread | None = None
        self._began_ns = 0
        self._error: OSError | None = None
        self._next_sync = time.monotonic() + SYNC_EVERY_S

    def committed(self) -> None:
        """Do what is due after a commit. Raises OSError if a sync has failed, EnvironmentFailure."""
        self._refuse_moved()
        if self._syncing is not None and not self._syncing.is_alive():
            self._end_sync()
        if self._syncing is None and time.monotonic() >= self._next_sync:
            self._next_sync = time.monotonic() + SYNC_EVERY_S
            # What was committed by now was made before now, and all of that is synced.
            self._began_ns = time.time_ns()
            self._syncing = threading.Thread(target=self._sync, daemon=True)
            try:
                start_thread(self._syncing)
            except WorkersFailed:  # no room for a thread: the run waits for the disk
                self._sync()
                self._end_sync()
        file = self._state.ledger
        if size_of(log_of(file)) > max(_LOG_MOST_BYTES, size_of(file) // 2):
            bring_in_log(self._ledger)

    def end(self, *, is_changed: bool) -> None:
        """Sync all that was made, close the run, and keep a copy if anything is new. Raises EnvironmentFailure.

        A disk without room for that is no failure: the next writer does it.
        """
        self._refuse_moved()
        ledger, file = self._ledger, self._state.ledger
        try:
            if self._syncing is not None:
                self._syncing.join()
                self._end_sync()
            now = time.time_ns()
            if is_changed:
                sync_file_systems(self._folders)
        except OSError as error:
            raise EnvironmentFailure(f"what was made could not be brought to the disk: {error}") from error
        try:
            if ledger.runs.number:
                ledger.runs.set_synced(now, ended=True, is_sure=ledger.window is None)
            else:
                ledger.runs.set_unsure(ledger.window)
                ledger.facts.set(JUDGED, ledger.runs.last_number())
            bring_in_log(ledger)
            if is_changed or not copy_of(file).exists():
                keep_copy(ledger, file)
            mark_as_left(file)
        except (OSError, sqlite3.Error) as error:
            # On a disk without room for it the next writer sees to what is there.
            if _lacks_room(error, file):
                return
            mark_as_suspect(file)
            text = f"the ledger {file} could not be closed in order, with a good copy: {error}"
            raise EnvironmentFailure(f"{text}; what was made since it began may be unknown to the next one") from error

    def _refuse_moved(self) -> None:
        """Raise EnvironmentFailure where the state folder is not the one any more in which the ledger was opened."""
        file = self._state.ledger
        try:
            is_there = os.path.samestat(self._found, os.stat(file))
            if is_there:
                self._state.hold_lock()
        except OSError:
            is_there = False
        if not is_there:
            text = f"the state folder {self._state.folder} was moved, removed or replaced during the run"
            raise EnvironmentFailure(f"{text}; what was made since it began may be unknown to the next one")

    def _end_sync(self) -> None:
        self._syncing = None
        if self._error is not None:
            raise self._error
        self._ledger.runs.set_synced(self._began_ns)

    def _sync(self) -> None:
        try:
            sync_file_systems(self._folders)
        except OSError as error:
            self._error = error


def _lacks_room(error: OSError | sqlite3.Error, file: Path) -> bool:
    """Return whether the ledger could not be written since its disk is full."""
    if isinstance(error, OSError):
        return error.errno in FULL
    if getattr(error, "sqlite_errorname", "") == "SQLITE_FULL":
        return True
    with suppress(OSError):  # without inodes SQLite only says that it cannot open a file
        found = os.statvfs(file.parent)
        is_full = not found.f_bavail or (found.f_files and not found.f_favail)
        return isinstance(error, sqlite3.OperationalError) and bool(is_full)
    return False


def bring_in_log(ledger: Ledger) -> None:
    """Bring the log into the file, and empty it."""
    ledger._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()


# -- the good copy -----------------------------------------------------------------------------------------------------


def copy_of(file: Path) -> Path:
    """Return the path of the good copy of a ledger's file."""
    return file.with_name(f"{file.stem}-good{file.suffix}")


def older_copies(file: Path) -> list[Path]:
    """Return the good copies of older versions, which had the digest in the name."""
    return sorted(file.parent.glob(f"{file.stem}-good-{'[0-9a-f]' * 32}{file.suffix}"))


def keep_copy(ledger: Ledger, file: Path) -> None:
    """Copy the ledger, and let the copy take the place of the one before once it was found to be whole."""
    new = file.with_name(f"{file.stem}-good.new")
    new.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as copy:
            ledger._connection.backup(copy)
        with closing(sqlite3.connect(new, isolation_level=None)) as copy:
            copy.execute("PRAGMA locking_mode=EXCLUSIVE")
            if has_lost_tables(copy) or copy.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
                raise sqlite3.DatabaseError("the copy is not whole")
        with open(new, "rb") as opened:
            os.fsync(opened.fileno())
        new.replace(copy_of(file))
    except BaseException:
        new.unlink(missing_ok=True)
        raise
    sync_folder(file.parent)
    for old in older_copies(file):
        old.unlink(missing_ok=True)


def mark_as_left(file: Path) -> None:
    """Give the copy the time of the file, by which the next writer knows that nobody has written to that since."""
    found = file.stat()
    os.utime(copy_of(file), ns=(found.st_atime_ns, found.st_mtime_ns))


def mark_as_suspect(file: Path) -> None:
    """Have the next writer read every row."""
    with suppress(OSError):
        os.utime(copy_of(file), (0, 0))


def is_as_left(file: Path) -> bool:
    """Return whether nobody has written to a ledger's file since its last writer closed it."""
    try:
        return file.stat().st_mtime_ns == copy_of(file).stat().st_mtime_ns
    except OSError:
        return False
