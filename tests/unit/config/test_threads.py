"""How many threads libraries are told to start in a worker."""

from __future__ import annotations

import pytest

from pipeline.config.threads import THREAD_VARIABLES, thread_limits


@pytest.mark.parametrize(
    ("cpus", "workers", "share"), [(8, 8, "1"), (8, 2, "4"), (8, 3, "2"), (2, 64, "1"), (1, 1, "1")]
)
def test_all_workers_together_have_a_thread_for_each_cpu(cpus: int, workers: int, share: str) -> None:
    """At least one each."""
    assert thread_limits(cpus, workers, {}) == dict.fromkeys(THREAD_VARIABLES, share)


def test_what_the_user_has_set_counts() -> None:
    """Whatever its value."""
    limits = thread_limits(4, 2, {"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": ""})
    assert limits == dict.fromkeys(THREAD_VARIABLES, "2") | {"OMP_NUM_THREADS": "7", "MKL_NUM_THREADS": ""}
