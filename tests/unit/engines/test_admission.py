"""Which jobs are sent, and beside how many others, by what they are expected to take and what is free."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from pipeline.engines import admission
from pipeline.engines.admission import Admission, Capacity
from pipeline.engines.attempts import Attempt
from pipeline.engines.batching import Backlog, BatchSizer
from pipeline.engines.grants import Grants
from pipeline.engines.host import MemoryBound
from pipeline.engines.promises import PromiseBoard
from pipeline.messages import Job, Outcome, Result, Source, Target
from pipeline.planning.learnt import Learnt

MB = 1_000_000
# The sizes of sources whose jobs take so many megabytes.
SMALL, MIDDLE, LARGE, HUGE = 100, 10_000, 200_000, 1_000_000
PEAKS = {SMALL: 50 * MB, MIDDLE: 300 * MB, HUGE: 500 * MB}


def job(size: int, number: int = 0) -> Job:
    return Job(Source(b"%d-%d" % (size, number), size, 0), (Target("up", b"out"),))


def learnt_from(peaks: dict[int, int]) -> Learnt:
    """What a run has learnt in which jobs over sources of these sizes took so much."""
    learnt = Learnt()
    for size, peak in peaks.items():
        learnt.add(Outcome(Source(b"", size, 0), (Result("up", b"", "done"),), 1.0, peak_bytes=peak))
    return learnt


@dataclass
class Machine:
    """The memory of a machine, of which jobs that have begun may not have taken anything yet."""

    free_bytes: int = 1000 * MB

    def bounds(self) -> list[MemoryBound]:
        return [MemoryBound("", self.free_bytes)]


@dataclass
class Engine:
    """What an engine does to have jobs admitted, without any processes."""

    folder: Path
    processes: int = 2
    share: int | None = 400 * MB
    alone: int = 800 * MB
    is_shared: bool = True
    ready: int = 0
    machine: Machine = field(default_factory=Machine)
    learnt: Learnt = field(default_factory=lambda: learnt_from(PEAKS))

    def __post_init__(self) -> None:
        self.sizer = BatchSizer(self.processes)
        self.backlog = Backlog(self.sizer)
        self.grants = Grants()
        self.grants.board = PromiseBoard(lambda: [""], self.folder)
        capacity = Capacity(self.processes, self.share, self.alone, self.is_shared)
        self.admission = Admission(
            self.backlog, capacity, self.grants, self.learnt, lambda: self.ready, lambda: 0, self.machine.bounds
        )
        self.numbers = count()
        self.in_flight: dict[int, list[Attempt]] = {}

    def add(self, *sizes: int) -> Engine:
        for number, size in enumerate(sizes):
            self.backlog.add(Attempt(job(size, number)))
        return self

    def send(self) -> list[int]:
        """Send all that may be sent now; return the sizes of the sources, a list of jobs for each batch."""
        sent = []
        number = next(self.numbers)
        while batch := self.admission.next_batch(number, self.in_flight, self.sizer.max_in_flight):
            self.in_flight[number] = batch
            sent += [attempt.job.source.size_bytes for attempt in batch]
            number = next(self.numbers)
        return sent

    def end(self, *sizes: int) -> Engine:
        """End the batches with such jobs."""
        for size in sizes:
            del self.in_flight[self.number_of(size)]
        return self

    def number_of(self, size: int) -> int:
        return next(number for number, [first, *_] in self.in_flight.items() if first.job.source.size_bytes == size)

    @property
    def sizes(self) -> list[int]:
        """The sizes in flight."""
        return sorted(attempt.job.source.size_bytes for batch in self.in_flight.values() for attempt in batch)


Make = Callable[..., Engine]


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """Make engines on one machine, which look at it each time."""
    monkeypatch.setattr(admission, "REVIEW_S", -1)
    monkeypatch.setattr(admission, "EXPECTED_S", -1)
    return lambda **more: Engine(tmp_path / "board", **more)


def test_a_large_job_runs_beside_small_ones(make: Make) -> None:
    """One at a time where two do not fit; the small ones go on beside it, and none is lost."""
    engine = make().add(HUGE, HUGE, *[SMALL] * 20)
    assert engine.send() == [SMALL] * 6 + [HUGE] or engine.sizes == [SMALL] * 6 + [HUGE]
    engine.end(SMALL, SMALL)
    assert engine.send() == [SMALL] * 2
    engine.end(HUGE)
    assert engine.send() == [HUGE]


def test_jobs_that_fit_together_run_together(make: Make) -> None:
    """As many as there are workers."""
    engine = make().add(*[MIDDLE] * 3)
    assert engine.send() == [MIDDLE] * 2
    assert engine.end(MIDDLE).send() == [MIDDLE]


def test_nothing_known_is_nothing_held_back(make: Make) -> None:
    """As before there was anything to learn from."""
    engine = make(learnt=Learnt()).add(*[MIDDLE] * 10)
    assert engine.send() == [MIDDLE] * 6
    assert len(engine.grants) == 0


def tell(engine: Engine, size: int, peak: int) -> None:
    """End a job, and learn what it took."""
    engine.end(size)
    engine.learnt.add(Outcome(Source(b"", size, 0), (Result("up", b"", "done"),), 1.0, peak_bytes=peak))


def test_the_first_of_a_size_is_on_trial(make: Make) -> None:
    """Others of that size wait for it, and the largest is the first; small ones run meanwhile."""
    engine = make(learnt=learnt_from({SMALL: 50 * MB})).add(*[LARGE] * 3, *[HUGE] * 10, *[SMALL] * 20)
    engine.send()
    assert engine.sizes == [SMALL] * 6 + [HUGE]
    engine.end(SMALL, SMALL).send()
    assert engine.sizes == [SMALL] * 6 + [HUGE]
    [grant] = engine.grants
    assert (grant.reserved_bytes, grant.kill_bytes) == (600 * MB, None)  # at which any worker is killed
    tell(engine, HUGE, 60 * MB)
    engine.end(*[SMALL] * 6)
    assert engine.send() == [HUGE] * 6 and not engine.grants
    assert engine.end(*[HUGE] * 6).send() == [HUGE] * 3 + [LARGE] * 3


def test_a_trial_teaches_what_is_large(make: Make) -> None:
    """The others run as any that are known to be."""
    engine = make(learnt=learnt_from({SMALL: 50 * MB})).add(*[HUGE] * 3)
    assert engine.send() == [HUGE]
    tell(engine, HUGE, 300 * MB)
    assert engine.send() == [HUGE] * 2


def test_a_trial_that_takes_no_more_memory_is_not_waited_for(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it holds by then is what the others are expected to take; it keeps that, and no more is kept for it."""
    monkeypatch.setattr(admission, "STEADY_S", float("inf"))
    engine = make(learnt=Learnt(), processes=4).add(*[HUGE] * 10)
    assert engine.send() == [HUGE]
    number = engine.number_of(HUGE)
    for held in (100, 300, 300):
        engine.grants.renew({number: held * MB}, is_here=False)
        assert engine.send() == []
    monkeypatch.setattr(admission, "STEADY_S", -1)
    assert engine.send() == [HUGE]
    assert [grant.reserved_bytes for grant in engine.grants] == [360 * MB] * 2


