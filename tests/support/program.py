"""The program run as a user runs it."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


Pipeline = Callable[..., "subprocess.CompletedProcess[str]"]


def is_running(pid: int) -> bool:
    """Whether there is such a process, and it is more than what its parent has yet to hear of."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def answered(arguments: str, answer: str, cwd: Path) -> tuple[int, str]:
    """Run the program on a terminal at which somebody types this, and see what is on the screen afterwards."""
    return on_terminal(f"python -m pipeline {arguments}", cwd, f"{answer}\n")


def on_terminal(command: str, cwd: Path, typed: str = "") -> tuple[int, str]:
    """Run a shell command on a terminal of its own; gives the exit code and what is on the screen afterwards."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | {"PATH": path, "TERM": "xterm", "COLUMNS": "120"}
    process = subprocess.Popen(
        command, shell=True, cwd=cwd, env=environment, stdin=theirs, stdout=theirs, stderr=theirs, close_fds=True
    )
    os.close(theirs)
    shown = b""
    while True:
        try:
            read = os.read(ours, 4096)
        except OSError:  # how Linux says that nobody has the other end open
            break
        if not read:
            break
        shown += read
    os.close(ours)
    lines = shown.decode().replace("\r\n", "\n").split("\n")
    # A bar is written over with spaces, and over that what follows.
    screen = [re.sub(r"\x1b\[[0-9;]*[A-Za-z]", "", line).split("\r")[-1].rstrip() for line in lines]
    return process.wait(60), "\n".join(screen).strip("\n")
