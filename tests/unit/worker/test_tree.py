"""The tree of built stages: which of them a job passes through, and where."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.stage.values import PATH, TEXT
from pipeline.worker.tree import Route, Tree

STAGES = """
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item

GIVEN = []

def load(*given) -> None:
    GIVEN.extend(given)

def load_path(path: Path, word: str) -> None:
    GIVEN.extend((path, word))

def same(text: str) -> str:
    return text

def path_of(path: Path) -> str:
    return path.name

def yes(text: str) -> bool:
    return True

def bare(items: Iterator[Item]) -> str:
    return ""

def texts(items: Iterator[Item[str]]) -> str:
    return ""
"""
STAGES_OF_TREE = (("same-a", None), ("same-b", "same-a"), ("same-c", "same-a"), ("path_of", None))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker whose setup may be changed."""
    with worker_bench(tmp_path, STAGES) as bench:
        yield bench


def readers(route: Route) -> dict[int | None, list[str]]:
    return {parent: [stage.name for stage in stages] for parent, stages in route.readers.items()}


def test_a_job_passes_through_what_its_outputs_need(bench: Bench) -> None:
    """And through nothing else; a route is computed once for all jobs that want the same."""
    bench.start(*STAGES_OF_TREE)
    tree = Tree(bench.setup)
    assert readers(tree.routes["same-b",]) == {None: ["same-a"], 0: ["same-b"]}
    assert tree.routes["same-b",] is tree.routes["same-b",]
    route = tree.routes["same-c", "path_of"]
    assert readers(route) == {None: ["same-a", "path_of"], 0: ["same-c"]}
    assert route.targets == {2: 0, 3: 1}


def test_a_path_object_is_made_only_for_those_who_see_it(bench: Bench) -> None:
    """It costs as much as it does to read a small file."""
    bench.start(*STAGES_OF_TREE)
    tree = Tree(bench.setup)
    assert not tree.routes["same-b",].needs_path and tree.routes["same-b", "path_of"].needs_path


def test_stages_of_another_engine_are_readers_elsewhere(bench: Bench) -> None:
    """They are not built here: their resources belong to the other pool."""
    bench.start(*STAGES_OF_TREE)
    stages = tuple(replace(each, engine=int(each.name == "same-c")) for each in bench.setup.stages)
    tree = Tree(replace(bench.setup, stages=stages, engine=0))
    route = tree.routes["same-b", "same-c"]
    assert readers(route) == {None: ["same-a"], 0: ["same-b"]}
    assert {engine: [each.name for each in found] for engine, found in route.readers_elsewhere[0].items()} == {
        1: ["same-c"]
    }


def test_members_are_given_as_the_stage_asks_or_as_they_were_made(bench: Bench) -> None:
    """A bare Item takes what the stage before it made, whatever filters stand between; else the file."""
    bench.start(("same", None), ("yes", "same"), ("bare", "yes"), ("texts", "same"), ("bare-files", None))
    tree = Tree(bench.setup)
    kinds = [tree.member_kind(tree.stages[tree.index[name]]) for name in ("bare", "texts", "bare-files")]
    assert kinds == [TEXT, TEXT, PATH]


def test_initializers_run_before_the_stages_are_built(bench: Bench) -> None:
    """With their arguments; one that is annotated as a Path is relative to the folder of pipeline.yaml."""
    bench.start(("same", None))
    calls = (("stages.mine:load", ("a", 1)), ("stages.mine:load_path", ("model.bin", "x")))
    Tree(replace(bench.setup, initializers=calls))
    assert ["a", 1, bench.folder / "model.bin", "x"] == sys.modules["stages.mine"].GIVEN
