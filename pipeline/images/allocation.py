"""Lets a process that decodes pictures keep the memory of one for the next."""

from __future__ import annotations

import ctypes
from contextlib import suppress
from functools import lru_cache

# Parameters of glibc's malloc (mallopt(3)).
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
# Bytes: blocks up to the greatest size that glibc allows, Pillow's of 16 MB among them, are taken from the heap, and so
# much of that is kept when it is free: the pixels of a photograph of 30 MP.
_FROM_HEAP, _KEPT = 32 << 20, 128 << 20


@lru_cache(maxsize=1)
def keep_freed_memory() -> None:
    """Tell malloc, once in a process, to keep the memory that a picture took; nothing happens where it is not glibc's.

    By default it is returned to the system, which clears every page before it hands it out again: up to a tenth of the
    time that a picture takes.
    """
    with suppress(OSError, TypeError, AttributeError):  # of other systems
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _FROM_HEAP)
        mallopt(_M_TRIM_THRESHOLD, _KEPT)
