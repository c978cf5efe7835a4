"""The state folder: what proves that it is ours, its identity, and the lock that admits one run at a time.

All that is removed or replaced in it has a name that only this program gives: fixed ones such as `ledger.sqlite`, and
in `scratch/`, `slots/`, `runs/` and `reports/` those with the id of a run. What else lies there is a person's, and
stays.
"""

from __future__ import annotations

import errno
import fcntl
import os
import re
import stat
import time
from contextlib import suppress
from pathlib import Path

from pipeline.errors import AlreadyRunning, EnvironmentFailure, UsageError
from pipeline.files.file_system import describe, mount_of, open_regular, read_regular
from pipeline.files.removal import remove_tree
from pipeline.files.set_aside import clear_scratch_folders
from pipeline.files.sync import replace_durably, replace_file
from pipeline.records import dataclass
from pipeline.text import counted, shown

# What was read of the pipeline, as config/seal.py has it.
SEAL_FILE = "reading.seal"
# What a run that left nothing to be done says to the next one, as operations/unchanged_note.py has it.
NOTE_FILE = "unchanged.note"
# The runs that this note has answered, as quiet_runs.py has them.
QUIET_RUNS_FILE = "quiet-runs"
# What was told of the runs before, as operations/endings.py has it.
TOLD_FILE = "told.json"
# The latest report in the folder of reports.
LATEST_REPORT, LATEST_PAGE = "report.json", "latest.html"
# How often the lock file is read for the holder's name, at intervals of 0.01 s: a new holder writes it at once.
_HOLDER_READS = 100
_ID = re.compile(r"[0-9a-f]{16}")
_RUN = re.compile(r"\d{8}-\d{6}-[0-9a-f]{4}")
_HOLDER = re.compile(rb"pid (\d+) on (.+) since [-\d]+ [:\d]+\n")
# Nobody else waits for a FIFO, or writes through a link, that somebody has put in the place of the lock.
_LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_PROBE_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
# Whoever can read a file can lock it: let that be nobody beyond the group.
_LOCK_MODE = 0o660
# The number of runs whose logs and reports are kept: a month of nights.
_KEPT_LOGS = 30
# How a file system says that it has no locks, or that its lock server does not answer.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EINVAL)


# The names of ours in a state folder; those of the ledger, its copies and what SQLite has beside them begin alike. Its
# own temporaries are no matter: they are removed before they are written, and whoever cannot do that says so.
# What is wrong with the folder of reports is the business of the report, and of no run.
_FOLDERS = ("runs", "scratch", "slots", "set-aside")
_FILES = ("lock", "id", "id.new", "progress.json", "progress.new", SEAL_FILE, f"{SEAL_FILE}.new",
          NOTE_FILE, f"{NOTE_FILE}.new", QUIET_RUNS_FILE, TOLD_FILE, f"{TOLD_FILE}.new")  # fmt: skip
