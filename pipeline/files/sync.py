"""Syncs files, folders and whole file systems to the disk."""

from __future__ import annotations

import os
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def sync_folder(folder: Path) -> None:
    """Sync a folder, which makes the names in it durable. Raises OSError."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def replace_file(file: Path, data: bytes, new: Path, *, is_durable: bool = False, mode: int | None = None) -> None:
    """Replace a file by way of a temporary `new`, so that it is whole at any moment. Raises OSError.

    Without a `mode` the umask decides. Whatever has the temporary's name, as of a killed process, is removed: nothing
    is written through a link or a FIFO.
    """
    with suppress(FileNotFoundError):
        os.unlink(new)
    fd = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        if mode is not None:
            os.fchmod(fd, mode)
        with open(fd, "wb") as opened:
            opened.write(data)
            opened.flush()
            if is_durable:
                os.fsync(fd)
        os.rename(new, file)
    except OSError:
        os.unlink(new)
        raise


def replace_durably(file: Path, data: bytes, new: Path) -> None:
    """Replace a file as `replace_file` does, and bring it to the disk. Raises OSError."""
    replace_file(file, data, new, is_durable=True)
    sync_folder(file.parent)


def sync_file_systems(folders: Iterable[bytes]) -> None:
    """Sync the file systems of some folders. Raises OSError."""
    import ctypes

    libc, seen = ctypes.CDLL(None, use_errno=True), set()
    for folder in folders:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # nothing was made there, or nothing is there any more
            continue
        try:
            device = os.fstat(fd).st_dev
            if device not in seen and libc.syncfs(fd):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), os.fsdecode(folder))
            seen.add(device)
        finally:
            os.close(fd)
