"""Which times of files may be of a moment or later, though the file system's clock lags or shows whole seconds."""

from __future__ import annotations

import pytest

from pipeline.files.clocks import may_be_since

SINCE_NS = 1_700_000_001_500_000_000


@pytest.mark.parametrize(
    ("ctime_ns", "may_be"),
    [
        (SINCE_NS, True),
        (SINCE_NS + 1, True),
        (SINCE_NS - 1, False),
        (1_700_000_001_000_000_000, True),  # of whole seconds
        (1_700_000_000_000_000_000, True),  # of every other one
        (1_699_999_999_000_000_000, False),
        (1_700_000_000_000_000_001, False),
    ],
)
def test_a_file_that_may_have_changed_since(ctime_ns: int, may_be: bool) -> None:
    """A time in whole seconds may be up to two seconds early, any other is exact."""
    assert may_be_since(ctime_ns, SINCE_NS) is may_be
