"""Reads which files the import of a stage loaded, with a digest of the code of each.

roots -> closure over what the recorder saw, and over the names that functions import -> digests -> Code
"""

from __future__ import annotations

import ast
import os
import sys
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.files.digest import contents_of
from pipeline.files.file_system import read_regular
from pipeline.records import dataclass
from pipeline.stage.code import Code, CodeState
from pipeline.stage.counted import (
    Stamp,
    counts,
    digest_of_bytes,
    file_of,
    is_installed,
    is_of_kernel,
    module_counts,
    places_of,
    stamp_of,
)
from pipeline.stage.imports import HiddenUse, hidden_uses, imported_names, locate
from pipeline.stage.picture_plugins import suffixes_named, suffixes_registered
from pipeline.stage.recorder import Recorder
from pipeline.stage.syntax import digest_of_source, does_nothing, written_recipe


@dataclass(frozen=True)
class _File:
    """One file that counts, as read."""

    digest: str
    bytes: str = ""
    names: tuple[str, ...] = ()
    hidden: tuple[HiddenUse, ...] = ()
    does_nothing: bool = False
    recipe: int | None = None
    """The file's own `RECIPE`, which counts instead of its code and its imports."""
    picture_suffixes: frozenset[str] = frozenset()
    """The suffixes of pictures that the file registers with Pillow."""


