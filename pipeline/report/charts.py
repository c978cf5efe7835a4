"""The geometry of the report's charts: numbers become shapes of an SVG, which the template draws and describes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from pipeline.records import dataclass

# Charts are drawn this high, and one wide for each column; the page stretches them to the place that they have.
HEIGHT = 100
# The share of its place that a column takes; the rest is the gap to the next one.
_COLUMN = 0.8
# The least height of a column that stands for something: one failure is seen beside a thousand.
_LEAST = 3.0
# Calls are counted by classes of time of which this many double it.
_CLASSES = 4


@dataclass(frozen=True)
class Column:
    """One upright column: its left edge, its top edge from above, its height, and the value that it stands for."""

    x: float
    y: float
    height: float
    value: float


@dataclass(frozen=True)
class Chart:
    """Columns from left to right, and the value that the upper edge of the chart stands for."""

    columns: Sequence[Column]
    top: float
    width: float = _COLUMN


@dataclass(frozen=True)
class Histograms:
    """The calls of stages by their time, a path for each stage, on one logarithmic scale from `low_s` to `high_s`."""

    paths: Sequence[str]
    classes: int
    low_s: float
    high_s: float


def chart(values: Sequence[float | None], *, unit: float = 1) -> Chart:
    """Return a column for each value; the scale counts in `unit`, as in 10 for the values of 10 s by the second."""
    top = round_up(max((value or 0 for value in values), default=0) / unit)
    return Chart([_column(place, value or 0, top * unit) for place, value in enumerate(values)], top)


def _column(place: int, value: float, top: float) -> Column:
    height = _height(value, top)
    return Column(x=round(place + (1 - _COLUMN) / 2, 2), y=round(HEIGHT - height, 1), height=height, value=value)


def _height(value: float, top: float) -> float:
    return round(max(_LEAST, value / top * HEIGHT), 1) if value > 0 else 0


def round_up(value: float) -> float:
    """Return the least of 1, 2 or 5 times a power of ten that is not below a value; 1 for nothing."""
    if value <= 0:
        return 1
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 5, 10) if step * power >= value * (1 - 1e-9))


def histograms(stages: Iterable[Mapping[str, Any]]) -> Histograms:
    """Return the histograms of stages, each as high as its own largest class."""
    counts = [{_class_of(from_s): calls for from_s, calls in stage["histogram"] if calls} for stage in stages]
    found = [each for of_stage in counts for each in of_stage] or [0]
    low, high = min(found), max(found) + 1
    paths = [_path(of_stage, low) for of_stage in counts]
    return Histograms(paths, high - low, 2 ** (low / _CLASSES), 2 ** (high / _CLASSES))


def _class_of(from_s: float) -> int:
    return round(math.log2(from_s) * _CLASSES) if from_s > 0 else -20 * _CLASSES  # a microsecond


def _path(counts: Mapping[int, int], low: int) -> str:
    """Return the columns of a histogram as one path, which takes a sixth of the room of as many rectangles."""
    top = max(counts.values(), default=1)
    return "".join(
        f"M{each - low} {HEIGHT}v-{_height(calls, top):g}h1V{HEIGHT}z" for each, calls in sorted(counts.items())
    )


def percent(part: float | None, whole: float | None) -> float:
    """Return which part of a whole this is, from 0 to 100; 0 where there is nothing to compare."""
    return round(min(100.0, max(0.0, 100 * (part or 0) / whole)), 1) if whole else 0
