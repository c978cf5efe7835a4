"""How long the calls of stages took, as histograms that are small and true to a tenth."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.messages import Histogram
from pipeline.worker.call_times import CallTimes, histogram_of, merge

SPENT_NS = st.lists(st.integers(0, 10**15) | st.integers(0, 10**6), min_size=1, max_size=300)


@given(SPENT_NS)
def test_every_call_is_in_the_bucket_of_its_seconds(spent_ns: list[int]) -> None:
    """Bucket b has those of 2**(b/4) seconds and more, and none of 2**((b+1)/4)."""
    found = histogram_of([*spent_ns])
    assert (found.calls, found.slowest_s) == (len(spent_ns), max(spent_ns) / 1e9)
    assert math.isclose(found.total_s, sum(spent_ns) / 1e9, abs_tol=1e-12)
    for bucket, calls in found.counts.items():
        low, high = 2 ** (bucket / 4), 2 ** ((bucket + 1) / 4)
        assert calls == sum(low <= max(each, 1) / 1e9 < high for each in spent_ns)
    assert sum(found.counts.values()) == len(spent_ns)


@given(SPENT_NS, SPENT_NS)
def test_histograms_merge(one: list[int], other: list[int]) -> None:
    """Those of two batches are that of both together."""
    merged, whole = histogram_of([*one]).merged(histogram_of([*other])), histogram_of(one + other)
    assert (merged.calls, merged.slowest_s, merged.counts) == (whole.calls, whole.slowest_s, whole.counts)
    assert math.isclose(merged.total_s, whole.total_s)
    assert whole.merged(Histogram()) == whole


@given(SPENT_NS, st.sampled_from([0.0, 0.01, 0.5, 0.95, 1.0]))
def test_a_quantile_is_true_to_a_tenth(spent_ns: list[int], share: float) -> None:
    """And never above the slowest call."""
    found = histogram_of([*spent_ns]).quantile(share)
    true_s = sorted(spent_ns)[max(0, math.ceil(share * len(spent_ns)) - 1)] / 1e9
    assert found <= max(spent_ns) / 1e9
    assert true_s < 1e-8 or 0.9 < found / true_s < 1.1


def test_of_no_calls_there_is_nothing_to_say() -> None:
    assert Histogram().quantile(0.5) == 0.0


def test_calls_are_counted_by_stage_and_forgotten() -> None:
    """A call ends when no stage is entered any more."""
    times = CallTimes()
    for stage in (0, 2, 0):
        times.enter(stage)
        times.enter(-1)
    taken = times.take()
    assert {stage: found.calls for stage, found in taken.items()} == {0: 2, 2: 1}
    assert pickle.loads(pickle.dumps(taken)) == taken
    assert times.take() == {}
    merge(taken, {2: taken[0], 5: taken[2]})
    assert {stage: found.calls for stage, found in taken.items()} == {0: 2, 2: 3, 5: 1}


@pytest.mark.parametrize("parts", [0, 1, 5000])
def test_a_fan_out_is_one_call_whatever_the_number_of_its_parts(parts: int) -> None:
    """Its seconds are those of all of them; few single times are kept of the stage below, and none is lost."""
    times = CallTimes()
    times.enter(0)
    times.enter(-1)
    mark = times.begin_fan_out(0)
    times.enter(0)
    times.enter(-1)
    for _ in range(parts):
        for stage in (0, 1):
            times.enter(stage)
            times.enter(-1)
        times.join_fan_out(0, mark)
    times.join_fan_out(0, mark)
    assert len(times.spent_ns[0]) == 2 and len(times.spent_ns[1]) <= 1001
    assert {stage: found.calls for stage, found in times.take().items()} == {0: 2} | ({1: parts} if parts else {})


def test_a_walk_that_nobody_measures_counts_nothing() -> None:
    """As in `try`, where no engine looks at the clock."""
    times = CallTimes()
    times.join_fan_out(0, times.begin_fan_out(0))
    assert times.take() == {}
