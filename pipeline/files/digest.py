"""Digests of what is in files; of those that count as part of a recipe, each is read once, until it changes.

That a file is the same as it was is told by its size, its time of modification, which may lie, and that of its last
change of any kind, which nobody can set. Neither tells of a write within the same tick of the clock, and so a file that
was not at rest when it was read is read again the next time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import sqlite3

# Nanoseconds: the coarsest clock of a file system's, FAT's.
_AT_REST_NS = 2_000_000_000


class Reading(NamedTuple):
    """What a file was when it was read to its end."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    was_at_rest: bool
    """Whether size and times tell of every write since."""


def read(path: str | bytes | Path) -> Reading:
    """Read a file to its end. Raises OSError, also for what is no regular file."""
    began_ns = time.time_ns()
    # To open a FIFO would be to wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            is_folder = stat.S_ISDIR(before.st_mode)
            raise IsADirectoryError(errno.EISDIR, "Is a directory") if is_folder else OSError("no regular file")
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        after = os.fstat(file.fileno())
    stamp = (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    age_ns = min(began_ns - after.st_ctime_ns, abs(began_ns - after.st_mtime_ns))
    is_same = stamp == (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    return Reading(*stamp, digest, is_same and age_ns > _AT_REST_NS)


def contents_of(file: Path) -> str:
    """A digest of a file's contents; says so where there is no such file to read."""
    try:
        return read(file).digest.hex()
    except OSError as error:
        return error.strerror or str(error)


class Contents:
    """The ledger's table of digests."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._asked: dict[str, str] = {}
        self._read: dict[str, Reading] = {}

    def digest(self, file: Path) -> str:
        """The digest of a file's contents; says so where there is no such file to read."""
        path = os.path.abspath(file)
        if path not in self._asked:
            self._asked[path] = self._remembered(path) or self._fresh(path)
        return self._asked[path]

    def _remembered(self, path: str) -> str | None:
        select = "SELECT digest FROM digests WHERE (path, size, mtime_ns, ctime_ns) = (?, ?, ?, ?)"
        try:
            found = os.stat(path)
            stamp = (found.st_size, found.st_mtime_ns, found.st_ctime_ns)
            row = self._connection.execute(select, (os.fsencode(path), *stamp)).fetchone()
        except (OSError, OverflowError):  # a time of after the year 2262 is not kept
            return None
        return str(row[0]) if row else None

    def _fresh(self, path: str) -> str:
        try:
            self._read[path] = reading = read(path)
        except OSError:
            return contents_of(Path(path))
        return reading.digest.hex()

    def remember(self) -> None:
        """Keep what was read at rest, and forget what was not asked for."""
        known = {os.fsdecode(row[0]) for row in self._connection.execute("SELECT path FROM digests")}
        gone = [(os.fsencode(path),) for path in known - set(self._asked)]
        if gone:
            self._connection.executemany("DELETE FROM digests WHERE path = ?", gone)
        insert = "INSERT OR REPLACE INTO digests (path, size, mtime_ns, ctime_ns, digest) VALUES (?, ?, ?, ?, ?)"
        for path, reading in self._read.items():
            if reading.was_at_rest and abs(reading.mtime_ns) < 2**63:  # what SQLite can hold
                self._connection.execute(insert, (os.fsencode(path), *reading[:3], reading.digest.hex()))
