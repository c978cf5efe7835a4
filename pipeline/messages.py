"""Job, Outcome and Result: the only things that cross a process border. Plain, frozen, picklable data.

They are named tuples: making one is a good part of what a tiny file costs, and a frozen dataclass takes three times
as long to make.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

Status = Literal["done", "skipped", "failed"]
Kind = Literal["error", "crashed", "timeout", "memory", "collision", "vanished", "changed"]
KILLED: tuple[Kind, ...] = ("crashed", "timeout", "memory")
"""The kinds of failure after which nobody knows how far the worker came, nor did it clear up after itself."""
MOVED: tuple[Kind, ...] = ("vanished", "changed")
"""The source was taken away or written to meanwhile: no stage failed, and it is no attempt."""


class Source(NamedTuple):
    """The identity of an input: its path relative to the input root, in bytes, plus what stat says of it.

    Of a group that is gathered: what stands for it, how many members it has, and a digest of them; see groups.py.
    """

    path: bytes
    size_bytes: int
    mtime_ns: int


class Target(NamedTuple):
    """An output that a job is to make: the stage whose value it holds, and its absolute path."""

    stage: str
    path: bytes
    """Of a fan-out's output, what stands for all its parts."""
    around: tuple[bytes, bytes] = (b"", b"")
    """What comes before and after the name of a part in its path; empty where there are none."""
    owned: tuple[bytes, ...] = ()
    """The paths of the parts that were made before."""
    is_forced: bool = False
    """Whether a part may take the place of a file that we did not make."""
    members: bytes = b""
    """Of what is made of a group, the file that lists its members."""


class Begin(NamedTuple):
    """Where a job begins that does not begin with its source: the value of a stage in another pool, in a file."""

    stage: int | None
    """The index of that stage; None for the source."""
    file: bytes
    """Empty where the value is the source itself."""
    kind: str
    """What kind of value it is."""
    notes: tuple[str, ...]
    """What is to be known of it."""


class Job(NamedTuple):
    """One source and the outputs it needs this time."""

    source: Source
    targets: tuple[Target, ...]
    begin: Begin | None = None


class Handed(NamedTuple):
    """What a job leaves to another pool: the outputs of these stages, to be made from a value."""

    engine: int
    begin: Begin
    stages: tuple[str, ...]


class MadePart(NamedTuple):
    """One part of an output, as it was committed."""

    name: str
    path: bytes
    size_bytes: int
    mtime_ns: int
    digest: bytes


class Result(NamedTuple):
    """What became of one output."""

    stage: str
    path: bytes
    status: Status
    text: str = ""
    """Why it was skipped, or how it failed; when done, what a person should know of it, such as frames left out."""
    kind: Kind | None = None
    detail: str = ""
    """The traceback of a failure, for the log."""
    size_bytes: int = 0
    mtime_ns: int = 0
    digest: bytes = b""
    """Of the contents of the output as it was committed; empty where there is no file."""
    parts: tuple[MadePart, ...] = ()
    """What was made in place of one file by a fan-out."""

    @property
    def outputs(self) -> int:
        """How many outputs that were."""
        return len(self.parts) or 1


class Outcome(NamedTuple):
    """What became of a job: one result for each of its targets."""

    source: Source
    """As the worker saw it, which is what the ledger must remember."""
    results: tuple[Result, ...]
    seconds: float = 0.0
    environment: str = ""
    """What the machine refused to one of our own writes, such as a full disk: then no result is the file's fault."""
    output: str = ""
    """What the stages, and the programs they started, wrote to their stdout and stderr."""
    source_digest: bytes = b""
    """Of what was in the source, and when it was last changed in any way, if that is known for certain; both under
    `changed_by: hash` only.
    """
    source_ctime_ns: int | None = None
    handed: tuple[Handed, ...] = ()
    """What another pool is to go on with."""
    goes_on: bool = False
    """Whether there are more outcomes to come of the same source."""


class StageInfo(NamedTuple):
    """One stage of the tree, as far as an engine needs to know it."""

    name: str
    parent: int | None
    """The index of the stage it reads from; None for the source."""
    timeout_s: float | None = None
    """The limit of each call of it."""
    engine: int = 0
    """Which of the engines runs it; 0 is the one whose pool all share that have none of their own."""
