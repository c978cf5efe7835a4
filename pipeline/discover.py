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
        self._root = root
        self._included = matcher(include) if include else None
        self._excluded = matcher(exclude) if exclude else None
        self._without = frozenset(without)
        """Absolute folders that are not entered: the outputs' and the state's own."""
        self.left_out: Counter[str] = Counter()
        """How many files were left out, by reason."""
        self.left_out_names: list[tuple[bytes, str]] = []
        """The first of them, with their reasons."""
        self.unlisted: list[tuple[bytes, str]] = []
        """The folders that could not be listed, and why: what lies in them is unknown, not gone."""

    def __iter__(self) -> Iterator[Source]:
        folders = [self._entries(b"")]
        while folders:
            entry = next(folders[-1], None)
            if entry is None:
                folders.pop()
                continue
            path, found = entry
            if found.is_dir(follow_symlinks=False):
                folders.append(self._entries(path + b"/"))
            elif source := self._source(path, found):
                yield source

    def _entries(self, prefix: bytes) -> Iterator[tuple[bytes, os.DirEntry[bytes]]]:
        """What counts in one folder, sorted, with paths relative to the root."""
        try:
            with os.scandir(os.path.join(self._root, prefix)) as entries:
                found = [(self._sort_key(entry), entry) for entry in entries if not entry.name.startswith(b".")]
        except OSError as error:
            if error.errno != errno.ENOENT or not prefix:
                self.unlisted.append((prefix, error.strerror or str(error)))
            return
        # By name alone: entries do not compare, and no two of a folder have one name.
        found.sort(key=lambda pair: pair[0])
        for name, entry in found:
            if self._counts(prefix + name, entry):
                yield prefix + entry.name, entry

    @staticmethod
    def _sort_key(entry: os.DirEntry[bytes]) -> bytes:
        return entry.name + b"/" if entry.is_dir(follow_symlinks=False) else entry.name

    def _counts(self, path: bytes, entry: os.DirEntry[bytes]) -> bool:
        if self._excluded is not None and self._excluded(path):
            return False
        if path.endswith(b"/"):
            return not self._without or os.path.join(self._root, path[:-1]) not in self._without
        return self._included is None or self._included(path)

    def _source(self, path: bytes, entry: os.DirEntry[bytes]) -> Source | None:
        try:
            found = entry.stat()
        except OSError as error:
            if error.errno == errno.ELOOP:
                self._leave_out(path, "a symlink loop")
            elif entry.is_symlink():
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


def matcher(patterns: Sequence[str]) -> Match:
    """Whether a relative path in bytes matches gitignore-style patterns, case ignored."""
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines([pattern.lower() for pattern in patterns])
    return lambda path: spec.match_file(os.fsdecode(path).lower())
