"""The CPUs and the memory that this process may use, by its CPU affinity and its control groups."""

from __future__ import annotations

import math
import os
from contextlib import suppress
from pathlib import Path

CGROUP = Path("/sys/fs/cgroup")


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
    return int(0.8 * _available_memory_bytes() / processes)


def _available_memory_bytes() -> int:
    found = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    limits = [folder / "memory.max" for folder in _own_groups("0::", CGROUP)]
    limits += [folder / "memory.limit_in_bytes" for folder in _own_groups(":memory:", CGROUP / "memory")]
    for limit in limits:
        with suppress(OSError, ValueError):
            found.append(int(limit.read_text()))  # the word "max" is no number: no limit
    return min(found)
