"""pipeline/files/hashlib.py: the digests are those of the standard library."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from pipeline.files import hashlib as ours


@pytest.mark.parametrize("size", [0, 1, (1 << 18) - 1, 1 << 18, 3 << 18])
def test_a_file_has_the_same_digest(tmp_path: Path, size: int) -> None:
    """Whatever of it fits into one reading, and only from where the file is read on."""
    path, data = tmp_path / "file", bytes(index % 251 for index in range(size))
    path.write_bytes(b"before" + data)
    with path.open("rb") as file:
        file.seek(len(b"before"))
        found = ours.file_digest(file, lambda: ours.blake2b(digest_size=16))
    assert found.digest() == hashlib.blake2b(data, digest_size=16).digest()
