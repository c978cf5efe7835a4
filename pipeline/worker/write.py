"""A value on its way into an output: its bytes as they are at hand, its file moved, or written as its suffix asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.files.atomic import Check, Committed, Committer, GiveName
from pipeline.notes import Notes, collected
from pipeline.stage.values import PATH, Kind, in_memory, write


def write_output(
    committer: Committer,
    path: bytes,
    value: Any,
    kind: Kind,
    notes: Notes,
    check: Check,
    name: GiveName | None = None,
    *,
    save: Mapping[str, Any],
    source: str,
    may_move: bool,
) -> tuple[Committed, Notes]:
    """Write a value to its output, which `name` then gives its name; gives what there is to know of it.

    A file is renamed where it `may_move`, and copied otherwise; metadata that is to be kept is that of the source.
    """
    data = in_memory(value, kind)
    if data is not None:
        return committer.put(path, data, check, name), notes
    if kind is PATH and may_move and (moved := committer.move(value, path, check, name)):
        return moved, notes
    suffix = os.path.splitext(os.fsdecode(path))[1]

    def fill(file: BinaryIO) -> None:
        write(value, kind, file, suffix, dict(save), Path(source))

    with collected() as noted:
        return committer.write(path, fill, check, name), notes | noted
