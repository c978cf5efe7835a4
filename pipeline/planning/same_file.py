"""Finds the output that is one file with another path: of other case or form, or in a folder that has two paths."""

from __future__ import annotations

import os
from collections.abc import Sequence

from pipeline.files.naming import as_listed, is_one_file, may_be_listed_otherwise, resolve_folder
from pipeline.files.template import Template, key_of_path
from pipeline.ledger.targets import Targets

# The number of folders whose resolved paths are remembered.
_REMEMBERED = 1000


class SameFileFinder:
    """Finds what is recorded, or planned, at the place of an output under another path."""

    def __init__(self, base: bytes, templates: Sequence[Template], *targets: Targets) -> None:
        self._base = base
        self._templates = templates
        self._targets = targets
        self._resolved: dict[bytes, bytes] = {}

    def read_again(self) -> None:
        """Take into account what was recorded since the first search."""
        for targets in self._targets:
            targets.read_again()

    def find(self, path: bytes, target: bytes) -> tuple[bytes, bytes] | None:
        """Return target and source of what lies at a path whose own target is another; None where nothing does."""
        real = self._resolve(path)
        key = key_of_path(self._templates, real)
        if key is None:
            return None
        ignores_case = self._may_be_listed_otherwise(real)
        for targets in self._targets:
            for other, source in targets.like(key) if ignores_case else targets.at(key):
                if other != target and is_one_file(os.path.join(self._base, other), path):
                    return other, source
        return None

    def find_listed(self, path: bytes, target: bytes) -> tuple[bytes, bytes] | None:
        """Return what `find` does, and None for the one of several paths by which the file is listed; it is quick."""
        real = self._resolve(path)
        if real == path and not self._may_be_listed_otherwise(real):
            return None
        found = self.find(path, target)
        return found if found and key_of_path(self._templates, as_listed(real)) != target else None

    def _resolve(self, path: bytes) -> bytes:
        folder, name = os.path.split(path)
        if folder not in self._resolved:
            if len(self._resolved) >= _REMEMBERED:
                self._resolved.clear()
            self._resolved[folder] = resolve_folder(folder)
        return os.path.join(self._resolved[folder], name)

    def _may_be_listed_otherwise(self, path: bytes) -> bool:
        """Return whether a file may be listed in another case or form than its path below the output folder has."""
        folders = [os.path.join(each.folder, b"") for each in self._templates]
        folder = max((each for each in folders if path.startswith(each)), key=len, default=b"")
        return bool(folder) and may_be_listed_otherwise(folder, path[len(folder) :])
