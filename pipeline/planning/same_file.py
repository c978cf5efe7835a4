"""Finds the output that is one file with another path: of other case or form, or in a folder that has two paths."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence

from pipeline.files.naming import as_listed, fold, is_one_file, may_be_listed_otherwise, resolve_folder
from pipeline.files.template import Template, key_of_path

InFolder = Callable[[bytes], Iterable[tuple[bytes, bytes]]]
"""Yields target and source of the outputs that lie in a folder, given as the ledger keeps it and ending in a slash."""


# The number of folders whose resolved paths are remembered.
_REMEMBERED = 1000


class SameFileFinder:
    """Finds what is recorded, or planned, at the place of an output under another path."""

    def __init__(self, base: bytes, templates: Sequence[Template], *in_folder: InFolder) -> None:
        self._base = base
        self._templates = templates
        self._in_folder = in_folder
        self._folder: bytes | None = None
        self._by_name: dict[str, list[tuple[bytes, bytes]]] = {}
        """The names in the last folder that was asked for, by folded name."""
        self._resolved: dict[bytes, bytes] = {}
        """The one path of each folder that `may_be_another` has met."""

    def may_be_another(self, path: bytes, target: bytes) -> bool:
        """Return whether a path, with its own target, may lead to a file that is listed by another; it is quick."""
        folder, name = os.path.split(path)
        if folder not in self._resolved:
            if len(self._resolved) >= _REMEMBERED:
                self._resolved.clear()
            self._resolved[folder] = resolve_folder(folder)
        if self._resolved[folder] == folder and not may_be_listed_otherwise(folder, name):
            return False
        return key_of_path(self._templates, as_listed(path)) != target

    def find(self, path: bytes, target: bytes) -> tuple[bytes, bytes] | None:
        """Return target and source of what lies at a path whose own target is another; None where nothing does."""
        key = key_of_path(self._templates, as_listed(path))
        if key is None:
            return None
        folder, name = os.path.split(key)
        for other, source in self._look_up(os.path.join(folder, b""), name):
            if other != target and is_one_file(os.path.join(self._base, other), path):
                return other, source
        return None

    def _look_up(self, folder: bytes, name: bytes) -> list[tuple[bytes, bytes]]:
        if folder != self._folder:
            self._folder, self._by_name = folder, {}
            for in_folder in self._in_folder:
                for target, source in in_folder(folder):
                    self._by_name.setdefault(fold(os.path.basename(target)), []).append((target, source))
        return self._by_name.get(fold(name), [])
