"""Compares the reports of two runs: their figures side by side, and the failures that only one of them has."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from pipeline.records import NamedTuple

Report = Mapping[str, Any]
# The number of the meaning that the keys of a report have.
FORMAT = 1
# What of a report is read again: the members of an object, `...` for any of them, and what a list has.
_READ = {
    "run": str,
    "number": int,
    "started": float,
    "seconds": float,
    "exit": int,
    "counts": {...: int},
    "bytes": {"in": int, "out": int, "saved": int},
    "timeline": {"files": [int]},
    "stages": [{"name": str, "total_s": float}],
    "failures": [{"stage": str, "kind": str, "reason": str, "files": int, "examples": [{"source": str}]}],
}
# No number in a report is as large.
_MOST = 2**62
# The counts that are not of outputs.
_OF_FILES = ("sources", "unmatched")


class Row(NamedTuple):
    """One figure of two runs; None where a run has no such figure."""

    name: str
    unit: str
    """What the figure counts: files, outputs, seconds, bytes, or files a second; empty for an exit code."""
    before: float | None
    after: float | None


def is_report(fields: Any) -> bool:
    """Return whether what a file says is a report in our format, and so can be compared."""
    return _fits(fields, _READ) and fields.get("format") == FORMAT


def _fits(value: Any, shape: Any) -> bool:
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            return False
        if ... in shape:
            return all(_fits(each, shape[...]) for each in value.values())
        return all(key in value and _fits(value[key], each) for key, each in shape.items())
    if isinstance(shape, list):
        return isinstance(value, list) and all(_fits(each, shape[0]) for each in value)
    if shape is str:
        return isinstance(value, str)
    return isinstance(value, (int, shape)) and not isinstance(value, bool) and abs(value) < _MOST


def compare(before: Report, after: Report) -> dict[str, Any]:
    """Return the members of a comparison, as JSON can hold them."""
    failures_before, failures_after = _failures(before), _failures(after)
    return {
        "runs": [{key: each[key] for key in ("number", "run", "started")} for each in (before, after)],
        "rows": [each._asdict() for each in rows_of(before, after)],
        "new": [each for key, each in failures_after.items() if key not in failures_before],
        "gone": [each for key, each in failures_before.items() if key not in failures_after],
    }


def rows_of(before: Report, after: Report) -> Iterator[Row]:
    """Yield the figures of two runs; counts that are 0 in both are left out."""
    yield Row("exit", "", before["exit"], after["exit"])
    for name, count in before["counts"].items():
        if count or after["counts"].get(name):
            yield Row(name, "files" if name in _OF_FILES else "outputs", count, after["counts"].get(name))
    yield Row("seconds", "s", before["seconds"], after["seconds"])
    yield Row("pace", "files/s", _pace(before), _pace(after))
    for name in ("in", "out", "saved"):
        yield Row(f"bytes {name}", "bytes", before["bytes"][name], after["bytes"][name])
    stages_before, stages_after = _seconds_of_stages(before), _seconds_of_stages(after)
    for stage in dict.fromkeys([*stages_before, *stages_after]):
        yield Row(f"stage {stage}", "s", stages_before.get(stage), stages_after.get(stage))


def _pace(report: Report) -> float:
    files = sum(report["timeline"]["files"])
    return round(files / report["seconds"], 3) if report["seconds"] else 0.0


def _seconds_of_stages(report: Report) -> dict[str, float]:
    return {stage["name"]: stage["total_s"] for stage in report["stages"]}


def _failures(report: Report) -> dict[tuple[str, ...], dict[str, Any]]:
    """Return the groups of failures by stage, kind and reason, without their examples but the first one's name."""
    return {
        (group["stage"], group["kind"], group["reason"]): {
            "stage": group["stage"],
            "kind": group["kind"],
            "reason": group["reason"],
            "files": group["files"],
            "example": group["examples"][0]["source"] if group["examples"] else None,
        }
        for group in report["failures"]
    }
