"""The marker of a writer at work: how far the ledger's log had come, and what had reached the disk.

It lies beside the ledger while that is written, and goes when the writer ends in order. From one that is still there
the next writer learns what a killed run may have lost: nothing that was committed, unless the power went with it, or
what SQLite finds of the log is shorter than it was.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

# Seconds between two syncs: what a power cut may cost, in work that is redone. docs/durability.md has the figures.
SYNC_EVERY_S = 5.0
_PADDED_BYTES = 256


@dataclass(frozen=True)
class Left:
    """What a writer that did not end in order has left said."""

    since: float
    """When it began, in seconds since 1970."""
    synced: float
    """All that was made before this moment is on the disk."""
    boot: str
    log_bytes: int
    """How long the ledger's log was at the last commit."""

    @property
    def lost_power(self) -> bool:
        """Whether the machine was started anew since."""
        return self.boot != boot_id()


def boot_id() -> str:
    """What tells one start of the machine from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def marker_of(file: Path) -> Path:
    """Where the marker of a ledger's file lies."""
    return file.with_suffix(".open")


def read_marker(file: Path) -> Left | None:
    """What the last writer left said; None where it ended in order, or its marker cannot be read."""
    try:
        return Left(**json.loads(marker_of(file).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Marker:
    """Says of a writer at work how far it has come, and brings what it made to the disk now and then."""

    def __init__(self, file: Path, folders: Sequence[bytes]) -> None:
        self._log = f"{file}-wal"
        self._folders = folders
        self._since = self._synced = time.time()
        self._boot = boot_id()
        self._syncing: threading.Thread | None = None
        self._error: OSError | None = None
        self._next_sync = time.monotonic() + SYNC_EVERY_S
        self._file = marker_of(file)
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._write()

    def committed(self) -> None:
        """The ledger has been committed. Raises OSError where the disk did not take what was written before."""
        self._write()
        if self._syncing is not None and not self._syncing.is_alive():
            self._end_sync()
        if self._syncing is None and time.monotonic() >= self._next_sync:
            self._next_sync = time.monotonic() + SYNC_EVERY_S
            self._syncing = threading.Thread(target=self._sync, args=(time.time(),), daemon=True)
            self._syncing.start()

    def settling(self) -> None:
        """The log is about to be brought into the ledger's file: that it gets shorter is no loss."""
        self._write(log_bytes=0)

    def sync(self) -> None:
        """Bring all that was made to the disk. Raises OSError."""
        if self._syncing is not None:
            self._syncing.join()
            self._end_sync()
        self._sync(time.time())
        self._end_sync()

    def close(self, *, in_order: bool) -> None:
        """Take the marker away, or leave it for the next writer; the ledger is closed."""
        if in_order:
            self._file.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                self._write()
        os.close(self._fd)

    def _end_sync(self) -> None:
        self._syncing = None
        if self._error is not None:
            raise self._error

    def _sync(self, began: float) -> None:
        try:
            sync_file_systems(self._folders)
            self._synced = began
            self._write()
            os.fsync(self._fd)
        except OSError as error:
            self._error = error

    def _write(self, log_bytes: int | None = None) -> None:
        if log_bytes is None:
            try:
                log_bytes = os.stat(self._log).st_size
            except FileNotFoundError:
                log_bytes = 0
        said = Left(self._since, self._synced, self._boot, log_bytes)
        os.pwrite(self._fd, json.dumps(said.__dict__).ljust(_PADDED_BYTES).encode(), 0)


def sync_file_systems(folders: Sequence[bytes]) -> None:
    """Bring all that was written in the folders' file systems to their disks. Raises OSError."""
    import ctypes

    libc, seen = ctypes.CDLL(None, use_errno=True), set()
    for folder in folders:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # nothing was made there, or nothing is there any more
            continue
        try:
            device = os.fstat(fd).st_dev
            if device not in seen and libc.syncfs(fd):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), os.fsdecode(folder))
            seen.add(device)
        finally:
            os.close(fd)
