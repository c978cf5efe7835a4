"""What a plan may take is told from what jobs like its own took before, where there were any."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, ledger_of

from pipeline.messages import Outcome, Result, Source
from pipeline.planning.estimate import Expected, describe, efficiency, expect, wall_s
from pipeline.planning.learnt import Learnt

GB = 10**9


def learnt_from(*met: tuple[tuple[str, ...], int, float]) -> Learnt:
    """A model that has met jobs with these outputs, sizes and seconds; each took 1 GB and wrote 1 kB an output."""
    learnt = Learnt()
    for seat, (stages, size, seconds) in enumerate(met):
        results = tuple(Result(stage, b"out", "done", size_bytes=1000) for stage in stages)
        learnt.add(Outcome(Source(b"a", size, 0), results, seconds, peak_bytes=GB, seat=seat))
    return learnt


@pytest.mark.parametrize(
    ("expected", "said"),
    [
        (Expected(), ""),
        (Expected(unknown=3), ""),
        (Expected(jobs=1, busy_s=0.5), "less than a second"),
        (Expected(jobs=1, busy_s=8, slowest_s=8), "8.0 s +- 1.2"),
        (Expected(jobs=9, busy_s=60, off_s=10), "15 s +- 5"),
        (Expected(jobs=9, busy_s=4 * 2460, peak_bytes=3 * GB, bytes_out=12 * GB),
         "41 min +- 6, peak 3.0 GB, writes 12.0 GB of 200.0 GB free"),
        (Expected(jobs=9, busy_s=4 * 10_000, unknown=300),
         "2.8 h +- 0.4, without 300 of which nothing is known yet"),
        (Expected(jobs=9, busy_s=4 * 4 * 86_400), "4.0 days +- 0.6"),
    ],
)  # fmt: skip
def test_it_is_said_in_words(expected: Expected, said: str) -> None:
    """In a unit that suits it; nothing where nothing is known."""
    assert describe(expected, 4, 1.0, 200 * GB) == said


def test_free_space_may_be_unknown() -> None:
    """Then the other figure stands alone."""
    assert describe(Expected(jobs=1, bytes_out=5000), 1, 1.0, None) == "less than a second, writes 5.0 kB"


def test_no_run_is_shorter_than_its_longest_job() -> None:
    """However many workers there are; and idle workers make it longer."""
    assert wall_s(Expected(jobs=9, busy_s=10, slowest_s=6), 64, 1.0) == 6
    assert wall_s(Expected(jobs=9, busy_s=64, slowest_s=1), 64, 0.5) == 2


def test_jobs_are_summed_by_outputs_and_size() -> None:
    """Where only some sources of a size have an output of a stage, the sum is the same whichever they are."""
    learnt = learnt_from((("web", "thumb"), 100, 1.0), (("web", "thumb"), 5000, 10.0), (("text",), 100, 3.0))
    sizes = [("web", 7, False, 5), ("thumb", 7, False, 5), ("text", 7, False, 2), ("web", 13, False, 1),
             ("thumb", 13, False, 1), ("sheet", 3, True, 4)]  # fmt: skip
    found = expect(sizes, learnt, 2)
    assert found.busy_s == pytest.approx(5 * 1.0 + 2 * 3.0 + 10.0)
    assert (found.jobs, found.unknown) == (6, 4)
    assert found.bytes_out == pytest.approx(5 * 2000 + 2 * 1000 + 2000)
    assert found.slowest_s == pytest.approx(10.0)
    assert found.peak_bytes == 2 * GB


def test_it_is_of_earlier_runs(tmp_path: Path, pipeline: Pipeline) -> None:
    """Nothing is said where nothing is known or to be done; what is known outlives nights without work."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    assert "expected" not in pipeline("plan").stdout
    project.run()
    project.run()
    assert "expected" not in pipeline("plan").stdout
    with ledger_of(tmp_path) as ledger:
        assert efficiency(ledger) == 1.0, "the run was too short to tell"
    project.write("in/b", "y")
    said = pipeline("plan").stdout.splitlines()
    assert re.fullmatch(r"expected: less than a second, peak [\d.]+ MB, writes 1 bytes of [\d.,]+ [GT]B free", said[-1])


def test_idle_workers_of_the_last_long_run_count(tmp_path: Path) -> None:
    """A run in which four workers had half an hour of work in half an hour had three of them idle."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    project.run()
    with ledger_of(tmp_path) as ledger:
        work = {"files": 9, "seconds": 1800, "busy_s": 1800, "processes": 4}
        ledger.begin_run("another")
        ledger.end_run(0, {"work": work}, swept=False)
        ledger.begin_run("short")
        ledger.end_run(0, {"work": work | {"seconds": 1.0}}, swept=False)
        assert efficiency(ledger) == 0.25


def test_verbose_shows_the_route(tmp_path: Path, pipeline: Pipeline) -> None:
    """Once a stage: what it is handed, and into what that is converted."""
    project = Project(tmp_path)
    project.write("in/a", "x")
    said = pipeline("plan", "-v").stdout.splitlines()
    assert "up: inputs (Path) -> str -> upper -> str -> out/{dir}/{name}" in said
    assert said[-1] == "make        up           a -> out/a: new"
    assert "up: inputs" not in pipeline("plan").stdout
