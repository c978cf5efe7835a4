"""The members of a group in a file: written by the plan, and read one by one by the worker that gathers them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator
from typing import NamedTuple


class Member(NamedTuple):
    """A committed output that is gathered."""

    path: bytes
    """Where it is; absolute."""
    source: bytes
    """Of which it was made."""
    part: str | None
    """Which part of that it is, if it is one."""
    size_bytes: int
    mtime_ns: int

    @property
    def is_as_planned(self) -> bool:
        """Whether the file is still what it was when the group was planned."""
        try:
            found = os.stat(self.path)
        except OSError:
            return False
        return (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.mtime_ns)


def write_members(file: bytes, members: Iterable[Member]) -> None:
    """Write the members of a group to a new file. Raises OSError."""
    with open(file, "wb") as opened:
        for member in members:
            pickle.dump(tuple(member), opened, pickle.HIGHEST_PROTOCOL)


def read_members(file: bytes) -> Iterator[Member]:
    """Yield the members in the order in which they were written, one in memory at a time. Raises OSError."""
    with open(file, "rb") as opened:
        while True:
            try:
                yield Member._make(pickle.load(opened))
            except EOFError:
                return
