"""The standard streams: stdout carries data only, and a reader that has gone changes no exit code."""

from __future__ import annotations

import io
import os
import select
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout, suppress
from typing import Any, Literal, TextIO

from pipeline.text import printable


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


def outlive_readers() -> None:
    """Have this process go on printing, to nobody, once the reader of its stdout or stderr, such as `head`, has gone.

    What stderr cannot take, such as a log on a full disk, is dropped; of stdout, which carries data, that is an error.
    """
    for name in ("stdout", "stderr"):
        was = getattr(sys, name)
        if was is not getattr(sys, f"__{name}__"):  # /dev/null for a closed one, or the stream of whoever calls us
            continue
        is_prompt = was.line_buffering or was.write_through
        stream = outliving(was.fileno(), was.encoding, was.errors, line_buffering=is_prompt, closefd=False)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)


def outliving(number: int, encoding: str, errors: str, *, line_buffering: bool = False, closefd: bool = True) -> TextIO:
    """Open a descriptor as a text stream that outlives its reader."""
    raw = _Outliving(number, "w", closefd=closefd)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=line_buffering)


class _Outliving(io.FileIO):
    """A file whose writing goes on when its reader has gone, and waits where a pipe that does not block is full."""

    def write(self, data: Any) -> int:
        while True:
            try:
                written = super().write(data)
            except BrokenPipeError:
                _discard(self.fileno())
                return memoryview(data).nbytes
            except OSError as error:
                if self.fileno() == 2:
                    return memoryview(data).nbytes
                error.filename = "stdout"
                raise
            if written is not None:
                return written
            select.select([], [self.fileno()], [])


def discard_stdout() -> None:
    """Send stdout to /dev/null, so that flushing it at interpreter exit cannot fail once more."""
    _discard(1)


def print_error(text: object) -> None:
    """Print to stderr; where that cannot be written to, such as a log on a full disk, the exit code has to do.

    The notes of an error are what could not be told of it to others.
    """
    lines = [str(text), *(f"warning: {each}" for each in getattr(text, "__notes__", ()))]
    with suppress(OSError):
        print(printable("\n".join(lines)), file=sys.stderr, flush=True)


def has_escapes(stream: TextIO) -> bool:
    """Return whether a stream is a terminal that knows escape sequences."""
    return stream.isatty() and os.environ.get("TERM", "dumb") != "dumb"


def has_color(stream: TextIO) -> bool:
    """Return whether a stream is a terminal on which colors are wanted; see https://no-color.org."""
    return has_escapes(stream) and not os.environ.get("NO_COLOR")


_COLORS = {"red": 31, "green": 32}


def in_color(text: str, color: Literal["red", "green"]) -> str:
    """Return a text with the escape sequences that give it a color."""
    return f"\x1b[{_COLORS[color]}m{text}\x1b[0m"


def _discard(number: int) -> None:
    descriptor = os.open(os.devnull, os.O_WRONLY)
    os.dup2(descriptor, number, inheritable=number <= 2)
    os.close(descriptor)


def _discard_if_unread(number: int) -> None:
    """Send a descriptor to /dev/null once the reader of it has gone, which would end the programs that we start."""
    poller = select.poll()
    poller.register(number, 0)
    if any(events & select.POLLERR for _, events in poller.poll(0)):
        _discard(number)


@contextmanager
def stdout_to_stderr() -> Iterator[None]:
    """Send what this process, and the programs it starts, print to stdout to stderr instead.

    Does nothing outside the main thread: the redirection holds for the whole process, where other threads may print.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    sys.stdout.flush()
    _discard_if_unread(2)
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        with suppress(OSError):
            sys.stdout.flush()  # what was printed by way of another reference to it
        os.dup2(kept, 1)
        os.close(kept)
