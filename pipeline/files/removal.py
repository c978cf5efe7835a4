"""Removes a folder of ours with all that lies in it, but nothing behind a link, or of what is mounted there."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OWNERS = 0o700


def remove_tree(folder: Path) -> None:
    """Remove a folder as far as that is possible; a mount in it stays, with all that it holds."""
    with suppress(OSError):
        above = os.open(folder.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _remove(folder.name, above, _mount_of(above))
        finally:
            os.close(above)


def _remove(name: str, above: int, mount: bytes | int) -> None:
    """Remove a folder of an open one unless it lies on another mount. Raises OSError where anything of it is left."""
    try:
        fd = os.open(name, _FOLDER, dir_fd=above)
    except PermissionError:  # as of a folder without permissions that a stage has unpacked
        os.chmod(name, _OWNERS, dir_fd=above)
        fd = os.open(name, _FOLDER, dir_fd=above)
    try:
        if _mount_of(fd) != mount:
            return
        with suppress(OSError):  # to remove something from it takes write permission
            os.fchmod(fd, _OWNERS)
        with os.scandir(fd) as entries:
            found = list(entries)
        for each in found:
            with suppress(OSError):
                if each.is_dir(follow_symlinks=False):
                    _remove(each.name, fd, mount)
                else:
                    os.unlink(each.name, dir_fd=fd)
    finally:
        os.close(fd)
    os.rmdir(name, dir_fd=above)


def _mount_of(fd: int) -> bytes | int:
    """Return what tells the mount of an open folder from others; a bind mount has the device of what it shows."""
    try:
        with open(f"/proc/self/fdinfo/{fd}", "rb") as info:
            return info.read().partition(b"mnt_id:")[2].split(maxsplit=1)[0]
    except (OSError, IndexError):
        return os.fstat(fd).st_dev
