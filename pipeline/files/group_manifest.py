"""Writes and reads the file that lists the members of a group, from the plan to the worker that gathers them."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterable, Iterator

from pipeline.records import NamedTuple


class Member(NamedTuple):
    """A committed output that a stage gathers."""

    path: bytes
    """The absolute path of the file."""
    source: bytes
    """The source of which the file was made."""
    part: str | None
    """The name of the part of a fan-out; None for an output without parts."""
    size_bytes: int
    mtime_ns: int

    def as_planned(self) -> os.stat_result | None:
        """Return the fields of the file if it still has the size and time that the plan recorded, else None."""
        try:
            found = os.stat(self.path)
        except OSError:
            return None
        return found if (found.st_size, found.st_mtime_ns) == (self.size_bytes, self.mtime_ns) else None


def write_members(file: bytes, members: Iterable[Member]) -> None:
    """Write members to a new file. Raises OSError."""
    with open(file, "wb") as opened:
        for member in members:
            pickle.dump(tuple(member), opened, pickle.HIGHEST_PROTOCOL)


def read_members(file: bytes) -> Iterator[Member]:
    """Yield the members in their order, one in memory at a time. Raises OSError."""
    with open(file, "rb") as opened:
        while True:
            try:
                yield Member._make(pickle.load(opened))
            except EOFError:
                return
