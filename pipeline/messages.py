"""The messages between the parent and its workers, such as Job, Outcome and Result, as frozen, picklable data.

They are named tuples, since a frozen dataclass takes three times as long to make, which shows for tiny files.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

from pipeline.text import as_json, shown

Status = Literal["done", "skipped", "failed"]
FailureKind = Literal["error", "crashed", "timeout", "memory", "collision", "vanished", "changed"]
KILLED: tuple[FailureKind, ...] = ("crashed", "timeout", "memory")
"""The kinds of failure in which the worker was killed, so that its temporaries are left behind."""
MOVED: tuple[FailureKind, ...] = ("vanished", "changed")
"""The kinds of failure in which the source was removed or changed during the job; they count as no attempt."""


class Source(NamedTuple):
    """The identity of an input: its path relative to the input root, in bytes, plus what stat says of it."""

    path: bytes
    size_bytes: int
    mtime_ns: int

    def __str__(self) -> str:
        return shown(self.path)

    def as_json(self) -> dict[str, str | None]:
        """Return the keys that name the source in JSON lines."""
        return {**as_json(self.path)}


class Group(NamedTuple):
    """The identity of a group: the stage that gathers it, its name, and what its members come to."""

    stage: str
    name: bytes | None
    """None for the one group of a stage that gathers all files."""
    members: int = 0
    digest: int = 0
    """A digest of the members' paths and contents. This and `members` are 0 where only the name is known."""

    def __str__(self) -> str:
        return "all files" if self.name is None else f"group {shown(self.name) or repr('')}"

    def as_json(self) -> dict[str, str | None]:
        """Return the keys that name the group in JSON lines."""
        return {"source": None, **({"group": None} if self.name is None else as_json(self.name, "group"))}


Origin = Source | Group
"""The origin of an output, a file or a group of files."""


class Target(NamedTuple):
    """An output that a job is to make: the stage whose value it holds, and its absolute path."""

    stage: str
    path: bytes
    """The path of the output; of a fan-out's, the key that stands for all its parts."""
    is_new: bool = False
    """Whether nothing was there when the run was planned, so that nothing is to be replaced."""
    around: tuple[bytes, bytes] = (b"", b"")
    """The text before and after a part's name in its path; empty where there are no parts."""
    owned: tuple[bytes, ...] = ()
    """The paths of the parts that were made before."""
    is_forced: bool = False
    """Whether a part may take the place of a file that we did not make."""
    ours: tuple[tuple[int, int], ...] = ()
    """The periods, in nanoseconds since 1970, in which a file at a part's place that changed last then is ours."""
    handed_ns: int = 0
    """When parts were handed out; 0 where there are none."""
    digests: tuple[bytes, ...] | None = None
    """The digests of the versions that we made; a file of none of them is set aside before it is replaced.

    None where what is there is replaced unread.
    """


class Begin(NamedTuple):
    """The beginning of a job that does not begin with its source: the value of a stage in another pool, in a file."""

    stage: int | None
    """The index of that stage; None for the source."""
    file: bytes
    """Empty where the value is the source itself."""
    kind: str
    """The name of the kind of the value, as in `stage.values.Kind`."""
    notes: tuple[tuple[str, str], ...]
    """The notes on the value so far, each with its text without particulars."""


class Job(NamedTuple):
    """One source and the outputs it needs this time."""

    source: Source
    targets: tuple[Target, ...]
    begin: Begin | None = None
    is_again: bool = False
    """Whether a worker that had the job died, and may have made some of its outputs."""
    is_digested: bool = False
    """Whether the source is digested though the pipeline goes by times: the ledger had no digest to settle a doubt."""

    @property
    def origin(self) -> Origin:
        """The origin of the outputs."""
        return self.source


class GroupJob(NamedTuple):
    """One group and the one output that is to be made of it."""

    group: Group
    target: Target
    members_file: bytes = b""
    """The path of the file that lists the members; empty until the job is handed out."""
    is_again: bool = False
    """The targets, as those of a Job."""

    @property
    def origin(self) -> Origin:
        """The origin of the output."""
        return self.group

    @property
    def targets(self) -> tuple[Target, ...]:
        """The target, as a job of a source has them."""
        return (self.target,)


AnyJob = Job | GroupJob


class Handed(NamedTuple):
    """A value that a job leaves to another pool, with the stages whose outputs are made from it there."""

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
    """The result of one output: done, skipped or failed."""

    stage: str
    path: bytes
    status: Status
    text: str = ""
    """The reason of a skip, or the text of a failure."""
    kind: FailureKind | None = None
    detail: str = ""
    """The traceback of a failure, for the log."""
    size_bytes: int = 0
    mtime_ns: int = 0
    digest: bytes = b""
    """The digest of the output as it was committed; empty where there is no file."""
    parts: tuple[MadePart, ...] = ()
    """The parts that a fan-out made in place of one file."""
    notes: tuple[tuple[str, str], ...] = ()
    """The notes on an output that is done, such as "first frame only, of 4", each with its text without particulars."""
    code: Literal["", "not_ours", "members_failed"] = ""
    """Set for the failures that the program treats in a way of their own; it never parses `text`."""
    taken_by: bytes = b""
    """The path of what has the output's name already, as the file system has it; empty where that is no matter."""

    @property
    def noted(self) -> str:
        """Return its notes as one text."""
        return "; ".join(text for text, _ in self.notes)

    @property
    def outputs(self) -> int:
        """The number of outputs that this result stands for: the parts of a fan-out, else 1."""
        return len(self.parts) or 1


class Outcome(NamedTuple):
    """The outcome of a job: one result for each of its targets."""

    origin: Origin
    """The source or the group; a source with the size and time that the worker saw, which the ledger records."""
    results: tuple[Result, ...]
    seconds: float = 0.0
    environment: str = ""
    """The reason why a write of our own failed, such as a full disk; then no result is the file's fault."""
    output: str = ""
    """The text that the stages, and the programs they started, wrote to stdout and stderr."""
    source_digest: bytes = b""
    """The digest of the source's contents; empty unless sources are compared by hash, or this one is in doubt."""
    source_ctime_ns: int | None = None
    """The ctime of the source when it was digested; None unless the source was at rest then."""
    handed: tuple[Handed, ...] = ()
    """The values that were left to other pools."""
    goes_on: bool = False
    """Whether more outcomes of the same source will follow."""
    changed_code: str = ""
    """The file of the stages' code that was loaded for it and is not what the run was planned with: nothing counts."""
    bytes_in: int = 0
    """The size of all members that were read, of a group."""
    peak_bytes: int | None = None
    """The most memory that the worker had held by then."""
    seat: int | None = None
    """The number of the worker's slot."""

    @property
    def source(self) -> Source | None:
        """The source; None for a group."""
        return self.origin if isinstance(self.origin, Source) else None


class StageInfo(NamedTuple):
    """One stage of the tree, as an engine knows it."""

    name: str
    parent: int | None
    """The index of the stage it reads from; None for the source."""
    timeout_s: float | None = None
    """The limit of each call of it."""
    engine: int = 0
    """Which of the engines runs it; 0 is the one whose pool all share that have none of their own."""
