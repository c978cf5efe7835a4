"""Records which files an import loads, and the file that asked for each, in a process that only reads a pipeline.

    __import__, import_module   wrapped, to see every import statement, also of modules already loaded
    audit events                to see files run, read, linked or listed in any other way
    source_to_code              wrapped, to see the bytes that are compiled

None of these sees everything. The recorder is installed before any user code is imported, and never removed.
"""

from __future__ import annotations

import builtins
import importlib
import os
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from importlib.machinery import SourceFileLoader
from importlib.util import resolve_name
from types import CodeType, FrameType, ModuleType
from typing import Any

from pipeline.stage.counted import Stamp, counts, digest_of_bytes, file_of, may_use_bytecode, stamp_of

_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
_EVENTS = frozenset({"exec", "open", "ctypes.dlopen", "sqlite3.connect", "os.listdir", "os.scandir"})
_IMPORTER = ("<frozen importlib", "<frozen zipimport")


class Recorder:
    """The files that the imports of this process have loaded so far."""

    def __init__(self) -> None:
        self.edges: defaultdict[str, set[str]] = defaultdict(set)
        """The files that were loaded, run or linked, by the file that asked for them."""
        self.reads: defaultdict[str, set[str]] = defaultdict(set)
        """The files that were opened to be read, by the file whose code opened them."""
        self.listed: set[str] = set()
        """The folders whose names were listed."""
        self.writes: set[str] = set()
        """The files that were opened to be written."""
        self.stamps: dict[str, Stamp | None] = {}
        """The stamp of every file that was opened, taken before the opening."""
        self.compiled: dict[str, str] = {}
        """The digest of the bytes of every source that was compiled, by its path."""
        self.imported: set[str] = set()
        """The sources that the import system has loaded, from their text or from bytecode certain to match it."""
        self.calls: set[tuple[str, int]] = set()
        """The file and line of every call that loaded a file known only at run time."""
        self.is_importing = False
        """True during an import, so that its reads count; a stage's reads when it checks its options do not."""
        self._is_busy = False
        self._snapshots: dict[str, dict[str, tuple[int, int]]] = {}
        self._import = builtins.__import__
        self._import_module = importlib.import_module
        self._compile = SourceFileLoader.source_to_code
        self._stats = SourceFileLoader.path_stats
        self._get_data = SourceFileLoader.get_data

    def install(self) -> None:
        """Start to record."""
        builtins.__import__ = self._on_import
        importlib.import_module = self._on_import_module
        recorder = self

        def source_to_code(loader: Any, data: Any, path: Any, *more: Any, **named: Any) -> Any:
            if isinstance(path, str) and isinstance(data, bytes):
                recorder.compiled[os.path.abspath(path)] = digest_of_bytes(data)
            return recorder._compile(loader, data, path, *more, **named)

        def path_stats(loader: Any, path: str) -> Mapping[str, Any]:
            full = os.path.abspath(path)
            recorder.stamps.setdefault(full, stamp_of(full))
            recorder.imported.add(full)
            return recorder._stats(loader, path)

        def get_data(loader: Any, path: str) -> bytes:
            source = os.path.abspath(loader.path)
            if path.endswith(".pyc") and counts(source) and not may_use_bytecode(source):
                raise OSError("the source is compiled")  # as the import system has it where there is no bytecode
            return recorder._get_data(loader, path)

        SourceFileLoader.get_data = get_data  # type: ignore[method-assign, assignment]
        SourceFileLoader.source_to_code = source_to_code  # type: ignore[method-assign, assignment]
        SourceFileLoader.path_stats = path_stats  # type: ignore[method-assign, assignment]
        sys.addaudithook(self._on_event)

    # -- import statements -------------------------------------------------------------------------------------------

    def _on_import(
        self,
        name: str,
        globals: Mapping[str, Any] | None = None,
        locals: Mapping[str, Any] | None = None,
        fromlist: Sequence[str] | None = (),
        level: int = 0,
    ) -> ModuleType:
        module = self._import(name, globals, locals, fromlist or (), level)
        importer = _importer(globals)
        if importer:
            try:
                full = resolve_name("." * level + name, _package_of(globals or {})) if level else name
            except ImportError:
                return module
            self._note(importer, full)
            for each in fromlist or ():
                names = getattr(module, "__all__", ()) if each == "*" else (each,)
                for one in names:
                    self._note(importer, f"{full}.{one}")
        return module

    def _on_import_module(self, name: str, package: str | None = None) -> ModuleType:
        module = self._import_module(name, package)
        frame = sys._getframe(1)
        if importer := _importer(frame.f_globals):
            self.calls.add((os.path.abspath(frame.f_code.co_filename), frame.f_lineno))
            self._note(importer, resolve_name(name, package or "") if name.startswith(".") else name)
        return module

    def _note(self, importer: str, name: str) -> None:
        """Record a module, and every package above it, as imported by a file."""
        while name:
            file = file_of(sys.modules.get(name))
            if file:
                self.edges[importer].add(file)
            name = name.rpartition(".")[0]

    # -- all other ways ----------------------------------------------------------------------------------------------

    def _on_event(self, event: str, arguments: tuple[Any, ...]) -> None:
        if self._is_busy or event not in _EVENTS:
            return
        self._is_busy = True
        try:
            if event == "exec":
                self._on_exec(arguments[0])
            elif event == "open":
                self._on_open(*arguments[:3])
            elif event == "sqlite3.connect":
                self._on_database(os.fsdecode(arguments[0]))
            elif event in ("os.listdir", "os.scandir"):
                self._on_listing(arguments[0])
            elif isinstance(arguments[0], str) and os.sep in arguments[0]:
                self.edges[self._asker()].add(os.path.abspath(arguments[0]))
        finally:
            self._is_busy = False

    def _on_exec(self, code: CodeType) -> None:
        file = getattr(code, "co_filename", "<")
        if not file.startswith("<"):
            self.edges[self._asker()].add(os.path.abspath(file))

    def _on_open(self, path: Any, mode: Any, flags: Any) -> None:
        if isinstance(path, bytes):
            path = os.fsdecode(path)
        if not isinstance(path, str) or not path:
            return
        path = os.path.abspath(path)
        if (flags or 0) & _WRITES:
            self.writes.add(path)
            return
        if path not in self.stamps:
            self.stamps[path] = stamp_of(path)
        caller = sys._getframe(2)
        is_import = caller.f_code.co_filename.startswith(_IMPORTER) or path.endswith(".pyc")
        if self.is_importing and not is_import:
            self.reads[self._asker()].add(path)

    def _on_database(self, name: str) -> None:
        from urllib.parse import unquote, urlsplit

        path = unquote(urlsplit(name).path) if name.startswith("file:") else name
        if os.path.isfile(path):  # one that is not there yet is written
            self._on_open(path, None, 0)

    def _on_listing(self, path: Any) -> None:
        is_import = sys._getframe(2).f_code.co_filename.startswith(_IMPORTER)
        if self.is_importing and not is_import and not isinstance(path, int):
            self.listed.add(os.path.abspath(os.fsdecode(path or ".")))

    def _asker(self) -> str:
        """Return the file of the nearest frame of user code, on whose behalf a library may act."""
        frame: FrameType | None = sys._getframe(1)
        while frame is not None:
            file = frame.f_code.co_filename
            if not file.startswith("<") and counts(os.path.abspath(file)):
                self.calls.add((os.path.abspath(file), frame.f_lineno))
                return _importer(frame.f_globals) or os.path.abspath(file)
            frame = frame.f_back
        return ""

    # -- what one stage changes in what another has loaded -----------------------------------------------------------

    def note_changes(self, by: Iterable[str]) -> None:
        """Record that modules whose contents have changed depend on the files `by`, imported meanwhile.

        A module that was patched, or whose table was added to, depends on the code that did so.
        """
        for name, module in list(sys.modules.items()):
            file = file_of(module) if isinstance(module, ModuleType) else None
            if not file or not counts(file):
                continue
            now, before = _snapshot(module), self._snapshots.get(name)
            if before is not None and before != now:
                self.edges[file].update(by)
            self._snapshots[name] = now


def _snapshot(module: ModuleType) -> dict[str, tuple[int, int]]:
    """Return a summary of a module by which a change shows: the object of each name, and the lengths of containers."""
    return {
        name: (id(value), len(value) if type(value) in (dict, list, set) else 0)
        for name, value in list(vars(module).items())
        if not name.startswith("__") and not isinstance(value, ModuleType)  # a package holds what is imported of it
    }


def _importer(globals: Mapping[str, Any] | None) -> str:
    """Return the file of the code with these globals; for zipped code, the archive."""
    if not globals:
        return ""
    archive = getattr(getattr(globals.get("__spec__"), "loader", None), "archive", None)
    path = archive or globals.get("__file__")
    return os.path.abspath(path) if isinstance(path, str) else ""


def _package_of(globals: Mapping[str, Any]) -> str:
    package = globals.get("__package__")
    if package is None:
        name = str(globals.get("__name__", ""))
        package = name if "__path__" in globals else name.rpartition(".")[0]
    return str(package)
