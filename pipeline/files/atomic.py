"""Commits outputs: an output is visible whole or not at all.

An output is written to a temporary in the target's own folder and renamed over the target when it is complete, so that
no reader ever sees half a file under its final name. Its digest is taken during the writing, for `verify`.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import BinaryIO, NamedTuple

from pipeline.errors import EnvironmentFailure, FileFailure
from pipeline.files.file_system import open_regular
from pipeline.files.template import OWNER_FILE
from pipeline.text import NO_FILE, shown

TEMPORARY_PREFIX = b".filemill-"

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Bytes of a digest: that two contents share one is never seen.
_DIGEST_SIZE = 16

Check = Callable[[], None]
"""Function that is called before an output gets its name, and raises to prevent that."""
GiveName = Callable[[bytes, bytes], None]
"""Function that renames a complete temporary to its target."""


class Committed(NamedTuple):
    """Size, modification time and digest of a committed output."""

    size_bytes: int
    mtime_ns: int
    digest: bytes


def temporary_for(target: bytes, run: str) -> bytes:
    """Return the name under which a run writes a target before it is complete; its length is bounded."""
    folder, _, name = target.rpartition(b"/")
    digest = hashlib.blake2b(name, digest_size=8).hexdigest()
    return b"%s/%s%s-%s" % (folder, TEMPORARY_PREFIX, digest.encode(), run.encode())


def run_of(temporary: bytes, *, whole: bool = False) -> str:
    """Return the id of the run that a temporary is named for; if `whole`, in the form of `run_apart`."""
    run = temporary[len(TEMPORARY_PREFIX) :].partition(b"-")[2]
    return os.fsdecode(run if whole else run.partition(b".")[0])


def run_apart(run: str, source: bytes) -> str:
    """Return a run's id for the temporaries of a source whose targets other sources may share."""
    return f"{run}.{hashlib.blake2b(source, digest_size=8).hexdigest()}"


class Committer:
    """Commits the outputs of one run from one process."""

    def __init__(self, run: str, claimed: Sequence[bytes] = ()) -> None:
        self._run = run
        self._claimed = claimed
        self._mode = 0o666 & ~_umask()
        self._folders: set[bytes] = set()

    def apart(self, source: bytes) -> Committer:
        """Return a committer whose temporaries no other source shares, since two sources may make the same part."""
        other = copy(self)
        other._run = run_apart(self._run, source)
        return other

    def put(self, target: bytes, data: bytes, check: Check = lambda: None, name: GiveName | None = None) -> Committed:
        """Commit bytes; `name` renames the complete file."""
        temporary = temporary_for(target, self._run)
        fd = self._create(temporary)
        try:
            try:
                _write_all(fd, data)
                found = os.fstat(fd)
                if found.st_mode & 0o777 != self._mode:  # a stage may have changed the umask
                    os.fchmod(fd, self._mode)
            finally:
                os.close(fd)
            check()
            (name or give_name)(temporary, target)
        except BaseException:
            _discard(temporary)
            raise
        return Committed(found.st_size, found.st_mtime_ns, hashlib.blake2b(data, digest_size=_DIGEST_SIZE).digest())

    def write(
        self,
        target: bytes,
        write: Callable[[BinaryIO], None],
        check: Check = lambda: None,
        name: GiveName | None = None,
    ) -> Committed:
        """Commit the file that `write` writes to."""
        temporary = temporary_for(target, self._run)
        file = open(self._create(temporary), "wb")
        try:
            with file:
                write(file)
                file.flush()
                os.fchmod(file.fileno(), self._mode)
            return _reveal(temporary, target, check, name or give_name)
        except BaseException:
            _discard(temporary)
            raise

    def move(
        self, path: Path, target: bytes, check: Check = lambda: None, name: GiveName | None = None
    ) -> Committed | None:
        """Commit a file by renaming it; return None where it must be copied instead.

        It must be copied if it lies on another device, or has a second hard link, which may be the source.
        """
        if os.lstat(path).st_nlink > 1:
            return None
        temporary = temporary_for(target, self._run)
        self._make_folder(os.path.dirname(target))
        try:
            os.rename(path, temporary)
        except OSError:
            return None
        try:
            # A scratch file often comes from mkstemp, which lets nobody else read it.
            os.chmod(temporary, self._mode)
            return _reveal(temporary, target, check, name or give_name)
        except BaseException:
            _discard(temporary)
            raise

    def _create(self, temporary: bytes) -> int:
        """Create a temporary, and its folder if there is none; return its descriptor."""
        folder = temporary[: temporary.rindex(b"/")]
        self._make_folder(folder)
        try:
            return os.open(temporary, _NEW, 0o666)
        except FileNotFoundError:  # someone removed the folder that we had made
            self._folders.discard(folder)
            self._make_folder(folder)
        except FileExistsError:  # this run's own, of a worker that died with it
            os.unlink(temporary)
        return os.open(temporary, _NEW, 0o666)

    def _make_folder(self, folder: bytes) -> None:
        if folder not in self._folders:
            for root in self._claimed:
                if os.path.join(folder, b"").startswith(os.path.join(root, b"")):
                    refuse_lost(root)
            os.makedirs(folder, exist_ok=True)
            self._folders.add(folder)


def _reveal(temporary: bytes, target: bytes, check: Check, name: GiveName) -> Committed:
    """Rename a complete file to its target, and describe it."""
    found, digest = os.stat(temporary), digest_of(temporary)
    check()
    name(temporary, target)
    return Committed(found.st_size, found.st_mtime_ns, digest)


def refuse_lost(folder: bytes) -> None:
    """Raise EnvironmentFailure where an output folder has lost the owner file that the run wrote at its start."""
    if not os.path.lexists(os.path.join(folder, os.fsencode(OWNER_FILE))):
        text = f"the output folder {shown(folder)} was removed or unmounted while the run was at work"
        raise EnvironmentFailure(f"{text}: there is no {OWNER_FILE} in it any more")


def digest_of(path: bytes) -> bytes:
    """Return the digest of a file's contents, as a commit takes it. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_SIZE)).digest()


def remove_temporaries(target: bytes, runs: Sequence[str]) -> None:
    """Remove the temporaries that unclean runs left beside a target."""
    for run in runs:
        _discard(temporary_for(target, run))


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):  # a disk that is nearly full takes a part, and says so at the next one
        written += os.write(fd, memoryview(data)[written:])


def give_name(temporary: bytes, target: bytes) -> None:
    """Rename a complete file to its target. Raises FileFailure where that is a folder."""
    try:
        os.rename(temporary, target)
    except IsADirectoryError:
        raise FileFailure(f"{NO_FILE}: {shown(target)}") from None


def _discard(path: bytes) -> None:
    try:
        os.unlink(path)
    except OSError:  # there is none, or none that could be removed: no reason to hide what went wrong before
        pass


def _umask() -> int:
    mask = os.umask(0o022)
    os.umask(mask)
    return mask
