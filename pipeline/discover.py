"""Input root and patterns -> sources, in byte order of their path."""

from __future__ import annotations

import errno
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from pipeline.messages import Source

# How many left-out files are named; the rest are counted.
_NAMED = 20

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

Match = Callable[[bytes], bool]


class Walk:
    """One walk over the input root. Iterate it once; then it knows what it left out and could not list.

    The order is that of the whole relative path in bytes: a folder sorts as its name plus "/", as in git.
    """

    def __init__(
        self, root: bytes, include: Sequence[str] = (), exclude: Sequence[str] = (), without: Collection[bytes] = ()
    ) -> None:
        self._root = os.path.join(root, b"")
        self._included = matcher(include) if include else None
        self._excluded = matcher(exclude) if exclude else None
        self._without = _below(root, without)
        """The folders that are not entered, the outputs' and the state's own; relative, ending in "/"."""
        self.left_out: Counter[str] = Counter()
        """How many files were left out, by reason."""
        self.left_out_names: list[tuple[bytes, str]] = []
        """The first of them, with their reasons."""
        self.unlisted: list[tuple[bytes, str]] = []
        """The folders that could not be listed, and why: what lies in them is unknown, not gone."""

    def __iter__(self) -> Iterator[Source]:
        folders = [self._entries(b"")]
        while folders:
            found = next(folders[-1], None)
            if found is None:
                folders.pop()
            elif isinstance(found, bytes):
                folders.append(self._entries(found))
            else:
                yield found

    def _entries(self, folder: bytes) -> Iterator[bytes | Source]:
        """What counts in one folder, sorted by name: its files, and its folders by their paths, which end in "/".

        Only names are kept, which is what a folder of a million files costs. The folder is open while its files are
        asked for: a name beside it is found in half the time of a path. It is not while one below it is walked.
        """
        fd = -1
        try:
            for name in self._names(folder):
                path = folder + name
                if not self._counts(path):
                    continue
                if name.endswith(b"/"):
                    fd = _closed(fd)
                    yield path
                    continue
                if fd < 0:
                    fd = os.open(self._root + folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if source := self._source(path, name, fd):
                    yield source
        except OSError as error:
            self._cannot_list(folder, error)
        finally:
            _closed(fd)

    def _names(self, folder: bytes) -> list[bytes]:
        """The names in a folder, sorted; those of folders end in "/"."""
        try:
            with os.scandir(self._root + folder) as entries:
                names = [
                    entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name
                    for entry in entries
                    if not entry.name.startswith(b".")
                ]
        except OSError as error:
            self._cannot_list(folder, error)
            return []
        names.sort()
        return names

    def _cannot_list(self, folder: bytes, error: OSError) -> None:
        if error.errno != errno.ENOENT or not folder:
            self.unlisted.append((folder, error.strerror or str(error)))

    def _counts(self, path: bytes) -> bool:
        if self._excluded is not None and self._excluded(path):
            return False
        if path.endswith(b"/"):
            return path not in self._without
        return self._included is None or self._included(path)

    def _source(self, path: bytes, name: bytes, folder_fd: int) -> Source | None:
        try:
            found = os.stat(name, dir_fd=folder_fd)
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._leave_out(path, "a symlink loop")
            elif os.path.islink(self._root + path):
                self._leave_out(path, "a dangling link")
            elif error.errno != errno.ENOENT:  # gone since it was listed is simply gone
                self._leave_out(path, error.strerror or str(error))
            return None
        if stat.S_ISREG(found.st_mode):
            return Source(path, found.st_size, found.st_mtime_ns)
        kind = stat.S_IFMT(found.st_mode)
        self._leave_out(path, "a linked folder" if kind == stat.S_IFDIR else _SPECIAL.get(kind, "not a regular file"))
        return None

    def _leave_out(self, path: bytes, reason: str) -> None:
        self.left_out[reason] += 1
        if len(self.left_out_names) < _NAMED:
            self.left_out_names.append((path, reason))


def _closed(fd: int) -> int:
    """Close a descriptor, if it is one; gives what stands for none."""
    if fd >= 0:
        os.close(fd)
    return -1


def _below(root: bytes, folders: Collection[bytes]) -> frozenset[bytes]:
    """Those of the folders that lie below the root, relative to it, whatever links either is reached by."""
    real_root = os.path.join(os.path.realpath(root), b"")
    real = (os.path.join(os.path.realpath(each), b"") for each in folders)
    return frozenset(each[len(real_root) :] for each in real if each.startswith(real_root))


def matcher(patterns: Sequence[str]) -> Match:
    """Whether a relative path in bytes matches gitignore-style patterns, case ignored."""
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines([_one_case(pattern) for pattern in patterns])
    return lambda path: spec.match_file(_one_case(os.fsdecode(path)))


def _one_case(text: str) -> str:
    # A line end is the one character that "any" leaves out in pathspec's regular expressions.
    return text.lower().replace("\n", "\r")
