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

from pipeline.errors import EnvironmentFailure
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


def is_gone(path: bytes) -> bool:
    """Return whether nothing lies at a path; False where that cannot be determined."""
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return True
    except OSError:
        pass
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


# No file can be to blame for a full disk, whoever it is that meets it.
FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
# Nor for what we are refused when we open it.
OPENING = FULL | {errno.EMFILE, errno.ENFILE}
# Nor for anything of this when it is we who write: a rerun on a healed machine needs no retry.
WRITING = OPENING | {errno.EROFS, errno.EIO, errno.ESTALE, errno.ENOTCONN}

_OPEN_FILES = {errno.EMFILE: "at most {} in one process: ulimit -n", errno.ENFILE: "in all processes: fs.file-max"}


def blame_machine(error: BaseException, path: bytes | str | Path, causes: Collection[int]) -> BaseException:
    """Return an EnvironmentFailure for an OSError with one of these causes; any other error as it is."""
    if isinstance(error, OSError) and error.errno in causes:
        return EnvironmentFailure(describe(error, path))
    return error


def describe(error: OSError, path: bytes | str | Path) -> str:
    """Describe an OSError with its path, as in `out/a.jpg: no space left on device (tmpfs at /mnt/x: ...)`."""
    said = error.strerror or str(error)
    return f"{shown(os.fsencode(path))}: {said[:1].lower()}{said[1:]}{_particulars(error.errno, path)}"


def _particulars(number: int | None, path: bytes | str | Path) -> str:
    if number in _OPEN_FILES:
        most = os.sysconf("SC_OPEN_MAX")
        return f" ({_OPEN_FILES[number].format(f'{most:,}')})"
    return describe_room(path) if number in WRITING else ""


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
