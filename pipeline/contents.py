"""Digests of what is in files; of those that count as part of a recipe, each is read once, until it changes.

A digest is remembered only if the file was at rest when it was read: a write within the same tick of the clock would
not show. That a file is the same is told by its size, its time of modification, which may lie, and that of its last
change of any kind, which nobody can set.
"""

from __future__ import annotations

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


class _Stamp(NamedTuple):
    """What tells that a file is the same as when it was read."""

    size: int
    mtime_ns: int
    ctime_ns: int


class Contents:
    """The ledger's table of digests."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._asked: dict[str, str] = {}
        self._read: dict[str, _Stamp] = {}

    def digest(self, file: Path) -> str:
        """The digest of a file's contents; says so where there is no such file to read."""
        path = os.path.abspath(file)
        if path not in self._asked:
            self._asked[path] = self._remembered(path) or self._fresh(path)
        return self._asked[path]

    def _remembered(self, path: str) -> str | None:
        select = "SELECT digest FROM digests WHERE (path, size, mtime_ns, ctime_ns) = (?, ?, ?, ?)"
        try:
            found = self._connection.execute(select, (os.fsencode(path), *_stamp(os.stat(path)))).fetchone()
        except (OSError, OverflowError):  # a time of after the year 2262 is not kept
            return None
        return str(found[0]) if found else None

    def _fresh(self, path: str) -> str:
        try:
            before, began_ns = _stamp(os.stat(path)), time.time_ns()
            digest = contents_of(Path(path))
            age_ns = min(began_ns - before.ctime_ns, abs(began_ns - before.mtime_ns))
            if age_ns > _AT_REST_NS and _stamp(os.stat(path)) == before:
                self._read[path] = before
        except OSError:
            return contents_of(Path(path))
        return digest

    def remember(self) -> None:
        """Keep what was read, and forget what was not asked for."""
        known = {os.fsdecode(row[0]) for row in self._connection.execute("SELECT path FROM digests")}
        gone = [(os.fsencode(path),) for path in known - set(self._asked)]
        read = [(os.fsencode(path), *stamp, self._asked[path]) for path, stamp in self._read.items() if _fits(stamp)]
        if gone:
            self._connection.executemany("DELETE FROM digests WHERE path = ?", gone)
        if read:
            insert = "INSERT OR REPLACE INTO digests (path, size, mtime_ns, ctime_ns, digest) VALUES (?, ?, ?, ?, ?)"
            self._connection.executemany(insert, read)


def _stamp(found: os.stat_result) -> _Stamp:
    return _Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def _fits(stamp: _Stamp) -> bool:
    """Whether SQLite can hold it."""
    return all(abs(each) < 2**63 for each in stamp)


def contents_of(file: Path) -> str:
    """A digest of a file's contents; says so where there is no such file to read."""
    try:
        if not stat.S_ISREG(os.stat(file).st_mode) and not os.path.isdir(file):
            return "no regular file"  # to open a FIFO would be to wait for ever
        with open(file, "rb") as opened:
            return hashlib.file_digest(opened, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
    except OSError as error:
        return error.strerror or "unreadable"
