"""Lets a process that runs stages load only the code that was planned with; every worker has one.

    forget    modules that were inherited, or left by another run in this process, are imported anew
    compile   from the source, unless bytecode is certain to match it; the source is compared with the plan's
    stamps    are compared for files that no import compiles: tables, libraries, Path options, `depends`
    late      files that the plan did not know, such as plug-ins found by the call of a stage, are reported

A load that differs from the plan is remembered, since the importer may catch the exception: no later result counts.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import replace
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType
from typing import Any

from pipeline.errors import CodeChanged
from pipeline.files.digest import contents_of
from pipeline.messages import LateFile
from pipeline.stage.code import NO_STATE, CodeState
from pipeline.stage.counted import Stamp, counts, digest_of_bytes, file_of, may_use_bytecode, module_counts, stamp_of
from pipeline.stage.resolve import forget_stages

_compile = SourceFileLoader.source_to_code
_get_data = SourceFileLoader.get_data


class CodeGuard:
    """Compares the code that this process loads with the plan's."""

    def __init__(self) -> None:
        self.changed = ""
        """The first file that was loaded and has changed since the plan; empty if there is none."""
        self._state = NO_STATE
        self._late: list[LateFile] = []
        """The files that were loaded, and that the plan did not know."""
        self._stamps: dict[str, Stamp | None] = {}
        """The stamp of each file that the plan did not know, before it was loaded."""
        self._modules: set[str] = set()
        """The names of all modules when they were last looked through."""
        self._stage = -1
        """The index of the stage that is being called; -1 outside such calls."""
        self._judged = 0
        """How many modules there were when a process that workers are forked from found that none of them counts."""

    def judge_modules(self) -> None:
        """Find out once for all workers that are forked from this process that none of its modules counts."""
        self._modules = set(sys.modules)
        self._judged = 0 if _modules_that(module_counts) else len(self._modules)

    def start(self, state: CodeState) -> None:
        """Start to guard these files, in place of those of another run in this process.

        `set_stage_path` is called next, and has the import system look again for all that it may remember.
        """
        self.changed, self._state = "", state
        self._late, self._stamps, self._stage = [], {}, -1
        SourceFileLoader.source_to_code = _source_to_code  # type: ignore[method-assign, assignment]
        SourceFileLoader.get_data = _get_allowed_data  # type: ignore[method-assign, assignment]
        # To go through the names alone would take a worker as long as most of its start. Nobody removes any in between.
        if len(sys.modules) != self._judged:
            self._forget_modules()
        self._judged = 0

    def _forget_modules(self) -> None:
        forget_stages()
        # A process that is no worker may hold modules of its own, which are nobody's business.
        from multiprocessing import parent_process

        is_worker, stamps = parent_process() is not None, self._state.stamps
        for name in _modules_that(module_counts if is_worker else lambda module: file_of(module) in stamps):
            del sys.modules[name]  # at last, since a package is asked for the places of those in it
        self._modules = set(sys.modules)

    def stop(self) -> None:
        """Stop guarding, so that any code may be loaded, as before `start`."""
        self._state = NO_STATE
        SourceFileLoader.source_to_code, SourceFileLoader.get_data = _compile, _get_data  # type: ignore[method-assign]

    def check_tables(self) -> None:
        """Raise CodeChanged where a table has changed, or changed code was loaded."""
        self.changed = self.changed or changed_table(self._state)
        if self.changed:
            raise CodeChanged(self.changed)

    def enter(self, stage: int) -> None:
        """Note that the call of a stage, given by its index, begins; or with -1, that it has ended."""
        if len(sys.modules) != len(self._modules):
            self._look_through_modules()
        self._stage = stage

    def take_late(self) -> tuple[LateFile, ...]:
        """Return the files that were loaded since the last time and that the plan did not know."""
        if not self._late:
            return ()
        late, self._late = tuple(self._late), []
        return late

    def _look_through_modules(self) -> None:
        """Note modules that no import compiled here, such as extensions."""
        new, self._modules = sys.modules.keys() - self._modules, set(sys.modules)
        files = {file_of(module) for name in new if isinstance(module := sys.modules.get(name), ModuleType)}
        for file in sorted(file for file in files if file and self._is_late(file)):
            self._add_late(file, contents_of(Path(file)))

    def _is_late(self, path: str) -> bool:
        return counts(path) and path not in self._state.stamps and path not in self._state.others

    def _add_late(self, path: str, digest: str, digest_of_its_bytes: str = "") -> None:
        """Note a file, and let this process load no other version of it from now on."""
        self._late.append(LateFile(self._stage, path, digest))
        state, sources = self._state, {path: digest} if digest_of_its_bytes else {}
        self._state = replace(
            state,
            bytes={**state.bytes, path: digest_of_its_bytes},
            digests={**state.digests, **sources},
            stamps={**state.stamps, path: self._stamps.pop(path, None)},
        )

    def may_use_bytecode(self, path: str) -> bool:
        """Return whether the bytecode of a source may be loaded; the first load of an unknown one tells its digest."""
        if self._is_late(path):
            self._stamps[path] = stamp_of(path)
            return False
        is_as_planned = path in self._state.others or self._state.stamps.get(path) == stamp_of(path)
        return is_as_planned and may_use_bytecode(path)

    def check_source(self, path: str, data: bytes) -> None:
        """Raise CodeChanged where the code of a source, beyond comments and layout, has changed."""
        planned = self._state.digests.get(path)
        if planned is None and not self._is_late(path):
            return
        its_bytes = digest_of_bytes(data)
        if planned is not None and its_bytes == self._state.bytes.get(path):
            return
        from pipeline.stage.syntax import digest_of_file

        digest = digest_of_file(path, data)
        if planned is None:
            self._add_late(path, digest, its_bytes)
        elif digest != planned:
            self.changed = self.changed or path
            raise CodeChanged(path)


def _modules_that(has: Callable[[ModuleType], bool]) -> list[str]:
    """Return the names of the modules of which something is true, but for the main one."""
    return [
        name
        for name, module in list(sys.modules.items())
        if isinstance(module, ModuleType) and name not in ("__main__", "__mp_main__") and has(module)
    ]


guard = CodeGuard()
"""The one guard of this process, since its import system is shared by all that runs in it."""


def changed_table(state: CodeState) -> str:
    """Return the first file whose stamp counts and has changed; empty if there is none."""
    return next((path for path in state.tables if stamp_of(path) != state.stamps.get(path)), "")


def changed_file(state: CodeState) -> str:
    """Return the first file that was written to after it was read; empty if there is none."""
    return next((path for path, was in state.stamps.items() if stamp_of(path) != was), "")


def _source_to_code(loader: Any, data: Any, path: Any, *more: Any, **named: Any) -> Any:
    if isinstance(path, str) and isinstance(data, bytes):
        guard.check_source(os.path.abspath(path), data)
    return _compile(loader, data, path, *more, **named)


def _get_allowed_data(loader: Any, path: str) -> bytes:
    """Read a file for the import system; bytecode that may not be loaded is written anew, as if it were not there."""
    source = os.path.abspath(loader.path)
    if path.endswith(".pyc") and counts(source) and not guard.may_use_bytecode(source):
        raise OSError("the source is compiled")
    return _get_data(loader, path)
