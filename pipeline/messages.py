"""The messages between the parent and its workers, such as Job, Outcome and Result, as frozen, picklable data.

They are named tuples, since a frozen dataclass takes three times as long to make, which shows for tiny files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pipeline.records import NamedTuple
from pipeline.text import as_json, shown

Status = Literal["done", "skipped", "failed"]
FailureKind = Literal["error", "crashed", "timeout", "memory", "collision", "vanished", "changed", "interrupted"]
KILLED: tuple[FailureKind, ...] = ("crashed", "timeout", "memory")
"""The kinds of failure in which the worker was killed, so that its temporaries are left behind."""
MOVED: tuple[FailureKind, ...] = ("vanished", "changed")
"""The kinds of failure in which the source was removed or changed during the job; they count as no attempt."""


class Source(NamedTuple):
    """The identity of an input: its path relative to the input root, in bytes, and its fields from stat."""

    path: bytes
    size_bytes: int
    mtime_ns: int

    def __str__(self) -> str:
        return shown(self.path)

    def as_json(self) -> dict[str, str | None]:
        """Return the keys that name the source in JSON lines."""
        return {**as_json(self.path)}


class Group(NamedTuple):
    """The identity of a group: the stage that gathers it, its name, and the totals of its members."""

    stage: str
    name: bytes | None
    """The name of the group; None for the one group of a stage that gathers all files."""
    members: int = 0
    digest: int = 0
    """A digest of the members' paths, sizes and times. It and `members` are 0 if only the name is known."""

    def __str__(self) -> str:
        return "all files" if self.name is None else f"group {shown(self.name) or repr('')}"

    def as_json(self) -> dict[str, str | None]:
        """Return the keys that name the group in JSON lines."""
        return {"source": None, **({"group": None} if self.name is None else as_json(self.name, "group"))}


Origin = Source | Group
"""The origin of an output, a source or a group."""


class Target(NamedTuple):
    """An output that a job is to make: the stage whose value it holds, and its absolute path."""

    stage: str
    path: bytes
    """The absolute path of the output; for a fan-out, a path that represents all parts."""
    is_new: bool = False
    """True if no file was at the path when the run was planned, so that none may be replaced."""
    around: tuple[bytes, bytes] = (b"", b"")
    """The text before and after the name of a part in its path; empty without a fan-out."""
    owned: tuple[bytes, ...] = ()
    """The paths of the parts that earlier runs made."""
    is_forced: bool = False
    """True if a part may replace a file that we did not make."""
    ours: tuple[tuple[int, int], ...] = ()
    """Periods in nanoseconds since 1970. A file at the path of a part is ours if its last change lies in one."""
    handed_ns: int = 0
    """The time at which the parts were handed out, in nanoseconds since 1970; 0 without a fan-out."""
    digests: tuple[bytes, ...] | None = None
    """The digests of the versions that we made. A file with any other digest is set aside before it is replaced.

    If None, the file at the path is replaced unread.
    """


class Begin(NamedTuple):
    """The beginning of a job that continues from another pool: the value of a stage there, in a file."""

    stage: int | None
    """The index of the stage that made the value; None for the source."""
    file: bytes
    """The path of the file with the value; empty if the value is the source itself."""
    kind: str
    """The name of the value's kind, as in `stage.values.Kind`."""
    notes: tuple[tuple[str, str], ...]
    """The notes on the value so far, each with its text without particulars."""


class Job(NamedTuple):
    """One source and the outputs to make of it."""

    source: Source
    targets: tuple[Target, ...]
    begin: Begin | None = None
    is_again: bool = False
    """True if a worker that had the job died, and may have made some of the outputs."""
    is_digested: bool = False
    """Whether the source is digested though the pipeline goes by times: the ledger had no digest to settle a doubt."""

    @property
    def origin(self) -> Origin:
        """The source of the outputs."""
        return self.source


class GroupJob(NamedTuple):
    """One group and the one output to make of it."""

    group: Group
    target: Target
    members_file: bytes = b""
    """The path of the file that lists the members; empty until the job is handed out."""
    is_again: bool = False
    """True if a worker that had the job died, and may have made the output."""

    @property
    def origin(self) -> Origin:
        """The group of which the output is made."""
        return self.group

    @property
    def targets(self) -> tuple[Target, ...]:
        """The one target, in the form of the targets of a Job."""
        return (self.target,)


