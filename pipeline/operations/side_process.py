"""Does a part of a task in a forked process, whose answer is a few bytes.

It is for a process that has imported little and has no other thread. Whatever goes wrong in the forked one, its answer
is None.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress

_CHUNK_BYTES = 1 << 16


def can_help() -> bool:
    """Return whether another process would run beside this one, which has no other thread."""
    try:
        return len(os.sched_getaffinity(0)) > 1 and len(os.listdir("/proc/self/task")) == 1
    except (AttributeError, OSError):  # not on Linux
        return False


@contextmanager
def beside(work: Callable[[], bytes], not_inherited: Sequence[int]) -> Iterator[Callable[[], bytes | None]]:
    """Have a forked process do some work meanwhile; its end is waited for, and forced where nobody wants the answer.

    Args:
        work: Function that returns the answer.
        not_inherited: Descriptors that the forked process closes, such as that of a lock.

    Yields:
        A function that waits for the answer, and returns None where there is none.
    """
    read_fd, write_fd = os.pipe()
    try:
        pid = os.fork()
    except BaseException:
        os.close(read_fd)
        os.close(write_fd)
        raise
    if pid == 0:
        _answer(work, write_fd, (read_fd, *not_inherited))
    os.close(write_fd)
    try:
        yield lambda: _answer_from(read_fd)
    finally:
        os.close(read_fd)
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def _answer(work: Callable[[], bytes], write_fd: int, not_inherited: Sequence[int]) -> None:
    """Do the work and write the answer, after its length; end this process in any case."""
    try:
        for fd in not_inherited:
            os.close(fd)
        data = work()
        data = len(data).to_bytes(8) + data
        while data:
            data = data[os.write(write_fd, data) :]
    finally:
        os._exit(0)


def _answer_from(read_fd: int) -> bytes | None:
    data = b"".join(iter(lambda: os.read(read_fd, _CHUNK_BYTES), b""))
    return data[8:] if len(data) >= 8 and int.from_bytes(data[:8]) == len(data) - 8 else None
