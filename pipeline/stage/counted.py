"""Decides which files count as code of a stage: all but those of Python, installed distributions and filemill."""

from __future__ import annotations

import os
import stat
import sys
from functools import cache
from importlib.util import cache_from_source
from types import ModuleType

import pipeline
from pipeline.files import hashlib
from pipeline.records import NamedTuple

_INSTALLED = frozenset({"site-packages", "dist-packages"})
_OURS = os.path.dirname(os.path.abspath(pipeline.__file__))
_BUNDLED = os.path.join(os.path.dirname(_OURS), "stages")
# In a checkout a user's stages and their helpers may lie beside these.
_BUNDLED_NAMES = frozenset({
    "__init__", "checksum", "command", "contact_sheet", "convert", "frames", "larger_than", "manifest", "pages",
    "resize", "text", "watermark",
})  # fmt: skip
_PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
_STANDARD = (
    os.path.dirname(os.__file__),
    *(os.path.join(prefix, sys.platlibdir, _PYTHON) for prefix in (sys.base_prefix, sys.base_exec_prefix)),
)
_NOT_COUNTED = tuple(
    os.path.join(place, "") for each in (*_STANDARD, _OURS) for place in dict.fromkeys((each, os.path.realpath(each)))
)

_BUNDLED_FOLDERS = (_BUNDLED, os.path.realpath(_BUNDLED))


@cache
def counts(path: str) -> bool:
    """Return whether a file counts as code of a stage. Links are not resolved, so that editable installs count."""
    if not os.path.isabs(path) or is_installed(path) or path.startswith(_NOT_COUNTED):
        return False
    folder, name = os.path.split(path)
    return folder not in _BUNDLED_FOLDERS or os.path.splitext(name)[0] not in _BUNDLED_NAMES


def is_of_kernel(path: str) -> bool:
    """Return whether a path is of a file system of the kernel's own; /dev/shm holds people's files as any disk does."""
    return path.startswith(("/proc/", "/sys/", "/dev/")) and not path.startswith("/dev/shm/")


@cache
def is_installed(path: str) -> bool:
    """Return whether a file belongs to an installed distribution."""
    return not _INSTALLED.isdisjoint(path.split(os.sep))


def file_of(module: ModuleType | None) -> str | None:
    """Return the file of a module; the archive of a zipped one, None for a built-in one or a bare folder."""
    names = getattr(module, "__dict__", {})  # never by getattr: a module may have a __getattr__ of its own
    spec = names.get("__spec__")
    loader = getattr(spec, "loader", None) or names.get("__loader__")
    archive = getattr(loader, "archive", None)
    if isinstance(archive, str):
        return os.path.abspath(archive)
    origin = getattr(spec, "origin", None) if getattr(spec, "has_location", False) else None
    origin = origin or names.get("__file__")
    return os.path.abspath(origin) if isinstance(origin, str) else None


def module_counts(module: ModuleType) -> bool:
    """Return whether a module came from a file that counts, or is a bare folder in which such files lie."""
    if file := file_of(module):
        return counts(file)
    return any(counts(os.path.join(os.path.abspath(place), "_.py")) for place in places_of(module))


def places_of(module: ModuleType) -> list[str]:
    """Return the folders of a package; none of any other module."""
    try:
        return [each for each in vars(module).get("__path__") or () if isinstance(each, str)]
    except KeyError:  # the package above it has been removed from sys.modules
        return []


class Stamp(NamedTuple):
    """The properties by which a file system identifies a state of a file; another stamp may be another content."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    inode: int
    device: int


def stamp_of(path: str) -> Stamp | None:
    """Return the stamp of a file; None where there is none."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return Stamp(found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino, found.st_dev)


def may_use_bytecode(path: str) -> bool:
    """Return whether the bytecode that Python cached is certain to match the present text of a source.

    Bytecode identifies its source by its size and its time in whole seconds: bytecode that was written within that
    second may match an earlier text. So may any that is older than the last change of the source, whose time may have
    been set back.
    """
    try:
        compiled, source = os.stat(cache_from_source(path)), os.stat(path)
        # Of a link the moment counts, too, since when it leads to this source.
        changed = max(source.st_mtime_ns, source.st_ctime_ns, os.lstat(path).st_ctime_ns)
        is_file = stat.S_ISREG(compiled.st_mode)  # a FIFO would be waited for
        return is_file and compiled.st_mtime_ns // 10**9 > changed // 10**9
    except (OSError, NotImplementedError, ValueError):
        return False


def digest_of_bytes(data: bytes) -> str:
    """Return the digest of the bytes of a file."""
    return hashlib.blake2b(data, digest_size=16).hexdigest()
