"""A pipeline over eight nights in which its project is changed, disturbed and restored: exit 0 means right."""

from __future__ import annotations

import pytest
from drills.nights import simulate


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("seed", [8, 23])
def test_eight_nights(seed: int) -> None:
    """All outputs are those of an oracle, nothing of a person's is lost, and each exit code means what it says."""
    simulate(seed, 8, 200)
