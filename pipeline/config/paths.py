"""Paths as they are written in YAML: which fields they may have, and where they lie."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

# A field, such as {name}, or a brace that belongs to none.
_FIELD = re.compile(r"\{[^{}]*\}|[{}]")


def check_fields(text: str, allowed: Sequence[str]) -> str:
    """Return what is wrong with the fields of a path; empty if it has none but those that are allowed."""
    wrong = next((each for each in _FIELD.findall(text) if each not in allowed), None)
    if wrong is None:
        return ""
    fields = f"the fields are {' and '.join(allowed)}" if len(allowed) > 1 else f"the only field is {allowed[0]}"
    return f"there is no field {wrong!r}; {fields}"


def place_of(written: str, folder: Path) -> str:
    """Return the path of what a file in a folder names; one that begins with a variable stays as it is."""
    return written if written.startswith("${") else os.path.normpath(folder / os.path.expanduser(written))
