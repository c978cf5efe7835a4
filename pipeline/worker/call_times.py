"""How long each call of a stage took in this process, which goes to the parent with every batch, as histograms."""

from __future__ import annotations

import math
import time
from bisect import bisect_left, bisect_right
from collections import defaultdict
from functools import cache

from pipeline.messages import Histogram

CallTable = dict[int, Histogram]
"""The calls of each stage, by its index."""

# The first bucket that a call can be in, that of a nanosecond, and one that none can be above, that of a year.
_FIRST, _LAST = -120, 100
# Calls of a stage below a fan-out whose single times are kept: there may be any number of parts.
_MANY = 1000


class CallTimes:
    """The calls of stages since they were last taken.

    An engine measures them in the function that it has called before and after each call: it reads the clock there
    anyway, or calls `enter`.
    """

    def __init__(self) -> None:
        self.spent_ns: defaultdict[int, list[int]] = defaultdict(list)
        """The nanoseconds of each call, by the index of the stage."""
        self._known: CallTable = {}
        self._entered = (-1, 0)
        """The stage that is being called, -1 if none is, and since when."""

    def enter(self, stage: int) -> None:
        """Note that a stage is called now, or that its call has ended if `stage` is -1."""
        (before, since_ns), now_ns = self._entered, time.monotonic_ns()
        if stage < 0:
            self.spent_ns[before].append(now_ns - since_ns)
        self._entered = stage, now_ns

    def begin_fan_out(self, stage: int) -> int:
        """Return the mark for `join_fan_out` of a fan-out that is called now."""
        return len(self.spent_ns[stage])

    def join_fan_out(self, stage: int, mark: int) -> None:
        """Count all calls of a fan-out since `begin_fan_out`, the first and those for each part, as one."""
        spent_ns = self.spent_ns[stage]
        if len(spent_ns) > mark:
            spent_ns[mark:] = [sum(spent_ns[mark:])]
        for other, its in self.spent_ns.items():
            if other != stage and len(its) > _MANY:
                self._fold(other, its)

    def take(self) -> CallTable:
        """Return the calls of each stage, and forget them."""
        for stage, spent_ns in self.spent_ns.items():
            if spent_ns and stage >= 0:
                self._fold(stage, spent_ns)
        self.spent_ns.clear()
        taken, self._known = self._known, {}
        return taken

    def _fold(self, stage: int, spent_ns: list[int]) -> None:
        found = histogram_of(spent_ns)
        spent_ns.clear()
        self._known[stage] = self._known[stage].merged(found) if stage in self._known else found


def histogram_of(spent_ns: list[int]) -> Histogram:
    """Return the histogram of calls that took so many nanoseconds each; sorts them."""
    edges, counts, at = _edges_ns(), dict[int, int](), 0
    spent_ns.sort()
    while at < len(spent_ns):
        above = max(1, bisect_right(edges, spent_ns[at]))
        after = bisect_left(spent_ns, edges[above], at)
        counts[_FIRST + above - 1] = after - at
        at = after
    return Histogram(len(spent_ns), sum(spent_ns) / 1e9, spent_ns[-1] / 1e9, counts)


def merge(table: CallTable, other: CallTable) -> None:
    """Add the calls of another table to those of one."""
    for stage, found in other.items():
        table[stage] = table[stage].merged(found) if stage in table else found


@cache
def _edges_ns() -> list[float]:
    """Return the lower edge of each bucket in nanoseconds."""
    return [*(2 ** (bucket / 4) * 1e9 for bucket in range(_FIRST, _LAST + 1)), math.inf]


call_times = CallTimes()
"""The calls of stages in this process."""
