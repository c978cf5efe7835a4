"""The state folder: its identity, the lock that lets one run at a time in, and who owns which output folder."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import AlreadyRunning, EnvironmentFailure, UsageError
from pipeline.mounts import mount_of
from pipeline.outputs import OWNER_FILE
from pipeline.refusals import describe

# Runs whose logs are kept.
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
        """Where jobs keep what they need only while they run."""
        return self.folder / "scratch"

    @property
    def slots(self) -> Path:
        """Where the workers' output is kept until it is read."""
        return self.folder / "slots"

    @property
    def log(self) -> Path:
        """This run's log."""
        return self.folder / "runs" / f"{self.run}.log"

    def close(self) -> None:
        """Remove the scratch folder and let the next run in."""
        shutil.rmtree(self.scratch, ignore_errors=True)
        os.close(self.lock_fd)


def open_state(folder: Path, pipeline: str) -> State:
    """Lock the state folder, made where there is none. Raises AlreadyRunning, EnvironmentFailure."""
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
    """The locked file's descriptor; the lock is gone with the process, however it ends."""
    lock_fd = os.open(folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock_fd, 0)
        os.pwrite(lock_fd, f"pid {os.getpid()} on {socket.gethostname()} since {time.strftime('%F %T')}\n".encode(), 0)
        return lock_fd
    except BlockingIOError:
        holder = os.pread(lock_fd, 200, 0).decode("utf-8", "replace").strip()
        os.close(lock_fd)
        raise AlreadyRunning(f"another run of {pipeline!r} is at work ({holder or 'just starting'})") from None
    except OSError as error:
        os.close(lock_fd)
        if error.errno in _NO_LOCKS:
            raise without_locks(folder, error) from error
        raise


def without_locks(folder: Path, why: Exception) -> EnvironmentFailure:
    """What is said where the file system does not let one process keep the others out."""
    mount = mount_of(folder)
    lies = f" lies on {mount.kind} at {mount.place}, which" if mount.kind else ""
    return EnvironmentFailure(
        f"the state folder {folder}{lies} gives no locks ({why}); without them two runs could write at once",
        hint="keep it on a local disk, such as by `state: /var/lib/filemill/NAME` in the pipeline",
    )


def _prepare(state: State) -> State:
    """Clear away what a killed run left in the folder, and logs too old to be of use."""
    # Nobody wants to commit a state folder.
    (state.folder / ".gitignore").write_text("*\n")
    shutil.rmtree(state.scratch, ignore_errors=True)
    state.scratch.mkdir(exist_ok=True)
    for old in sorted((state.folder / "runs").glob("*.log"))[: 1 - _KEPT_RUNS]:
        old.unlink(missing_ok=True)
    return state


def _new_run() -> str:
    """A run's id: sorts by time, and is told apart from another of the same second."""
    return f"{time.strftime('%Y%m%d-%H%M%S')}-{secrets.token_hex(2)}"


def _identity(folder: Path) -> str:
    """The state's id, which moves with its folder; made at the first run."""
    file, new = folder / "id", folder / "id.new"
    known = file.read_text().strip() if file.exists() else ""
    if not known:
        known = secrets.token_hex(8)
        new.write_text(known + "\n")
        new.replace(file)
    return known


def claim(output_folder: bytes, state: State, pipeline: str) -> None:
    """Say in an output folder whose it is, or refuse to write into another pipeline's. Raises UsageError."""
    place = Path(os.fsdecode(output_folder))
    ours = {
        "state": state.id,
        "pipeline": pipeline,
        "host": socket.gethostname(),
        "state_folder": str(state.folder),
        "folder": str(place),
    }
    try:
        place.mkdir(parents=True, exist_ok=True)
        owner = _owner(place)
        if owner == ours:
            return
        if owner and _is_anothers(owner, ours):
            raise UsageError(
                f"{place} belongs to pipeline {owner.get('pipeline')!r} (state {owner.get('state_folder')} on "
                f"{owner.get('host')}); two pipelines cannot write into one folder",
                hint=f"give this one another output; if that pipeline is gone, remove {place / OWNER_FILE}",
            )
        # Of one name, so that what a killed run left is used up by the next.
        temporary = place / f"{OWNER_FILE}-owner"
        temporary.write_text(json.dumps(ours, indent=1) + "\n")
        temporary.rename(place / OWNER_FILE)
    except OSError as error:
        said = describe(error, error.filename or place)
        raise EnvironmentFailure(f"the output folder {place} cannot be used: {said}") from error


def _owner(place: Path) -> dict[str, Any] | None:
    try:
        owner = json.loads((place / OWNER_FILE).read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _is_anothers(owner: dict[str, Any], ours: dict[str, str]) -> bool:
    if owner.get("folder") != ours["folder"]:
        # The folder was moved or copied here, and the owner file with it.
        return owner.get("state") != ours["state"]
    if owner.get("state") != ours["state"]:
        # Unless the same state folder was removed and is made anew.
        return (owner.get("state_folder"), owner.get("host")) != (ours["state_folder"], ours["host"])
    # One id in two places: a copied state, if the first is still there.
    elsewhere = Path(str(owner.get("state_folder")))
    return str(elsewhere) != ours["state_folder"] and _still_there(elsewhere, ours["state"])


def _still_there(state_folder: Path, state_id: str) -> bool:
    try:
        return (state_folder / "id").read_text().strip() == state_id
    except OSError:
        return False
