"""Opens regular files, finds the file system of a path, and describes the errors that file systems raise."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from io import FileIO
from pathlib import Path

from pipeline.errors import EnvironmentFailure, FolderDenied, SourceUnreachable
from pipeline.files.process_limits import describe_refusal, is_start_refused
from pipeline.records import NamedTuple
from pipeline.text import shown

_MOUNTS = Path("/proc/self/mountinfo")
_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system."""

    place: str
    kind: str


def mount_of(path: Path, mounts_file: Path = _MOUNTS) -> Mount:
    """Return the mount on which a path lies; its fields are empty where the kernel's list does not tell."""
    place, found = os.fsencode(os.path.realpath(path)), Mount("", "")
    try:
        mounts = _read_mounts(mounts_file)
    except OSError:
        return found
    for each in mounts:  # of several at one place the last is on top
        if _is_at_or_below(place, os.fsencode(each.place)) and len(each.place) >= len(found.place):
            found = each
    return found


def _read_mounts(file: Path) -> list[Mount]:
    """Return all mounts from the kernel's list. Raises OSError."""
    found = []
    for line in file.read_bytes().splitlines():
        fields, _, rest = line.partition(b" - ")
        columns, about = fields.split(), rest.split()
        if len(columns) >= 5 and about:
            place = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), columns[4])
            found.append(Mount(os.fsdecode(place), os.fsdecode(about[0])))
    return found


def _is_at_or_below(path: bytes, folder: bytes) -> bool:
    return path == folder or path.startswith(folder.rstrip(b"/") + b"/")


class MountPoints:
    """The mount points of the machine, as they were when this was made; they tell what the numbers of devices do not.

    Those are others after a reboot, and one file system that is mounted at two places has one.
    """

    def __init__(self, mounts_file: Path = _MOUNTS) -> None:
        self._places: frozenset[bytes] | None = None
        try:
            self._places = frozenset(os.fsencode(each.place) for each in _read_mounts(mounts_file))
        except OSError:  # no /proc: each path is looked at
            pass

    def __contains__(self, path: bytes) -> bool:
        return os.path.ismount(path) if self._places is None else path in self._places

    def above(self, path: bytes) -> bytes:
        """Return the mount point on which a resolved path lies, or would lie; it may be the path."""
        while path not in self and path != os.path.dirname(path):
            path = os.path.dirname(path)
        return path

    def below(self, folder: bytes) -> list[bytes]:
        """Return the mount points below a resolved folder, relative to it; none are known where there is no /proc."""
        folder = os.path.join(folder, b"")
        return [place[len(folder) :] for place in self._places or () if place.startswith(folder) and place != folder]

    def lacks(self, mount_point: bytes, path: bytes) -> bool:
        """Return whether a resolved path lies at or below a former mount point, which is none now.

        What lies elsewhere now was moved, or is seen from a container, and `/` is always there.
        """
        is_one_below = mount_point not in (b"", b"/") and _is_at_or_below(path, mount_point)
        return is_one_below and mount_point not in self


def is_gone(path: bytes) -> bool:
    """Return whether nothing lies at a path; False where that cannot be determined."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
    return False


def is_regular(path: bytes) -> bool:
    """Return whether a regular file, and no link to one, lies at a path."""
    try:
        return stat.S_ISREG(os.lstat(path).st_mode)
    except OSError:
        return False


def has_no_file(path: bytes | str | Path) -> bool:
    """Return whether a path leads to no regular file, be it by a link; False where that cannot be determined."""
    try:
        return not stat.S_ISREG(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        return False


def open_regular(path: bytes | str | Path) -> FileIO:
    """Open a regular file for reading, unbuffered, and never wait, as opening a FIFO does. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        mode = os.fstat(fd).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
        if not stat.S_ISREG(mode):
            raise OSError(errno.EINVAL, "no regular file", path)
        return FileIO(fd, "rb")
    except BaseException:
        os.close(fd)
        raise


def read_regular(path: bytes | str | Path) -> bytes:
    """Return the contents of a regular file; never wait. Raises OSError."""
    with open_regular(path) as file:
        return file.read()


