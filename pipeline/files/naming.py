"""Names files without replacing others, and compares names by the rules of the file system.

Some file systems treat names that differ in case, or in the Unicode form of a letter, as equal; and through links one
folder has many paths. Only taking a name shows for certain that it was free.
"""

from __future__ import annotations

import errno
import os
import unicodedata
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import cache

from pipeline.errors import FileFailure, NotOurs
from pipeline.text import NO_FILE, NOT_OURS, shown

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
# What the kernel, or a file system, says that cannot rename without replacing.
_UNABLE = (errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP)


def name_new(temporary: bytes, target: bytes) -> None:
    """Give a complete file its name, if nothing has it. Raises NotOurs, FileFailure, OSError."""
    try:
        os.link(temporary, target, follow_symlinks=False)
    except FileExistsError:
        raise taken(target) from None
    except OSError:  # such as a file system without links
        _rename_new(temporary, target)
        return
    try:
        os.unlink(temporary)
    except FileNotFoundError:  # any other error stops the run, and the next one clears up
        pass


def _rename_new(old: bytes, new: bytes) -> None:
    """Rename a file without replacing another; where the system has no such call, check first."""
    rename = _renameat2()
    if rename is not None and not rename(_AT_FDCWD, old, _AT_FDCWD, new, _RENAME_NOREPLACE):
        return
    number = _last_error() if rename is not None else errno.ENOSYS
    if number == errno.EEXIST or (number in _UNABLE and os.path.lexists(new)):
        raise taken(new)
    if number not in _UNABLE:
        raise OSError(number, os.strerror(number), new)
    os.rename(old, new)


@cache
def _renameat2() -> Callable[..., int] | None:
    """Return the C library's function; None where it has none."""
    import ctypes  # a worker seldom needs it

    with suppress(OSError, AttributeError):
        found = ctypes.CDLL(None, use_errno=True).renameat2
        found.argtypes = (ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint)
        return found
    return None


def _last_error() -> int:
    import ctypes

    return ctypes.get_errno()


def taken(path: bytes) -> FileFailure:
    """Return the error of an output whose path something has already."""
    if os.path.isdir(path):
        return FileFailure(f"{NO_FILE}: {shown(path)}")
    return NotOurs(f"{NOT_OURS}: {shown(path)}", as_listed(path))


# -- one file, many paths ----------------------------------------------------------------------------------------------


def as_listed(path: bytes) -> bytes:
    """Return the path of a file with its folder resolved, and its name as that folder lists it.

    A file system that ignores case has `a.txt` where `A.txt` is listed. Where nothing is there, the name stays.
    """
    folder, name = os.path.split(path)
    folder = os.path.realpath(folder)
    try:
        return os.path.join(folder, _listed_name(folder, name))
    except OSError:
        return os.path.join(folder, name)


def _listed_name(folder: bytes, name: bytes) -> bytes:
    found, names = os.lstat(os.path.join(folder, name)), os.listdir(folder)
    if name in names:
        return name
    folded = fold(name)
    for each in sorted(names, key=lambda each: fold(each) != folded):
        with suppress(OSError):
            if os.path.samestat(found, os.lstat(os.path.join(folder, each))):
                return each
    return name


def fold(name: bytes) -> str:
    """Return a key that is equal for names that differ only in case or in the Unicode form of letters."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", os.fsdecode(name)).casefold())


def is_one_file(one: bytes, other: bytes) -> bool:
    """Return whether two paths lead to one file."""
    with suppress(OSError):
        return os.path.samestat(os.lstat(one), os.lstat(other))
    return False


class SameNames:
    """Paths, of which one is found by any spelling that the file system takes for the same."""

    def __init__(self, paths: Iterable[bytes] = ()) -> None:
        self._by_name: dict[str, list[bytes]] = {}
        for path in paths:
            self.add(path)

    def add(self, path: bytes) -> None:
        """Add a path."""
        self._by_name.setdefault(fold(path), []).append(path)

    def find(self, path: bytes) -> bytes | None:
        """Return the path that is this one, or leads to the same file; None if there is none."""
        among = self._by_name.get(fold(path), [])
        return next((each for each in among if each == path or is_one_file(each, path)), None)


def is_one_entry(one: bytes, other: bytes) -> bool:
    """Return whether two paths lead to one entry of one folder, and not to two links of one file."""
    return as_listed(one) == as_listed(other)


def resolve_folder(folder: bytes) -> bytes:
    """Return the one path of a folder: links resolved, and names as they are listed where case or form is ignored."""
    found = b"/"
    for name in os.path.realpath(folder).split(b"/")[1:]:
        path = os.path.join(found, name)
        found = as_listed(path) if may_be_listed_otherwise(found, name) else path
    return found


def may_be_listed_otherwise(folder: bytes, name: bytes) -> bool:
    """Return whether a folder may list a name in another case or form, which is rare."""
    text = os.fsdecode(name)
    others = {text.swapcase(), unicodedata.normalize("NFC", text), unicodedata.normalize("NFD", text)} - {text}
    return any(os.path.lexists(os.path.join(folder, os.fsencode(other))) for other in others)
