"""The CPUs and the memory that this process may use, by its CPU affinity and its control groups."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from pipeline.records import dataclass

CGROUP = Path("/sys/fs/cgroup")
# Of the memory of the machine or of a control group: the rest is for the parent, other programs, and surprises.
USED_SHARE = 0.8


@dataclass(frozen=True)
class MemoryBound:
    """The memory that is free at this moment in the machine, or in a control group that has a limit."""

    scope: str
    """The folder of the group; empty for the machine."""
    available_bytes: int
    """What processes can still take, including the room of file contents that the kernel may drop."""


def available_processes() -> int:
    """Return the number of workers that keep the available CPUs busy, at least 1."""
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quota = min(filter(None, (_quota_v2(), _quota_v1())), default=None)
    return max(1, min(allowed, math.ceil(quota))) if quota else allowed


def _quota_v2() -> float | None:
    """Return the smallest `cpu.max` from our own control group up to the root, in CPUs; None if there is no quota."""
    quotas = []
    for folder in _own_groups("0::", CGROUP):
        with suppress(OSError, ValueError):
            quota, period = (folder / "cpu.max").read_text().split()
            quotas.append(int(quota) / int(period))  # the word "max" is no number: no quota
    return min(quotas, default=None)


def _quota_v1() -> float | None:
    quotas = []
    for folder in _own_groups(":cpu,cpuacct:", CGROUP / "cpu,cpuacct") + _own_groups(":cpu:", CGROUP / "cpu"):
        with suppress(OSError, ValueError):
            quota = int((folder / "cpu.cfs_quota_us").read_text())
            if quota > 0:
                quotas.append(quota / int((folder / "cpu.cfs_period_us").read_text()))
    return min(quotas, default=None)


def _own_groups(mark: str, root: Path) -> list[Path]:
    """Return the folders of our control group and all groups above it; in a container the root is our own group."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            before, found, path = line.partition(mark)
            if found and (before == "" or before.isdigit()):
                own = root / path.strip("/")
                return [own, *(parent for parent in own.parents if parent.is_relative_to(root))]
    return [root]


def memory_share_bytes(processes: int) -> int:
    """Return the memory that each of `processes` workers may use, so that a fifth of all memory stays free."""
    return int(USED_SHARE * _total_memory_bytes() / processes)


def memory_bounds() -> list[MemoryBound]:
    """Return what is free in the machine, in our control group and in all groups above it."""
    bounds, machine = [MemoryBound("", _free_in_machine())], _machine_bytes()
    for group in _memory_groups():
        with suppress(OSError, ValueError):  # the word "max" is no number: no limit
            limit, used = int(group.limit.read_text()), int(group.used.read_text())
            if limit < machine:
                bounds.append(MemoryBound(str(group.folder), max(0, limit - used + _cached_bytes(group))))
    return bounds


def memory_kills() -> int:
    """Return how many processes the kernel has killed for want of memory, in our control group where there is one."""
    for group in _memory_groups():
        if group.kills.exists():
            return _field(group.kills, "oom_kill")
    return _field("/proc/vmstat", "oom_kill")


def _total_memory_bytes() -> int:
    found = [_machine_bytes()]
    for group in _memory_groups():
        with suppress(OSError, ValueError):
            found.append(int(group.limit.read_text()))
    return min(found)


def _machine_bytes() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_in_machine() -> int:
    return _field("/proc/meminfo", "MemAvailable:") << 10 or _machine_bytes()


@dataclass(frozen=True)
class _MemoryGroup:
    """The files of a control group that tell of its memory."""

    folder: Path
    limit: Path
    used: Path
    kills: Path
    cached: tuple[str, ...]
    """The lines of memory.stat with the contents of files that the kernel drops when it needs room."""


def _memory_groups() -> Iterator[_MemoryGroup]:
    """Yield our own control group and all groups above it, of either version."""
    for folder in _own_groups("0::", CGROUP):
        used, kills = folder / "memory.current", folder / "memory.events"
        yield _MemoryGroup(folder, folder / "memory.max", used, kills, ("inactive_file", "active_file"))
    for folder in _own_groups(":memory:", CGROUP / "memory"):
        used, kills = folder / "memory.usage_in_bytes", folder / "memory.oom_control"
        cached = "total_inactive_file", "total_active_file"
        yield _MemoryGroup(folder, folder / "memory.limit_in_bytes", used, kills, cached)


def _cached_bytes(group: _MemoryGroup) -> int:
    return sum(_field(group.folder / "memory.stat", name) for name in group.cached)


def _field(file: Path | str, name: str) -> int:
    """Return the number after a name in a file of the kernel; 0 if there is none."""
    for line in _lines(file):
        words = line.split()
        if words[0] == name:
            return int(words[1])
    return 0


def _lines(file: Path | str) -> list[str]:
    with suppress(OSError):
        return Path(file).read_text().splitlines()
    return []
