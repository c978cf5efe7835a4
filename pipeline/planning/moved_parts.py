"""Outputs in parts whose path changed and nothing else: all of an output's parts are moved, or none is."""

from __future__ import annotations

import os
from collections.abc import Iterable

from pipeline.files.template import ALL_PARTS
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Decision, Reason
from pipeline.planning.file_state import Sources, is_as_left, is_the_same, look
from pipeline.planning.output_spec import OutputSpec


def move_parts(
    leaf: OutputSpec, source: Source, decision: Decision, rows: Iterable[OutputRecord], folder: bytes, sources: Sources
) -> list[Decision]:
    """The decision on an output in parts, or in its place a rename for each of its parts, and at last for the whole, if
    they lie intact elsewhere and their new places are free. `rows` are those that no template leads to.
    """
    known = list(rows)
    for head in known if (decision.action, decision.reason.code) == ("make", "new") else ():
        is_done = head.part == "" and head.status == "done" and not head.in_flight and head.recipe == leaf.number
        if is_done and not sources.change(source, head):
            renames = [_rename(leaf, source, part, folder) for part in known if _is_part(part, head)]
            found = [each for each in renames if each is not None]
            if found and len(found) == len(renames):
                why = Reason("path_changed", (os.fsdecode(head.target),))
                return [*found, decision._replace(action="rename", reason=why, moved_from=head.target)]
    return [decision]


def _is_part(row: OutputRecord, head: OutputRecord) -> bool:
    return row.status == "done" and is_part_of(row, head.target)


def is_part_of(row: OutputRecord, whole: bytes) -> bool:
    """Whether a row is of a part of what stands for all parts."""
    part = row.part or ""
    return bool(part) and row.target == whole.replace(ALL_PARTS.encode(), part.encode())


def _rename(leaf: OutputSpec, source: Source, row: OutputRecord, folder: bytes) -> Decision | None:
    """The move of one part; None where it is not as we left it, or its new place is taken by anything but itself."""
    path = leaf.template.fill(source.path, row.part or "")
    here, there = look(os.path.join(folder, row.target)), look(path)
    if there is not None:
        may_move = is_the_same(there, row.size, row.mtime_ns)  # a killed run has moved it
    else:
        may_move = here is not None and is_as_left(here, row.size, row.mtime_ns)
    if not may_move:
        return None
    why = Reason("path_changed", (os.fsdecode(row.target),))
    return Decision(source, leaf.stage, "rename", why, path, leaf.template.key(path), None, True, row.target)
