"""Two times of one file: as every file system and copy keeps them, and as an edit leaves them."""

from __future__ import annotations

import pytest

from pipeline.planning.same_time import GRANULARITIES_NS, compare_times, is_no_edit
from pipeline.worker import source

# An odd second with nine digits after it, so that each granularity cuts something off.
FINE_NS = 1_700_000_001_123_456_789
# For each kind of file system or copy: the granularity, and the time as it is kept.
KEPT = {
    "ext4, XFS, Btrfs, ZFS, APFS": (1, FINE_NS),
    "NTFS, SMB": (100, 1_700_000_001_123_456_700),
    "UDF": (1_000, 1_700_000_001_123_456_000),
    "Java, JavaScript": (1_000_000, 1_700_000_001_123_000_000),
    "exFAT": (10_000_000, 1_700_000_001_120_000_000),
    "HFS+, ext3, tar, scp": (1_000_000_000, 1_700_000_001_000_000_000),
    "FAT, zip": (2_000_000_000, 1_700_000_000_000_000_000),
}


@pytest.mark.parametrize("kind", KEPT)
@pytest.mark.parametrize("before_1970", [False, True])
def test_a_time_as_others_keep_it(kind: str, before_1970: bool) -> None:
    """Cut or rounded up, recorded or found: what is finer than the granularity may be one time."""
    granularity_ns, kept_ns = KEPT[kind]
    assert FINE_NS // granularity_ns * granularity_ns == kept_ns
    for each_ns in (kept_ns, FINE_NS + -FINE_NS % granularity_ns):
        sign = -1 if before_1970 else 1
        one, other = sign * FINE_NS, sign * each_ns
        expected = "same" if granularity_ns == 1 else "cut"
        assert (compare_times(one, other), compare_times(other, one)) == (expected, expected)
        assert is_no_edit(one, other) is is_no_edit(other, one) is (granularity_ns <= 10_000_000)


@pytest.mark.parametrize("granularity_ns", GRANULARITIES_NS)
def test_a_time_that_was_cut_twice(granularity_ns: int) -> None:
    """By one file system and then by a coarser one; and it is no other time of the coarser one."""
    for finer_ns in (each for each in GRANULARITIES_NS if each <= granularity_ns):
        once_ns = FINE_NS // finer_ns * finer_ns
        twice_ns = once_ns // granularity_ns * granularity_ns
        assert compare_times(once_ns, twice_ns) == ("same" if once_ns == twice_ns else "cut")
        assert compare_times(once_ns, twice_ns - 4_000_000_000) == "different"
        assert compare_times(once_ns, twice_ns + 4_000_000_000) == "different"


@pytest.mark.parametrize(
    ("recorded_ns", "found_ns", "expected"),
    [
        (10_700_000_000, 10_000_000_000, "cut"),  # may be an edit in that second, and so the contents decide
        (10_000_000_000, 10_700_000_000, "cut"),
        (10_700_000_000, 10_700_000_001, "cut"),
        (10_712_345_678, 10_712_345_679, "different"),
        (10_712_345_678, 11_712_345_678, "different"),
        (11_000_000_000, 13_000_000_000, "different"),
        (10_000_000_000, 12_000_000_000, "different"),
        (10_700_000_000, 8_000_000_000, "different"),
        (0, 0, "same"),
        (None, 0, "different"),
        (2**63 - 1, 2**64, "same"),  # all that the ledger can hold
        (-(2**63 - 1), -(2**64), "same"),
    ],
)
def test_what_is_no_cut(recorded_ns: int | None, found_ns: int, expected: str) -> None:
    """Another second, another fraction, and no record."""
    assert compare_times(recorded_ns, found_ns) == expected


def test_an_edit_is_later_than_what_is_taken_for_none() -> None:
    """A worker waits so long before it reads a source that no later edit passes for a cut time."""
    nearest_ns = 10_000_000
    assert is_no_edit(FINE_NS, FINE_NS // nearest_ns * nearest_ns)
    assert nearest_ns < source._TICK_NS
    assert not any(is_no_edit(FINE_NS, FINE_NS + source._TICK_NS + more_ns) for more_ns in (-1, 0, 1, 543_211))
