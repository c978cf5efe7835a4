"""Trees of files for the walk."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from pipeline.files.walk import SYSTEM_NAMES

NAMES = st.binary(min_size=1, max_size=6).filter(
    lambda name: b"/" not in name and b"\0" not in name and not name.startswith(b".") and name not in SYSTEM_NAMES
)


# Few letters, among them the neighbours of "/", so that names are often each other's beginnings.
TRICKY = st.text("a-.0b", min_size=1, max_size=3).map(str.encode).filter(lambda name: not name.startswith(b"."))


PATHS = st.lists(st.lists(TRICKY | NAMES, min_size=1, max_size=4).map(b"/".join), max_size=25)


def make(root: bytes, path: bytes) -> None:
    """Create a file and its folders, unless one of them already exists as a file."""
    try:
        os.makedirs(os.path.dirname(os.path.join(root, path)), exist_ok=True)
        with open(os.path.join(root, path), "xb"):
            pass
    except OSError:
        pass
