"""Estimates what a plan may take: its time, its memory and the bytes that it writes, from what was learnt."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator

from pipeline.ledger.ledger import Ledger
from pipeline.planning.learnt import Learnt, Stages
from pipeline.records import NamedTuple
from pipeline.text import format_bytes, format_duration, unit_of_time

# Shorter runs tell more of the start of their workers than of their pace.
_LEAST_RUN_S = 2.0
# How far a run may well be off one that was like it: other programs, a warmer cache, another mix of files.
_OFF = 0.15

SizeCount = tuple[str, int, bool, int]
"""A stage, the bits of a size, whether it is one of groups, and how many outputs are to be made of such sources."""


class Expected(NamedTuple):
    """What some jobs are expected to take."""

    jobs: int = 0
    """The number of jobs of which something is known."""
    unknown: int = 0
    """The number of all others."""
    busy_s: float = 0.0
    """The seconds of all jobs together."""
    off_s: float = 0.0
    """The seconds by which these may differ by chance."""
    quickest_s: float = 0.0
    slowest_s: float = 0.0
    peak_bytes: int = 0
    """The memory of the most demanding that may run at a time; 0 if unknown."""
    bytes_out: float = 0.0


def expect(sizes: Iterable[SizeCount], learnt: Learnt, processes: int) -> Expected:
    """Return what the jobs of a plan are expected to take, on so many processes."""
    jobs = unknown = 0
    busy_s = variance = bytes_out = slowest_s = 0.0
    quickest_s = math.inf
    peaks: list[tuple[int, int]] = []
    for stages, size_bytes, count in _jobs(sizes):
        seconds = learnt.seconds(stages, size_bytes)
        if seconds is None:
            unknown += count
            continue
        jobs += count
        busy_s += count * seconds
        variance += count * (learnt.variance_s2(stages, size_bytes) or 0.0)
        bytes_out += count * (learnt.bytes_out(stages, size_bytes) or 0.0)
        quickest_s, slowest_s = min(quickest_s, seconds), max(slowest_s, seconds)
        if peak_bytes := learnt.peak_bytes(stages, size_bytes):
            peaks.append((peak_bytes, count))
    return Expected(
        jobs=jobs,
        unknown=unknown,
        busy_s=busy_s,
        off_s=math.sqrt(variance),
        quickest_s=quickest_s if jobs else 0.0,
        slowest_s=slowest_s,
        peak_bytes=_sum_of_largest(peaks, processes),
        bytes_out=bytes_out,
    )


def _jobs(sizes: Iterable[SizeCount]) -> Iterator[tuple[Stages, int, int]]:
    """Yield the jobs behind the outputs of each size: the stages of each, the size, and how many there are.

    Where only some of the sources of a size have an output of a stage, nobody has counted which others these have. It
    makes no difference to the sum.
    """
    by_size: defaultdict[tuple[int, bool], dict[str, int]] = defaultdict(dict)
    for stage, bits, are_groups, outputs in sizes:
        by_size[bits, are_groups][stage] = outputs
    for (bits, are_groups), left in by_size.items():
        size_bytes = (1 << bits) - 1
        if are_groups:  # each is one job
            yield from (((stage,), size_bytes, outputs) for stage, outputs in left.items())
            continue
        while left:
            count = min(left.values())
            yield tuple(sorted(left)), size_bytes, count
            left = {stage: outputs - count for stage, outputs in left.items() if outputs > count}


def _sum_of_largest(found: list[tuple[int, int]], most: int) -> int:
    total = 0
    for each, count in sorted(found, reverse=True):
        total += each * min(count, most)
        most -= min(count, most)
    return total


def efficiency(ledger: Ledger) -> float:
    """Return the share of their time for which the workers of the last long run had a job; 1 if there was none."""
    for summary in ledger.runs.summaries():
        work = summary.get("work") or {}
        if "busy_s" in work and work["seconds"] >= _LEAST_RUN_S:
            return min(1.0, max(0.05, float(work["busy_s"] / (work["seconds"] * max(1, work["processes"])))))
    return 1.0


def wall_s(expected: Expected, processes: int, share: float) -> float:
    """Return the seconds until all is done, if the workers have a job for this share of their time."""
    return max(expected.slowest_s, expected.busy_s / (processes * share))


def describe(expected: Expected, processes: int, share: float, free_bytes: int | None) -> str:
    """Return a phrase such as "41 min +- 6, peak 3 GB, writes 12 GB of 200 GB free"; empty if nothing is known."""
    if not expected.jobs:
        return ""
    seconds = wall_s(expected, processes, share)
    parts = [_duration(seconds, _OFF * seconds + expected.off_s / (processes * share))]
    if expected.peak_bytes:
        parts.append(f"peak {format_bytes(expected.peak_bytes)}")
    if expected.bytes_out:
        of = "" if free_bytes is None else f" of {format_bytes(free_bytes)} free"
        parts.append(f"writes {format_bytes(expected.bytes_out)}{of}")
    if expected.unknown:
        parts.append(f"without {expected.unknown:,} of which nothing is known yet")
    return ", ".join(parts)


def _duration(seconds: float, off_s: float) -> str:
    """Return a time with that by which it may be off, in the same unit."""
    if seconds < 1:
        return format_duration(seconds)
    unit_s, _ = unit_of_time(seconds)
    digits = 1 if seconds < 10 * unit_s else 0
    return f"{format_duration(seconds)} +- {max(off_s / unit_s, 10.0**-digits):.{digits}f}"
