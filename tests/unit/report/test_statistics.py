"""pipeline/report/statistics.py: the figures of a run, added up as it goes."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import pytest

from pipeline.engines.made_jobs import MadeBatch, MadeJobs
from pipeline.messages import Group, Job, Lost, MadePart, Outcome, Result, Source, Target, Usage
from pipeline.report import statistics
from pipeline.report.statistics import FailedOutput, FailureGroups, Made, Reservoir, Statistics, Timeline


def batch(chance: random.Random, name: str, files: int, seat: int) -> MadeBatch:
    """A batch of jobs that made one output or two."""
    jobs, rows = [], []
    for number in range(files):
        source, stages = f"{name}/{number}".encode(), ("up", "down")[: chance.choice((1, 2))]
        targets = tuple(Target(stage, b"/out/" + stage.encode() + source) for stage in stages)
        jobs.append(Job(Source(source, chance.randrange(5000), 1), targets))
        peak = chance.choice((None, chance.randrange(1 << 30)))
        made = [each for _ in stages for each in (chance.randrange(5000), 1, b"digest")]
        rows.append((chance.random(), b"", peak, *made))
    return MadeBatch(jobs, rows, seat)


def figures(of: Statistics) -> dict[str, object]:
    """The figures, with sums of seconds as they can be compared."""
    return {
        "counts": (of.files, of.bytes_in, of.bytes_out, sum(of.timeline.files), sum(of.timeline.failed)),
        "seats": {seat: (each.files, pytest.approx(each.busy_s), each.peak_bytes) for seat, each in of.seats.items()},
        "sizes": {
            bits: (each.files, pytest.approx(each.total_s), each.slowest_s) for bits, each in of.sizes.items()
        },
        "slowest": of.slowest.jobs(),
        "biggest": {(job.bytes_in, job.seconds) for job in of.biggest.jobs()},
    }  # fmt: skip


def test_rows_are_counted_as_the_outcomes_that_they_stand_for() -> None:
    """Column by column or one by one, the figures are the same."""
    chance = random.Random(7)
    batches = [batch(chance, str(number), chance.randrange(1, 60), number % 3) for number in range(40)]
    together, singly = Statistics("seed"), Statistics("seed")
    for each in batches:
        together.on_outcomes(MadeJobs([each]))
        for outcome in MadeJobs([each]):
            singly.on_outcome(outcome)
    assert figures(together) == figures(singly)
    jobs, rows = [job for each in batches for job in each.jobs], [row for each in batches for row in each.rows]
    assert together.files == len(jobs)
    assert together.bytes_in == sum(job.source.size_bytes for job in jobs)
    assert together.bytes_out == sum(sum(row[3::3]) for row in rows)
    assert [job.seconds for job in together.slowest.jobs()] == sorted((row[0] for row in rows), reverse=True)[:20]
    biggest = sorted((job.source.size_bytes for job in jobs), reverse=True)[:20]
    assert [job.bytes_in for job in together.biggest.jobs()] == biggest
    sampled = {(each.source, each.stage): each for each in together.sampled.sample}
    assert len(sampled) == 256
    for job, row in zip(jobs, rows, strict=True):
        for at, target in enumerate(job.targets):
            if made := sampled.get((job.source.path, target.stage)):
                assert made == Made(job.source.path, job.source.size_bytes, target.stage, target.path, row[3 + 3 * at])


def test_single_outcomes_are_counted_by_what_became_of_them() -> None:
    """Parts, groups, failures and files that go on in another pool; what vanished is no failure."""
    found = Statistics("seed")
    parts = tuple(MadePart(str(size), b"/out/%d" % size, size, 1, b"d") for size in (5, 7))
    found.on_outcome(Outcome(Source(b"a", 100, 1), (Result("parts", b"/out/*", "done", parts=parts),), 0.5, seat=1))
    found.on_outcome(
        Outcome(Group("sheet", b"all", 3), (Result("sheet", b"/out/s", "done", size_bytes=9, digest=b"d"),),
                0.25, bytes_in=60, peak_bytes=77, seat=1)
    )  # fmt: skip
    failed = Result("web", b"/out/b", "failed", "no picture: 'b'", "error", "Traceback ...")
    found.on_outcome(Outcome(Source(b"b", 10, 1), (failed,), 0.1, output="printed", goes_on=True, seat=0))
    gone = Result("web", b"/out/c", "failed", "vanished while reading", "vanished")
    found.on_outcome(Outcome(Source(b"c", 10, 1), (gone,)))
    found.on_jobs_ended()
    assert (found.files, found.bytes_in, found.bytes_out) == (4, 160, 21)
    assert {seat: (each.files, each.busy_s, each.peak_bytes) for seat, each in found.seats.items()} == {
        1: (2, 0.75, 77), 0: (2, 0.1, 0),
    }  # fmt: skip
    ((key, group),) = found.failures.groups.items()
    assert (key, group.files) == (("web", "error", "no picture"), 1)
    origin = Source(b"b", 10, 1)
    expected = FailedOutput(origin, "web", "error", "no picture: 'b'", "", "Traceback ...", "printed", 0)
    assert group.examples == [expected]
    assert {(each.source, each.stage, each.path, each.bytes_out) for each in found.sampled.sample} == {
        (b"a", "parts", b"/out/5", 5), (b"a", "parts", b"/out/7", 7),
    }  # fmt: skip


def test_a_file_that_passes_through_several_pools_is_one() -> None:
    """In all figures but those of the workers, each of which had it; with a failure in any of the pools."""
    found = Statistics("seed")
    failed, done = Result("web", b"/out/w", "failed", "no", "error"), Result("big", b"/out/b", "done", digest=b"d")
    lost = Usage(1.0, None, 2, (Lost(2, 5.0),))
    for outcome in (
        Outcome(Source(b"a", 100, 1), (failed,), 0.5, goes_on=True, seat=0),
        Outcome(Source(b"b", 100, 1), (), 0.25, goes_on=True, seat=1),
        Outcome(Source(b"b", 100, 1), (done,), 1.0, seat=7),
        Outcome(Source(b"a", 100, 1), (done,), 2.0, seat=8, usage=lost),
    ):
        found.on_outcome(outcome)
    assert [(str(job.origin), job.stages, job.seconds) for job in found.slowest.jobs()] == [
        ("a", ("web", "big"), 7.5), ("b", ("big",), 1.25),
    ]  # fmt: skip
    assert {bits: (each.files, each.total_s, each.slowest_s) for bits, each in found.sizes.items()} == {
        7: (2, 8.75, 7.5),
    }  # fmt: skip
    assert len(found.biggest.jobs()) == found.files == sum(found.timeline.files) == 2
    assert sum(found.timeline.failed) == 1
    assert {seat: (each.files, each.busy_s) for seat, each in found.seats.items()} == {
        0: (1, 0.5), 1: (1, 0.25), 7: (1, 1.0), 8: (1, 2.0), 2: (0, 5.0),
    }  # fmt: skip


def test_the_size_of_a_file_counts_once() -> None:
    """Also if several pools make outputs of it; and again if it is made again."""
    found = Statistics("seed")
    done = Result("web", b"/out/a", "done", size_bytes=5, digest=b"d")
    outcome = Outcome(Source(b"a", 100, 1), (done,))
    failed = done._replace(status="failed", size_bytes=0, digest=b"")
    for result, goes_on in ((failed, True), (done, True), (done, True), (failed, False)):
        found.on_outcome(outcome._replace(results=(result,), goes_on=goes_on))
    assert (found.files, found.bytes_in, found.bytes_out) == (1, 100, 10)
    found.on_outcome(outcome)
    assert (found.files, found.bytes_in, found.bytes_out) == (2, 200, 15)


def test_the_steps_of_the_timeline_grow_with_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """A night of ten hours has 120 steps as a minute has, and no file of it is lost."""
    now = 100.0
    monkeypatch.setattr(statistics.time, "monotonic", lambda: now)
    timeline = Timeline()
    for second in range(36_000):
        now = 100.0 + second
        timeline.add(2, second % 10 == 0)
    assert 60 <= len(timeline.files) <= statistics.STEPS and len(timeline.failed) == len(timeline.files)
    assert (sum(timeline.files), sum(timeline.failed)) == (72_000, 3600)
    assert timeline.step_s * len(timeline.files) == pytest.approx(36_000, rel=0.02)
    assert set(timeline.files[:-1]) == {2 * timeline.step_s}


@pytest.mark.parametrize("batch_size", [1, 7, 1000])
def test_each_output_is_as_likely_to_be_sampled(batch_size: int) -> None:
    """Whether the outcomes come singly or many together, and whether they are the first or the last."""
    counts, size, total, rounds = Counter[int](), 20, 1000, 400
    for number in range(rounds):
        reservoir = Reservoir(size, f"{batch_size} {number}")
        for first in range(0, total, batch_size):
            for at in reservoir.places(min(batch_size, total - first)):
                reservoir.add(Made(b"", first + at, "", b"", 0))
        assert len({made.bytes_in for made in reservoir.sample}) == size
        counts.update(made.bytes_in * 10 // total for made in reservoir.sample)
    expected = rounds * size / 10  # with a standard deviation of 27
    assert all(abs(counts[tenth] - expected) < 150 for tenth in range(10)), counts


def test_how_much_is_kept_of_failures_is_bounded() -> None:
    """A million different messages of a megabyte each fill neither the memory nor the page."""
    groups = FailureGroups()
    for number in range(2000):
        text = "".join(random.Random(number).choices("abcdefgh ", k=6000))
        failed = FailedOutput(Source(b"%d" % number, 1, 1), f"stage {number % 3}", "error", text, "", text, text)
        groups.add(failed)
    kept = [example for group in groups.groups.values() for example in group.examples]
    assert sum(group.files for group in groups.groups.values()) == 2000
    assert len(groups.groups) <= 51 and ("", "", statistics.OTHERS) in groups.groups
    assert all(len(each.text) <= 4000 for each in kept)
    assert sum(len(each.text + each.detail + each.output) for each in kept) < 400_000


def test_a_file_counts_once_in_a_group() -> None:
    """Whatever was to be made of it, also where failures of several stages are counted together."""
    groups = FailureGroups()
    for number in range(60):
        for stage in ("web", "print"):
            text = "abcdefgh"[number % 8] * (number + 1)
            groups.add(FailedOutput(Source(b"%d" % number, 1, 1), stage, "error", text, is_new=number == 59))
    others = groups.groups["", "", statistics.OTHERS]
    assert len(groups.groups) == 51 and (others.files, others.is_new) == (35, True)
    assert [str(each.origin) for each in others.examples] == ["25", "26", "27", "28", "29"]


def test_nothing_of_a_run_without_news_is_imported() -> None:
    """The module is named by the code of a run inside functions only."""
    for file in (Path(statistics.__file__).parents[1] / "operations").glob("*.py"):
        lines = file.read_text().splitlines()
        at_top = [each for each in lines if each.startswith(("from pipeline.report.statistics", "import pipeline.re"))]
        assert not at_top or file.name == "report.py"
