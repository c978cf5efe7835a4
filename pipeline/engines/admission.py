"""Admits jobs by the memory that they are expected to take, so that large ones have fewer neighbours.

    Backlog -> sift -- most jobs ----------------------------> batch
                 |
                 +-- large ones, by class -> choose -> grant -> batch of one, with the memory that was granted

A job is large if others like it took a good part of a worker's even share. It is admitted while its memory, that of
all other large jobs in flight, and a usual amount for each other worker, fit into 80 % of what is free; where they
only fit beside fewer others, no more of these are sent. A job that fits beside none, or of which only is known that it
was too large, waits until all others have ended, and runs alone. What is free is read again all the time, as are the
promises of other runs on the machine, so that they share it.

A job may claim, before it takes it, more than it was sent with; it comes back, and is large from then on. Of jobs that
claim nothing, and of which nothing is known, the first of a size is on trial: it is granted as much as a worker may
have before it is killed, and others of that size wait until it has ended, or until what it holds grows no more.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Collection, Iterator
from dataclasses import replace

from pipeline.engines import Peaks
from pipeline.engines.attempts import Attempt
from pipeline.engines.batching import Backlog
from pipeline.engines.grants import KILL_SHARE, LARGE_SHARE, WORKER_BYTES, Grant, Grants, JobClass, class_of
from pipeline.engines.host import USED_SHARE, MemoryBound, memory_bounds
from pipeline.engines.promises import PromiseBoard
from pipeline.records import dataclass
from pipeline.text import format_bytes

# A job may take so much more than others like it before it counts as larger than expected.
MARGIN = 1.2
# Seconds for which a reading of the free memory and of other runs' promises holds; one may take a millisecond.
REVIEW_S = 0.1
# How often a job may run alone that the kernel has killed, since other runs on the machine took the memory.
MAX_FORGIVEN = 3
# Memory that any job may take without a claim: as much as a worker may hold, free, from the job before.
LEAST_CLAIM_BYTES = 16_000_000
# Sources are not on trial of which so many times the size fit into a worker's share: no common compression makes a file
# smaller than by a thousand, and of what it holds there are some copies.
MOST_TIMES = 4096
# What was known of one size is taken to hold for sizes of so many bits more, as the memory grows with the size.
FORESEEN_BITS = 2
# A job on trial is taken to have reached its peak when it holds hardly more than so long ago. On a busy machine it may
# take a good part of that to get a turn.
STEADY_S, STEADY_SHARE = 0.5, 1.02
# What a job took that has ended is known so much later at most; if it is not, since it failed, it never will be.
TOLD_S = 0.3
# How long what is expected of a class of jobs is taken for granted; in between more of them end.
EXPECTED_S = 1.0


@dataclass(frozen=True)
class Capacity:
    """The workers of an engine, and the memory that they may take."""

    processes: int
    share_bytes: int | None
    """The memory that each worker may take; None for no limit."""
    alone_bytes: int | None
    """The memory that a job may take which runs while no other does; None for the same."""
    is_shared: bool
    """True if a job may take more than a share beside others, where these leave room; False if it must be alone."""


@dataclass
class Trial:
    """The first job of a size of which nothing is known, in flight."""

    batch: int
    job_class: JobClass
    held_bytes: int = 0
    since: float = 0.0
    """When its worker was seen to hold so much, or when it has ended."""
    has_ended: bool = False


class Admission:
    """Decides which jobs are sent next: most in the order of the backlog, large ones when their memory can be had."""

    def __init__(
        self,
        backlog: Backlog,
        capacity: Capacity,
        grants: Grants,
        peaks: Peaks | None,
        ready_bytes: Callable[[], int],
        held_bytes: Callable[[], int],
        bounds: Callable[[], list[MemoryBound]] = memory_bounds,
    ) -> None:
        """Keep no job yet.

        Args:
            backlog: The jobs that no worker has, large ones among them.
            capacity: The workers and their memory.
            grants: The memory that is granted to jobs in flight.
            peaks: What is known of the memory that jobs take; None if nothing ever is.
            ready_bytes: Returns what a worker of the engine holds before its first job; 0 if that is unknown.
            held_bytes: Returns what all workers of the engine hold at this moment.
            bounds: Returns what is free at this moment.
        """
        self._backlog = backlog
        self._capacity = capacity
        self._grants = grants
        self._peaks = peaks if capacity.share_bytes else None
        self._ready_bytes, self._held_bytes, self._bounds = ready_bytes, held_bytes, bounds
        self._share_bytes = capacity.share_bytes or 0
        self._large_bytes = self._share_bytes * KILL_SHARE
        self._alone: deque[Attempt] = deque()
        self._waiting: dict[JobClass, deque[Attempt]] = {}
        self._expected: dict[JobClass, int | None] = {}
        """The memory that the jobs of each class that was met are expected to take; None if unknown."""
        self._expected_at = 0.0
        self._unknown: set[JobClass] = set()
        """Classes of large jobs of which only is known that a worker was killed for what one took."""
        self._untried: set[JobClass] = set()
        """Classes that were met, and wait for the trial of one of their jobs, or of larger ones."""
        self._trial: Trial | None = None
        self._tried_bits: dict[tuple[str, ...], int] = {}
        self._steady: dict[JobClass, int] = {}
        """What a job on trial was seen to hold, of each class of which nothing else is known yet."""
        self._room_bytes = 0
        self._room_at = self._others_at = 0.0
        self._are_others = False
        self._held_back: int | None = None
        """The number of other batches beside which the next large job fits; None if none waits for that alone."""

    def next_batch(self, number: int, in_flight: Collection[int], most: int) -> list[Attempt]:
        """Remove and return the jobs that are to be sent now as a batch; an empty list when none may be.

        Args:
            number: The number that the batch will have.
            in_flight: The numbers of the batches in flight.
            most: How many batches may be in flight where memory is no matter.
        """
        self._forget_ended(in_flight)
        if self._trial:
            self._watch_trial(self._trial, in_flight)
        if any(grant.is_alone for grant in self._grants):
            return []
        self._take_back()
        usual_in_flight = len(in_flight) - len(self._grants)
        if large := self._next_large(number, usual_in_flight):
            return [large]
        while usual_in_flight < self._most_usual(most) and (batch := self._backlog.next_batch()):
            if usual := self._sift(batch):
                return usual
        if not in_flight and (last := self._next_large(number, 0) or self._next_alone(number)):
            return [last]
        return []

    def allowed_bytes(self, batch: int) -> int | None:
        """Return what each job of a batch may take without a claim, beyond what its worker holds; None for any."""
        grant = self._grants.get(batch)
        if self._peaks is None or (grant and grant.is_alone):
            return None
        if grant:
            return max(grant.job_class.claimed_bytes, grant.reserved_bytes - self._own_bytes)
        return max(LEAST_CLAIM_BYTES, int(self._large_bytes) - self._own_bytes)

    def add_large(self, attempt: Attempt) -> None:
        """Queue a job to be sent once the memory that it has claimed can be had."""
        self._waiting.setdefault(class_of(attempt), deque()).append(attempt)

    def add_alone(self, attempt: Attempt) -> None:
        """Queue a job to be sent while no other job is running."""
        self._alone.append(attempt)

    def clear(self) -> Iterator[Attempt]:
        """Remove and yield every job that waits, those of the backlog included."""
        yield from self._backlog.clear()
        while self._alone:
            yield self._alone.popleft()
        while self._waiting:
            yield from self._waiting.popitem()[1]

    # -- which jobs are large ------------------------------------------------------------------------------------------

    def _sift(self, batch: list[Attempt]) -> list[Attempt]:
        """Return the jobs of a batch that any worker may run; the large ones wait from now on."""
        if self._peaks is None:
            return batch
        self._refresh()
        classes = [class_of(attempt) for attempt in batch]
        large = {each for each in set(classes) if self._is_large(each)}
        if not large:  # as nearly always
            return batch
        for attempt, job_class in zip(batch, classes, strict=True):
            if job_class in large:
                self._waiting.setdefault(job_class, deque()).append(attempt)
        return [attempt for attempt, job_class in zip(batch, classes, strict=True) if job_class not in large]

    def _take_back(self) -> None:
        """Give those waiting jobs back to the backlog that, by what was learnt since, are not large."""
        if self._waiting:
            self._refresh()
            for job_class in [each for each in self._waiting if not self._is_large(each)]:
                self._backlog.put_back(self._waiting.pop(job_class))

    def on_killed(self, attempt: Attempt, batch: int, held_bytes: int) -> None:
        """Learn that a worker was killed for the memory that a job took.

        A job that ran alone, and yet was killed by the kernel while other runs had large jobs, may run alone again.
        """
        grant = self._grants.remove(batch)
        if grant and grant.is_alone and held_bytes < (grant.kill_bytes or 0) and self._open_board().has_others:
            attempt.needs_memory = attempt.tries > MAX_FORGIVEN
        if self._peaks is None:
            return
        job_class = class_of(attempt)
        self._peaks.add_peak(job_class.stages, job_class.size, held_bytes)
        self._expected[job_class] = self._expect(job_class)
        if self._is_large(job_class):
            self._unknown.add(job_class)

    def _is_large(self, job_class: JobClass) -> bool:
        if job_class not in self._expected:
            self._expected[job_class] = self._expect(job_class)
            if self._needs_trial(job_class):
                self._untried.add(job_class)
        known = self._expected[job_class]
        is_special = job_class.claimed_bytes or job_class in self._untried
        return bool(is_special) or (known is not None and known > self._large_bytes)

    def _expect(self, job_class: JobClass) -> int | None:
        """Return the memory that jobs are expected to take, at least what they claim; None if unknown."""
        assert self._peaks
        known = self._peaks.peak_bytes(job_class.stages, job_class.size)
        least = self._own_bytes + job_class.claimed_bytes if job_class.claimed_bytes else 0
        if (steady := self._steady.get(job_class)) and not self._peaks.is_foreseen(job_class.stages, job_class.size):
            least = max(least, steady)
        return max(known or 0, least) or None

    @property
    def _own_bytes(self) -> int:
        """What a worker holds before its first job."""
        return max(WORKER_BYTES, self._ready_bytes())

    def _refresh(self) -> None:
        """Ask again what is expected of the classes that were met, unless that was done a moment ago."""
        if self._peaks and time.monotonic() - self._expected_at > EXPECTED_S:
            if self._capacity.is_shared:
                self._large_bytes = min(self._share_bytes, self._own_bytes + self._share_bytes * LARGE_SHARE)
            self._expected = {each: self._expect(each) for each in self._expected}
            self._untried = {each for each in self._untried if self._needs_trial(each)}
            self._expected_at = time.monotonic()

    # -- jobs of which nothing is known --------------------------------------------------------------------------------

    def _needs_trial(self, job_class: JobClass) -> bool:
        """Return whether nothing is known of a class, nor of one that is nearly as large, that others could rely on."""
        assert self._peaks
        stages, bits, claimed_bytes = job_class
        return (
            job_class.size * MOST_TIMES > self._share_bytes
            and not claimed_bytes
            and self._capacity.is_shared
            and self._capacity.processes > 1
            and bits > self._tried_bits.get(stages, 0) + FORESEEN_BITS
            and not self._peaks.is_foreseen(stages, job_class.size)
        )

    def _watch_trial(self, trial: Trial, in_flight: Collection[int]) -> None:
        """End a trial once it is known what the job took, or what it holds grows no more."""
        now, job_class = time.monotonic(), trial.job_class
        if trial.batch not in in_flight:
            if not trial.has_ended:
                trial.has_ended, trial.since = True, now
            is_known = self._peaks and self._peaks.is_foreseen(job_class.stages, job_class.size)
            if is_known or now - trial.since > TOLD_S:
                self._end_trial(job_class)
            return
        held = self._grants.held_bytes.get(trial.batch, 0)
        if held > trial.held_bytes * STEADY_SHARE:
            trial.held_bytes, trial.since = held, now
        elif held and now - trial.since > STEADY_S:
            self._steady[job_class] = trial.held_bytes
            self._end_trial(job_class)
            self._grants.add(trial.batch, Grant(job_class, int(trial.held_bytes * MARGIN), None, ""))

    def _end_trial(self, job_class: JobClass) -> None:
        self._trial = None
        self._tried_bits[job_class.stages] = max(job_class.bits, self._tried_bits.get(job_class.stages, 0))
        self._expected_at = 0.0  # all that waited for it is looked at again

    # -- when they are sent --------------------------------------------------------------------------------------------

    def _forget_ended(self, in_flight: Collection[int]) -> None:
        """Take back what was granted to batches that are in flight no more."""
        for grant in self._grants.end(in_flight) if self._grants else ():
            self._unknown.discard(grant.job_class)
            self._room_at = 0.0

    def _most_usual(self, most: int) -> int:
        """Return how many batches of jobs that are not large may be in flight, of `most` where memory is no matter."""
        if self._held_back is not None:
            return self._held_back
        if self._peaks is None or not (self._grants or self._are_others_here()):
            return most
        beside = self._beside(self._spare_bytes())
        if beside >= self._capacity.processes - len(self._grants):
            return most
        return max(beside, 0 if self._grants else 1)

    def _next_large(self, batch: int, usual_in_flight: int) -> Attempt | None:
        """Remove and return a large job that fits now, and grant its memory to a batch; None if there is none.

        While other jobs wait, none is taken beside which no other fits.
        """
        self._held_back = None
        seats = self._capacity.processes - len(self._grants) - 1
        if not self._waiting or seats < 0:
            return None
        spare = self._spare_bytes()
        for job_class in sorted(self._waiting, key=self._rank, reverse=True):
            needed = self._needed_bytes(job_class)
            if needed is None or needed > spare or (self._trial and job_class in self._untried):
                continue
            beside = self._beside(spare - needed)
            if self._backlog.has_waiting and beside < min(1, seats):
                continue
            if beside < min(seats, usual_in_flight):
                self._held_back = beside
                return None
            return self._take(batch, job_class, needed)
        return None

    def _next_alone(self, batch: int) -> Attempt | None:
        """Remove and return a job that runs while no other of this engine does; None if there is none.

        Nor is there one while it would have to share the memory with a large job of another run.
        """
        largest = max(self._waiting, key=self._rank, default=None)
        if self._trial and largest in self._untried:
            largest = None  # once it is known what the trial has told
        queue = self._alone or (self._waiting[largest] if largest else None)
        if queue is None:
            return None
        with self._open_board().locked() as is_locked:
            if not is_locked:
                return None
            grant = self._alone_grant(queue[0], is_large=queue is not self._alone)
            if grant.reserved_bytes and self._must_wait_for_others(grant.reserved_bytes):
                return None
            self._grants.add(batch, grant)
            self._begin_trial(batch, grant.job_class)
        return self._pop(queue)

    def _take(self, batch: int, job_class: JobClass, needed: int) -> Attempt | None:
        """Remove and return a job if its memory can be had, now that no other run can take it meanwhile."""
        with self._open_board().locked() as is_locked:
            self._room_at = 0.0
            if not is_locked or needed > self._spare_bytes():
                return None
            self._grants.add(batch, self._grant(job_class, needed))
            self._begin_trial(batch, job_class)
        return self._pop(self._waiting[job_class])

    def _begin_trial(self, batch: int, job_class: JobClass) -> None:
        if job_class in self._untried:
            self._trial = Trial(batch, job_class)

    def _rank(self, job_class: JobClass) -> tuple[int, int]:
        """Return how large a class is, by what is expected of it and else by the sizes of its sources."""
        return self._expected.get(job_class) or 0, job_class.bits

    def _pop(self, queue: deque[Attempt]) -> Attempt:
        attempt = queue.popleft()
        self._waiting = {job_class: each for job_class, each in self._waiting.items() if each}
        return attempt

    def _grant(self, job_class: JobClass, needed: int) -> Grant:
        if job_class in self._untried:
            return Grant(job_class, needed, None, "")
        kill_bytes = int(max(needed, self._share_bytes) * KILL_SHARE)
        remark = f"more than {KILL_SHARE:g} times the {format_bytes(needed)} that were granted by what others took"
        if self._capacity.alone_bytes and kill_bytes > self._capacity.alone_bytes:
            return replace(self._alone_grant_of(job_class, needed), is_alone=False)
        return Grant(job_class, needed, kill_bytes, remark)

    def _alone_grant(self, attempt: Attempt, *, is_large: bool) -> Grant:
        """Return the grant of a job that has all memory; one that is alone for another reason reserves none."""
        job_class, whole = class_of(attempt), self._capacity.alone_bytes or 0
        needed = (self._needed_bytes(job_class) or whole) if is_large or attempt.needs_memory else 0
        return self._alone_grant_of(job_class, needed)

    def _alone_grant_of(self, job_class: JobClass, needed: int) -> Grant:
        whole = self._capacity.alone_bytes
        remark = f"more than the {format_bytes(whole or 0)} that all workers may have together"
        return Grant(job_class, needed, whole, remark, is_alone=True)

    # -- what there is -------------------------------------------------------------------------------------------------

    def _needed_bytes(self, job_class: JobClass) -> int | None:
        """Return the memory to keep free for a large job; None if it must run alone."""
        expected, whole = self._expected.get(job_class), self._capacity.alone_bytes or self._share_bytes
        if job_class in self._untried:
            return min(whole, int(self._share_bytes * KILL_SHARE))
        if expected is None or job_class in self._unknown or not self._capacity.is_shared:
            return None
        needed = int(expected * MARGIN)
        return needed if needed <= whole else None

    def _beside(self, spare_bytes: int) -> int:
        """Return how many other workers have room for a job that is not large."""
        usual = [
            self._share_bytes if known is None else known
            for each, known in self._expected.items()
            if not each.claimed_bytes
        ]
        most = max((each for each in usual if each <= self._large_bytes), default=self._share_bytes)
        return max(0, spare_bytes // max(1, most))

    def _spare_bytes(self) -> int:
        """Return the memory that no large job in flight, of this or another run, will take."""
        if time.monotonic() - self._room_at > REVIEW_S:
            whole = self._capacity.alone_bytes or self._share_bytes
            board, held_bytes = self._open_board(), self._held_bytes()
            for bound in self._bounds():
                room = USED_SHARE * (bound.available_bytes + held_bytes) - sum(board.others(bound.scope))
                whole = min(whole, int(room))
            self._room_bytes = whole
            self._room_at = time.monotonic()
        return self._room_bytes - sum(grant.reserved_bytes for grant in self._grants)

    def _must_wait_for_others(self, needed: int) -> bool:
        """Return whether a job lacks memory that the large jobs of another run have, or will take."""
        board, held_bytes = self._open_board(), self._held_bytes()
        # All that there may be for one job is 80 % of the memory already.
        share = 1 if needed == self._capacity.alone_bytes else USED_SHARE
        return any(
            share * (bound.available_bytes + held_bytes) - sum(others) < needed
            for bound in self._bounds()
            if (others := board.others(bound.scope))
        )

    def _are_others_here(self) -> bool:
        """Return whether another run has large jobs, as far as is known for a moment."""
        if time.monotonic() - self._others_at > REVIEW_S:
            self._are_others = self._open_board().has_others
            self._others_at = time.monotonic()
        return self._are_others

    def _open_board(self) -> PromiseBoard:
        if self._grants.board is None:
            self._grants.board = PromiseBoard(lambda: [bound.scope for bound in self._bounds()])
        return self._grants.board
