"""The program run as a user runs it."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

ROOT = Path(__file__).resolve().parents[2]


Pipeline = Callable[..., "subprocess.CompletedProcess[str]"]
T = TypeVar("T")


def wait_until(condition: Callable[[], T], most_s: float = 60) -> T:
    """Wait for an event, looking a hundred times a second; returns what `condition` returned when it was true.

    The limit is no promise: it is far above what a busy machine needs, and only makes a test fail instead of hang.
    """
    deadline = time.monotonic() + most_s
    while not (found := condition()):
        assert time.monotonic() < deadline, f"waited for {most_s:g} s in vain"
        time.sleep(0.01)
    return found


def wait_until_gone(pids: Iterable[int], most_s: float = 30) -> None:
    """Wait until none of these processes is running."""
    pids = list(pids)
    wait_until(lambda: not any(map(is_running, pids)), most_s)


def pids_in(file: Path, count: int) -> list[int]:
    """The process ids in a file that somebody is about to write, once there are so many."""
    return wait_until(lambda: file.exists() and len(found := file.read_text().split()) >= count and [*map(int, found)])


def kill(pid: int) -> None:
    """Kill a process that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


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
