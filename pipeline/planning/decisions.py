"""What a plan says of one output: what is to be done about it, and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from pipeline.messages import Origin

Action = Literal["make", "rename", "refuse", "held", "settling", "up-to-date"]
# What is said of a source of which several outputs differ: the foremost of these.
ACTIONS: tuple[Action, ...] = ("make", "rename", "refuse", "held", "settling", "up-to-date")
PLACE = {action: place for place, action in enumerate(ACTIONS)}


def foremost(verdicts: Sequence[Verdict]) -> Verdict:
    """What is said of a source as a whole: of several alike, the first in the order of the tree."""
    return verdicts[0] if len(verdicts) == 1 else min(verdicts, key=lambda verdict: PLACE[verdict.action])


class Verdict(NamedTuple):
    """What is to be done about one output and why, with what a job needs to carry it out. A tuple, as records are."""

    stage: str
    action: Action
    why: str
    path: bytes = b""
    target: bytes = b""
    """The path as the ledger keeps it."""
    rival: bytes | None = None
    """The source recorded for this output, where it is another."""
    owned: bool = False
    """Whether the output is recorded as made from this source, or left out."""
    moved_from: bytes | None = None
    """Where it lies, if it is to be renamed; as the ledger keeps it."""


@dataclass(frozen=True)
class Decision:
    """What is to be done about one output, and why, for a person to read."""

    origin: Origin
    stage: str
    path: bytes
    target: bytes
    """The path as the ledger keeps it."""
    action: Action
    why: str


class Rename(NamedTuple):
    """An output that lies where it belonged before."""

    seq: int
    source: bytes
    stage: str
    path: bytes
    target: bytes
    """Where it belongs, as the ledger keeps it."""
    moved_from: bytes
    is_whole: bool
    """Whether it is no file, but stands for the parts of one output."""


class Orphan(NamedTuple):
    """A recorded output that no current source and template produces, and why."""

    target: bytes
    source: bytes
    stage: str
    status: str
    why: str
    size: int | None
    mtime_ns: int | None
    """What is recorded of the file."""