AnyJob = Job | GroupJob


class InHand(NamedTuple):
    """A job that a worker is running."""

    job: AnyJob
    stage: str
    """The name of the stage that is being called; empty if none is."""
    seconds: float
    """How long the worker has been running the job."""
    pid: int
    """The process id of the worker."""

    def __str__(self) -> str:
        where = f"stage {self.stage!r}, " if self.stage else ""
        return f"{self.job.origin}: in hand for {self.seconds:,.0f} s ({where}process {self.pid})"

    def as_json(self) -> dict[str, Any]:
        """Return the keys of a job in hand in progress.json."""
        return self.job.origin.as_json() | {"stage": self.stage, "seconds": round(self.seconds, 3), "pid": self.pid}


class Handed(NamedTuple):
    """A value that a job leaves to another pool, with the stages whose outputs are made from it there."""

    engine: int
    begin: Begin
    stages: tuple[str, ...]


class MadePart(NamedTuple):
    """One part of an output, after it was committed."""

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
    """The reason of a skip or a failure; empty for an output that is done."""
    kind: FailureKind | None = None
    detail: str = ""
    """The traceback of a failure, for the log."""
    size_bytes: int = 0
    mtime_ns: int = 0
    digest: bytes = b""
    """The digest of the output's contents when it was committed; empty if there is no file."""
    parts: tuple[MadePart, ...] = ()
    """The parts that a fan-out made in place of one file."""
    notes: tuple[tuple[str, str], ...] = ()
    """The notes on an output that is done, such as "first frame only, of 4", each with its text without particulars."""
    code: Literal["", "not_ours", "members_failed", "in_hand", "held"] = ""
    """The code of a failure that the program treats specially, since it never parses `text`; else empty."""
    taken_by: bytes = b""
    """The path, as spelt in the file system, of a file that already has the output's name; empty if there is none."""
    moved_under: str = ""
    """The name of the stage that was at work when the source changed or vanished; empty if none was."""
    place: str = ""
    """The file and line of the user's code in which it failed, such as stages/sharpen.py:12; empty if none is known."""
    is_new: bool = False
    """True for a failure that the run has recorded and none before it, of the same source by the same recipe."""

    @property
    def is_failure(self) -> bool:
        """True if it counts as failed; where a source is gone, nothing is left to be made, unless a stage had it.

        A held output that was tried for all that failed alike, and failed as before, is still held.
        """
        return self.status == "failed" and self.code != "held" and (self.kind != "vanished" or self.code == "in_hand")

    @property
    def noted(self) -> str:
        """Return the notes as one text."""
        return "; ".join(text for text, _ in self.notes)

    @property
    def outputs(self) -> int:
        """Return the number of outputs that this result represents: the parts of a fan-out, else 1."""
        return len(self.parts) or 1


class LateFile(NamedTuple):
    """A file of code that a worker loaded and the plan did not know."""

    stage: int
    """The index of the stage that was being called; -1 outside such calls."""
    path: str
    digest: str
    """The digest of what was loaded; of a source, without layout and comments."""


class Lost(NamedTuple):
    """A try of a job in which its worker died."""

    seat: int
    """The number of the worker's slot."""
    seconds: float


class Usage(NamedTuple):
    """When a job began, and what it took besides the seconds of its outcome; measured for a trace, and of deaths."""

    start_s: float
    """The time at which it began, in seconds since 1970."""
    cpu_s: float | None
    """The CPU seconds of the worker and of the programs for which it waited; None if its worker died."""
    seat: int | None = None
    """The number of the slot of the worker that began it."""
    lost: tuple[Lost, ...] = ()
    """The tries in which its worker died."""

    def merged(self, other: Usage | None) -> Usage:
        """Return the usage of a job of which another try, or another part, took `other`."""
        if other is None:
            return self
        known = [each.cpu_s for each in (self, other) if each.cpu_s is not None]
        cpu_s = sum(known) if known else None
        first = min(self, other, key=lambda each: each.start_s)
        return Usage(first.start_s, cpu_s, first.seat, self.lost + other.lost)


