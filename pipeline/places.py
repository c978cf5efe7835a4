"""The folders that hold our outputs: whose they are, and their removal when nothing is left in them."""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from pipeline.outputs import OWNER_FILE

# Folders of which is remembered whose they are.
_REMEMBERED = 1000


class Places:
    """Tells which folders are ours: output folders with our owner file in them, and what is below."""

    def __init__(self, folder: Path, state_id: str) -> None:
        self._base = os.fsencode(folder)
        self._state_id = state_id
        self._ours: dict[bytes, bool] = {}

    def is_ours(self, folder: bytes) -> bool:
        """Whether a folder is one of our output folders, or below one, and reached from it through no link."""
        if folder not in self._ours:
            if len(self._ours) >= _REMEMBERED:
                self._ours.clear()
            self._ours[folder] = self._find_whether_ours(folder)
        return self._ours[folder]

    def _find_whether_ours(self, folder: bytes) -> bool:
        try:
            owner = json.loads(Path(os.fsdecode(folder), OWNER_FILE).read_bytes())
            return isinstance(owner, dict) and owner.get("state") == self._state_id
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError):
            return False
        above = os.path.dirname(folder)
        if folder in (self._base, above):  # no output folder: its owner file was taken away
            return folder == self._base
        return not os.path.islink(folder) and self.is_ours(above)

    def remove_if_empty(self, folder: bytes) -> None:
        """Remove a folder, and those above it, as far as they are empty: an output folder holds its owner file."""
        with suppress(OSError):
            while folder and not self._base.startswith(folder) and self.is_ours(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)