_LEDGER = re.compile(r"ledger.*(?<!\.new)")
# What lies in a folder that is empty otherwise: a disk's own, and what keeps it in git.
_NOTHING = {"lost+found", ".gitignore", ".gitkeep"}
# What a run that was killed at once has made: the lock, empty, or written to and not brought to the disk.
_BEGUN = {"lock", "id.new", "runs"}
# The tables of every ledger, as its file has them, and the bytes of it in which they are looked for.
_TABLES = (b"SQLite format 3\0", b"CREATE TABLE outputs", b"CREATE TABLE recipes")
_TABLES_WITHIN_BYTES = 1 << 18
# How many of the names in a folder that is not ours are told.
_NAMED = 3


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
        """The folder of this run for the temporary files of its jobs."""
        return self.folder / "scratch" / self.run

    @property
    def set_aside(self) -> Path:
        """The folder of this run for files, possibly the user's, that outputs replaced."""
        return self.folder / "set-aside" / self.run

    @property
    def slots(self) -> Path:
        """The folder of this run in which the workers' stdout and stderr are captured."""
        return self.folder / "slots" / self.run

    @property
    def log(self) -> Path:
        """The file of this run's log."""
        return log_of_run(self.folder, self.run)

    def prepare(self) -> None:
        """Remove the remains of killed runs, and all but the last logs; call it once no other run can be running."""
        self.is_prepared = True
        # Nobody wants to commit a state folder, or else says so there.
        with suppress(FileExistsError), open(self.folder / ".gitignore", "x") as ignored:
            ignored.write("*\n")
        self._remove_temporary()
        self.scratch.parent.mkdir(mode=0o700, exist_ok=True)
        self.scratch.mkdir(mode=0o700)
        for log in logs_of_runs(self.folder)[: 1 - _KEPT_LOGS]:
            with suppress(OSError):
                log.unlink()

    def keep_report(self, data: bytes, page: bytes | None) -> Path:
        """Keep the report of this run, as JSON and, if there is one, as a page; return its file. Raises OSError.

        Both are there under the name of the run and as the latest, and private as the log is. Only those of the last
        runs are kept.
        """
        file = report_of_run(self.folder, self.run)
        folder = file.parent
        if folder.is_symlink():  # what is written or removed behind it may be anybody's
            raise NotADirectoryError(errno.ENOTDIR, "no folder, but a link; remove it", folder)
        folder.mkdir(exist_ok=True)
        kept = {file.name: data, LATEST_REPORT: data}
        if page is not None:
            file = file.with_suffix(".html")
            kept |= {file.name: page, LATEST_PAGE: page}
        else:  # that of an earlier run would be taken for this one's
            (folder / LATEST_PAGE).unlink(missing_ok=True)
        for name, contents in kept.items():
            replace_file(folder / name, contents, folder / f"{name}.new", mode=0o600)
        for report in reports_of_runs(self.folder)[:-_KEPT_LOGS]:
            for each in (report, report.with_suffix(".html")):
                with suppress(OSError):
                    each.unlink()
        return file

    def _remove_temporary(self) -> None:
        """Remove the temporary folders of all runs."""
        for folder in (self.scratch.parent, self.slots.parent):
            with suppress(OSError):
                for run in filter(_RUN.fullmatch, os.listdir(folder)):
                    if clear_scratch_folders(folder / run, self.set_aside):
                        remove_tree(folder / run)
            with suppress(OSError):
                folder.rmdir()

    def keep_seal(self, seal: bytes) -> None:
        """Keep the seal of a reading if there is room for it; without it the next run reads the pipeline again."""
        with suppress(OSError):
            replace_file(self.folder / SEAL_FILE, seal, self.folder / f"{SEAL_FILE}.new")

    def keep_note(self, note: bytes) -> None:
        """Keep the note that nothing is left to be done. Raises OSError.

        What lies there after a power cut is of another start of the machine, and so nothing is synced.
        """
        replace_file(self.folder / NOTE_FILE, note, self.folder / f"{NOTE_FILE}.new")

    def remove_note(self) -> None:
        """Remove that note, before anything is done. Raises OSError."""
        (self.folder / NOTE_FILE).unlink(missing_ok=True)

    def hold_lock(self) -> None:
        """Make the lock file again if it was removed, so that no other run can begin. Raises OSError."""
        if _is_the_file(self.lock_fd, self.folder / "lock"):
            return
        fd = os.open(self.folder / "lock", _LOCK_FLAGS, _LOCK_MODE)
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
        if self.is_prepared:
            self._remove_temporary()
        os.close(self.lock_fd)


def open_state(folder: Path, pipeline: str) -> State:
    """Lock the state folder, which is made where there is none. Raises UsageError, AlreadyRunning, EnvironmentFailure.

    Nothing is written to a folder that is in use and is no state of ours.
    """
    try:
        if problem := why_foreign(folder):
            raise UsageError(f"the state folder {shown(os.fsencode(folder))} {problem}")
        folder.mkdir(parents=True, exist_ok=True)
        refuse_irregular(folder)
        lock_fd = _lock(folder, pipeline)
        try:
            (folder / "runs").mkdir(exist_ok=True)
            return State(folder, _identity(folder), _new_run(folder), lock_fd)
        except BaseException:
            os.close(lock_fd)
            raise
    except OSError as error:
        said = describe(error, error.filename or folder)
        raise EnvironmentFailure(f"the state folder {folder} cannot be used: {said}") from error


def reopen_state(folder: Path) -> State | None:
    """Lock a state folder of ours as it is; None where that is not possible at once. Raises OSError."""
    try:
        lock_fd = _lock(folder, "")
    except (AlreadyRunning, EnvironmentFailure):
        return None
    try:
        return State(folder, known_identity(folder), _new_run(folder), lock_fd)
    except BaseException:
        os.close(lock_fd)
        raise


# -- what is ours ------------------------------------------------------------------------------------------------------


def why_foreign(folder: Path) -> str:
    """Return why a folder cannot be a state folder, in a part of a sentence; empty if it is new, empty or ours."""
    try:
        names = set(os.listdir(folder)) - _NOTHING
    except FileNotFoundError:
        is_link = os.path.islink(folder)
        return "is a link that leads nowhere; make what it leads to, or name another" if is_link else ""
    except NotADirectoryError:
        return "is no folder; name one that is new, empty or a state of filemill" if os.path.lexists(folder) else ""
    except OSError:  # whoever is to write there says what is wrong with it
        return ""
    if not names or is_ours(folder) or (names <= _BEGUN and not any(_is_filled(folder / each) for each in names)):
        return ""
    some = ", ".join(shown(os.fsencode(each)) for each in sorted(names)[:_NAMED])
    more = f" and {counted(len(names) - _NAMED, 'other')}" if len(names) > _NAMED else ""
    return f"is in use, and not by filemill ({some}{more}); name one that is new, empty or a state of filemill"


