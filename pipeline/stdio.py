"""Our stdout carries data only: what anybody else prints in this process goes to stderr."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


def open_missing() -> None:
    """Give this process the streams that its parent closed, so that to print or to read is never an error."""
    for name, number, mode in (("stdin", 0, "r"), ("stdout", 1, "w"), ("stderr", 2, "w")):
        if getattr(sys, name) is None:
            descriptor = os.open(os.devnull, os.O_WRONLY if number else os.O_RDONLY)
            if descriptor != number:
                os.dup2(descriptor, number)
                os.close(descriptor)
            os.set_inheritable(number, True)  # no pipe of a program that we start shall take its place
            setattr(sys, name, open(number, mode, encoding="utf-8", closefd=False))


def discard_stdout() -> None:
    """Send stdout to /dev/null, so that flushing it at interpreter exit cannot fail after its reader has gone."""
    _discard(1)


def print_error(text: object) -> None:
    """Print to stderr; where that cannot be written to, such as a log on a full disk, the exit code has to do."""
    line, is_kept = f"{text}\n", not getattr(sys.stderr, "write_through", False)
    for more in (line, "" if is_kept else line):  # what was refused may be taken now
        with suppress(OSError):
            sys.stderr.write(more)
            sys.stderr.flush()
            return
    _discard(2)


def _discard(number: int) -> None:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, number)
    os.close(descriptor)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this process, and the programs it starts, print to stdout to stderr instead.

    Does nothing outside the main thread: the redirection holds for the whole process, where other threads may print.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)
