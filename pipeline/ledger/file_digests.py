"""The digests of files that count as part of a recipe: each file is read once, until its stat changes."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

from pipeline.files.digest import Reading, contents_of, read


class FileDigests:
    """The ledger's table of digests of files."""

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
