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
import time
from collections.abc import Callable, Iterator, Sequence
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

_LOCK, _NEW = "lock", ".new"
_numbers = itertools.count(1)


def usual_folder() -> Path:
    """Return the folder that all runs of this user share: in memory, or else among the temporary files."""
    above = Path("/dev/shm")
    if not above.is_dir():
        import tempfile

        above = Path(tempfile.gettempdir())
    return above / f"filemill-{os.getuid() if hasattr(os, 'getuid') else 'all'}"


class PromiseBoard:
    """The promises of one engine, and those of the others in the same folder."""

    def __init__(self, scopes: Callable[[], Sequence[str]], folder: Path | None = None) -> None:
        """Read and write nothing yet.

        Args:
            scopes: Returns the bounds of memory that hold for this process, as in `host.MemoryBound`.
            folder: Where the promises are kept; by default `usual_folder()`.
        """
        self._find_scopes, self._scopes = scopes, [""]
        self._folder = folder or usual_folder()
        self._file = self._folder / f"{os.getpid()}-{next(_numbers)}"
        self._is_kept = False
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
        except OSError:
            self._busy_since = self._busy_since or time.monotonic()
            is_free = time.monotonic() - self._busy_since > VOID_S
        else:
            self._busy_since, is_free = None, True
        try:
            yield is_free
        finally:
            with suppress(OSError):
                fcntl.flock(lock, fcntl.LOCK_UN)  # a worker that was just forked has the descriptor, too
            os.close(lock)

    @property
    def has_others(self) -> bool:
        """True if any other engine has large jobs."""
        return any(True for _ in self._read_others())

    def others(self, scope: str) -> list[int]:
        """Return the bytes that each other engine with large jobs within a bound has promised to them."""
        return [promised for scopes, promised in self._read_others() if scope in scopes]

    def put(self, promised_bytes: int) -> None:
        """Let the others know that this engine has large jobs, and what these are yet to take."""
        if not self._is_kept:
            self._scopes = list(self._find_scopes())
        record = {"at": time.monotonic(), "bytes": promised_bytes, "scopes": self._scopes}
        new = self._file.with_suffix(_NEW)
        with suppress(OSError):  # it is a hint, and no reason to fail
            self._make_folder()
            if self._is_safe():
                self._is_kept = True
                new.write_text(json.dumps(record))
                new.replace(self._file)

    def withdraw(self) -> None:
        """Let the others know that this engine has no large jobs any more."""
        if self._is_kept:
            self._is_kept = False
            for file in self._file, self._file.with_suffix(_NEW):
                with suppress(OSError):
                    file.unlink()

    def _read_others(self) -> Iterator[tuple[list[str], int]]:
        """Yield the scopes and bytes of each valid promise of another engine."""
        with suppress(OSError):
            names = os.listdir(self._folder) if self._is_safe() else []
            for name in names:
                if name not in (_LOCK, self._file.name) and not name.endswith(_NEW):
                    with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
                        yield from _read(self._folder / name)

    def _open_lock(self) -> int | None:
        """Return a descriptor of the file that is locked; None where nothing can be shared."""
        with suppress(OSError):
            self._make_folder()
            if self._is_safe():
                return os.open(self._folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        return None

    def _make_folder(self) -> None:
        with suppress(FileExistsError):
            self._folder.mkdir(mode=0o700)

    def _is_safe(self) -> bool:
        """Return whether nobody else can write to the folder. Raises OSError."""
        if fcntl is None:
            return False
        about = self._folder.lstat()
        return stat.S_ISDIR(about.st_mode) and about.st_uid == os.geteuid() and not about.st_mode & 0o022


def _read(file: Path) -> Iterator[tuple[list[str], int]]:
    """Yield the scopes and bytes of a promise, unless it is void; remove it once nobody can be about to renew it."""
    record = json.loads(file.read_text())
    age_s = time.monotonic() - record["at"]
    if 0 <= age_s < VOID_S:
        yield list(record["scopes"]), int(record["bytes"])
    elif not 0 <= age_s < LITTER_S:
        file.unlink()
