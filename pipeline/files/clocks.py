"""The difference between a file system's clock and ours, which lags behind, and what names a start of the machine."""

from __future__ import annotations

import time
from pathlib import Path

CLOCK_SLACK_NS = 50_000_000
"""Nanoseconds by which the clock of the files may lag behind ours: the kernel's coarse clock ticks every 4 to 10 ms."""

_SECOND_NS = 1_000_000_000
# FAT keeps every other second, ext3 and HFS+ every one.
_COARSEST_NS = 2_000_000_000


def may_be_since(ctime_ns: int, since_ns: int) -> bool:
    """Return whether a file with this ctime may have changed at a moment or later, as far as its file system tells."""
    return since_ns <= ctime_ns or (ctime_ns % _SECOND_NS == 0 and since_ns < ctime_ns + _COARSEST_NS)


def boot_id() -> str:
    """Return the id of this start of the machine; empty if the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def wall_time_s(monotonic_ns: int) -> float:
    """Return what the system's clock, in seconds since 1970, showed at a moment of the monotonic clock."""
    return time.time() - (time.monotonic_ns() - monotonic_ns) / 1e9
