"""Tells whether two times of a file may be one time: the rule for sources, outputs, parts, members and orphans.

same        both are equal                                  nothing has happened to the file
cut         one is the other as a coarser clock keeps it    a file system or a copy may have cut it: contents decide
different   neither                                         the file was written since, or somebody set its time

Contents are compared where their digest is recorded: of an output always, of a source under `changed_by: hash` and once
it was in doubt. Of a source without one, a difference that is less than any edit can make is none, and what is made of
it is made once more after any other. Where the contents are the same the ledger takes the new time, so that a doubt
costs one reading.
"""

from __future__ import annotations

from typing import Literal

from pipeline.ledger.origins import kept_time

Comparison = Literal["same", "cut", "different"]

GRANULARITIES_NS = (
    100,  # NTFS, SMB
    1_000,  # UDF, many archives, and programs that keep times as microseconds
    1_000_000,  # Java, JavaScript and many object stores
    10_000_000,  # exFAT
    1_000_000_000,  # HFS+, ext3, ext4 with small inodes, tar, scp, sftp
    2_000_000_000,  # FAT, zip
)
"""The granularities of times in file systems and copies, in nanoseconds. Most cut a time, some round it up."""

# Nanoseconds. No worker reads a source that is younger than a tick of 20 ms, so an edit after that reading is later
# than the recorded time by more than this.
_LESS_THAN_AN_EDIT_NS = 10_000_000


def compare_times(recorded_ns: int | None, found_ns: int) -> Comparison:
    """Compare the time that the ledger has of a file with the time that the file has now; of no file it has None."""
    if recorded_ns == found_ns:
        return "same"
    if recorded_ns is None:
        return "different"
    found_ns = kept_time(found_ns)
    apart_ns = abs(recorded_ns - found_ns)
    if not apart_ns:
        return "same"
    may_be = (each for each in GRANULARITIES_NS if apart_ns < each)
    return "cut" if any(recorded_ns % each == 0 or found_ns % each == 0 for each in may_be) else "different"


def is_no_edit(recorded_ns: int | None, found_ns: int) -> bool:
    """Return whether the times alone tell that a source is the one that was read."""
    comparison = compare_times(recorded_ns, found_ns)
    if comparison != "cut" or recorded_ns is None:
        return comparison == "same"
    return abs(recorded_ns - kept_time(found_ns)) < _LESS_THAN_AN_EDIT_NS
