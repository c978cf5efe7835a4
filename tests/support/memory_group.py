"""A control group of the kernel with little memory, for tests of what happens when that runs out."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

ROOT = Path("/sys/fs/cgroup")


class MemoryGroup:
    """A control group of either version."""

    def __init__(self, limit_bytes: int) -> None:
        """Make the group. Raises OSError."""
        is_second = (ROOT / "cgroup.controllers").exists()
        self.folder = (ROOT if is_second else ROOT / "memory") / f"filemill-test-{os.getpid()}-{time.monotonic_ns()}"
        self._kills = self.folder / ("memory.events" if is_second else "memory.oom_control")
        limit = self.folder / ("memory.max" if is_second else "memory.limit_in_bytes")
        if not limit.parent.parent.is_dir():
            raise OSError("no controller of memory")
        self.folder.mkdir()
        try:
            limit.write_text(str(limit_bytes))
            if is_second:
                (self.folder / "memory.swap.max").write_text("0")
        except OSError:
            self.remove()
            raise

    def start(self, command: Sequence[str], cwd: Path, **environment: str) -> subprocess.Popen[str]:
        """Start a program in the group."""
        entered = ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self.folder / "cgroup.procs"), *command]
        pipe = subprocess.PIPE
        return subprocess.Popen(entered, cwd=cwd, env=os.environ | environment, stdout=pipe, stderr=pipe, text=True)

    @property
    def kills(self) -> int:
        """How many processes of the group the kernel has killed, since it had no memory for them."""
        lines = (line.split() for line in self._kills.read_text().splitlines())
        return next(int(count) for name, count in lines if name == "oom_kill")

    def remove(self) -> None:
        """Remove the group, once its last process has ended."""
        deadline = time.monotonic() + 10
        while self.folder.exists() and time.monotonic() < deadline:
            with suppress(OSError):
                self.folder.rmdir()
            time.sleep(0.01)


@contextmanager
def memory_group(limit_bytes: int) -> Iterator[MemoryGroup]:
    """Make a group, and remove it afterwards; skip the test where that is not permitted."""
    try:
        group = MemoryGroup(limit_bytes)
    except OSError as error:
        pytest.skip(f"needs to make control groups for memory: {error}")
    try:
        yield group
    finally:
        group.remove()
