"""One source while a job reads it: its identity at the start of the reading, and the detection of changes.

A change shows by size or time. Of two writes within one tick of the file system's clock the second does not, and so a
source that was modified just now is not read before the tick is over.
"""

from __future__ import annotations

import os
import stat
import time
from contextlib import suppress
from pathlib import Path

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

# How stat says that there is no file any more, or no folder that it could be in.
GONE = (FileNotFoundError, NotADirectoryError)


class SourceReading:
    """Watches one source from `begin` on, so that no output made from two versions of it is recorded."""

    def __init__(self, path: str | Path, planned: Source, *, hashes: bool = False) -> None:
        self._path = path
        self.source = planned
        """The identity of the source when the run was planned, and from `begin` on at that time."""
        self.mode = self.group = 0
        """The mode of the source at `begin`, and the number of its group."""
        self._hashes = hashes
        self.contents: digest.Reading | None = None
        """The digest of the source with its times; None unless sources are hashed."""
        self.digest = b""
        """The digest of the source; empty for one that is large, unless sources are hashed."""
        self._file = 0, 0
        """The device and the number of the file."""

    def begin(self) -> None:
        """Take the current identity of the source. Raises one of GONE, OSError, FileFailure, SourceMoved."""
        for _ in range(_TRIES):
            found = self._look()
            self.source = Source(self.source.path, found.st_size, found.st_mtime_ns)
            self._file = found.st_dev, found.st_ino
            self.mode, self.group = found.st_mode, found.st_gid
            age_ns, tick_ns = time.time_ns() - self.source.mtime_ns, _tick_ns(self.source)
            if abs(age_ns) >= tick_ns:
                if self._hashes:
                    self.contents = digest.read(self._path)
                    self.digest = self.contents.digest
                elif found.st_size <= _SMALL_BYTES:
                    self.digest = digest.digest_of_small(self._path, found.st_size)
                return
            time.sleep((tick_ns - age_ns) / 1e9)
        raise SourceMoved("changed")

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
        if not stat.S_ISREG(found.st_mode):  # to open a FIFO would be to wait for ever
            raise FileFailure("is no regular file any more")
        return found


def _tick_ns(source: Source) -> int:
    return _TICK_NS if source.mtime_ns % 1_000_000_000 else _COARSE_TICK_NS
