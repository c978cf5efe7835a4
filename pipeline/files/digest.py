"""Digests of the contents of files, with the size and times by which a later change shows.

The mtime of a file can be set to any value, its ctime cannot. Neither shows a write within the same tick of the clock,
so a file that was changed shortly before it was read is read again the next time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from pipeline.files import hashlib
from pipeline.files.file_system import READING, blame_machine, open_regular
from pipeline.records import NamedTuple

# Nanoseconds: the coarsest clock of any file system, that of FAT.
_AT_REST_NS = 2_000_000_000


class Reading(NamedTuple):
    """The size, times and digest of a file that was read to its end."""

    size_bytes: int
    mtime_ns: int
    ctime_ns: int
    digest: bytes
    was_at_rest: bool
    """Whether the last change was long enough ago that every later one shows in the size or the times."""


def read(path: str | bytes | Path) -> Reading:
    """Read a file to its end. Raises OSError, also for a path that is not a regular file."""
    began_ns = time.time_ns()
    with open_regular(path) as file:
        before = os.fstat(file.fileno())
        digest = hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).digest()
        after = os.fstat(file.fileno())
    stamp = (after.st_size, after.st_mtime_ns, after.st_ctime_ns)
    age_ns = min(began_ns - after.st_ctime_ns, abs(began_ns - after.st_mtime_ns))
    is_same = stamp == (before.st_size, before.st_mtime_ns, before.st_ctime_ns)
    return Reading(*stamp, digest, is_same and age_ns > _AT_REST_NS)


def digest_of_data(data: bytes) -> bytes:
    """Return the digest of a file's contents, in the form of a `Reading`."""
    return hashlib.blake2b(data, digest_size=16).digest()


def contents_of(file: Path) -> str:
    """Return the digest of a file's contents as hex; the system's error text if there is no such file to be read.

    Raises EnvironmentFailure where the machine does not let it be read: nobody knows then what is in it.
    """
    try:
        return read(file).digest.hex()
    except OSError as error:
        if (failure := blame_machine(error, file, READING)) is not error:
            raise failure from error
        return error.strerror or str(error)
