"""The short way of a job and the JobRunner: of the same job both make the same results, files and calls."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.messages import Begin, Job, Outcome, Source, Target
from pipeline.worker import main as worker
from pipeline.worker import short_way
from pipeline.worker.job import JobRunner
from pipeline.worker.process_state import process_state

STAGES = """
import os, threading, time
from pathlib import Path
from pipeline import Skip
from pipeline.notes import note

CALLS = []
HERE = Path(__file__).parents[1]
KEPT = []

class Text(str):
    pass

def upper(text: str) -> str:
    CALLS.append("upper")
    return text.upper()

def doubled(data: bytes) -> bytes:
    CALLS.append("doubled")
    return data + data

def encoded(text: str) -> bytes:
    CALLS.append("encoded")
    return text.encode()

def decoded(data: bytes) -> str:
    CALLS.append("decoded")
    return data.decode()

def act(text: str) -> str:
    CALLS.append("act")
    return ACTIONS[text](text)

def raises(error):
    def act(text):
        raise error
    return act

def edits(text):
    (HERE / "in" / "x").write_text("another text")
    return "made of the old one"

def touches(text):
    os.utime(HERE / "in" / "x", (5, 5))
    return "made"

def removes(text):
    (HERE / "in" / "x").unlink()
    return "all that is left"

def removes_and_raises(text):
    (HERE / "in" / "x").unlink()
    raise ValueError("no")

def removes_and_skips(text):
    (HERE / "in" / "x").unlink()
    raise Skip("no")

def makes_a_folder(text):
    (HERE / "in" / "x").unlink()
    (HERE / "in" / "x").mkdir()
    return "made"

def takes_the_name(text):
    (HERE / "out").mkdir(exist_ok=True)
    (HERE / "out" / "act.txt").write_text("a person's")
    return "ours"

def takes_the_folder(text):
    (HERE / "out").write_text("a person's")
    return "ours"

def is_a_folder(text):
    (HERE / "out" / "act.txt").mkdir(parents=True)
    return "ours"

def moves_away(text):
    os.chdir("/")
    return "made"

def sets(text):
    os.environ["SET_BY_A_STAGE"] = "1"
    raise ValueError("too")

def notes(text):
    note("noted", "in particular")
    return "noted"

def leaves_threads(text):
    end = threading.Event()
    KEPT.append(end)
    for _ in range(40):
        threading.Thread(target=end.wait, daemon=True).start()
    return "made"

ACTIONS = {
    "ValueError": raises(ValueError("on purpose")), "Skip": raises(Skip("not this one")), "exit": raises(SystemExit(3)),
    "interrupt": raises(KeyboardInterrupt()), "memory": raises(MemoryError()), "full": raises(OSError(28, "full")),
    "lost": raises(FileNotFoundError(2, "no such", str(HERE / "in" / "x"))), "None": lambda text: None,
    "number": lambda text: 7, "subclass": Text, "not UTF-8": lambda text: "\\ud800", "empty": lambda text: "",
    "edits": edits, "touches": touches, "removes": removes, "removes and raises": removes_and_raises,
    "removes and skips": removes_and_skips, "makes a folder": makes_a_folder, "takes the name": takes_the_name,
    "takes the folder": takes_the_folder, "is a folder": is_a_folder, "moves away": moves_away, "sets": sets,
    "notes": notes, "leaves threads": leaves_threads, "large": lambda text: "x" * 3_000_000,
}
"""
ACTIONS = (
    "ValueError", "Skip", "exit", "interrupt", "memory", "full", "lost", "None", "number", "subclass", "not UTF-8",
    "empty", "edits", "touches", "removes", "removes and raises", "removes and skips", "makes a folder",
    "takes the name",
    "takes the folder", "is a folder", "moves away", "sets", "notes", "leaves threads", "large",
)  # fmt: skip
# Those that leave nothing to a JobRunner.
USUAL = ("subclass", "empty", "notes", "large")
MTIME_NS = 10**18 + 7


class Left:
    """What a job has left, in a form that does not depend on the folder and the time."""

    def __init__(self, bench: Bench, outcome: Outcome, runners: int) -> None:
        self.runners = runners
        """How many JobRunners were needed."""
        results = [each._replace(mtime_ns=0, detail=each.detail.count("Error")) for each in outcome.results]
        plain = outcome._replace(seconds=0.0, peak_bytes=None, results=tuple(results))
        files = [each for each in sorted(bench.folder.rglob("*")) if each.is_file() and each.suffix != ".py"]
        self.same = {
            "outcome": re.sub(rf"{bench.folder}|filemill_folder_\w+|\(\w+ at .* free\)", "", repr(plain)),
            "calls": [*bench.calls],
            "files": [
                (
                    re.sub(r"\d+", "", str(file.relative_to(bench.folder))),
                    stat.S_IMODE(file.stat().st_mode),
                    file.read_bytes(),
                )
                for file in files
                if "__pycache__" not in file.parts
            ],
        }


class Both:
    """Runs the same job by both ways, each in a folder of its own, and compares what they leave."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.folder, self.monkeypatch = folder, monkeypatch

    def run(
        self,
        *stages: tuple[str, str | None],
        data: bytes = b"text",
        wanted: tuple[str, ...] = (),
        prepare: Callable[[Bench], object] = lambda bench: None,
        target: dict[str, Any] | None = None,
        job: dict[str, Any] | None = None,
    ) -> Left:
        """Run a job for the outputs of all stages, or of those `wanted`; return what the short way left."""
        short, long = (
            self._left(
                name, stages, data, wanted or tuple(each for each, _ in stages), prepare, target or {}, job or {}
            )
            for name in ("short", "long")
        )
        assert long.runners == 1
        for key in short.same:
            assert short.same[key] == long.same[key]
        return short

    def _left(
        self, name: str, stages: Any, data: bytes, wanted: tuple[str, ...], prepare: Any, target: Any, job: Any
    ) -> Left:
        (self.folder / name).mkdir()
        runs: list[JobRunner] = []
        run = JobRunner.run

        def counted(runner: JobRunner, *taken: Any) -> Outcome:
            runs.append(runner)
            return run(runner, *taken)

        with self.monkeypatch.context() as patch, worker_bench(self.folder / name, STAGES) as bench:
            patch.setattr(JobRunner, "run", counted)
            if name == "long":
                patch.setattr(short_way, "chain_of", lambda tree, route: [])
            bench.start(*stages)
            bench.calls.clear()
            (bench.root / "x").write_bytes(data)
            os.utime(bench.root / "x", ns=(MTIME_NS, MTIME_NS))
            prepare(bench)
            targets = tuple(Target(each, os.fsencode(bench.out / f"{each}.txt"), **target) for each in wanted)
            with process_state.kept():
                outcome = worker.work(Job(Source(b"x", len(data), MTIME_NS), targets, **job))
            for end in bench.module.KEPT:
                end.set()
            return Left(bench, outcome, len(runs))


