"""What tells one process of this machine from another, and whether it is there."""

from __future__ import annotations

import os
from pathlib import Path


def stat_of(pid: int) -> tuple[str, str]:
    """Return the state of a process, and its start in ticks, which with its pid identifies it; empty if it has ended.

    A process that has ended and is not waited for is none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return ("", "") if fields[0] in "ZX" else (fields[0], fields[19])
    except (OSError, IndexError):
        return "", ""


def process_namespace() -> str:
    """Return what tells whether two processes see each other; empty where the kernel does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
