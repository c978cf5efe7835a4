"""Runs the program as a user does: as a process, on a terminal, or killed."""

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
    """Call `condition` a hundred times a second until its result is true, and return that.

    The limit only makes a test fail instead of hang: it is far above what a busy machine needs.
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
    """Wait until a file holds so many process ids, and return them."""
    return wait_until(lambda: file.exists() and len(found := file.read_text().split()) >= count and [*map(int, found)])


def kill(pid: int) -> None:
    """Kill a process that may have ended by itself."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def is_running(pid: int) -> bool:
    """Whether a process exists and is not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def answered(arguments: str, answer: str, cwd: Path) -> tuple[int, str]:
    """Run the program on a terminal, type an answer, and return the text of the screen."""
    return on_terminal(f"python -m pipeline {arguments}", cwd, f"{answer}\n")


def on_terminal(command: str, cwd: Path, typed: str = "") -> tuple[int, str]:
    """Run a shell command on a terminal of its own, and return the exit code and the text of the screen."""
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
