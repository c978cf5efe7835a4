"""Puts together what an engine has measured: the calls of its stages, and the workers that were replaced."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from pipeline.messages import Histogram, Measures, StageInfo
from pipeline.worker.call_times import CallTable

Restart = tuple[int, str]
"""The number of the slot of a worker that was replaced, and why: the word of `Measures.restart_reasons`."""


def measures_of(stages: Sequence[StageInfo], calls: CallTable, restarts: Mapping[Restart, int]) -> Measures:
    """Return the measures of one engine."""
    by_seat, by_reason = Counter[int](), Counter[str]()
    for (seat, why), workers in dict(restarts).items():
        by_seat[seat] += workers
        by_reason[why] += workers
    known = {stages[index].name: found for index, found in calls.items() if index < len(stages)}
    return Measures(known, dict(by_seat), dict(by_reason))


def merged(measures: Iterable[Measures]) -> Measures:
    """Return the measures of several engines as those of one."""
    stages, by_seat, by_reason = dict[str, Histogram](), Counter[int](), Counter[str]()
    for each in measures:
        for name, found in each.stages.items():
            stages[name] = stages[name].merged(found) if name in stages else found
        by_seat.update(each.restarts)
        by_reason.update(each.restart_reasons)
    return Measures(stages, dict(by_seat), dict(by_reason))
