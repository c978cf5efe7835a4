"""Chooses cases of a parametrised test so that every two values of two parameters meet in one; the rest are slow.

Most faults show with one value or with a pair (Kuhn, Wallace, Gallo: Software fault interactions, IEEE TSE 2004), and
three parameters of eight values have 512 cases, of which some 64 hold every pair.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from itertools import combinations, groupby
from pathlib import Path
from typing import Any

import pytest

Case = tuple[Hashable, ...]


def choose_pairwise(cases: Sequence[Case]) -> set[int]:
    """Return the positions of cases that together hold every pair of values found in all; greedy, in a fixed order."""
    axes = range(len(cases[0]))
    pairs = [{(one, case[one], other, case[other]) for one, other in combinations(axes, 2)} for case in cases]
    missing, chosen = set().union(*pairs), set[int]()
    while missing:
        best = max(range(len(cases)), key=lambda number: len(pairs[number] & missing))
        chosen.add(best)
        missing -= pairs[best]
    return chosen


def mark_all_but_pairs(items: Iterable[pytest.Item], folder: Path) -> None:
    """Mark the cases of tests in a folder with three or more `parametrize` as `slow`, but for a pairwise choice."""
    ours = [item for item in items if folder in item.path.parents and hasattr(item, "callspec")]
    for _, group in groupby(ours, lambda item: (item.path, getattr(item, "originalname", ""))):
        tests = list(group)
        cases = [_case_of(test) for test in tests]
        chosen = choose_pairwise(cases) if len(cases[0]) > 2 else range(len(cases))
        for number in set(range(len(tests))) - set(chosen):
            tests[number].add_marker(pytest.mark.slow)


def _case_of(test: Any) -> Case:
    """Return what a test is called with, one value for each `parametrize`."""
    marks = [mark.args[0] for mark in test.iter_markers("parametrize")]
    names = [mark.split(",") if isinstance(mark, str) else mark for mark in marks]
    return tuple(tuple(repr(test.callspec.params.get(name.strip())) for name in each) for each in names)
