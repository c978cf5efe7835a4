"""A file system of its own behind a loop device, and a cut of its power: nothing more of it reaches the disk."""

from __future__ import annotations

import fcntl
import os
import struct
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

# _IOR('X', 125, __u32), and that nothing is to be flushed before: how file systems' own tests cut the power.
_SHUTDOWN, _NO_FLUSH = 0x8004587D, struct.pack("I", 2)
_IMAGE_BYTES = 400 << 20


def make_image(image: Path, kind: str) -> None:
    """Make a file system in a file; skips the test where that cannot be."""
    with open(image, "wb") as file:
        file.truncate(_IMAGE_BYTES)
    try:
        made = subprocess.run([f"mkfs.{kind}", "-q", str(image)], capture_output=True)
    except FileNotFoundError:
        pytest.skip(f"there is no mkfs.{kind} here")
    if made.returncode or os.geteuid():
        pytest.skip("no file system can be made here")


@contextmanager
def mounted(image: Path, place: Path, options: str = "loop") -> Iterator[None]:
    """Mount an image; skips the test where that cannot be."""
    place.mkdir(exist_ok=True)
    if subprocess.run(["mount", "-o", options, str(image), str(place)], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        yield
    finally:
        until = time.monotonic() + 10
        while subprocess.run(["umount", str(place)], capture_output=True).returncode and time.monotonic() < until:
            time.sleep(0.1)  # a worker is still dying


def cut_power(place: Path) -> None:
    """Let nothing more of a mounted file system reach its disk."""
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, _NO_FLUSH)
    finally:
        os.close(fd)
