"""Capture what the jobs of a worker print: one append-only file per slot, which holds the text of the current job.

File descriptors 1 and 2 of a worker refer to the file, so that programs started by a stage write into it too, and so
does faulthandler when the worker dies. The worker empties it after each job, and the parent reads it after a death.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

from pipeline.files.file_system import open_regular
from pipeline.text import LEFT_OUT

# How much of a job's text is kept: its beginning and its end, half each.
KEPT_BYTES = 64 * 1024
# How much text a job may have on disk before the parent truncates it.
MAX_FILE_BYTES = 1024 * 1024

_LINE_BUFFERED = 1  # _IOLBF of stdio.h


_fd: int | None = None


def redirect(path: Path) -> None:
    """Send all output of this worker, and of the programs that it starts, to the file."""
    global _fd
    if not hasattr(os, "pread"):
        return
    path.unlink(missing_ok=True)  # of a worker before, or whatever a stage has put there
    _fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # a program that asks the terminal would be stopped by it for ever
    if nowhere:
        os.close(nowhere)
    sys.stdout = sys.__stdout__ = _opened(1, _fd)  # type: ignore[misc, assignment]
    sys.stderr = sys.__stderr__ = _opened(2, _fd)  # type: ignore[misc, assignment]


def descriptor() -> int | None:
    """Return the descriptor of this worker's file, which no stage may close; None if there is none."""
    return _fd


def take() -> str:
    """Remove and return what this worker has printed since the last call. Raises OSError if its file was closed."""
    if _fd is None:
        return ""
    try:
        sys.stdout.flush()
        sys.stderr.flush()
    except (AttributeError, ValueError):  # a thread of a stage has closed or unset one
        _flush_each()
    size_bytes = os.lseek(_fd, 0, os.SEEK_END)  # cheaper than fstat
    if size_bytes == 0:
        return ""
    text = _read(_fd, size_bytes)
    os.ftruncate(_fd, 0)
    return text


def _flush_each() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):
            stream.flush()


def _opened(number: int, fd: int) -> TextIO:
    """Make `number` a duplicate of `fd`; returns a stream that writes each line at once, so that a crash loses none."""
    os.dup2(fd, number)
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def watch_for_faults(dump_signal: int) -> None:
    """Write the stacks of all threads at a fault and at `dump_signal`, and have C code flush each line."""
    faulthandler.enable(2)
    if hasattr(faulthandler, "register") and dump_signal:
        faulthandler.register(dump_signal, 2)
    with suppress(OSError, ValueError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, 0)


def read(path: Path) -> str:
    """Return what the current job of a worker has printed so far; the parent calls it after a death."""
    try:
        with open_regular(path) as file:
            return _read(file.fileno(), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        return ""


def printed_bytes(path: Path) -> int:
    """Return how much the current job of a worker has printed so far."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0


def cut(path: Path) -> None:
    """Truncate the text of a job that prints without end to its beginning, so that it does not fill the disk."""
    if printed_bytes(path) > MAX_FILE_BYTES:
        with suppress(FileNotFoundError):
            os.truncate(path, KEPT_BYTES // 2)


def _read(fd: int, size_bytes: int) -> str:
    half = KEPT_BYTES // 2
    if size_bytes <= KEPT_BYTES:
        return _text(os.pread(fd, size_bytes, 0))
    left_out = LEFT_OUT.format(size_bytes - 2 * half)
    return _text(os.pread(fd, half, 0)) + left_out + _text(os.pread(fd, half, size_bytes - half))


def _text(data: bytes) -> str:
    return data.replace(b"\0", b"").decode(errors="backslashreplace")