class Outcome(NamedTuple):
    """The outcome of a job: one result for each of its targets."""

    origin: Origin
    """The source or the group. A source has the size and time that the worker saw, which the ledger records."""
    results: tuple[Result, ...]
    seconds: float = 0.0
    environment: str = ""
    """The reason for which one of our own writes failed, such as a full disk; then no result is the file's fault."""
    refused: Literal["", "source", "folder"] = ""
    """What alone `environment` is about: this source, or a folder of outputs; empty if it is about all files."""
    output: str = ""
    """The text that the stages, and the programs they started, wrote to stdout and stderr."""
    source_digest: bytes = b""
    """The digest of the source's contents; empty for a large one, unless it is in doubt or sources are hashed."""
    source_ctime_ns: int | None = None
    """The ctime of the source when it was digested; None unless the source was at rest then."""
    handed: tuple[Handed, ...] = ()
    """The values that were left to other pools."""
    goes_on: bool = False
    """True if more outcomes of the same source will follow."""
    changed_code: str = ""
    """The path of a code file that was loaded after a change since the plan, so that no result counts; else empty."""
    late_code: tuple[LateFile, ...] = ()
    """The files of code that were loaded since the worker's last outcome and that the plan did not know."""
    bytes_in: int = 0
    """The total size of the members of a group that were read; 0 for a source."""
    claimed_bytes: int = 0
    """The memory without which the job could not be done, as a stage claimed; 0 if none was refused."""
    peak_bytes: int | None = None
    """The most memory that the worker held during the job; None if unknown."""
    seat: int | None = None
    """The number of the worker's slot."""
    usage: Usage | None = None
    """What the job used; None where no trace is written, unless its worker died."""

    @property
    def source(self) -> Source | None:
        """The source; None for a group."""
        return self.origin if isinstance(self.origin, Source) else None

    @property
    def lost(self) -> tuple[Lost, ...]:
        """The tries in which its worker died."""
        return self.usage.lost if self.usage else ()

    @property
    def spent_s(self) -> float:
        """The seconds of all tries, those too in which its worker died."""
        return self.seconds + sum(each.seconds for each in self.lost)


class StageInfo(NamedTuple):
    """The properties of one stage of the tree that an engine needs."""

    name: str
    parent: int | None
    """The index of the stage whose value this one reads; None for the source."""
    timeout_s: float | None = None
    """Seconds that each call of the stage may take; None for no limit."""
    engine: int = 0
    """The number of the engine that runs the stage; 0 is shared by all stages without a pool of their own."""


class Histogram(NamedTuple):
    """The calls of a stage by their seconds, in buckets of which each is 19 % wider than the one before."""

    calls: int = 0
    total_s: float = 0.0
    slowest_s: float = 0.0
    counts: Mapping[int, int] = {}
    """The number of calls in each bucket: bucket b has those from 2**(b/4) seconds to less than 2**((b+1)/4)."""

    def merged(self, other: Histogram) -> Histogram:
        """Return the histogram of the calls of both."""
        counts = dict(self.counts)
        for bucket, calls in other.counts.items():
            counts[bucket] = counts.get(bucket, 0) + calls
        slowest_s = max(self.slowest_s, other.slowest_s)
        return Histogram(self.calls + other.calls, self.total_s + other.total_s, slowest_s, counts)

    def quantile(self, share: float) -> float:
        """Return the seconds within which this share of the calls ended, to a tenth; 0 if there were no calls."""
        left = share * self.calls
        for bucket in sorted(self.counts):
            left -= self.counts[bucket]
            if left <= 0:
                return min(self.slowest_s, 2 ** ((bucket + 0.5) / 4))
        return self.slowest_s


class Measures(NamedTuple):
    """What an engine has measured so far. Calls in which a worker died are missing."""

    stages: Mapping[str, Histogram]
    """The calls of each stage that was called; the parts of one fan-out are made in one call."""
    restarts: Mapping[int, int]
    """The number of workers that were replaced, by the number of their slot."""
