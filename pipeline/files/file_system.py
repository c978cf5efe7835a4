"""Opens regular files, finds the file system of a path, and describes the errors that file systems raise."""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Collection
from io import FileIO
from pathlib import Path
from typing import NamedTuple

from pipeline.errors import EnvironmentFailure, SourceUnreachable
from pipeline.files.process_limits import describe_refusal, is_start_refused
from pipeline.text import shown

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system."""

    place: str
    kind: str


def mount_of(path: Path) -> Mount:
    """Return the mount on which a path lies; its fields are empty where /proc does not tell."""
    try:
        return parse(Path("/proc/self/mountinfo").read_bytes(), os.fsencode(os.path.realpath(path)))
    except OSError:
        return Mount("", "")


def parse(mountinfo: bytes, path: bytes) -> Mount:
    """Return the mount of a resolved path from the kernel's list; of several at one place the last is on top."""
    found, length = Mount("", ""), -1
    for line in mountinfo.splitlines():
        fields, _, rest = line.partition(b" - ")
        columns, about = fields.split(), rest.split()
        if len(columns) < 5 or not about:
            continue
        place = _ESCAPED.sub(lambda match: bytes([int(match[1], 8)]), columns[4])
        is_above = path == place or path.startswith(place.rstrip(b"/") + b"/")
        if is_above and len(place) >= length:
            found, length = Mount(os.fsdecode(place), os.fsdecode(about[0])), len(place)
    return found


def folders_above_mount(path: bytes) -> int:
    """Return how many folders lie between a path and the mount it is on, or would be on: 0 for a mount of its own.

    It is greater than it was where a disk is not mounted any more. The numbers of devices do not tell that, since they
    change when the machine is started.
    """
    path, device, count = os.path.realpath(path), None, 0
    while (above := os.path.dirname(path)) != path:
        device_above = _device_of(above)
        device = _device_of(path) if device is None else device
        if device is not None and device_above != device:
            return count
        path, device, count = above, device_above, count + 1
    return count


def _device_of(path: bytes) -> int | None:
    try:
        return os.stat(path).st_dev
    except OSError:
        return None


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
        is_of_one = causes is READING and error.errno not in OPENING
        return (SourceUnreachable if is_of_one else EnvironmentFailure)(describe(error, path))
    return error


def is_of_file(error: BaseException, path: str) -> bool:
    """Return whether a stage that was given a path may have met an error in opening or reading that file."""
    if not isinstance(error, OSError):
        return False
    if error.filename is None:  # it was open already
        return error.errno in _DISK
    return isinstance(error.filename, (str, bytes, os.PathLike)) and os.fsencode(error.filename) == os.fsencode(path)


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


def describe_room(path: bytes | str | Path) -> str:
    """Describe the file system of a path and its free space, in brackets; empty where it cannot be known."""
    place = os.fsencode(path)
    while not os.path.isdir(place) and place not in (b"", b"/"):
        place = os.path.dirname(place)
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
