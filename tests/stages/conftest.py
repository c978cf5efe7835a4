"""Of tests with three or more parameters, a pairwise choice of cases is run by default, and the others as `slow`."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.pairwise import mark_all_but_pairs


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave the full products to those who ask for slow tests."""
    mark_all_but_pairs(items, Path(__file__).parent)
