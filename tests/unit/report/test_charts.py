"""Charts: shapes that show each number as large as it is, and the smallest still."""

from __future__ import annotations

import re

import pytest

from pipeline.report.charts import HEIGHT, chart, histograms, percent, round_up


@pytest.mark.parametrize(
    ("value", "top"),
    [(0, 1), (-3, 1), (1, 1), (1.01, 2), (4, 5), (5, 5), (5.5, 10), (99, 100), (0.03, 0.05), (0.1, 0.1)],
)
def test_a_scale_ends_at_a_round_number(value: float, top: float) -> None:
    """The number beside the upper edge is one that a person reads at a glance."""
    assert round_up(value) == pytest.approx(top)


def test_columns_are_as_high_as_their_values() -> None:
    """The highest of a round number fills the chart, nothing is empty, and one beside ten thousand is seen."""
    drawn = chart([10_000, 5_000, 1, 0, None])
    assert [each.height for each in drawn.columns] == [HEIGHT, HEIGHT / 2, 3, 0, 0]
    assert [each.y for each in drawn.columns] == [0, HEIGHT / 2, HEIGHT - 3, HEIGHT, HEIGHT]
    assert [each.value for each in drawn.columns] == [10_000, 5_000, 1, 0, 0]
    assert all(place < each.x and each.x + drawn.width < place + 1 for place, each in enumerate(drawn.columns))


def test_a_scale_counts_in_its_unit() -> None:
    """300 files in steps of ten seconds are 30 a second, below a scale of 50."""
    drawn = chart([300], unit=10)
    assert (drawn.top, drawn.columns[0].height) == (50, 60)


def test_histograms_share_one_logarithmic_scale() -> None:
    """Stages are compared at a glance: a class of time has its place in all, four of them to a doubling."""
    quick = {"histogram": [[0.25, 10], [0.5, 5]]}
    slow = {"histogram": [[1.0, 7], [2.0, 0]]}
    drawn = histograms([quick, slow, {"histogram": []}])
    places = [[int(place) for place in re.findall(r"M(-?\d+) ", path)] for path in drawn.paths]
    assert places == [[0, 4], [8], []]
    assert (drawn.classes, drawn.low_s) == (9, 0.25) and drawn.high_s == pytest.approx(2**0.25)


def test_calls_that_took_no_time_have_a_place() -> None:
    """A clock too coarse for a stage does not cost the report."""
    assert histograms([{"histogram": [[0, 3]]}]).paths[0].startswith("M0 ")


@pytest.mark.parametrize(
    ("part", "whole", "share"), [(1, 4, 25), (5, 4, 100), (-1, 4, 0), (None, 4, 0), (3, 0, 0), (3, None, 0)]
)
def test_a_share_is_between_nothing_and_all(part: float | None, whole: float | None, share: float) -> None:
    """Clocks that disagree draw no bar beyond its frame."""
    assert percent(part, whole) == share
