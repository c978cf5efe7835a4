"""What an observer is told of one job, and how values are described."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image
from support.worker_bench import Bench, worker_bench

from pipeline.messages import Job, Source, Target
from pipeline.observer import RunObserver, Step
from pipeline.worker import main as worker
from pipeline.worker.job import JobRunner
from pipeline.worker.steps import describe

STAGES = """
from collections.abc import Iterator
from pipeline import Part, Skip

def upper(text: str) -> str:
    return text.upper()

def fail(text: str) -> str:
    raise ValueError("on purpose")

def skip(text: str) -> str:
    raise Skip("not this one")

def words(text: str) -> Iterator[str]:
    for word in text.split():
        yield Part(word, name=word)
"""


class Recorder(RunObserver):
    """Keeps the steps that it is told of."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def on_step(self, step: Step) -> None:
        """Keep the step."""
        self.steps.append(step)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker with one source."""
    with worker_bench(tmp_path, STAGES) as bench:
        bench.text("a", "one two")
        yield bench


def observe(bench: Bench, *stages: tuple[str, str | None]) -> list[Step]:
    """Run one job with an observer; the outputs of all the stages are wanted."""
    bench.start(*stages)
    out = os.fsencode(bench.out)
    targets = tuple(
        Target(name, out + b"/" + name.encode(), around=(out + b"/", b"") if name == "words" else (b"", b""))
        for name, _ in stages
    )
    recorder = Recorder()
    assert worker._tree is not None
    JobRunner(worker._tree, Job(Source(b"a", 7, 0), targets), lambda index: None, recorder).run()
    assert all(step.seconds >= 0 for step in recorder.steps)
    return recorder.steps


def test_every_step_of_a_job_is_reported_in_order(bench: Bench) -> None:
    """Conversions, calls and writes, each with the value that came of it."""
    steps = observe(bench, ("upper", None), ("words", "upper"))
    assert [step[:3] for step in steps] == [
        ("upper", "converted", "Path -> str, 7 characters"),
        ("upper", "made", "str, 7 characters"),
        ("upper", "wrote", "upper, 7 bytes"),
        ("words", "made", "part ONE: str, 3 characters"),
        ("words", "wrote", "ONE, 3 bytes"),
        ("words", "made", "part TWO: str, 3 characters"),
        ("words", "wrote", "TWO, 3 bytes"),
    ]


def test_what_is_raised_is_reported_with_the_exception(bench: Bench) -> None:
    """Once for the call, and once for each output that it costs; a Skip costs none."""
    steps = observe(bench, ("fail", None), ("upper", "fail"), ("skip", None))
    assert [step[:3] for step in steps if step.what not in ("converted", "made")] == [
        ("fail", "raised", "ValueError: on purpose"),
        ("fail", "failed", "ValueError: on purpose"),
        ("upper", "failed", "ValueError: on purpose"),
        ("skip", "skipped", "not this one"),
    ]
    errors = [step.error for step in steps if step.what in ("raised", "failed")]
    assert isinstance(errors[0], ValueError) and errors[0] is errors[1] is errors[2]


def test_values_are_described_by_type_and_size(tmp_path: Path) -> None:
    """Whatever travels between two stages; a file by what lies there."""
    file = tmp_path / "a\n"
    file.write_bytes(b"x")
    assert describe("x") == "str, 1 character"
    assert describe(b"xx") == "bytes, 2 bytes"
    assert describe(True) == "bool True" and describe(None) == "NoneType None" and describe(7) == "int"
    assert describe(Image.new("L", (3, 2))) == "Image L 3x2"
    assert describe(file) == "Path a\\n, 1 byte" and describe(tmp_path).endswith(", a folder")
    assert describe(tmp_path / "none") == "Path none: No such file or directory"
