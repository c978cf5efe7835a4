"""What the jobs of a worker print: one append file per slot, which holds the text of the job in hand and no
more.

File descriptors 1 and 2 of a worker lead to the file, so that programs started by a stage write into it too,
and so does faulthandler when the worker dies. The worker empties it after each job, and the parent reads it
after a death.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import TextIO

# What is kept of a job's text: its beginning and its end, half of it each.
KEPT_BYTES = 64 * 1024
# What a job may have on disk until the parent cuts its text down.
MAX_FILE_BYTES = 1024 * 1024

_LEFT_OUT = "\n[... {} bytes left out ...]\n"
_LINE_BUFFERED = 1  # _IOLBF of stdio.h


_fd: int | None = None


def take_over(path: Path) -> None:
    """In a worker: lead all output of this process, and of those it starts, into the file."""
    global _fd
    if not hasattr(os, "pread"):
        return
    _fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nowhere, 0)  # a program that asks the terminal would be stopped by it for ever
    if nowhere:
        os.close(nowhere)
    sys.stdout = sys.__stdout__ = _opened(1, _fd)  # type: ignore[misc, assignment]
    sys.stderr = sys.__stderr__ = _opened(2, _fd)  # type: ignore[misc, assignment]


def take() -> str:
    """In a worker: give what was printed since the last call."""
    if _fd is None:
        return ""
    sys.stdout.flush()
    sys.stderr.flush()
    size_bytes = os.lseek(_fd, 0, os.SEEK_END)  # cheaper than fstat
    if size_bytes == 0:
        return ""
    text = _read(_fd, size_bytes)
    os.ftruncate(_fd, 0)
    return text


def _opened(number: int, fd: int) -> TextIO:
    """Make `number` another name of `fd`; each line is written at once, so that a death does not take it."""
    os.dup2(fd, number)
    return open(number, "w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False)


def watch_for_faults(dump_signal: int) -> None:
    """Have the stacks written at a fault and at `dump_signal`, and what C code prints line by line."""
    faulthandler.enable(2)
    if hasattr(faulthandler, "register") and dump_signal:
        faulthandler.register(dump_signal, 2)
    with suppress(OSError, ValueError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.setvbuf(ctypes.c_void_p.in_dll(libc, "stdout"), None, _LINE_BUFFERED, 0)


def read(path: Path) -> str:
    """Give what the job in hand has printed so far; for the parent, after a death."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return ""
    try:
        return _read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def cut(path: Path) -> None:
    """Keep a job that prints without end from filling the disk: its beginning stays, the rest begins anew."""
    with suppress(FileNotFoundError):
        if os.stat(path).st_size > MAX_FILE_BYTES:
            os.truncate(path, KEPT_BYTES // 2)


def shorten(text: str) -> str:
    """Keep the beginning and the end of a text that is longer than what is kept of a job's."""
    if len(text) <= KEPT_BYTES + len(_LEFT_OUT) + 20:  # it may say itself what was left out
        return text
    half = KEPT_BYTES // 2
    return f"{text[:half]}{_LEFT_OUT.format(len(text) - 2 * half)}{text[-half:]}"


def _read(fd: int, size_bytes: int) -> str:
    half = KEPT_BYTES // 2
    if size_bytes <= KEPT_BYTES:
        return _text(os.pread(fd, size_bytes, 0))
    left_out = _LEFT_OUT.format(size_bytes - 2 * half)
    return _text(os.pread(fd, half, 0)) + left_out + _text(os.pread(fd, half, size_bytes - half))


def _text(data: bytes) -> str:
    return data.replace(b"\0", b"").decode(errors="backslashreplace")
