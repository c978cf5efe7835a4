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


def test_this_machine_makes_sense() -> None:
    """At least one process, no more than there are CPUs, and memory for each."""
    assert 1 <= host.available_processes() <= (os.cpu_count() or 1)
    assert 0 < host.memory_share_bytes(2) < host.memory_share_bytes(1)
