"""The part of the standard library's `hashlib` that filemill uses; that one loads OpenSSL, which takes 2 ms."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from hashlib import blake2b as blake2b
else:
    try:
        from _blake2 import blake2b  # the very same
    except ImportError:  # another Python than CPython
        from hashlib import blake2b

_READ_BYTES = 1 << 18


def file_digest(file: BinaryIO, make: Callable[[], blake2b]) -> blake2b:
    """Return the digest of what is left of a file."""
    digest, buffer = make(), bytearray(_READ_BYTES)
    with memoryview(buffer) as view:
        while count := file.readinto(buffer):  # type: ignore[attr-defined]
            digest.update(view[:count])
    return digest