# The errors that are the machine's fault, by what was being done: no file is charged with an attempt for them.
# Whoever it is that meets it, a stage too:
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# When we open anything:
OPENING = FULL | {errno.EMFILE, errno.ENFILE}
# When a file is read that is open, and no socket has any of them:
_DISK = frozenset({
    errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO, errno.EREMOTEIO, errno.EUCLEAN, errno.EBADMSG, errno.ENOMEDIUM,
})  # fmt: skip
# When we open or read a file, whose disk or server may be gone:
READING = OPENING | _DISK | {
    errno.ENOTCONN, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.EHOSTUNREACH, errno.ENETDOWN, errno.ENETUNREACH,
}  # fmt: skip
# When we write; those that deny only where a folder is meant, rather than one file in it:
_DENIED = frozenset({errno.EACCES, errno.EPERM})
WRITING = READING | _DENIED | {errno.EROFS, errno.EFBIG}

_OPEN_FILES = {errno.EMFILE: "at most {} in one process: ulimit -n", errno.ENFILE: "in all processes: fs.file-max"}


def blame_machine(error: BaseException, path: bytes | str | Path, causes: Collection[int]) -> BaseException:
    """Return an EnvironmentFailure for an OSError with one of these causes; any other error as it is.

    It is a SourceUnreachable where a file was read and nothing says that others cannot be. That no process or thread
    can be started is the machine's fault whoever it is that meets it.
    """
    if is_start_refused(error):
        return EnvironmentFailure(describe_refusal())
    if (
        isinstance(error, OSError)
        and error.errno in causes
        and (error.errno not in _DENIED or _is_of_folder(error, path))
    ):
        text = describe(error, path)
        if causes is READING and error.errno not in OPENING:
            return SourceUnreachable(text)
        return FolderDenied(text) if error.errno in _DENIED else EnvironmentFailure(text)
    return error


def is_of_file(error: BaseException, path: bytes) -> bool:
    """Return whether a stage that was given a path may have met an error in opening or reading that file."""
    if not isinstance(error, OSError):
        return False
    if error.filename is None:  # it was open already
        return error.errno in _DISK
    return isinstance(error.filename, (str, bytes, os.PathLike)) and os.fsencode(error.filename) == path


def _is_of_folder(error: OSError, path: bytes | str | Path) -> bool:
    """Return whether an error is about a new name in the folder of a path, or about a folder above it."""
    if error.filename2 is not None or not isinstance(error.filename, (bytes, str)):
        return False
    denied, path = os.fsencode(error.filename), os.fsencode(path)
    return os.path.dirname(denied) == os.path.dirname(path) or path.startswith(denied + b"/")


def describe(error: OSError, path: bytes | str | Path) -> str:
    """Describe an OSError with its path, as in `out/a.jpg: no space left on device (tmpfs at /mnt/x: ...)`."""
    said = error.strerror or str(error)
    return f"{shown(os.fsencode(path))}: {said[:1].lower()}{said[1:]}{_particulars(error.errno, path)}"


def _particulars(number: int | None, path: bytes | str | Path) -> str:
    if number in _OPEN_FILES:
        most = os.sysconf("SC_OPEN_MAX")
        return f" ({_OPEN_FILES[number].format(f'{most:,}')})"
    return describe_room(path) if number in WRITING - _DENIED else ""


def _nearest_folder(path: bytes | str | Path) -> bytes:
    """Return the path, or the folder above it that exists; empty for the working folder."""
    place = os.fsencode(path)
    while not os.path.isdir(place) and place not in (b"", b"/"):
        place = os.path.dirname(place)
    return place


def free_bytes(path: bytes | str | Path) -> int | None:
    """Return the free space of the file system on which a path is or would be; None where it cannot be known."""
    try:
        found = os.statvfs(_nearest_folder(path) or b".")
    except OSError:
        return None
    return found.f_bavail * found.f_frsize


def describe_room(path: bytes | str | Path) -> str:
    """Describe the file system of a path and its free space, in brackets; empty where it cannot be known."""
    place = _nearest_folder(path)
    try:
        found = os.statvfs(place or b".")
    except OSError:
        return ""
    mount = mount_of(Path(os.fsdecode(place or b".")))
    where = f"{mount.kind} at {shown(os.fsencode(mount.place))}: " if mount.kind else ""
    inodes = f", {found.f_favail:,} of {found.f_files:,} inodes free" if found.f_files else ""
    room = _in_units(found.f_bavail * found.f_frsize, found.f_blocks * found.f_frsize)
    return f" ({where}{room} free{inodes})"


def _in_units(part_bytes: int, all_bytes: int) -> str:
    unit, name = (10**9, "GB") if all_bytes >= 10**10 else (10**6, "MB")
    return f"{part_bytes / unit:,.1f} of {all_bytes / unit:,.1f} {name}"
