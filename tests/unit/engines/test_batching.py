"""How many jobs go to a worker at once, and in which order."""

from __future__ import annotations

import pytest
from support.pool_jobs import job
from support.program import wait_until

from pipeline.engines.attempts import Attempt
from pipeline.engines.batching import (
    BATCH_S,
    BATCHES_PER_WORKER,
    MAX_JOBS_IN_BATCH,
    SHORT_BATCHES_PER_WORKER,
    Backlog,
    BatchSizer,
)


def sizer(job_s: float | None = None, processes: int = 2, maxtasksperchild: int | None = None) -> BatchSizer:
    """One that has seen jobs of this length."""
    made = BatchSizer(processes, maxtasksperchild)
    if job_s is not None:
        made.add_timing(10, 10 * job_s)
    return made


def attempts(count: int) -> list[Attempt]:
    return [Attempt(job(str(number))) for number in range(count)]


def names(batch: list[Attempt]) -> list[str]:
    return [attempt.job.source.path.decode() for attempt in batch]


@pytest.mark.parametrize(
    ("job_s", "waiting", "size"),
    [
        (None, 10_000, 1),  # nothing is known yet: a job may take a minute
        (60, 10_000, 1),
        (BATCH_S / 10.5, 10_000, 10),
        (BATCH_S / 1e6, 100_000, MAX_JOBS_IN_BATCH),
        (BATCH_S / 10.5, 20, 5),  # near the end each of two workers gets its share, twice
        (BATCH_S / 10.5, 3, 1),
        (0.0, 10_000, 1),  # a clock too coarse to tell
    ],
)
def test_a_batch_takes_about_as_long_as_it_should(job_s: float | None, waiting: int, size: int) -> None:
    """Long enough that sending it costs little, short enough that nobody waits for it."""
    assert sizer(job_s).batch_size(waiting) == size


@pytest.mark.parametrize("limit", [1, 7, 1000])
def test_no_batch_is_larger_than_a_workers_share(limit: int) -> None:
    """Else it would come back half done."""
    assert sizer(1e-9, maxtasksperchild=limit).batch_size(100_000) == min(limit, MAX_JOBS_IN_BATCH)


def test_more_batches_are_in_flight_when_they_are_short() -> None:
    """A worker that is done in no time must not wait for the consumer."""
    assert sizer(None, 4).max_in_flight == sizer(1.0, 4).max_in_flight == 4 * BATCHES_PER_WORKER
    assert sizer(1e-9, 4).max_in_flight == 4 * SHORT_BATCHES_PER_WORKER


def test_the_mean_follows_the_latest_jobs() -> None:
    """When files grow larger, batches become smaller within a few of them, and not at the first."""
    made = sizer(BATCH_S / 100)
    sizes = [made.batch_size(10_000)]
    for _ in range(20):
        made.add_timing(1, BATCH_S)
        sizes.append(made.batch_size(10_000))
    assert sizes == sorted(sizes, reverse=True) and sizes[0] >= 99 and 1 < sizes[1] < 10 and sizes[-1] == 1


def test_jobs_go_in_order_but_for_those_that_come_back() -> None:
    """Alone before all others, then what was sent and not done, then the rest as it came."""
    backlog = Backlog(sizer(BATCH_S / 4.5, processes=1))
    for attempt in attempts(12):
        backlog.add(attempt)
    first = backlog.next_batch()
    assert names(first) == ["0", "1", "2", "3"]
    backlog.add_alone(first[1])
    backlog.put_back(first[2:])
    assert [names(backlog.next_batch()) for _ in range(2)] == [["1"], ["2", "3", "4", "5"]]
    left = [names(batch) for batch in iter(backlog.next_batch, [])]
    assert [name for batch in left for name in batch] == ["6", "7", "8", "9", "10", "11"]


def test_a_delayed_job_waits_for_its_pause_and_goes_alone() -> None:
    """Others go on meanwhile; of two, the one that is due first goes first."""
    backlog = Backlog(sizer())
    late, later, never = attempts(3)
    backlog.add_delayed(later, 0.05)
    backlog.add_delayed(late, 0.01)
    backlog.add_delayed(never, 1000)
    backlog.add(Attempt(job("other")))
    assert names(backlog.next_batch()) in (["other"], ["0"])
    found = [names(wait_until(backlog.next_batch)) for _ in range(2)]
    assert ["1"] in found and backlog.next_batch() == []


def test_clearing_gives_back_every_job() -> None:
    """Whether it waited, was to go alone, or later; after that there is none."""
    backlog = Backlog(sizer())
    one, two, three = attempts(3)
    backlog.add(one)
    backlog.add_alone(two)
    backlog.add_delayed(three, 1000)
    assert sorted(names(list(backlog.clear()))) == ["0", "1", "2"]
    assert backlog.next_batch() == [] and list(backlog.clear()) == []
