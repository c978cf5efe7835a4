"""The parts of one job: committed together or not at all, and only one in hand at a time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.messages import Job, Result, Source, Target
from pipeline.worker import main as worker

STAGES = """
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item, Part, Skip

def words(text: str) -> Iterator[str]:
    for word in text.split():
        if word == "fail":
            raise ValueError("on purpose")
        if word == "skip":
            raise Skip("not this file")
        yield Part(word, name=word.strip("!"))

def numbered(text: str) -> Iterator[str]:
    yield from text.split()

def nothing(text: str) -> Iterator[str]:
    yield from ()

def whole(text: str) -> Iterator[str]:
    return [text]

def shout(item: Item[str]) -> str:
    if item.value.startswith("bad"):
        raise ValueError(item.part)
    if item.value.startswith("no"):
        raise Skip("not this part")
    return item.value.upper()

def file_of(item: Item[str]) -> Path:
    assert list(item.scratch.iterdir()) == []
    made = item.scratch / f"{item.part}.txt"
    made.write_text(item.value)
    return made

def read(text: str) -> str:
    return text
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker for stages that fan out."""
    with worker_bench(tmp_path, STAGES) as bench:
        yield bench


def work(bench: Bench, text: str, *wanted: str) -> dict[str, Result]:
    """Make the parts of one text, each output's at out/STAGE-PART."""
    bench.text("a", text)
    found = os.stat(bench.root / "a")
    out = os.fsencode(bench.out)
    targets = tuple(
        Target(name, b"%s/%s-*" % (out, name.encode()), around=(b"%s/%s-" % (out, name.encode()), b""))
        for name in wanted
    )
    outcome = worker.work(Job(Source(b"a", found.st_size, found.st_mtime_ns), targets))
    assert not list(bench.folder.rglob(".filemill-*")), "a temporary is left behind"
    assert not bench.scratch.exists() or not list(bench.scratch.iterdir()), "the scratch folder is left behind"
    return {result.stage: result for result in outcome.results}


def made(bench: Bench) -> dict[str, str]:
    """What lies among the outputs."""
    return {file.name: file.read_text() for file in bench.out.iterdir()} if bench.out.exists() else {}


def test_parts_have_their_own_names_or_their_index(bench: Bench) -> None:
    """And each result lists its parts in the order in which they were yielded."""
    bench.start(("words", None), ("numbered", None))
    results = work(bench, "one two", "words", "numbered")
    assert [part.name for part in results["words"].parts] == ["one", "two"]
    assert [part.name for part in results["numbered"].parts] == ["000001", "000002"]
    assert made(bench) == {"words-one": "one", "words-two": "two", "numbered-000001": "one", "numbered-000002": "two"}


def test_every_part_goes_through_all_that_is_below(bench: Bench) -> None:
    """A stage below is called once for each part, and knows which one it has."""
    bench.start(("words", None), ("shout", "words"), ("file_of", "words"), ("read", "file_of"))
    results = work(bench, "one two", "shout", "read")
    assert {result.status for result in results.values()} == {"done"}
    assert made(bench) == {"shout-one": "ONE", "shout-two": "TWO", "read-one": "one", "read-two": "two"}


def test_one_failure_leaves_no_part_of_that_output(bench: Bench) -> None:
    """The output of another stage below keeps all of its parts."""
    bench.start(("words", None), ("shout", "words"))
    results = work(bench, "one bad two", "words", "shout")
    assert (results["words"].status, results["shout"].status) == ("done", "failed")
    assert results["shout"].text == "ValueError: bad (in stage 'shout')"
    assert made(bench) == {"words-one": "one", "words-bad": "bad", "words-two": "two"}


def test_a_stage_that_raises_between_two_parts_leaves_none(bench: Bench) -> None:
    """What it had yielded before is taken back."""
    bench.start(("words", None))
    assert work(bench, "one fail", "words")["words"].text == "ValueError: on purpose (in stage 'words')"
    skipped = work(bench, "one skip", "words")["words"]
    assert (skipped.status, skipped.text) == ("skipped", "not this file")
    assert made(bench) == {}


def test_a_part_that_is_left_out_is_not_made(bench: Bench) -> None:
    """The others are; where all are left out, the output is, with the first reason."""
    bench.start(("words", None), ("shout", "words"))
    assert [part.name for part in work(bench, "one no", "shout")["shout"].parts] == ["one"]
    result = work(bench, "no not", "shout")["shout"]
    assert (result.status, result.text) == ("skipped", "2 parts left out: not this part")


@pytest.mark.parametrize(
    ("stage", "text", "says"),
    [
        ("nothing", "x", "stage 'nothing' yielded nothing; raise Skip(reason) instead ("),
        ("whole", "x", "stage 'whole' returned list, not an iterator ("),
        ("words", "one one", "stage 'words' yielded two parts named 'one'"),
        ("words", "a/b", "stage 'words' yielded a part named 'a/b'; "),
    ],
)
def test_what_is_no_fan_out(bench: Bench, stage: str, text: str, says: str) -> None:
    """Nothing at all, no iterator, and names that cannot be told apart or used."""
    bench.start((stage, None))
    result = work(bench, text, stage)[stage]
    assert result.status == "failed" and result.text.startswith(says)
    assert made(bench) == {}


def test_a_file_of_somebody_else_is_not_replaced(bench: Bench) -> None:
    """A part whose path is taken costs all parts of its output."""
    bench.start(("words", None))
    bench.out.mkdir()
    (bench.out / "words-two").write_text("mine")
    assert work(bench, "one two", "words")["words"].status == "failed"
    assert made(bench) == {"words-two": "mine"}
