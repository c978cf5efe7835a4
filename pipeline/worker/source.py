"""One source while a job reads it: its identity at the start of the reading, and the detection of changes.

A change shows by size or time. Of two writes within one tick of the file system's clock the second does not, and so a
source that was modified just now is not read before the tick is over.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress

from pipeline.errors import FileFailure, SourceMoved
from pipeline.files import digest
from pipeline.messages import Source

# Nanoseconds: a kernel's clock ticks every 10 ms at worst. Some file systems keep whole seconds, FAT every other one.
_TICK_NS = 20_000_000
_COARSE_TICK_NS = 2_000_000_000
# Up to this size the digest of a source is kept even where times decide: it tells a time that a copy has cut from an
# edit. A larger file, of which a stage may want the header alone, is not read for that.
_SMALL_BYTES = 1 << 20
# A source that is still young after so many waits for a tick is being written all the time.
_TRIES = 3

_READING = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC  # it may have become a FIFO since it was met
# The bits of a mode that say what it is the mode of.
_TYPE = 0o170000

# How stat says that there is no file any more, or no folder that it could be in.
GONE = (FileNotFoundError, NotADirectoryError)


class SourceReading:
    """Watches one source from `begin` on, so that no output made from two versions of it is recorded."""

    mode = group = 0
    """The mode of the source at `begin`, and the number of its group."""
    data: bytes | None = None
    """The contents of the source; None for one that is large or cannot be read, or if sources are hashed."""
    contents: digest.Reading | None = None
    """The digest of the source with its times; None unless sources are hashed."""
    digest = b""
    """The digest of the source; empty for one that is large, unless sources are hashed."""
    _file = 0, 0
    """The device and the number of the file."""

    def __init__(self, path: bytes, planned: Source, *, hashes: bool = False) -> None:
        self._path = path
        self.source = planned
        """The identity of the source when the run was planned, and from `begin` on at that time."""
        self._hashes = hashes

    def begin(self) -> None:
        """Take the current identity of the source. Raises one of GONE, OSError, FileFailure, SourceMoved."""
        for _ in range(_TRIES):
            now_ns = time.time_ns()  # before the source is looked at, so that each later write shows
            found, wait_ns = self._look_and_read(now_ns)
            size_bytes, mtime_ns = found.st_size, found.st_mtime_ns
            if size_bytes != self.source.size_bytes or mtime_ns != self.source.mtime_ns:
                self.source = Source(self.source.path, size_bytes, mtime_ns)
            if not wait_ns:
                self._file = found.st_dev, found.st_ino
                self.mode, self.group = found.st_mode, found.st_gid
                if self.data is not None:
                    self.digest = digest.digest_of_data(self.data)
                elif self._hashes:
                    self.contents = digest.read(self._path)
                    self.digest = self.contents.digest
                return
            time.sleep(wait_ns / 1e9)
        raise SourceMoved("changed")

    def resume(self, found: os.stat_result, data: bytes, digest_of_data: bytes) -> None:
        """Take over what `read_as_planned` has read."""
        self._file = found.st_dev, found.st_ino
        self.mode, self.group = found.st_mode, found.st_gid
        self.data, self.digest = data, digest_of_data

    def _look_and_read(self, now_ns: int) -> tuple[os.stat_result, int]:
        """Return the state of the source, and the nanoseconds to wait before it can be read.

        If it is small and can be read now, it is, so that no stage need open it again.
        """
        try:
            fd = os.open(self._path, _READING)
        except OSError:  # it is gone, or may not be read, which is no matter to a stage that wants its name alone
            found = self._look()
            return found, _wait_ns(found.st_mtime_ns, now_ns)
        try:
            found = os.fstat(fd)
            if found.st_mode & _TYPE != stat.S_IFREG:
                raise _irregular()
            wait_ns = _wait_ns(found.st_mtime_ns, now_ns)
            if not wait_ns and found.st_size <= _SMALL_BYTES and not self._hashes:
                self.data = _read_whole(fd, found.st_size)
            return found, wait_ns
        finally:
            os.close(fd)

    def moved(self) -> SourceMoved | None:
        """Return the change of the source since `begin`, or None."""
        try:
            found = self._look()
        except GONE:
            return SourceMoved("vanished")
        except FileFailure:  # something else lies there now
            return SourceMoved("vanished")
        same = found.st_size == self.source.size_bytes and found.st_mtime_ns == self.source.mtime_ns
        return None if same else SourceMoved("changed")

    @property
    def has_vanished(self) -> bool:
        """True if there is no source any more."""
        with suppress(OSError):
            moved = self.moved()
            return moved is not None and moved.kind == "vanished"
        return False

    def is_source(self, path: bytes) -> bool:
        """Return whether a path is the very file that the source was at the start of the reading."""
        found = os.lstat(path)
        return (found.st_dev, found.st_ino) == self._file

    def refuse_moved(self) -> None:
        """Raise SourceMoved if the source has changed since `begin`."""
        if moved := self.moved():
            raise moved

    def blame(self, error: BaseException) -> BaseException:
        """Return the reason of a failure: `error`, or that the source changed while the stage read it."""
        # Where we say ourselves what is wrong with a stage, it is the stage's fault.
        is_known = type(error) is FileFailure or isinstance(error, (MemoryError, SourceMoved))
        if is_known or not isinstance(error, Exception):
            return error
        with suppress(OSError):
            return self.moved() or error
        return error

    def _look(self) -> os.stat_result:
        found = os.stat(self._path)
        if found.st_mode & _TYPE != stat.S_IFREG:
            raise _irregular()
        return found


def read_as_planned(path: bytes, planned: Source) -> tuple[os.stat_result, bytes] | None:
    """Return the state and the contents of a small source that is as planned and at rest; None for any other."""
    now_ns = time.time_ns()  # before the source is looked at, so that each later write shows
    try:
        fd = os.open(path, _READING)
    except OSError:
        return None
    try:
        found = os.fstat(fd)
        size_bytes, mtime_ns = found.st_size, found.st_mtime_ns
        if size_bytes != planned[1] or mtime_ns != planned[2] or found.st_mode & _TYPE != stat.S_IFREG:
            return None
        if size_bytes > _SMALL_BYTES or _wait_ns(mtime_ns, now_ns):
            return None
        data = os.read(fd, size_bytes + 1)
    except OSError:
        return None
    finally:
        os.close(fd)
    return (found, data) if len(data) == size_bytes else None


def is_as_planned(path: bytes, planned: Source) -> bool:
    """Return whether a source is there, and as planned."""
    try:
        found = os.stat(path)
    except OSError:
        return False
    same = found.st_size == planned[1] and found.st_mtime_ns == planned[2]
    return same and found.st_mode & _TYPE == stat.S_IFREG


def _irregular() -> FileFailure:
    """Return the error of a source that is a FIFO now, for instance, which nobody could read to its end."""
    return FileFailure("is no regular file any more")


def _read_whole(fd: int, size_bytes: int) -> bytes | None:
    """Return the contents of a file of known size, read at once; None if it cannot be read, or has another size."""
    try:
        data = os.read(fd, size_bytes + 1)
    except OSError:
        return None
    return data if len(data) == size_bytes else None


def _wait_ns(mtime_ns: int, now_ns: int) -> int:
    """Return the nanoseconds until the tick is over in which a file was modified; 0 if it is, or far ahead."""
    age_ns = now_ns - mtime_ns
    if age_ns >= _COARSE_TICK_NS:  # as nearly all are
        return 0
    tick_ns = _TICK_NS if mtime_ns % 1_000_000_000 else _COARSE_TICK_NS
    return tick_ns - age_ns if abs(age_ns) < tick_ns else 0
