"""The selection of the files that a run processes, and the list of names that may replace the walk.

The list (`--files-from`) is read once, sorted on disk, and looked up by the walk's own rules: a name that the walk
would not yield, such as an excluded one, is left out here too, since a list does not decide which files are inputs.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing
from functools import cached_property
from typing import BinaryIO

from pipeline.errors import UsageError
from pipeline.files.walk import NOT_THERE, OUTSIDE, Walk
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Source
from pipeline.records import dataclass

# Bytes: no name is longer, so one of them, or what ends the first, is in the beginning of any list.
_LONGEST_NAME = 4096
# Bytes read at a time.
_BLOCK = 1 << 16


@dataclass(frozen=True)
class Selection:
    """The files that a run is asked to process; it does not decide which files exist."""

    only: tuple[str, ...] = ()
    """Gitignore-style patterns of which a selected file must match one; empty for every file."""
    limit: int | None = None
    force: bool = False
    retry_failed: bool = False
    names: Iterable[bytes] | None = None
    """The listed names of the files, which can be iterated once only; None for those of the walk."""

    @cached_property
    def is_partial(self) -> bool:
        """True if files may have been passed over, so that no missing file counts as removed."""
        return bool(self.only) or self.limit is not None or self.names is not None


def read_names(file: str) -> Iterator[bytes]:
    """Yield the names in a list: NUL-separated if its first name ends so, else one a line. Raises UsageError.

    `-` is stdin. Empty names are left out, and all others are kept exactly, with any spaces.
    """
    if file == "-":
        if sys.__stdin__ is None:
            raise UsageError("--files-from -: stdin is closed; pipe the names in, or name a file that has them")
        return _names_in(sys.stdin.buffer, "-")
    try:
        opened = open(file, "rb")
    except OSError as error:
        raise UsageError(f"--files-from {file}: {error.strerror}") from None
    return _closing(opened, file)


def _closing(opened: BinaryIO, file: str) -> Iterator[bytes]:
    with closing(opened):
        yield from _names_in(opened, file)


def _names_in(opened: BinaryIO, file: str) -> Iterator[bytes]:
    rest = b""
    separator = b""
    while block := opened.read(_BLOCK):
        separator = separator or (b"\0" if b"\0" in block[: _LONGEST_NAME + 1] else b"\n")
        *names, rest = (rest + block).split(separator)
        yield from filter(None, names)
        if len(rest) > _BLOCK:
            raise UsageError(f"--files-from {file}: this is no list of names, one a line or each ended by NUL")
    if rest:
        yield rest


class FileList:
    """The sources of a list of names, in byte order of their path, whatever the order of the names."""

    def __init__(self, root: bytes, walk: Walk, ledger: Ledger, names: Iterable[bytes]) -> None:
        self._roots = [os.path.join(each, b"") for each in (os.path.normpath(root), os.path.realpath(root))]
        self._walk = walk
        self._ledger = ledger
        ledger.list_sources(self._paths(names))

    def __iter__(self) -> Iterator[Source]:
        for path in self._ledger.listed_sources():
            if source := self._walk.look_up(path):
                yield source

    def _paths(self, names: Iterable[bytes]) -> Iterator[bytes]:
        """Yield the paths, relative to the root, of the names."""
        for name in names:
            path = self._path(name)
            if path is None or b"\0" in path:
                self._walk.leave_out(name, OUTSIDE if path is None else NOT_THERE)
                self._walk.is_misled = True
            else:
                yield path

    def _path(self, name: bytes) -> bytes | None:
        full = os.path.normpath(os.path.join(self._roots[0], name))
        for root in self._roots:
            if full.startswith(root):
                return full[len(root) :]
        return b"" if os.path.join(full, b"") in self._roots else None
