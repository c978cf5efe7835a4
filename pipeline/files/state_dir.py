"""The state folder: its identity, and the lock that admits one run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import re
import shutil
import stat
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AlreadyRunning, EnvironmentFailure
from pipeline.files.file_system import describe, mount_of, read_regular
from pipeline.files.sync import replace_durably

# What was read of the pipeline, as config/seal.py has it.
SEAL_FILE = "reading.seal"
# How often the lock file is read for the holder's name, at intervals of 0.01 s: a new holder writes it at once.
_HOLDER_READS = 100
_ID = re.compile(r"[0-9a-f]{16}")
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
# The number of runs whose logs are kept: a month of nights.
_KEPT_RUNS = 30
# How a file system says that it has no locks, or that its lock server does not answer.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass
class State:
    """The state folder of one pipeline, locked by this run until `close`."""

    folder: Path
    id: str
    run: str
    lock_fd: int
    is_prepared: bool = False
    """True if the contents of the temporary folders are this run's."""

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.sqlite"

    @property
    def scratch(self) -> Path:
        """The folder of the jobs' temporary files."""
        return self.folder / "scratch"

    @property
    def set_aside(self) -> Path:
        """The folder of this run for files, possibly the user's, that outputs replaced."""
        return self.folder / "set-aside" / self.run

    @property
    def slots(self) -> Path:
        """The folder in which the workers' stdout and stderr are captured."""
        return self.folder / "slots"

    @property
    def log(self) -> Path:
        """The file of this run's log."""
        return self.folder / "runs" / f"{self.run}.log"

    def prepare(self) -> None:
        """Remove the remains of killed runs, and all but the last logs; call it once no other run can be at work."""
        self.is_prepared = True
        # Nobody wants to commit a state folder.
        (self.folder / ".gitignore").write_text("*\n")
        for old in (self.scratch, self.folder / "parts"):  # older versions listed parts in files
            shutil.rmtree(old, ignore_errors=True)
        self.scratch.mkdir(mode=0o700, exist_ok=True)
        for name in ("ledger.seal", "ledger.open"):  # of older versions
            (self.folder / name).unlink(missing_ok=True)
        for log in sorted((self.folder / "runs").glob("*.log"))[: 1 - _KEPT_RUNS]:
            log.unlink(missing_ok=True)

    def keep_seal(self, seal: bytes) -> None:
        """Keep the seal of a reading if there is room for it; without it the next run reads the pipeline again."""
        new = self.folder / f"{SEAL_FILE}.new"
        with suppress(OSError):
            new.write_bytes(seal)
            new.replace(self.folder / SEAL_FILE)

    def hold_lock(self) -> None:
        """Make the lock file again if it was removed, so that no other run can begin. Raises OSError."""
        if _is_the_file(self.lock_fd, self.folder / "lock"):
            return
        fd = os.open(self.folder / "lock", _LOCK_FLAGS, 0o666)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            os.dup2(fd, self.lock_fd, inheritable=False)
            _write_holder(self.lock_fd)
        except BlockingIOError:  # a run that has just begun, which finds the ledger locked
            pass
        finally:
            os.close(fd)

    def close(self) -> None:
        """Remove the temporary folders and release the lock."""
        for folder in (self.scratch, self.slots) if self.is_prepared else ():
            shutil.rmtree(folder, ignore_errors=True)
        os.close(self.lock_fd)


def open_state(folder: Path, pipeline: str) -> State:
    """Lock the state folder, which is made where there is none. Raises AlreadyRunning, EnvironmentFailure."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        lock_fd = _lock(folder, pipeline)
        try:
            return State(folder, _identity(folder), _new_run(folder), lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise
    except OSError as error:
        said = describe(error, error.filename or folder)
        raise EnvironmentFailure(f"the state folder {folder} cannot be used: {said}") from error


def _lock(folder: Path, pipeline: str) -> int:
    """Lock the lock file and return its descriptor; the kernel releases the lock when the process ends."""
    while True:
        lock_fd = os.open(folder / "lock", _LOCK_FLAGS, 0o666)
        if not stat.S_ISREG(os.fstat(lock_fd).st_mode):
            os.close(lock_fd)
            raise EnvironmentFailure(f"{folder / 'lock'} is no regular file, and so no lock; remove it")
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _is_the_file(lock_fd, folder / "lock"):  # removed between the two: somebody may lock another
                os.close(lock_fd)
                continue
            _write_holder(lock_fd)
            return lock_fd
        except BlockingIOError:
            holder = _holder(lock_fd)
            os.close(lock_fd)
            raise AlreadyRunning(f"another run of {pipeline!r} is at work ({holder or 'just starting'})") from None
        except OSError as error:
            os.close(lock_fd)
            if error.errno in _NO_LOCKS:
                raise without_locks(folder, error) from error
            raise


def _write_holder(lock_fd: int) -> None:
    os.ftruncate(lock_fd, 0)
    os.pwrite(lock_fd, f"pid {os.getpid()} on {os.uname().nodename} since {time.strftime('%F %T')}\n".encode(), 0)


def _is_the_file(fd: int, file: Path) -> bool:
    """Return whether a descriptor is that of the file which has this name now."""
    try:
        return os.path.samestat(os.fstat(fd), os.stat(file))
    except FileNotFoundError:
        return False


def _holder(lock_fd: int) -> str:
    """Return who holds the lock, waiting up to a second for a new holder to write its name."""
    for _ in range(_HOLDER_READS):
        said = os.pread(lock_fd, 200, 0).decode("utf-8", "replace")
        if said.endswith("\n"):
            return said.strip()
        time.sleep(0.01)
    return ""


def without_locks(folder: Path, why: Exception) -> EnvironmentFailure:
    """Return the error for a file system that has no locks."""
    mount = mount_of(folder)
    lies = f" lies on {mount.kind} at {mount.place}, which" if mount.kind else ""
    return EnvironmentFailure(
        f"the state folder {folder}{lies} gives no locks ({why}); without them two runs could write at once",
        hint="keep it on a local disk, such as by `state: /var/lib/filemill/NAME` in the pipeline",
    )


def _new_run(folder: Path) -> str:
    """Return a new run id, which sorts by time and differs from those of all logs in the locked state folder."""
    while True:
        run = f"{time.strftime('%Y%m%d-%H%M%S')}-{os.urandom(2).hex()}"
        if not (folder / "runs" / f"{run}.log").exists():
            return run


def _identity(folder: Path) -> str:
    """Return the id of the state folder, created at the first run; it moves with the folder."""
    known = known_identity(folder)
    if not known:
        known = os.urandom(8).hex()
        # Owner files name it: without it nobody could tell after a power cut that their folders are ours.
        replace_durably(folder / "id", f"{known}\n".encode(), folder / "id.new")
    return known


def known_identity(folder: Path) -> str:
    """Return the state's id; empty where there is none yet, or the file is damaged."""
    try:
        known = read_regular(folder / "id").strip().decode("ascii", "replace")
    except FileNotFoundError:
        return ""
    return known if _ID.fullmatch(known) else ""