class CodeReader:
    """Reads the code of stages, after the recorder observed their imports."""

    def __init__(self, recorder: Recorder, folder: Path) -> None:
        self._recorder = recorder
        self._folder = folder
        self._files: dict[str, _File] = {}
        self._packages: dict[str, str] = {}
        """The package to which the relative imports of a file refer, by file."""
        self._named: set[str] = set()
        """The files that an import statement names, without the packages above them."""
        self._counted: set[str] = set()

    def code_of(self, target: Any, found_in: str = "") -> Code:
        """Return the code of a stage, which a decorator may have made in another module than `found_in`."""
        module = sys.modules[found_in or target.__module__]
        name = f"{module.__name__.rpartition('.')[2]}.{getattr(target, '__qualname__', '')}"
        roots = [module, *([made_in] if (made_in := sys.modules.get(target.__module__)) else [])]
        if (file := file_of(module)) and self._is_source(file) and self._read(file).recipe is not None:
            self._counted.add(file)
            return Code(name, {file: ""}, self._read(file).recipe)
        files = self._digests(roots)
        return Code(name, files, loads_late=any(use.is_load for path in files for use in self._files[path].hidden))

    def state(self) -> CodeState:
        """Return the state of the files that have been read for any stage."""
        recorder, counted = self._recorder, sorted(self._counted)
        sources = [path for path in counted if self._is_source(path)]
        run_otherwise = recorder.stamps.keys() - recorder.imported
        others = {path for path in recorder.imported - self._counted if counts(path)}
        return CodeState(
            bytes={path: self._files[path].bytes for path in sources},
            digests={path: self._files[path].digest for path in sources},
            stamps={path: recorder.stamps.get(path) or stamp_of(path) for path in counted},
            tables=tuple(path for path in counted if not self._is_source(path) or path in run_otherwise),
            others=frozenset(others),
        )

    def moved(self) -> list[str]:
        """Return the files that were written to between their import and their digest."""
        recorder = self._recorder
        return [
            path
            for path in self._counted
            if recorder.compiled.get(path, self._files[path].bytes) != self._files[path].bytes
            or (path in recorder.stamps and recorder.stamps[path] != stamp_of(path))
        ]

    def stamps(self) -> dict[str, Stamp | None]:
        """Return the stamps of all files that were opened, except those that were written or are no user's."""
        recorder = self._recorder
        opened = {
            path: stamp for path, stamp in recorder.stamps.items() if path not in recorder.writes and _is_a_users(path)
        }
        return opened | dict(self.state().stamps)

    def folders(self) -> list[str]:
        """Return the folders in which the imports of this process may look for modules, now or in a later call."""
        modules = [each for each in list(sys.modules.values()) if isinstance(each, ModuleType)]
        packages = (places_of(module) for module in modules if module_counts(module))
        named = (os.path.dirname(path) for path in self._files)
        return sorted({os.path.abspath(each) for each in (str(self._folder), *sys.path, *named, *chain(*packages))})

    def listed(self) -> list[str]:
        """Return the folders in which the code of this process looks, or may look, for any file."""
        beside = {os.path.dirname(path) for path in self._counted}
        return sorted(each for each in beside | self._recorder.listed if counts(os.path.join(each, "_.py")))

    def hidden_uses(self) -> list[tuple[str, HiddenUse]]:
        """Return each line, with its file, that has not run yet and loads or reads a file not named in the code."""
        seen = self._recorder.calls
        return [
            (path, use)
            for path in sorted(self._counted)
            for use in self._files[path].hidden
            if not any((path, line) in seen for line in range(use.line, use.last_line + 1))
        ]

    def picture_suffixes(self) -> frozenset[bytes]:
        """Return the suffixes of pictures that the imported code registers with Pillow, or will when it is called."""
        found = suffixes_registered().union(*(file.picture_suffixes for file in self._files.values()))
        return frozenset(map(os.fsencode, found))

    # -- which files -------------------------------------------------------------------------------------------------

    def _digests(self, modules: Iterable[ModuleType]) -> dict[str, str]:
        """Return the digest of every file that counts for these modules, by its path."""
        roots = {file for module in modules if (file := file_of(module))}
        self._named |= roots
        waiting = [*roots, *(file for module in modules for file in _packages_above(module))]
        self._note_packages()
        seen: set[str] = set()
        passed: set[str] = set()
        while waiting:
            path = waiting.pop()
            if path in seen or path in passed:
                continue
            if path not in roots and not counts(path):
                passed.add(path)
                # A library may load what is ours, such as a plug-in.
                waiting.extend(self._recorder.edges.get(path, ()) if is_installed(path) else ())
                continue
            if not os.path.lexists(path) and (archive := _archive_above(path)):
                waiting.append(archive)
                continue
            seen.add(path)
            if self._read(path).recipe is not None:
                continue
            waiting.extend(self._recorder.edges.get(path, ()))
            waiting.extend(each for each in self._recorder.reads.get(path, ()) if self._is_table(each))
            waiting.extend(self._named_in(path))
        counted = {path for path in seen if path in self._named or not self._files[path].does_nothing}
        self._counted |= counted
        return {path: self._files[path].digest for path in counted}

    def _note_packages(self) -> None:
        for module in list(sys.modules.values()):
            spec = vars(module).get("__spec__") if isinstance(module, ModuleType) else None
            if spec is not None and (file := file_of(module)):
                self._packages.setdefault(file, spec.parent or "")

    def _named_in(self, path: str) -> list[str]:
        """Return the files that a file's imports name, also in functions that have not been called."""
        found: list[str] = []
        for name in self._read(path).names:
            top = name.partition(".")[0]
            if top in sys.stdlib_module_names or top == "pipeline":
                continue
            for each in locate(name):
                if counts(each.file):
                    self._packages.setdefault(each.file, each.package)
                    found.append(each.file)
                    if each.is_named:
                        self._named.add(each.file)
        return found

    def _is_table(self, path: str) -> bool:
        """Return whether a file that was read counts as a table: it lies beside code, and nothing writes to it."""
        if path in self._recorder.writes or not os.path.isfile(path) or not counts(path):
            return False
        roots = [str(self._folder), *(os.path.abspath(each) for each in sys.path if each)]
        return any(path.startswith(os.path.join(root, "")) and counts(os.path.join(root, "_.py")) for root in roots)

    # -- each file ---------------------------------------------------------------------------------------------------

    def _read(self, path: str) -> _File:
        if path not in self._files:
            self._files[path] = self._read_anew(path)
        return self._files[path]

    def _read_anew(self, path: str) -> _File:
        try:
            data = read_regular(path)
            tree = ast.parse(data) if self._is_source(path) else None
        except (OSError, SyntaxError, ValueError, RecursionError):
            tree = None
        if tree is None:
            contents = contents_of(Path(path))  # what is no source, or cannot be read as one: its contents count
            return _File(contents, contents)
        recipe = written_recipe(tree)
        digest = digest_of_source(tree, path)
        suffixes = suffixes_named(tree)
        if recipe is not None:
            return _File(digest, digest_of_bytes(data), recipe=recipe, picture_suffixes=suffixes)
        names = imported_names(tree, self._packages.get(path, ""))
        is_empty = os.path.basename(path) == "__init__.py" and does_nothing(tree)
        return _File(
            digest, digest_of_bytes(data), tuple(names), tuple(hidden_uses(tree)), is_empty, picture_suffixes=suffixes
        )

    @staticmethod
    def _is_source(path: str) -> bool:
        return path.endswith(".py")


def _is_a_users(path: str) -> bool:
    return counts(path) and not path.endswith(".pyc") and not is_of_kernel(path)


def _packages_above(module: ModuleType) -> list[str]:
    found: list[str] = []
    name = module.__name__.rpartition(".")[0]
    while name:
        if (file := file_of(sys.modules.get(name))) and counts(file):
            found.append(file)
        name = name.rpartition(".")[0]
    return found


def _archive_above(path: str) -> str | None:
    """Return the archive that a path leads into, such as a zipped package."""
    while (path := os.path.dirname(path)) not in ("", os.sep):
        if os.path.isfile(path):
            return path
    return None
