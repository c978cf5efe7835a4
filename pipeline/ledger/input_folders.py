"""The table of input folders: how full those were that can be lost, and which were mount points."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

from pipeline.records import NamedTuple

ROOT = b""
"""The name under which the root itself is kept; those of its folders end in a slash."""
ROOT_FILES = b"./"
"""The name under which the files are kept that lie directly in the root."""

# What a run over all files found takes the place of what is recorded; one over some knows only that more is there, and
# may have met files that lie beneath a mount point.
_NOTE_ALL = """
INSERT INTO folders SELECT folder, mount, files, FALSE FROM temp.seen WHERE TRUE
ON CONFLICT (folder) DO UPDATE SET mount = excluded.mount, files = excluded.files, is_lost = FALSE
WHERE (folders.mount, folders.files, is_lost) != (excluded.mount, excluded.files, FALSE)
"""
_NOTE_SOME = """
INSERT INTO folders SELECT folder, mount, files, FALSE FROM temp.seen WHERE TRUE
ON CONFLICT (folder) DO UPDATE SET files = max(folders.files, excluded.files),
    mount = CASE WHEN length(excluded.mount) > length(folders.mount) THEN excluded.mount ELSE folders.mount END
WHERE length(folders.mount) < length(excluded.mount) OR folders.files < excluded.files
"""


class InputFolder(NamedTuple):
    """A folder of inputs, as the last run found it that met files in it: the root, a top folder, or a mount point."""

    folder: bytes
    mount: bytes
    """Its path if it was a mount point, for the root that of the one it was on; empty for any other folder."""
    files: int
    """How many files were in it, up to the most that matters; 0 if a person has said that they were removed on purpose.
    """
    is_lost: int
    """1 if known files of it are gone, whose outputs are kept; 0 if all is well."""


class InputFolders:
    """The ledger's table of input folders; folders without much in them are left out."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection

    def get(self, folder: bytes) -> InputFolder | None:
        """Return what is recorded of a folder; None if nothing is."""
        found = self._connection.execute("SELECT * FROM folders WHERE folder = ?", (folder,)).fetchone()
        return InputFolder._make(found) if found else None

    def names_of_nested(self) -> list[bytes]:
        """Return the recorded folders that lie deeper than the top folders."""
        which = "instr(substr(folder, instr(folder, X'2F') + 1), X'2F')"
        return [folder for (folder,) in self._connection.execute(f"SELECT folder FROM folders WHERE {which}")]

    def mounts(self) -> list[bytes]:
        """Return the recorded mount points."""
        return [mount for (mount,) in self._connection.execute("SELECT DISTINCT mount FROM folders WHERE mount != X''")]

    def set(self, *folders: InputFolder) -> None:
        """Record folders, in place of what is recorded of them."""
        self._connection.executemany("INSERT OR REPLACE INTO folders VALUES (?, ?, ?, ?)", folders)

    def set_empty(self) -> None:
        """Record that whatever files are gone were removed on purpose."""
        self._connection.execute("UPDATE folders SET mount = X'', files = 0, is_lost = FALSE")

    def note_seen(self, lost: Iterable[bytes], *, is_all: bool) -> None:
        """Record the folders in which a plan met files, but for lost ones; `is_all` if it has met every file."""
        self._connection.executemany("DELETE FROM temp.seen WHERE folder = ?", ((folder,) for folder in lost))
        self._connection.execute(_NOTE_ALL if is_all else _NOTE_SOME)
