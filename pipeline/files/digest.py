"""Digests of what is in files, and whether a file is the same as when it was read.

That a file is the same as it was is told by its size, its time of modification, which may lie, and that of its last
change of any kind, which nobody can set. Neither tells of a write within the same tick of the clock, and so a file that
was not at rest when it was read is read again the next time.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from pathlib import Path
from typing import NamedTuple

# Nanoseconds: the coarsest clock of a file system's, FAT's.
_AT_REST_NS = 2_000_000_000


class Reading(NamedTuple):
    """A file's size, times and digest, when it was read to its end."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    was_at_rest: bool
    """Whether every later write changes its size or times."""


def read(path: str | bytes | Path) -> Reading:
    """Read a file to its end. Raises OSError, also for what is no regular file."""
    began_ns = time.time_ns()
    # To open a FIFO would be to wait for ever.
    with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        if not stat.S_ISREG(before.st_mode):
            is_folder = stat.S_ISDIR(before.st_mode)
            raise IsADirectoryError(errno.EISDIR, "Is a directory") if is_folder else OSError("no regular file")
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        after = os.fstat(file.fileno())
    stamp = (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    age_ns = min(began_ns - after.st_ctime_ns, abs(began_ns - after.st_mtime_ns))
    is_same = stamp == (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    return Reading(*stamp, digest, is_same and age_ns > _AT_REST_NS)


def contents_of(file: Path) -> str:
    """A digest of a file's contents; says so where there is no such file to read."""
    try:
        return read(file).digest.hex()
    except OSError as error:
        return error.strerror or str(error)
