"""Which file system a path lies on, by its kind and where it is mounted."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import NamedTuple

_ESCAPED = re.compile(rb"\\([0-7]{3})")


class Mount(NamedTuple):
    """A mounted file system."""

    place: str
    kind: str


def mount_of(path: Path) -> Mount:
    """The file system that a path lies on; without a name where that cannot be known."""
    try:
        return parse(Path("/proc/self/mountinfo").read_bytes(), os.fsencode(os.path.realpath(path)))
    except OSError:
        return Mount("", "")


def parse(mountinfo: bytes, path: bytes) -> Mount:
    """The mount of a resolved path, by the kernel's list; of several at one place the last is on top."""
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
