"""What two reports are compared by."""

from __future__ import annotations

from pipeline.report.comparison import rows_of


def test_each_count_says_what_it_counts() -> None:
    """Files that were found, or that no pattern takes, are no outputs."""
    counts = {"sources": 3, "done": 2, "unmatched": 1, "held": 0}
    report = {
        "exit": 0, "counts": counts, "seconds": 2.0, "timeline": {"files": [3]},
        "bytes": {"in": 1, "out": 1, "saved": 0}, "stages": [],
    }  # fmt: skip
    units = {row.name: row.unit for row in rows_of(report, report) if row.name in counts}
    assert units == {"sources": "files", "done": "outputs", "unmatched": "files"}