@pytest.fixture
def both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Both:
    """The two ways, over empty folders."""
    return Both(tmp_path, monkeypatch)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("wanted", [("act",), ("act", "encoded-2"), ("encoded-2",)], ids=len)
def test_whatever_a_stage_does(both: Both, action: str, wanted: tuple[str, ...]) -> None:
    """Each stage is called once, and what it made, raised or broke ends in the same results."""
    left = both.run(
        ("act", None), ("upper-1", "act"), ("encoded-2", "upper-1"),
        data=action.encode(), wanted=wanted, target={"is_new": True},
    )  # fmt: skip
    if "act" in wanted:
        assert left.runners == (action not in USUAL)


@pytest.mark.parametrize("data", [b"", b"\xff", "stra\u00dfe".encode(), b"x" * (1 << 20), b"x" * ((1 << 20) + 1)])
@pytest.mark.parametrize("stages", [(("upper", None),), (("doubled", None), ("encoded", None))], ids=len)
def test_whatever_a_source_holds(both: Both, stages: Any, data: bytes) -> None:
    """Also what is no UTF-8, or too large to be read before a stage asks for it."""
    both.run(*stages, data=data)


def test_results_are_told_in_the_order_of_the_targets(both: Both) -> None:
    """Whatever the order in which they are made."""
    both.run(("upper", None), ("encoded", "upper"), ("decoded", "encoded"), wanted=("decoded", "upper", "encoded"))


def test_a_plain_job_needs_no_runner(both: Both) -> None:
    """A file, new or not, takes the short way."""
    assert not both.run(("upper", None)).runners


PREPARED: dict[str, Callable[[Bench], object]] = {
    "changed": lambda bench: (bench.root / "x").write_text("of another size") and os.utime(bench.root / "x", (9, 9)),
    "gone": lambda bench: (bench.root / "x").unlink(),
    "a folder": lambda bench: ((bench.root / "x").unlink(), (bench.root / "x").mkdir()),
    "a FIFO": lambda bench: ((bench.root / "x").unlink(), os.mkfifo(bench.root / "x")),
    "a link": lambda bench: (bench.root / "x").rename(bench.root / "y") and (bench.root / "x").symlink_to("y"),
    "for its owner": lambda bench: (bench.root / "x").chmod(0o600),
    "an output of old": lambda bench: (bench.out.mkdir(), (bench.out / "upper.txt").write_text("old")),
    "no folder": lambda bench: bench.out.write_text("a person's"),
}


@pytest.mark.parametrize("is_new", [True, False])
@pytest.mark.parametrize("before", PREPARED)
def test_whatever_is_there_before(both: Both, before: str, is_new: bool) -> None:
    both.run(("upper", None), prepare=PREPARED[before], target={"is_new": is_new})


@pytest.mark.parametrize("job", [{"is_again": True}, {"is_digested": True}, {"begin": Begin(None, b"", "Path", ())}])
def test_unusual_jobs(both: Both, job: dict[str, Any]) -> None:
    """A job that is done once more, or that comes from another pool, takes the long way."""
    assert both.run(("upper", None), job=job).runners == 1


def test_a_file_that_may_be_a_persons_is_set_aside(both: Both) -> None:
    """A target with digests may replace a file of other contents, which is kept."""
    left = both.run(("upper", None), prepare=PREPARED["an output of old"], target={"digests": (b"ours",)})
    assert any(data == b"old" for _, _, data in left.same["files"])
