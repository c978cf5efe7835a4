"""File systems of other kinds, made in a file and mounted for a test; what this machine cannot mount is skipped."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_MEGABYTE = 1 << 20
# For each kind: megabytes, how one is made in an image, and how that is mounted.
_KINDS: dict[str, tuple[int, list[str], list[str]]] = {
    "ignores case": (16, ["mkfs.ntfs", "-FQ", "IMAGE"], ["lowntfs-3g", "-o", "ignore_case", "IMAGE", "PLACE"]),
    "tmpfs": (0, [], ["mount", "-t", "tmpfs", "-o", "size=16m", "none", "PLACE"]),
    "ext4": (16, ["mkfs.ext4", "-q", "-I", "256", "IMAGE"], ["mount", "-o", "loop", "IMAGE", "PLACE"]),
    # With inodes of 128 bytes there is room for whole seconds only.
    "whole seconds": (16, ["mkfs.ext4", "-q", "-I", "128", "IMAGE"], ["mount", "-o", "loop", "IMAGE", "PLACE"]),
    "100 ns": (16, ["mkfs.ntfs", "-FQ", "IMAGE"], ["lowntfs-3g", "IMAGE", "PLACE"]),
    "fat": (32, ["mkfs.vfat", "IMAGE"], ["fusefat", "-o", "rw+", "IMAGE", "PLACE"]),
}


@contextmanager
def mounted(kind: str, folder: Path) -> Iterator[Path]:
    """Mount a new file system of a kind at `folder/KIND`; the test is skipped where that cannot be."""
    megabytes, make, mount = _KINDS[kind]
    place, image = folder / f"mounted {kind}", folder / f"{kind}.img"
    place.mkdir()
    if megabytes:
        with open(image, "wb") as file:
            file.truncate(megabytes * _MEGABYTE)
    for command in (make, mount):
        _run([{"IMAGE": str(image), "PLACE": str(place)}.get(each, each) for each in command])
    try:
        yield place
    finally:
        subprocess.run(["umount", place], check=True)


@contextmanager
def bound(folder: Path, place: Path) -> Iterator[None]:
    """Have a folder appear at another place too; the test is skipped where that cannot be."""
    _run(["mount", "--bind", str(folder), str(place)])
    try:
        yield
    finally:
        subprocess.run(["umount", place], check=True)


def _run(command: list[str]) -> None:
    if not command:
        return
    if os.geteuid() or shutil.which(command[0]) is None:
        pytest.skip(f"needs root and {command[0]}")
    ran = subprocess.run(command, capture_output=True, text=True)
    if ran.returncode:
        pytest.skip(f"{' '.join(command)}: {ran.stderr.strip() or ran.returncode}")
