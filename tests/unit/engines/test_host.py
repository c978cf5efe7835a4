"""What of the machine may be used: control groups as kernels and containers lay them out, in a folder of our own."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pipeline.engines import host


@pytest.fixture
def groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty tree in the place of /sys/fs/cgroup, on a machine of eight CPUs that we may all use."""
    monkeypatch.setattr(host, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    return tmp_path


def write(file: Path, text: str) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"{text}\n")


def own(file: str, text: str, groups: Path) -> Path:
    """Write a file of our own group of version 2, wherever that is on the machine that runs the test."""
    folder = host._own_groups("0::", groups)[0]
    write(folder / file, text)
    return folder


def test_without_a_quota_all_cpus_are_used(groups: Path) -> None:
    """As many as the affinity allows."""
    assert host.available_processes() == 8


@pytest.mark.parametrize(
    ("quota", "processes"),
    [("max 100000", 8), ("200000 100000", 2), ("150000 100000", 2), ("10000 100000", 1), ("9900000 100000", 8),
     ("nonsense", 8)],
)  # fmt: skip
def test_a_quota_of_version_2_bounds_them(groups: Path, quota: str, processes: int) -> None:
    """Rounded up, at least one, and never more than the affinity allows."""
    own("cpu.max", quota, groups)
    assert host.available_processes() == processes


def test_the_tightest_quota_above_us_counts(groups: Path) -> None:
    """A container's limit may be set on the group around ours."""
    write(groups / "cpu.max", "300000 100000")
    assert host.available_processes() == 3


@pytest.mark.parametrize("folder", ["cpu", "cpu,cpuacct"])
@pytest.mark.parametrize(("quota", "processes"), [("-1", 8), ("250000", 3)])
def test_a_quota_of_version_1_bounds_them(groups: Path, folder: str, quota: str, processes: int) -> None:
    """Under either of the names that the controller has."""
    write(groups / folder / "cpu.cfs_quota_us", quota)
    write(groups / folder / "cpu.cfs_period_us", "100000")
    assert host.available_processes() == processes


def test_memory_is_shared_out_with_a_fifth_left_to_others(groups: Path) -> None:
    """The limit of the control group where it is less than what the machine has."""
    machine = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert host.memory_share_bytes(1) == int(0.8 * machine)
    folder = own("memory.max", "max", groups)
    assert host.memory_share_bytes(4) == int(0.8 * machine / 4)
    write(folder / "memory.max", str(10**9))
    assert host.memory_share_bytes(4) == 200_000_000


def test_a_memory_limit_of_version_1_counts(groups: Path) -> None:
    """Older machines have it in a folder of its own."""
    write(groups / "memory" / "memory.limit_in_bytes", str(10**9))
    assert host.memory_share_bytes(2) == 400_000_000


def test_what_is_free_in_a_group_of_version_2(groups: Path) -> None:
    """Its limit without what is used, except for contents of files that the kernel may drop; if it has a limit."""
    folder = own("memory.max", "1000", groups)
    write(folder / "memory.current", "700")
    write(folder / "memory.stat", "anon 500\ninactive_file 30\nactive_file 20")
    machine, *others = host.memory_bounds()
    assert machine.scope == "" and 0 < machine.available_bytes < 1 << 50
    assert others == [host.MemoryBound(str(folder), 350)]
    write(folder / "memory.max", "max")
    assert [each.scope for each in host.memory_bounds()] == [""]


def test_what_is_free_in_a_group_of_version_1(groups: Path) -> None:
    """Without a limit the kernel writes a number that no machine has; what is over the limit is not free."""
    folder = groups / "memory"
    write(folder / "memory.limit_in_bytes", "1000")
    write(folder / "memory.usage_in_bytes", "700")
    write(folder / "memory.stat", "cache 400\ninactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20")
    assert host.MemoryBound(str(folder), 350) in host.memory_bounds()
    write(folder / "memory.usage_in_bytes", "2000")
    assert host.MemoryBound(str(folder), 0) in host.memory_bounds()
    write(folder / "memory.limit_in_bytes", "9223372036854771712")
    assert [each.scope for each in host.memory_bounds()] == [""]


@pytest.mark.parametrize("file", ["memory.events", "memory/memory.oom_control"])
def test_kills_of_the_kernel_are_counted(groups: Path, file: str) -> None:
    """Those of our own group, whichever version it is of; without a group those of the machine."""
    of_machine = host.memory_kills()
    assert of_machine >= 0
    version_2 = host._own_groups("0::", groups)[0]
    target = version_2 / file if "/" not in file else host._own_groups(":memory:", groups / "memory")[0] / file[7:]
    write(target, f"low 0\noom 8\noom_kill {of_machine + 7}")
    assert host.memory_kills() == of_machine + 7


def test_this_machine_makes_sense() -> None:
    """At least one process, no more than there are CPUs, and memory for each."""
    assert 1 <= host.available_processes() <= (os.cpu_count() or 1)
    assert 0 < host.memory_share_bytes(2) < host.memory_share_bytes(1)
