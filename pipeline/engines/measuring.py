"""Puts together what an engine has measured: the calls of its stages, and the workers that were replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.messages import Histogram, Measures, StageInfo
from pipeline.worker.call_times import CallTable


def measures_of(stages: Sequence[StageInfo], calls: CallTable, restarts: Mapping[int, int]) -> Measures:
    """Return the measures of one engine."""
    known = {stages[index].name: found for index, found in calls.items() if index < len(stages)}
    return Measures(known, dict(restarts))


def merged(measures: Iterable[Measures]) -> Measures:
    """Return the measures of several engines as those of one."""
    stages, restarts = dict[str, Histogram](), Counter[int]()
    for each in measures:
        for name, found in each.stages.items():
            stages[name] = stages[name].merged(found) if name in stages else found
        restarts.update(each.restarts)
    return Measures(stages, dict(restarts))
