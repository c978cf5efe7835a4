"""How many examples a test of properties tries: all under FULL=1, as in the long gate, else a third of them."""

from __future__ import annotations

import os


def examples(count: int) -> int:
    """Return how many of `count` examples are tried in this run."""
    return count if os.environ.get("FULL") == "1" else -(-count // 3)
