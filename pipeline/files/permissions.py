"""The permissions of outputs: those that their folder gives, and no more than their source has."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator

from pipeline.records import NamedTuple

ALL = 0o666
"""The permissions of an output of which nothing but the folder decides."""
_READ_BY_OWNER = 0o400
_GROUP_SHIFT = 3
# An access control list as the kernel has it: a version, and then entries of a tag, permissions and an id.
_HEADER, _ENTRY = struct.Struct("<I"), struct.Struct("<HHI")
_TAG_GROUP = 0x04


class Permissions(NamedTuple):
    """The permissions that an output may have."""

    bits: int = ALL
    is_exact: bool = False
    """True if the pipeline says them by `output.mode`; else `bits` are the most that the output may have."""
    group: int | None = None
    """The group that has those of a group; None for any."""

    def of_group(self, group: int) -> Permissions:
        """Return the permissions for a file of a group: if it is another one, it has those of everybody."""
        if self.is_exact or self.group in (None, group):
            return self
        return self._replace(bits=self.bits & (~stat.S_IRWXG | (self.bits & stat.S_IRWXO) << _GROUP_SHIFT), group=group)

    def and_of(self, other: Permissions) -> Permissions:
        """Return the permissions that both have."""
        group = other.group if self.group is None else self.group
        if group is None:
            return Permissions(self.bits & other.bits)
        return Permissions(self.of_group(group).bits & other.of_group(group).bits, group=group)


def permissions_of(path: str | bytes, mode: int, group: int) -> Permissions:
    """Return the permissions of a file of this mode for outputs that are made of it; who makes them can read them.

    With an access control list the mode has the mask in place of the group's permissions, which may be fewer.
    """
    if (mode & stat.S_IRWXG) >> _GROUP_SHIFT & ~mode:  # else a group has nothing that others do not have
        for tag, bits, _ in _entries_of(path, "system.posix_acl_access"):
            if tag == _TAG_GROUP:
                mode &= ~stat.S_IRWXG | bits << _GROUP_SHIFT
    return Permissions(mode & ALL | _READ_BY_OWNER, group=group)


def current_umask() -> int:
    """Return the umask of this process, which has no other thread that makes files."""
    mask = os.umask(0o022)
    os.umask(mask)
    return mask


def has_access_list(path: str | bytes) -> bool:
    """Return whether a file has an access control list."""
    return any(_entries_of(path, "system.posix_acl_access"))


def has_default_list(folder: bytes) -> bool:
    """Return whether a folder has an access control list for new files, which holds in place of the umask."""
    return any(_entries_of(folder, "system.posix_acl_default"))


def _entries_of(path: str | bytes, name: str) -> Iterator[tuple[int, int, int]]:
    try:
        found = os.getxattr(path, name)
    except (OSError, AttributeError):  # none, or none on this file system or kind of system
        return iter(())
    return _ENTRY.iter_unpack(found[_HEADER.size :])