def test_a_trial_of_which_nothing_is_learnt_is_over_all_the_same(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """What has failed tells nothing; the others are not tried one by one."""
    engine = make(learnt=Learnt()).add(*[HUGE] * 10)
    assert engine.send() == [HUGE]
    assert engine.end(HUGE).send() == []
    monkeypatch.setattr(admission, "TOLD_S", -1)
    assert engine.send() == [HUGE] * 6


@pytest.mark.parametrize(
    ("more", "sent"),
    [
        ({"learnt": learnt_from({HUGE // 4: 50 * MB})}, 6),
        ({"learnt": learnt_from({HUGE // 10: 50 * MB})}, 1),
        ({"learnt": Learnt(), "is_shared": False}, 6),
        ({"learnt": Learnt(), "processes": 1}, 3),
    ],
)
def test_who_is_not_tried(make: Make, more: dict[str, Any], sent: int) -> None:
    """Sizes near to one that is known, files under a limit of the user's own, and those that have no neighbour."""
    assert make(**more).add(*[HUGE] * 10).send() == [HUGE] * sent


def test_two_runs_try_one_after_the_other(make: Make) -> None:
    """What either takes is unknown."""
    machine = Machine()
    first, second = (make(machine=machine, learnt=Learnt()).add(*[HUGE] * 2) for _ in range(2))
    assert (first.send(), second.send()) == ([HUGE], [])
    tell(first, HUGE, 60 * MB)
    assert (first.send(), second.send()) == ([HUGE], [HUGE])


def test_fewer_neighbours_where_not_all_fit(make: Make) -> None:
    """A large job waits until few enough others run, and no more are sent while it does."""
    engine = make(processes=8, share=100 * MB).add(*[SMALL] * 100)
    assert engine.send() == [SMALL] * 24
    engine.backlog.put_back([Attempt(job(HUGE))])
    assert engine.end(*[SMALL] * 5).send() == [SMALL]  # the first was the large one, which waits from then on
    while HUGE not in engine.sizes:
        engine.end(SMALL).send()
    assert engine.sizes == [*[SMALL] * 4, HUGE]  # 600 of 800 MB for the large one, and 50 for each other
    assert engine.end(SMALL).send() == [SMALL]
    assert len(engine.end(HUGE).send()) == 20


def test_what_fits_beside_none_waits_for_the_end(make: Make) -> None:
    """It would keep all other workers idle at any time; when no others are left it is sent."""
    engine = make(learnt=learnt_from({SMALL: 100 * MB, HUGE: 620 * MB})).add(HUGE, *[SMALL] * 8)
    assert engine.send() == [SMALL] * 6
    engine.end(SMALL).send()
    while engine.sizes:
        assert engine.sizes in ([SMALL] * len(engine.sizes), [HUGE])
        engine.end(engine.sizes[0]).send()
    assert next(engine.numbers) and not engine.backlog.has_waiting


def test_what_is_larger_than_all_runs_alone(make: Make) -> None:
    """With the memory of all workers and no more; one at a time."""
    engine = make(learnt=learnt_from({HUGE: 1500 * MB})).add(HUGE, HUGE)
    assert engine.send() == [HUGE]
    [grant] = engine.grants
    assert grant.is_alone and grant.kill_bytes == 800 * MB
    assert engine.send() == []
    assert engine.end(HUGE).send() == [HUGE]


def test_a_kill_teaches(make: Make) -> None:
    """The first of its class runs alone, until it is known what it takes; the others then run beside small ones."""
    engine = make(learnt=learnt_from({SMALL: 50 * MB, HUGE: 50 * MB})).add(*[HUGE] * 3, *[SMALL] * 10)
    assert engine.send() == [HUGE] * 3 + [SMALL] * 3
    first = engine.number_of(HUGE)
    [killed] = engine.in_flight.pop(first)
    engine.admission.on_killed(killed, first, 650 * MB)
    killed.needs_memory = True
    engine.admission.add_alone(killed)
    engine.backlog.put_back([attempt for batch in engine.in_flight.values() for attempt in batch])
    engine.in_flight.clear()
    assert engine.send() == [SMALL] * 6
    while SMALL in engine.sizes:
        assert HUGE not in engine.sizes
        engine.end(SMALL).send()
    assert engine.sizes == [HUGE] and engine.send() == []
    for _ in range(20):
        engine.learnt.add(Outcome(Source(b"", HUGE, 0), (Result("up", b"", "done"),), 1.0, peak_bytes=300 * MB))
    engine.end(HUGE)
    assert engine.send() == [HUGE, HUGE]


def test_one_strange_file_holds_nobody_back(make: Make) -> None:
    """A class whose files are known to be small stays so when one of them is killed."""
    learnt = learnt_from({SMALL: 50 * MB})
    for _ in range(20):
        learnt.add(Outcome(Source(b"", SMALL, 0), (Result("up", b"", "done"),), 1.0, peak_bytes=50 * MB))
    engine = make(learnt=learnt).add(*[SMALL] * 10)
    engine.send()
    number = engine.number_of(SMALL)
    [killed] = engine.in_flight.pop(number)
    engine.admission.on_killed(killed, number, 900 * MB)
    assert engine.send() == [SMALL]


def test_what_turns_out_to_be_small_waits_no_more(make: Make) -> None:
    """The jobs that waited go back to the others."""
    engine = make(learnt=learnt_from({HUGE: 700 * MB})).add(*[HUGE] * 40)
    assert engine.send() == [HUGE]
    for _ in range(20):
        engine.learnt.add(Outcome(Source(b"", HUGE, 0), (Result("up", b"", "done"),), 1.0, peak_bytes=60 * MB))
    assert engine.end(HUGE).send() == [HUGE] * 6


@pytest.mark.parametrize(("peak", "ready", "sent"), [(330, 0, 2), (330, 300, 4), (450, 420, 1)])
def test_what_a_worker_holds_anyway_is_no_part_of_a_job(make: Make, peak: int, ready: int, sent: int) -> None:
    """Tiny files are not large because each worker has loaded a model, unless that exceeds its share."""
    engine = make(learnt=learnt_from({SMALL: peak * MB}), ready=ready * MB).add(*[SMALL] * 4)
    assert engine.send() == [SMALL] * sent


def claim(engine: Engine, size: int, claimed_bytes: int) -> None:
    """Have a job in flight come back with a claim."""
    [attempt] = engine.in_flight.pop(engine.number_of(size))
    assert claimed_bytes > (engine.admission.allowed_bytes(0) or 0)
    attempt.claimed_bytes = claimed_bytes
    engine.admission.add_large(attempt)


def test_jobs_that_claim_too_much_for_two_run_one_at_a_time(make: Make) -> None:
    """Beside others of their size, whose claims are small, though nothing else is known of them."""
    engine = make(learnt=learnt_from({SMALL: 50 * MB, HUGE: 50 * MB})).add(*[HUGE] * 3, *[SMALL] * 10)
    assert engine.send() == [HUGE] * 3 + [SMALL] * 3
    for _ in range(2):
        claim(engine, HUGE, 400 * MB)
    engine.end(SMALL, SMALL, HUGE)
    assert sorted(engine.send())[-2:] == [SMALL, HUGE]
    [grant] = engine.grants
    assert grant.reserved_bytes > 464 * MB
    number = engine.number_of(HUGE)
    assert (engine.admission.allowed_bytes(number) or 0) >= 400 * MB
    engine.end(*[size for size in engine.sizes if size == SMALL])
    engine.send()
    assert engine.sizes.count(HUGE) == 1
    assert HUGE in engine.end(HUGE).send()


def test_who_claims_more_than_there_is_runs_alone(make: Make) -> None:
    """And may take whatever there is, without a further claim."""
    engine = make(learnt=learnt_from({SMALL: 50 * MB})).add(HUGE)
    engine.send()
    claim(engine, HUGE, 2000 * MB)
    assert engine.send() == [HUGE]
    [grant] = engine.grants
    assert grant.is_alone and engine.admission.allowed_bytes(engine.number_of(HUGE)) is None


def test_nothing_is_claimed_where_nothing_is_limited(make: Make) -> None:
    """As in a pool whose share of the memory is unknown."""
    assert make(share=None).admission.allowed_bytes(0) is None


def test_an_explicit_limit_stays_one(make: Make) -> None:
    """What is known to exceed it by far runs alone, and is not killed first; what exceeds it less is as any other."""
    engine = make(is_shared=False, share=200 * MB, learnt=learnt_from({MIDDLE: 290 * MB, HUGE: 310 * MB}))
    engine.add(HUGE, MIDDLE, MIDDLE)
    assert engine.send() == [MIDDLE] * 2
    assert engine.end(MIDDLE).send() == []
    assert engine.end(MIDDLE).send() == [HUGE]
    assert [grant.is_alone for grant in engine.grants] == [True]


def test_what_others_take_meanwhile_is_heeded(make: Make) -> None:
    """What is free is read again: neighbours are fewer once it is less, and as many as before when it is back."""
    machine = Machine()
    engine = make(machine=machine, processes=4, share=200 * MB).add(HUGE, *[SMALL] * 30)
    engine.send()
    assert engine.sizes == [SMALL] * 12 + [HUGE]
    machine.free_bytes = 820 * MB  # of which a fifth stays free: 656 - 600 are left for one
    engine.end(*[SMALL] * 11)
    assert engine.send() == []
    machine.free_bytes = 1000 * MB
    assert engine.send() == [SMALL] * 11


def test_two_runs_share_a_machine(make: Make) -> None:
    """What one has promised to a job that has taken nothing yet, the other does not give away a second time."""
    machine = Machine()
    first, second = (make(machine=machine).add(HUGE, *[SMALL] * 20) for _ in range(2))
    first.send(), second.send()
    assert HUGE in first.sizes and HUGE not in second.sizes
    assert SMALL in second.sizes
    first.end(HUGE).send()
    assert HUGE in second.send()
    assert HUGE not in first.add(HUGE).send()


def test_who_runs_alone_waits_for_the_large_jobs_of_others(make: Make) -> None:
    """Not for their small ones; and of two only one begins."""
    machine, learnt = Machine(900 * MB), learnt_from({SMALL: 50 * MB, MIDDLE: 300 * MB, HUGE: 700 * MB})
    first, second, third = (make(machine=machine, learnt=learnt) for _ in range(3))
    assert first.add(MIDDLE).send() == [MIDDLE]
    third.add(SMALL).send()
    assert second.add(HUGE).send() == []
    first.end(MIDDLE).send()
    assert second.send() == [HUGE]
    assert first.add(HUGE).send() == []
    second.end(HUGE).send()
    assert first.send() == [HUGE]


def test_who_is_killed_alone_because_of_others_may_try_again(make: Make) -> None:
    """A file fails for its memory after it ran alone; beside the large jobs of another run it did not."""
    first, second = make(), make()
    attempt = Attempt(job(HUGE))
    attempt.needs_memory = True
    first.admission.add_alone(attempt)
    assert first.send() == [HUGE]
    second.grants.renew({}, is_here=True)
    number = first.number_of(HUGE)
    first.admission.on_killed(attempt, number, 400 * MB)
    assert not attempt.needs_memory
    second.grants.close()
    first.in_flight.clear()
    attempt.needs_memory = True
    first.admission.add_alone(attempt)
    assert first.send() == [HUGE]
    first.admission.on_killed(attempt, first.number_of(HUGE), 400 * MB)
    assert attempt.needs_memory


@pytest.mark.parametrize("seed", range(40))
def test_all_jobs_end_within_what_there_is(make: Make, seed: int) -> None:
    """Whatever runs at once on one machine: what large jobs are granted fits into it, and nobody waits for ever."""
    dice = random.Random(seed)
    machine, whole = Machine(), 1000 * MB
    peaks = {1 << bits: dice.randint(40, 900) * MB for bits in range(0, 20, 3)}
    engines = [
        make(machine=machine, learnt=learnt_from(peaks), processes=processes, share=800 * MB // processes)
        for processes in dice.choices([1, 2, 4, 8], k=dice.randint(1, 3))
    ]
    left = [dice.choices(list(peaks), k=dice.randint(1, 60)) for _ in engines]
    ended = 0
    expected = sum(map(len, left))
    for _ in range(10_000):
        index = dice.randrange(len(engines))
        engine = engines[index]
        if left[index] and dice.random() < 0.5:
            engine.add(left[index].pop())
        engine.send()
        granted = [each.reserved_bytes for other in engines for each in other.grants]
        is_one_alone = any(each == engines[0].alone for each in granted)
        assert sum(granted) <= (1 if is_one_alone else 0.8) * whole, granted
        if engine.in_flight and dice.random() < 0.7:
            ended += len(engine.in_flight.pop(dice.choice(list(engine.in_flight))))
        if ended == expected:
            break
    assert ended == expected
