"""The question before what cannot be undone: asked on a terminal, answered by --yes in scripts."""

from __future__ import annotations

import sys

from pipeline.errors import UsageError


def may_go_on(*, yes: bool) -> bool:
    """Whether the user wants it. Raises UsageError where nobody can be asked."""
    if yes:
        return True
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise UsageError("nobody can be asked here whether to go on, and nothing was done; --yes says so beforehand")
    print("go on? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
