"""The table of input folders: how full the top folders of the root were, and whether disks are mounted there."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from typing import NamedTuple

ROOT = b""
"""The name under which the root itself is kept; those of its folders end in a slash."""

# What a run over all files found takes the place of what is recorded; one over some knows only that more is there.
_NOTE_ALL = """
INSERT INTO folders SELECT folder, below_mount, files, 0 FROM temp.seen WHERE TRUE
ON CONFLICT (folder) DO UPDATE SET below_mount = excluded.below_mount, files = excluded.files, lost = 0
WHERE (folders.below_mount, folders.files, lost) != (excluded.below_mount, excluded.files, 0)
"""
_NOTE_SOME = """
INSERT INTO folders SELECT folder, below_mount, files, 0 FROM temp.seen WHERE TRUE
ON CONFLICT (folder) DO UPDATE SET
    below_mount = min(folders.below_mount, excluded.below_mount), files = max(folders.files, excluded.files)
WHERE folders.below_mount > excluded.below_mount OR folders.files < excluded.files
"""


class InputFolder(NamedTuple):
    """A top folder of the input root, or the root, as the last run found it that met files in it."""

    folder: bytes
    below_mount: int
    """How many folders lie between it and the mount that it is on: 0 for a mount of its own."""
    files: int
    """How many files were in it, up to the most that matters; 0 if a person has said that they were removed on purpose.
    """
    lost: int
    """How many known files of it are gone, whose outputs are kept; 0 if all is well."""


class InputFolders:
    """The ledger's table of input folders; folders without much in them are left out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, folder: bytes) -> InputFolder | None:
        """Return what is recorded of a folder; None if nothing is."""
        found = self._connection.execute("SELECT * FROM folders WHERE folder = ?", (folder,)).fetchone()
        return InputFolder._make(found) if found else None

    def set(self, *folders: InputFolder) -> None:
        """Record folders, in place of what is recorded of them."""
        self._connection.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)", folders)

    def set_empty(self) -> None:
        """Record that whatever files are gone were removed on purpose."""
        self._connection.execute("UPDATE folders SET below_mount = 1, files = 0, lost = 0")

    def note_seen(self, lost: Iterable[bytes], *, is_all: bool) -> None:
        """Record the folders in which a plan met files, but for lost ones; `is_all` if it has met every file."""
        self._connection.executemany("DELETE FROM temp.seen WHERE folder = ?", ((folder,) for folder in lost))
        self._connection.execute(_NOTE_ALL if is_all else _NOTE_SOME)
