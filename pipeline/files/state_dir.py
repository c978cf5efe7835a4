"""The state folder: its identity, and the lock that admits one run at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import AlreadyRunning, EnvironmentFailure
from pipeline.files.file_system import describe, mount_of

# How often the lock file is read for the holder's name, at intervals of 0.01 s: a new holder writes it at once.
_HOLDER_READS = 100
# The number of runs whose logs are kept: a month of nights.
_KEPT_RUNS = 30
# How a file system says that it has no locks, or that its lock server does not answer.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


@dataclass(frozen=True)
class State:
    """The state folder of one pipeline, locked by this run until `close`."""

    folder: Path
    id: str
    run: str
    lock_fd: int

    @property
    def ledger(self) -> Path:
        """The ledger's file."""
        return self.folder / "ledger.sqlite"

    @property
    def scratch(self) -> Path:
        """The folder of the jobs' temporary files."""
        return self.folder / "scratch"

    @property
    def parts(self) -> Path:
        """The folder in which workers list the parts that they are about to write."""
        return self.folder / "parts"

    @property
    def slots(self) -> Path:
        """The folder in which the workers' stdout and stderr are captured."""
        return self.folder / "slots"

    @property
    def log(self) -> Path:
        """The file of this run's log."""
        return self.folder / "runs" / f"{self.run}.log"

    def close(self) -> None:
        """Remove the temporary folders and release the lock."""
        for folder in (self.scratch, self.slots):
            shutil.rmtree(folder, ignore_errors=True)
        os.close(self.lock_fd)


def open_state(folder: Path, pipeline: str) -> State:
    """Lock the state folder, which is made where there is none. Raises AlreadyRunning, EnvironmentFailure."""
    try:
        (folder / "runs").mkdir(parents=True, exist_ok=True)
        lock_fd = _lock(folder, pipeline)
        try:
            return _prepare(State(folder, _identity(folder), _new_run(), lock_fd))
        except BaseException:
            os.close(lock_fd)
            raise
    except OSError as error:
        said = describe(error, error.filename or folder)
        raise EnvironmentFailure(f"the state folder {folder} cannot be used: {said}") from error


def _lock(folder: Path, pipeline: str) -> int:
    """Lock the lock file and return its descriptor; the kernel releases the lock when the process ends."""
    lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n".encode(), 0)
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


def _prepare(state: State) -> State:
    """Remove what a killed run left in the folder, and all but the last logs."""
    # So that a state folder inside a repository is not committed by accident.
    (state.folder / ".gitignore").write_text("*\n")
    shutil.rmtree(state.scratch, ignore_errors=True)
    state.scratch.mkdir(exist_ok=True)
    for old in sorted((state.folder / "runs").glob("*.log"))[: 1 - _KEPT_RUNS]:
        old.unlink(missing_ok=True)
    return state


def _new_run() -> str:
    """Return a new run id, which sorts by time and differs from others of the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _identity(folder: Path) -> str:
    """Return the id of the state folder, created at the first run; it moves with the folder."""
    known = known_identity(folder)
    if not known:
        known, new = secrets.token_hex(8), folder / "id.new"
        new.write_text(known + "\n")
        new.replace(folder / "id")
    return known


def known_identity(folder: Path) -> str:
    """Return the id of the state folder; empty before the first run."""
    file = folder / "id"
    return file.read_text().strip() if file.exists() else ""
