"""The choice of cases that the tests of pictures run by default."""

from __future__ import annotations

from itertools import combinations, product

import pytest
from support.pairwise import choose_pairwise


@pytest.mark.parametrize("sizes", [(2, 2, 2), (6, 4, 3), (8, 3, 2, 2), (5, 1, 4)])
def test_every_pair_of_values_is_in_a_chosen_case(sizes: tuple[int, ...]) -> None:
    """No two values are left out that meet in the full product, and fewer cases are run than that has."""
    cases = list(product(*map(range, sizes)))
    chosen = [cases[number] for number in choose_pairwise(cases)]
    for one, other in combinations(range(len(sizes)), 2):
        assert {(case[one], case[other]) for case in chosen} == set(product(range(sizes[one]), range(sizes[other])))
    assert len(chosen) < len(cases) or 1 in sizes