def is_ours(folder: Path) -> bool:
    """Return whether a folder has a file that only this program writes: an id, a lock or a ledger."""
    if _id_in(_head(folder / "id")) or _HOLDER.fullmatch(_head(folder / "lock")):
        return True
    heads = (_head(folder / f"ledger{each}.sqlite", _TABLES_WITHIN_BYTES) for each in ("", "-good"))
    return any(head.startswith(_TABLES[0]) and all(each in head for each in _TABLES) for head in heads)


def _head(file: Path, size_bytes: int = 200) -> bytes:
    """Return the first bytes of a regular file; none where there is no such file, or it cannot be read."""
    try:
        with open_regular(file) as opened:
            return opened.read(size_bytes)
    except OSError:
        return b""


def _is_filled(path: Path) -> bool:
    """Return whether there is anything in a file or a folder beside zeros, which a power cut leaves."""
    if path.is_dir() and not path.is_symlink():
        return any(path.iterdir())
    return not stat.S_ISREG(path.lstat().st_mode) or bool(_head(path).strip(b"\0"))


def refuse_irregular(folder: Path) -> None:
    """Raise EnvironmentFailure where a name of ours in a state folder is that of a link, a FIFO or the like.

    A FIFO would have its reader wait for ever, and what is written or removed behind a link may be anybody's.
    """
    if not folder.is_dir():
        return
    with os.scandir(folder) as entries:
        for each in entries:
            is_folder, is_file = each.name in _FOLDERS, each.name in _FILES or _LEDGER.fullmatch(each.name)
            if (is_folder and not each.is_dir(follow_symlinks=False)) or (
                is_file and not each.is_file(follow_symlinks=False)
            ):
                what = f"no {'folder' if is_folder else 'regular file'}{', but a link' if each.is_symlink() else ''}"
                raise EnvironmentFailure(f"{each.path} is {what}; remove it, and the same line goes on")


def log_of_run(folder: Path, run: str) -> Path:
    """Return the file of a run's log in a state folder."""
    return folder / "runs" / f"{run}.log"


def report_of_run(folder: Path, run: str) -> Path:
    """Return the file of a run's report in a state folder, as JSON; its page, if it has one, ends in `.html`."""
    return reports_folder(folder) / f"{run}.json"


def logs_of_runs(folder: Path) -> list[Path]:
    """Return the logs of the runs in a state folder, the oldest first; no other file that lies beside them."""
    return _files_of_runs(folder / "runs", ".log")


def reports_folder(folder: Path) -> Path:
    """Return the folder of the reports in a state folder."""
    return folder / "reports"


def reports_of_runs(folder: Path) -> list[Path]:
    """Return the reports of the runs in a state folder, each as JSON, the oldest first.

    Their order is that in which they were written: that of the names is another for runs within a second, or in the
    hour by which a clock is set back. Behind a link there are none of ours.
    """
    if reports_folder(folder).is_symlink():
        return []

    def written_at(report: Path) -> tuple[int, str]:
        with suppress(OSError):
            return report.stat().st_mtime_ns, report.name
        return 0, report.name

    return sorted(_files_of_runs(reports_folder(folder), ".json"), key=written_at)


def _files_of_runs(folder: Path, suffix: str) -> list[Path]:
    try:
        names = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError, PermissionError):
        return []
    return [folder / each for each in names if each.endswith(suffix) and _RUN.fullmatch(each.removesuffix(suffix))]


# -- the lock ----------------------------------------------------------------------------------------------------------


def _lock(folder: Path, pipeline: str) -> int:
    """Lock the lock file and return its descriptor; the kernel releases the lock when the process ends."""
    while True:
        lock_fd = os.open(folder / "lock", _LOCK_FLAGS, _LOCK_MODE)
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
            raise _locked_out(pipeline, holder) from None
        except OSError as error:
            os.close(lock_fd)
            if error.errno in _NO_LOCKS:
                raise without_locks(folder, error) from error
            raise


def _locked_out(pipeline: str, holder: str) -> AlreadyRunning:
    error = AlreadyRunning(f"another run of {pipeline!r} is running ({holder or 'just starting'})")
    if found := _HOLDER.fullmatch(f"{holder}\n".encode()):
        error.holder = int(found[1]), found[2].decode("utf-8", "replace")
    return error


def refuse_locked(folder: Path, pipeline: str) -> None:
    """Raise AlreadyRunning if a run holds the lock of a state folder now; nothing is written there.

    The file is opened by its name each time, since somebody may have put another in its place. Who is to lock it says
    what else is wrong with it.
    """
    with suppress(OSError):
        fd = os.open(folder / "lock", _PROBE_FLAGS)
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked_out(pipeline, _holder(fd)) from None
        finally:
            os.close(fd)


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
        if not log_of_run(folder, run).exists():
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
        return _id_in(read_regular(folder / "id"))
    except FileNotFoundError:
        return ""


def _id_in(data: bytes) -> str:
    known = data.strip().decode("ascii", "replace")
    return known if _ID.fullmatch(known) else ""
