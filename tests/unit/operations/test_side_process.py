"""A forked process answers, or it does not; it never holds up or outlives the one that asked."""

from __future__ import annotations

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from pipeline.operations.side_process import beside


@pytest.mark.parametrize("answer", [b"", b"\0\1", b"x" * 300_000])
def test_the_answer_is_what_the_work_returned(answer: bytes) -> None:
    with beside(lambda: answer, ()) as answered:
        assert answered() == answer


def children() -> list[str]:
    return Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()


def die() -> bytes:
    os.kill(os.getpid(), signal.SIGKILL)
    return b"never"


def fail() -> bytes:
    raise MemoryError


def leave() -> bytes:
    raise SystemExit(3)


@pytest.mark.parametrize("work", [die, fail, leave])
def test_without_an_answer_nothing_is_known(work: object) -> None:
    assert callable(work)
    with beside(work, ()) as answered:
        assert answered() is None


def test_nobody_waits_for_an_answer_that_is_not_wanted() -> None:
    """The forked process is ended, and is no zombie."""

    def sleep() -> bytes:
        time.sleep(1000)
        return b""

    before = children()
    with pytest.raises(KeyboardInterrupt), beside(sleep, ()):
        assert len(children()) == len(before) + 1
        raise KeyboardInterrupt
    assert children() == before


def test_it_does_not_hold_what_it_should_not_inherit() -> None:
    """A lock ends with the process that took it."""
    read_fd, write_fd = os.pipe()

    def work() -> bytes:
        try:
            os.fstat(read_fd)
        except OSError:
            return b"closed"
        return b"open"

    with beside(work, (read_fd,)) as answered:
        assert answered() == b"closed"
    os.close(read_fd)
    os.close(write_fd)
