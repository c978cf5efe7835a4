"""pipeline/report/trace.py: one line of JSON a job, whole ones only, and never at the run's expense."""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from support.odd_names import ODD_NAMES

from pipeline.engines.made_jobs import MadeBatch, MadeJobs
from pipeline.messages import Group, Job, Lost, MadePart, Outcome, Result, Source, Target, Usage
from pipeline.report.trace import Trace, row_of, rows_of

DONE = Result("up", b"/out/a", "done", size_bytes=7)
USAGE = Usage(1_700_000_000.25, 0.5, 1)


def outcome(*results: Result, name: bytes = b"a", **more: Any) -> Outcome:
    return Outcome(Source(name, 3, 1), results or (DONE,), 2.0, **{"usage": USAGE, "seat": 1, **more})


@pytest.fixture
def notes() -> list[str]:
    return []


@pytest.fixture
def trace(tmp_path: Path, notes: list[str]) -> Trace:
    return Trace(tmp_path / "runs" / "r1.ndjson", notes.append)


def rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of the trace."""
    return [json.loads(line) for line in (folder / "runs/r1.ndjson").read_bytes().decode().splitlines()]


def test_a_row_has_what_the_job_was_and_took() -> None:
    found = json.loads(row_of(outcome(DONE, DONE._replace(stage="more", size_bytes=5), peak_bytes=9)))
    assert found == {
        "source": "a", "stage": "up,more", "outcome": "done", "start": 1_700_000_000.25, "seconds": 2.0, "cpu": 0.5,
        "peak_rss": 9, "bytes_in": 3, "bytes_out": 12, "worker": 1,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (outcome(DONE._replace(status="skipped")), {"outcome": "skipped"}),
        (outcome(DONE._replace(status="skipped"), DONE), {"outcome": "done"}),
        (outcome(DONE, DONE._replace(status="failed", kind="timeout")), {"outcome": "failed", "kind": "timeout"}),
        (outcome(environment="full"), {"outcome": "failed", "kind": "environment"}),
        (outcome(usage=Usage(1.0, None, 7, (Lost(7, 4.5),))), {"start": 1.0, "cpu": None, "seconds": 6.5, "worker": 7}),
        (outcome(usage=None, seat=None), {"start": None, "cpu": None, "worker": None, "peak_rss": None}),
        (outcome(DONE._replace(size_bytes=0, parts=(MadePart("1", b"/1", 4, 1, b""),) * 2)), {"bytes_out": 8}),
        (Outcome(Group("up", b"g"), (DONE,), bytes_in=99), {"source": None, "group": "g", "bytes_in": 99}),
    ],
)
def test_a_row_tells_of_any_outcome(found: Outcome, said: dict[str, Any]) -> None:
    """Of a failure the kind; of a job whose worker died the seconds until then."""
    row = json.loads(row_of(found))
    assert {key: row[key] for key in said} == said


@pytest.mark.parametrize("name", [b"a", b"d/b", b'"\\{}%s', b"\xff\n\x1b", "\u202ert\u2028l \u00e9".encode()])
def test_jobs_that_made_all_have_the_same_rows_by_the_shorter_way(name: bytes) -> None:
    """Whatever their names and their numbers of outputs; of a worker whose memory is not known too."""
    jobs = [
        Job(Source(name, 10, 2), (Target("up", b"/a"),)),
        Job(Source(name + b"2", 20, 2), (Target("up", b"/b"), Target("more", b"/c"))),
        Job(Source(name + b"3", 30, 2), (Target("up", b"/d"),)),
    ]
    made = [
        (0.123456789, b"", 5, 100, 1, b""),
        (1e-7, b"", None, 200, 1, b"", 300, 1, b""),
        (12345.5, b"", 7, 0, 1, b""),
    ]
    outcomes = MadeJobs([MadeBatch(jobs, made, 3, [(1.7e9 + number, number / 7) for number in range(3)])])
    short = [json.loads(row) for batch in outcomes.batches for row in rows_of(*batch)]
    whole = [json.loads(row_of(each)) for each in outcomes]
    assert short == whole and [list(row) for row in short] == [list(row) for row in whole]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_a_name_is_one_line(tmp_path: Path, trace: Trace, name: bytes) -> None:
    """And one that is not UTF-8 can be had back."""
    trace.on_outcome(outcome(name=name))
    trace.on_end()
    [row] = rows(tmp_path)
    assert row.items() >= Source(name, 3, 1).as_json().items()


def test_a_run_without_jobs_leaves_no_file(tmp_path: Path, trace: Trace) -> None:
    trace.on_in_hand([])
    trace.on_end()
    assert not list(tmp_path.iterdir())


def test_rows_are_on_the_disk_within_a_second_or_so(tmp_path: Path, trace: Trace) -> None:
    """The event that comes about once a second writes them, and so do many rows."""
    trace.on_outcome(outcome())
    trace.on_in_hand([])
    assert len(rows(tmp_path)) == 1
    trace.on_outcomes([outcome()] * 1000)
    assert len(rows(tmp_path)) == 1001


def test_a_file_that_passes_through_several_pools_has_one_row(tmp_path: Path, trace: Trace) -> None:
    """With the seconds of all, from the first start on."""
    first = outcome(DONE, goes_on=True, peak_bytes=5, seat=3)
    trace.on_outcome(first)
    trace.on_outcome(outcome(name=b"b"))
    trace.on_outcome(outcome(DONE._replace(stage="slow"), usage=Usage(1_700_000_009.0, 0.25, 9), seat=9, peak_bytes=4))
    trace.on_end()
    other, row = rows(tmp_path)
    assert other["source"] == "b"
    assert (row["stage"], row["seconds"], row["cpu"], row["start"]) == ("up,slow", 4.0, 0.75, USAGE.start_s)
    assert (row["bytes_out"], row["peak_rss"], row["worker"]) == (14, 5, 1)


def test_a_file_that_was_stopped_between_pools_has_a_row_of_what_was_made(tmp_path: Path, trace: Trace) -> None:
    trace.on_outcome(outcome(DONE, goes_on=True))
    trace.on_outcome(outcome(name=b"b")._replace(results=(), goes_on=True))
    trace.on_jobs_ended()
    trace.on_end()
    assert [(row["source"], row["stage"]) for row in rows(tmp_path)] == [("a", "up")]


def test_a_file_that_is_there_is_left_alone(tmp_path: Path, trace: Trace, notes: list[str]) -> None:
    """It may be a person's; one note says so."""
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/r1.ndjson").write_text("mine")
    for _ in range(3):
        trace.on_outcome(outcome())
        trace.on_in_hand([])
    trace.on_end()
    assert (tmp_path / "runs/r1.ndjson").read_text() == "mine"
    assert notes == [f"no trace is written from here on: {tmp_path}/runs/r1.ndjson: file exists"]


@contextmanager
def files_of_at_most(size_bytes: int) -> Iterator[None]:
    """Have the system refuse to let files grow, as it does on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_where_there_is_no_more_room_no_half_line_is_left(tmp_path: Path, trace: Trace, notes: list[str]) -> None:
    """The rows before stay, one note says that there are no more, and the run hears of no error."""
    with files_of_at_most(1000):
        trace.on_outcome(outcome())
        trace.on_in_hand([])
        for _ in range(2):
            trace.on_outcomes([outcome()] * 1000)
        trace.on_end()
    assert len(rows(tmp_path)) == 1
    assert len(notes) == 1 and notes[0].startswith("no trace is written from here on: ")
