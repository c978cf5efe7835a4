"""Lets a process that runs stages load only the code that was planned with; every worker has one.

    forget    modules that were inherited, or left by another run in this process, are imported anew
    compile   from the source, unless bytecode is certain to match it; the source is compared with the plan's
    stamps    are compared for files that no import compiles: tables, libraries, Path options, `depends`

A load that differs from the plan is remembered, since the importer may catch the exception: no later result counts.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Mapping
from importlib.machinery import SourceFileLoader
from types import ModuleType
from typing import Any

from pipeline.errors import CodeChanged
from pipeline.stage.code import NO_STATE, CodeState
from pipeline.stage.counted import counts, digest_of_bytes, file_of, may_use_bytecode, module_counts, stamp_of
from pipeline.stage.resolve import forget_stages

_compile = SourceFileLoader.source_to_code
_stats = SourceFileLoader.path_stats


class CodeGuard:
    """Compares the code that this process loads with the plan's."""

    def __init__(self) -> None:
        self.changed = ""
        """The first file that was loaded and has changed since the plan; empty if there is none."""
        self._state = NO_STATE

    def start(self, state: CodeState) -> None:
        """Start to guard these files, in place of those of another run in this process."""
        self.changed, self._state = "", state
        SourceFileLoader.source_to_code = _source_to_code  # type: ignore[method-assign, assignment]
        SourceFileLoader.path_stats = _path_stats  # type: ignore[method-assign, assignment]
        forget_stages()
        # A process that is no worker may hold modules of its own, which are nobody's business.
        from multiprocessing import parent_process

        is_worker = parent_process() is not None
        old = [
            name
            for name, module in list(sys.modules.items())
            if isinstance(module, ModuleType)
            and name not in ("__main__", "__mp_main__")
            and (module_counts(module) if is_worker else file_of(module) in state.stamps)
        ]
        for name in old:  # at last, since a package is asked for the places of those in it
            del sys.modules[name]
        importlib.invalidate_caches()

    def stop(self) -> None:
        """Stop guarding, so that any code may be loaded, as before `start`."""
        self._state = NO_STATE
        SourceFileLoader.source_to_code, SourceFileLoader.path_stats = _compile, _stats  # type: ignore[method-assign]

    def check_tables(self) -> None:
        """Raise CodeChanged where a table has changed, or changed code was loaded."""
        self.changed = self.changed or changed_table(self._state)
        if self.changed:
            raise CodeChanged(self.changed)

    def may_use_bytecode(self, path: str) -> bool:
        """Return whether the bytecode of a source may be loaded."""
        was = self._state.stamps.get(path)
        return may_use_bytecode(path) and (was is None or was == stamp_of(path))

    def check_source(self, path: str, data: bytes) -> None:
        """Raise CodeChanged where the code of a source, beyond comments and layout, has changed."""
        planned = self._state.bytes.get(path)
        if planned is None or digest_of_bytes(data) == planned or self._does_the_same(path, data):
            return
        self.changed = self.changed or path
        raise CodeChanged(path)

    def _does_the_same(self, path: str, data: bytes) -> bool:
        import ast

        from pipeline.stage.syntax import digest_of_source

        try:
            return digest_of_source(ast.parse(data), path) == self._state.digests[path]
        except (SyntaxError, ValueError):
            return False


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


def _path_stats(loader: Any, path: str) -> Mapping[str, Any]:
    full = os.path.abspath(path)
    if counts(full) and not guard.may_use_bytecode(full):
        raise OSError("the source is compiled")  # as the import system has it where there are no stats
    return _stats(loader, path)
