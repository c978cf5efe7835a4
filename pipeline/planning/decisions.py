"""Defines decisions and their reasons as data, and the text of each reason.

Decision   one output: the action, the Reason, and what a job needs to carry it out
Reason     a code, and the particulars as plain data; `text_of` makes the sentence, wherever one is shown
Rename     an output that is moved instead of made
Orphan     a recorded output that nothing produces any more
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Literal

from pipeline.ledger.origins import origin_of
from pipeline.ledger.outputs import OutputStatus
from pipeline.messages import Origin
from pipeline.records import NamedTuple
from pipeline.text import NO_FILE, NOT_OURS, counted, in_general, shown

Action = Literal["make", "rename", "refuse", "held", "settling", "up-to-date"]
# A source with several outputs is counted under the first of these that one of its outputs has.
ACTIONS: tuple[Action, ...] = ("make", "rename", "refuse", "held", "settling", "up-to-date")
PLACE = {action: place for place, action in enumerate(ACTIONS)}

OrphanCode = Literal[
    "source_gone", "stage_gone", "group_gone", "excluded_now", "skipped_now", "path_changed", "source_moved"
]
Code = (
    Literal[
        "up_to_date", "skipped", "edited",
        "new", "forced", "interrupted", "output_missing", "output_torn", "output_older",
        "source_changed", "recipe_changed",
        "part_missing", "part_torn", "part_older", "members_changed", "members_to_be_made", "failed_before",
        "tried_for_all", "held", "dismissed", "settling",
        "not_ours", "not_a_file", "part_not_a_file", "collision", "bad_path", "members_failed", "members_unknown",
        "source_unknown", "folder_lost",
    ]
    | OrphanCode
)  # fmt: skip


class Reason(NamedTuple):
    """The reason for the decision about an output."""

    code: Code
    detail: tuple[str | int | None, ...] = ()
    """The particulars, in the form of each code; empty for a reason that stands for many outputs.

    Paths are text as `os.fsdecode` makes it.
    """


UP_TO_DATE = Reason("up_to_date")
NEW = Reason("new")
FORCED = Reason("forced")
INTERRUPTED = Reason("interrupted")
SETTLING = Reason("settling")
EDITED = Reason("edited")
OUTPUT_MISSING = Reason("output_missing")
EXISTS_NOT_OURS = Reason("not_ours")
DOUBTFUL = Reason("source_changed", ("cut",))
"""The source may be as it was, with a time that a file system or a copy has cut; its contents were not recorded."""
MEMBERS_CHANGED = Reason("members_changed")
MEMBERS_UNKNOWN = Reason("members_unknown")

GUARDED: frozenset[Code] = frozenset(
    {"interrupted", "output_older", "part_older", "output_torn", "part_torn", "path_changed"}
)
"""The codes of outputs to make in whose place something may lie that we did not make."""

_TEXTS: dict[Code, str] = {
    "up_to_date": "up to date",
    "skipped": "skipped",
    "edited": "edited by someone else: kept",
    "new": "new",
    "forced": "forced",
    "interrupted": "interrupted",
    "output_missing": "output missing",
    "output_torn": "output torn",
    "output_older": "output is an older version",
    "part_missing": "part missing",
    "part_torn": "part torn",
    "part_older": "part is an older version",
    "source_changed": "source changed",
    "recipe_changed": "recipe changed",
    "members_changed": "members changed",
    "members_to_be_made": "members to be made",
    "failed_before": "failed before",
    "tried_for_all": "tried for all that failed alike",
    "held": "held",
    "dismissed": "dismissed",
    "settling": "settling",
    "not_ours": NOT_OURS,
    "not_a_file": NO_FILE,
    "part_not_a_file": NO_FILE,
    "collision": "collision",
    "bad_path": "no valid path",
    "members_failed": "members failed",
    "members_unknown": "left alone: a folder that cannot be listed may hold members",
    "source_unknown": "nothing is known of its source now",
    "folder_lost": "its folder is lost: kept",
    "path_changed": "path changed",
    "source_gone": "source gone",
    "source_moved": "source moved",
    "stage_gone": "stage gone",
    "group_gone": "group gone",
    "excluded_now": "excluded now",
    "skipped_now": "skipped now",
}


def text_of(reason: Reason) -> str:
    """Return a reason as text, with its particulars if it has any."""
    code, detail = reason
    return _IN_FULL[code](*detail) if detail else _TEXTS[code]


def without_particulars(reason: Reason) -> Reason:
    """Return a reason without the particulars of its own output, so that a million outputs make few counts.

    Particulars of the pipeline stay, such as the option that changed; those of a file do not.
    """
    if not reason.detail:
        return reason
    if reason.code in _OF_ONE_FILE:
        return Reason(reason.code)
    if reason.code in ("skipped", "bad_path"):
        return Reason(reason.code, (in_general(str(reason.detail[0])),))
    return reason


# Codes whose particulars are one file's own.
_OF_ONE_FILE = frozenset(
    {
        "source_changed",
        "output_torn",
        "collision",
        "path_changed",
        "source_moved",
        "members_failed",
        "members_to_be_made",
    }
)


def _source_changed(how: str, *more: str | int | None) -> str:
    if how == "size":
        return f"source changed (size {more[0]} -> {more[1]})"
    if how == "cut":
        return "source changed (its time, which may only be cut; its contents were not recorded)"
    return f"source changed (cannot be read: {more[0]})" if how == "unreadable" else f"source changed (its {how})"


def _failed_before(kind: str, attempts: int, hold_after: int | None) -> str:
    attempt = f", attempt {attempts}" if attempts else ""  # none, if that run was cut short
    if hold_after is not None and 0 < attempts <= hold_after:
        attempt += f" of {hold_after}"
    return f"failed before ({kind}{attempt})"


def _collision(rival: str, target: str) -> str:
    """Return the text for a target that two outputs claim; `rival` is empty where both are of one source."""
    other = str(origin_of(os.fsencode(rival))) if rival else "another stage's"
    return f"collision with {other}: both want {shown(os.fsencode(target))}"


_IN_FULL: dict[Code, Callable[..., str]] = {
    "skipped": lambda why: f"skipped: {why}",
    "output_torn": lambda was, now: f"output torn (size {was} -> {now})",
    "part_missing": lambda part: f"part {part}: output missing",
    "part_torn": lambda part, was, now: f"part {part}: output torn (size {was} -> {now})",
    "part_older": lambda part: f"part {part}: output is an older version",
    "part_not_a_file": lambda part: f"part {part}: {NO_FILE}",
    "source_changed": _source_changed,
    "recipe_changed": lambda stage, part, text: text,
    "members_to_be_made": lambda members: f"{counted(members, 'member')} to be made",
    "members_failed": lambda members: f"{counted(members, 'member')} failed",
    "failed_before": _failed_before,
    "tried_for_all": lambda files: f"tried for all {files:,} files, which failed alike",
    "held": lambda attempts: f"held after {attempts} failed {'attempt' if attempts == 1 else 'attempts'}",
    "dismissed": lambda kind: f"dismissed ({kind})",
    "collision": _collision,
    "bad_path": lambda error: error,
    "folder_lost": lambda text: text,
    "path_changed": lambda before: f"moved from {shown(os.fsencode(before))}",
    "source_moved": lambda before: f"source moved from {shown(os.fsencode(before))}",
}


class Decision(NamedTuple):
    """The action for one output of a source or a group, its reason, and the paths a job needs to carry it out.

    It is a tuple, which is cheap to make, since even a run that changes nothing makes one for each output.
    """

    origin: Origin
    stage: str
    action: Action
    reason: Reason
    path: bytes = b""
    target: bytes = b""
    """The path of the output as the ledger keeps it."""
    rival: bytes | None = None
    """The source recorded for this output, if it is another one; else None."""
    is_owned: bool = False
    """True if the output is recorded as made from this source, or left out."""
    moved_from: bytes | None = None
    """The present path of an output to rename, as the ledger keeps it; None for any other."""
    is_vacant: bool = False
    """True if nothing lies at the path, so that no file will be replaced."""


def foremost(decisions: Sequence[Decision]) -> Decision:
    """Return the decision under which a source as a whole is counted: of several alike, the first in the tree."""
    return decisions[0] if len(decisions) == 1 else min(decisions, key=lambda each: PLACE[each.action])


class Rename(NamedTuple):
    """An output that lies at its former path, or of which only the source has another one now."""

    seq: int
    source: bytes
    stage: str
    path: bytes
    target: bytes
    """The path where the output belongs, as the ledger keeps it."""
    moved_from: bytes
    is_stale: bool
    """True if it is made anew once it lies at its path."""


class Orphan(NamedTuple):
    """A recorded output that no current source and template produces, with the reason."""

    target: bytes
    source: bytes
    stage: str
    status: OutputStatus
    code: OrphanCode
    size: int | None
    mtime_ns: int | None
    digests: bytes
    """The digests of the last versions, one after the other; they, size and mtime_ns are those of the record."""
