"""The memory that is granted to large jobs in flight, as the parent and the supervisor's thread see it."""

from __future__ import annotations

import threading
from collections.abc import Callable, Container, Iterator, Mapping

from pipeline.engines.attempts import Attempt
from pipeline.engines.promises import PromiseBoard
from pipeline.messages import Source
from pipeline.records import NamedTuple, dataclass

# Above this share of its memory a worker is killed; above all of it, it is replaced after its job.
KILL_SHARE = 1.5
# A job that takes more than this part of a worker's share is large: four runs at once have room for what is less.
LARGE_SHARE = 0.25
# What a worker holds before it has any job, at least; it is no part of a job's memory.
WORKER_BYTES = 64_000_000
# Claims are alike that differ by less than one part in sixteen.
_CLAIM_BITS = 5


# Does what `_make` of a named tuple does, in a third of its time: every job is asked for its class.
_made: Callable[..., JobClass] = tuple.__new__


class JobClass(NamedTuple):
    """Jobs that are expected to take the same memory: with the same outputs, and sources of similar size."""

    stages: tuple[str, ...]
    bits: int
    """The number of bits of the source's size, or of the number of a group's members."""
    claimed_bytes: int = 0
    """What they have claimed to take beyond what a worker holds anyway, rounded up; 0 for nothing."""

    @property
    def size(self) -> int:
        """The greatest size of the class."""
        return (1 << self.bits) - 1


@dataclass(frozen=True)
class Grant:
    """The memory that one job in flight may take beyond a worker's share."""

    job_class: JobClass
    reserved_bytes: int
    """The memory that is kept free for the job."""
    kill_bytes: int | None
    """The memory above which its worker is killed; None for the usual limit."""
    remark: str
    """The reason for which its worker is killed then."""
    is_alone: bool = False
    """True if no other job of this engine runs meanwhile."""


class Grants:
    """The grants of the jobs in flight, by the number of their batch; used by the supervisor's thread, too."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._by_batch: dict[int, Grant] = {}
        self.held_bytes: Mapping[int, int] = {}
        """What the worker of each batch in hand held when that was last read."""
        self.board: PromiseBoard | None = None
        """Where other runs see what is promised to the jobs; None until there is a large one."""

    def __len__(self) -> int:
        return len(self._by_batch)

    def __iter__(self) -> Iterator[Grant]:
        return iter(list(self._by_batch.values()))

    def get(self, batch: int) -> Grant | None:
        """Return the grant of a batch; None for one without any."""
        return self._by_batch.get(batch)

    def add(self, batch: int, grant: Grant) -> None:
        """Grant memory to a batch that is about to be sent, and promise it before all other runs."""
        with self._lock:
            self._by_batch[batch] = grant
            self._publish({})

    def remove(self, batch: int) -> Grant | None:
        """Take back and return what was granted to a batch, if anything was."""
        with self._lock:
            return self._by_batch.pop(batch, None)

    def end(self, in_flight: Container[int]) -> list[Grant]:
        """Remove and return the grants of batches that are in flight no more."""
        with self._lock:
            ended = {batch: self._by_batch.pop(batch) for batch in list(self._by_batch) if batch not in in_flight}
            if ended:
                self._publish({})
        return list(ended.values())

    def renew(self, held_bytes: Mapping[int, int], *, is_here: bool) -> None:
        """Promise what the jobs are yet to take.

        Args:
            held_bytes: What the worker of each batch holds.
            is_here: Whether other runs are to know of this one even if it promises nothing.
        """
        with self._lock:
            self.held_bytes = held_bytes
            self._publish(held_bytes, is_here)

    def close(self) -> None:
        """Withdraw all promises."""
        with self._lock:
            self._by_batch.clear()
            if self.board:
                self.board.withdraw()

    def _publish(self, held_bytes: Mapping[int, int], is_here: bool = False) -> None:
        if self.board and (self._by_batch or is_here):
            left = [max(0, each.reserved_bytes - held_bytes.get(batch, 0)) for batch, each in self._by_batch.items()]
            self.board.put(sum(left))
        elif self.board:
            self.board.withdraw()


def class_of(attempt: Attempt) -> JobClass:
    """Return the class of the job that an attempt is to make."""
    job, claimed_bytes = attempt.remaining, attempt.claimed_bytes
    origin, targets = job[0], job.targets
    size = origin.size_bytes if isinstance(origin, Source) else origin.members
    stages = (targets[0].stage,) if len(targets) == 1 else tuple([target.stage for target in targets])
    if claimed_bytes:
        step = max(1, 1 << claimed_bytes.bit_length() >> _CLAIM_BITS)
        claimed_bytes = -(-claimed_bytes // step) * step
    return _made(JobClass, (stages, size.bit_length(), claimed_bytes))
