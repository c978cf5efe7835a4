"""Shared by the tests of the pool: engines that are closed when a test ends, and a loop like that of run.py."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import pytest

from pipeline.engines.os_process import memory_bytes
from pipeline.engines.pool import PoolEngine, PoolSettings, PoolSpec
from pipeline.messages import Job, Outcome
from support import pool_jobs

METHODS = ("fork", "forkserver", "spawn")
LIBC = ctypes.CDLL(None)


@pytest.fixture(params=METHODS)
def method(request: pytest.FixtureRequest) -> str:
    return str(request.param)


Make = Callable[..., PoolEngine]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Make engines that are closed when the test ends."""
    engines: list[PoolEngine] = []

    def engine(
        method: str = "fork",
        *,
        work=pool_jobs.work,
        blueprint: bytes = b"",
        stages=pool_jobs.STAGES,
        close_fds=(),
        peaks=None,
        **settings,
    ) -> PoolEngine:
        folder = tmp_path / f"engine{len(engines)}"
        settings = {"processes": 2, **settings}
        spec = PoolSpec(PoolSettings(context=method, **settings), tuple(stages), pool_jobs.start, blueprint, work)
        made = spec.open(folder, close_fds, peaks)
        engines.append(made)
        return made

    yield engine
    for made in engines:
        made.close()


def run(
    engine: PoolEngine, jobs: Iterable[Job], most_s: float = 60, each: Callable[[], None] = lambda: None
) -> list[Outcome]:
    """Feed the engine and poll it until all is done; `each` is called after every poll."""
    deadline = time.monotonic() + most_s
    source = iter(jobs)
    found: list[Outcome] = []
    job = next(source, None)
    while job or engine.busy:
        while job and engine.has_room:
            engine.submit(job)
            job = next(source, None)
        found += engine.poll(0.5)
        each()
        assert time.monotonic() < deadline, f"hangs after {len(found)} outcomes"
    return found


def first_bytes(method: str) -> int:
    """What a worker holds from the start: where it is forked, all that the process of the tests does."""
    if method != "fork":
        return 50_000_000
    if hasattr(LIBC, "malloc_trim"):  # what earlier tests have left
        LIBC.malloc_trim(0)
    return memory_bytes()


def texts(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The text of each job's only result, by the job's name."""
    return {outcome.source.path.decode(): outcome.results[0].text for outcome in outcomes}


def kinds(outcomes: Iterable[Outcome]) -> dict[str, str]:
    """The kind of each job's only result, or its status where there is none, by the job's name."""
    return {o.source.path.decode(): o.results[0].kind or o.results[0].status for o in outcomes}
