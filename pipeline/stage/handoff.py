"""Writes a value that goes to another pool to a file of the run's scratch folder, and reads it back unchanged."""

from __future__ import annotations

import os
import pickle
import shutil
from pathlib import Path
from typing import Any

from pipeline.messages import Begin
from pipeline.stage.values import PATH, Kind, kind_named


def put(value: Any, kind: Kind, file: Path, *, may_move: bool) -> None:
    """Write a value to a new file; a value that is itself a file, and that may be moved, is renamed. Raises OSError."""
    file.parent.mkdir(mode=0o700, exist_ok=True)
    if kind is PATH:
        if not (may_move and _try_rename(value, file)):
            shutil.copyfile(value, file)
    else:
        with open(file, "xb") as opened:
            if kind.suffixes:
                kind.write(value, opened)
            else:  # not in its scratch format: a picture has more to it than its pixels
                pickle.dump(value, opened, pickle.HIGHEST_PROTOCOL)


def _try_rename(path: Path, to: Path) -> bool:
    try:
        os.rename(path, to)
    except OSError:
        return False
    return True


def take(begin: Begin, source: Path) -> tuple[Any, Kind]:
    """Read the value with which a job begins, and return it with its kind. Raises OSError."""
    kind = kind_named(begin.kind)
    if not begin.file:
        return source, kind
    file = Path(os.fsdecode(begin.file))
    if kind is PATH or kind.suffixes:
        return kind.read(file), kind
    with open(file, "rb") as opened:
        return pickle.load(opened), kind
