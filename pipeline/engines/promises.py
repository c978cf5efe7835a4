"""The memory that runs on this machine have promised to large jobs, which these do not hold yet.

What is free says nothing of a job that has just begun. So each engine with large jobs keeps a file in a folder that all
runs of a user on this machine share, with the bytes that its jobs are yet to take, and heeds those of the others. The
files are a hint, renewed several times a second: one that is not is void, so nobody waits for a run that was killed.
"""

from __future__ import annotations

import itertools
import json
import os
import stat
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

try:
    import fcntl
except ImportError:  # no POSIX: runs do not know of each other
    fcntl = None  # type: ignore[assignment]

# A promise that was not renewed for so long counts no more; its run is dead or stopped.
VOID_S = 5.0
# Void files are removed after this long, when nobody can be about to renew them.
LITTER_S = 600.0

_LOCK = "lock"
_numbers = itertools.count(1)


def usual_folder() -> Path:
    """Return the folder that all runs of this user share: in memory, or else among the temporary files."""
    shared = Path("/dev/shm")
    above = shared if shared.is_dir() else Path(tempfile.gettempdir())
    return above / f"filemill-{os.getuid() if hasattr(os, 'getuid') else 'all'}"


class PromiseBoard:
    """The promises of one engine, and those of the others in the same folder."""

    def __init__(self, scopes: Sequence[str], folder: Path | None = None) -> None:
        """Make the folder, and no promise yet.

        Args:
            scopes: The bounds of memory that hold for this process, as in `host.MemoryBound`.
            folder: Where the promises are kept; by default `usual_folder()`.
        """
        self._scopes = list(scopes)
        self._folder = folder or usual_folder()
        self._file = self._folder / f"{os.getpid()}-{next(_numbers)}"
        self._is_kept = False
        self._has_folder = self._make_folder()
        self._busy_since: float | None = None

    @contextmanager
    def locked(self) -> Iterator[bool]:
        """Hold the lock under which promises are compared and made; False if another holds it at this moment.

        Who holds it longer than a promise is valid was stopped there, and is not waited for.
        """
        lock = self._open_lock()
        if lock is None:
            yield True
            return
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._busy_since = None
            yield True
        except BlockingIOError:
            self._busy_since = self._busy_since or time.monotonic()
            yield time.monotonic() - self._busy_since > VOID_S
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # a worker that was just forked has the descriptor, too
            os.close(lock)

    def others(self, scope: str) -> int:
        """Return the bytes that other engines have promised to jobs within a bound."""
        return sum(promised for scopes, promised in self._read_others() if scope in scopes)

    def put(self, promised_bytes: int) -> None:
        """Let the others know what this engine's jobs are yet to take."""
        if not self._has_folder or not (promised_bytes or self._is_kept):
            return
        record = {"at": time.monotonic(), "bytes": promised_bytes, "scopes": self._scopes}
        new = self._file.with_suffix(".new")
        with suppress(OSError):  # it is a hint, and no reason to fail
            new.write_text(json.dumps(record))
            new.replace(self._file)
            self._is_kept = True

    def withdraw(self) -> None:
        """Remove the promises of this engine."""
        if self._is_kept:
            self._is_kept = False
            with suppress(OSError):
                self._file.unlink()

    def _read_others(self) -> Iterator[tuple[list[str], int]]:
        """Yield the scopes and bytes of each valid promise of another engine."""
        if not self._has_folder:
            return
        with suppress(OSError):
            for entry in list(os.scandir(self._folder)):
                if entry.name == self._file.name or entry.name == _LOCK or entry.name.endswith(".new"):
                    continue
                with suppress(OSError, ValueError, KeyError, TypeError):
                    record = json.loads(Path(entry.path).read_text())
                    age_s = time.monotonic() - record["at"]
                    if 0 <= age_s < VOID_S:
                        yield list(record["scopes"]), int(record["bytes"])
                    elif not 0 <= age_s < LITTER_S:
                        os.unlink(entry.path)

    def _open_lock(self) -> int | None:
        """Return a descriptor of the file that is locked; None where nothing is shared."""
        with suppress(OSError):
            if self._has_folder:
                return os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return None

    def _make_folder(self) -> bool:
        """Return whether there is a folder that nobody else can write to."""
        if fcntl is None:
            return False
        with suppress(OSError):
            self._folder.mkdir(mode=0o700)
        with suppress(OSError):
            about = self._folder.lstat()
            return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022
        return False
