"""Writes checksums that sha256sum and its kin can check: a stage that reads files of any kind and any size."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Literal

from pipeline import Item

# Bumped when the same options give another line.
RECIPE = 1

# Those for which coreutils has a program: md5sum, sha1sum, ..., and b2sum for blake2b.
Algorithm = Literal["md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b"]


def checksum(item: Item[Path], *, algorithm: Algorithm = "sha256", names: Literal["path", "name"] = "path") -> bytes:
    """Makes a line with the checksum of a file and its name, as `sha256sum -c` reads it.

    `algorithm` is the one of the program that is to check it: `sha256` for sha256sum, `blake2b` for b2sum, and so on.
    `names` says whether the file is named by its `path` relative to the input root, so that it is checked from there,
    or by its `name` alone, so that it is checked beside it. The file is read in blocks, however large it is.
    """
    with open(item.value, "rb", buffering=0) as file:
        digest = hashlib.file_digest(file, algorithm).hexdigest()
    name = os.fsencode(item.source if names == "path" else Path(item.source).name)
    # A line whose name would end it begins with a backslash, and says what would.
    escaped = name.replace(b"\\", rb"\\").replace(b"\n", rb"\n").replace(b"\r", rb"\r")
    return b"%s%s  %s\n" % (b"\\" if escaped != name else b"", digest.encode(), escaped)
