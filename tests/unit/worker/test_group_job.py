"""One job of a group: its members are read one by one, and what is made of them is committed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.worker_bench import Bench, worker_bench

from pipeline.files.group_manifest import Member, write_members
from pipeline.messages import Group, GroupJob, Outcome, Result, Target
from pipeline.worker import main as worker

STAGES = """
import os
from collections.abc import Iterator
from pathlib import Path
from pipeline import Item, Skip

def joined(items: Iterator[Item[str]]) -> str:
    return " ".join(f"{item.source}={item.value}" for item in items)

def listed(items: Iterator[Item[Path]]) -> Path:
    first = next(items)
    made = first.scratch / "made"
    made.write_text(first.output + "".join(item.output for item in items))
    return made

def deaf(items: Iterator[Item[str]]) -> str:
    try:
        return str(sum(1 for item in items))
    except Exception:
        return "some"

def changes(items: Iterator[Item[Path]]) -> str:
    for item in items:
        item.value.write_text("changed by the stage")
    return "x"

def touches(items: Iterator[Item[str]]) -> str:
    for item in items:
        os.utime(item.output, (1, 1))
    raise ValueError("half of it")

def few(items: Iterator[Item[str]]) -> str:
    if sum(1 for item in items) < 3:
        raise Skip("too few")
    return "many"

def fails(items: Iterator[Item[str]]) -> str:
    raise ValueError("on purpose")

def nothing(items: Iterator[Item[str]]) -> str:
    return None
"""


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A worker for stages that gather, and two members."""
    with worker_bench(tmp_path, STAGES) as bench:
        (tmp_path / "made").mkdir()
        for name in ("a", "b"):
            (tmp_path / "made" / name).write_text(name.upper())
        yield bench


def gather(bench: Bench, stage: str, change: str = "") -> Result:
    """Run the job of a group of two; the second member may have been rewritten with `change` since the plan."""
    bench.start((stage, None))
    members = []
    for name in ("a", "b"):
        path = bench.folder / "made" / name
        found = os.stat(path)
        members.append(Member(os.fsencode(path), name.encode(), None, found.st_size, found.st_mtime_ns))
    file = bench.folder / "members"
    file.unlink(missing_ok=True)
    write_members(os.fsencode(file), members)
    if change:
        (bench.folder / "made" / "b").write_text(change)
    group = Group(stage, b"all", 2, 7)
    job = GroupJob(group, Target(stage, os.fsencode(bench.out / stage)), os.fsencode(file))
    outcome: Outcome = worker.work(job)
    assert outcome.origin == group
    assert not list(bench.folder.rglob(".filemill-*")), "a temporary is left behind"
    assert not bench.scratch.exists() or not list(bench.scratch.iterdir()), "the scratch folder is left behind"
    [result] = outcome.results
    return result


def test_members_come_in_order_with_their_names(bench: Bench) -> None:
    """Each with its source; its file is named relative to the folder of pipeline.yaml."""
    assert gather(bench, "joined").status == "done"
    assert (bench.out / "joined").read_text() == "a=A b=B"
    assert gather(bench, "listed").status == "done"
    assert (bench.out / "listed").read_text() == "made/amade/b"


def test_a_member_that_is_not_as_planned_is_not_gathered(bench: Bench) -> None:
    """Whatever the stage makes of the exception: the next run has it in its plan."""
    result = gather(bench, "deaf", "longer than before")
    assert (result.status, result.kind) == ("failed", "changed")
    assert not bench.out.exists()


def test_a_member_that_cannot_be_read_is_named(bench: Bench) -> None:
    """A failure over one of many says which one, even if the stage goes on without it."""
    (bench.folder / "made" / "b").write_bytes(b"\xff")
    result = gather(bench, "deaf")
    assert result.status == "failed" and result.text.endswith("made/b: not UTF-8: byte 0xff at offset 0")


def test_members_are_not_changed(bench: Bench) -> None:
    """A stage that writes into one is to blame for it."""
    result = gather(bench, "changes")
    assert result.text.startswith("stage 'changes' changed its input (") and result.kind == "error"


def test_a_failure_over_members_that_changed_is_no_failure_of_the_stage(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It saw one half before the change; the next run does it."""
    monkeypatch.chdir(bench.folder)
    assert gather(bench, "touches").kind == "changed"


@pytest.mark.parametrize(
    ("stage", "status", "text"),
    [
        ("few", "skipped", "too few"),
        ("fails", "failed", "ValueError: on purpose (in stage 'fails')"),
        ("nothing", "failed", "stage 'nothing' returned None; return a value, or raise Skip(reason) ("),
    ],
)
def test_what_is_not_made_of_a_group(bench: Bench, stage: str, status: str, text: str) -> None:
    """A stage that gathers is held to the same contract as any other."""
    result = gather(bench, stage)
    assert result.status == status and result.text.startswith(text)
    assert not bench.out.exists()
