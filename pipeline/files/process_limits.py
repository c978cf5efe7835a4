"""Recognises that the machine starts no more processes or threads, and says what limits them."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import WorkersFailed

if TYPE_CHECKING:
    import threading

_NO_THREAD = "can't start new thread"
# What a function calls that starts a process. EAGAIN has other meanings where none of them was called.
_STARTS = frozenset({"fork", "forkpty", "fork_exec", "_fork_exec", "posix_spawn"})
_GROUPS = Path("/sys/fs/cgroup")


def is_start_refused(error: BaseException) -> bool:
    """Return whether an error says that a process or a thread could not be started for want of room."""
    if isinstance(error, RuntimeError):
        return str(error) == _NO_THREAD
    trace = error.__traceback__
    if not isinstance(error, OSError) or error.errno != errno.EAGAIN or trace is None:
        return False
    while trace.tb_next:
        trace = trace.tb_next
    return not _STARTS.isdisjoint(trace.tb_frame.f_code.co_names)


def describe_refusal() -> str:
    """Say that no more processes or threads can be started, and what limits them."""
    limits = "; ".join(_limits())
    return f"no more processes or threads can be started{f' (at most {limits})' if limits else ''}"


def start_thread(thread: threading.Thread) -> None:
    """Start a thread. Raises WorkersFailed."""
    try:
        thread.start()
    except RuntimeError as error:
        if not is_start_refused(error):
            raise
        raise WorkersFailed(describe_refusal()) from error


def _limits() -> Iterator[str]:
    import resource

    of_user = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    if os.geteuid() and of_user != resource.RLIM_INFINITY:
        yield f"{of_user:,} of this user: ulimit -u"
    if of_group := min(_limits_of_groups(), default=0):
        yield f"{of_group:,} in this container or service: pids.max of its control group"


def _limits_of_groups() -> Iterator[int]:
    """Yield the limits of our control group and of all above it; in a container the root is our own group."""
    with suppress(OSError):
        for line in Path("/proc/self/cgroup").read_text().splitlines():
            _, controllers, path = line.split(":", 2)
            root = {"": _GROUPS, "pids": _GROUPS / "pids"}.get(controllers)
            folder = root and root / path.strip("/")
            for each in [folder, *folder.parents, root] if folder and root else []:
                with suppress(OSError, ValueError):  # the word "max" is no number: no limit
                    yield int((each / "pids.max").read_text())
