"""Which groups there are, who their members are, and what makes one stale; no stage is called."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.project import MOODY, Project

from pipeline.messages import Group
from pipeline.planning.decisions import MEMBERS_CHANGED, NEW, UP_TO_DATE, Decision, Reason
from pipeline.planning.group_members import GroupState
from pipeline.planning.groups import decide_absent

GROUP = Group("sheet", b"a", 2, 99)
UNCHANGED = Decision(GROUP, "sheet", "up-to-date", UP_TO_DATE)
STALE = Decision(GROUP, "sheet", "make", NEW)
GATHER = """
from collections.abc import Iterator
from pipeline import Item
def names(items: Iterator[Item[str]]) -> str:
    return "".join(item.source for item in items)
"""


def absent(to_be_made: int = 0, to_be_moved: int = 0, failed: int = 0, *, members: int = 2) -> GroupState:
    """A group with so many members that are there, and so many that are not."""
    return GroupState(GROUP._replace(members=members), b"/out/a", to_be_made, to_be_moved, failed)


@pytest.mark.parametrize(
    ("decision", "state", "accepts_failures", "expected"),
    [
        (UNCHANGED, absent(), False, ("up-to-date", UP_TO_DATE)),
        (UNCHANGED, absent(3), False, ("make", Reason("members_to_be_made", (3,)))),
        (STALE, absent(3), False, ("make", Reason("members_to_be_made", (3,)))),
        (UNCHANGED, absent(0, 1), False, ("make", MEMBERS_CHANGED)),
        (STALE, absent(0, 1), False, ("make", NEW)),
        (UNCHANGED, absent(3, 1, 2), False, ("refuse", Reason("members_failed", (2,)))),
        (UNCHANGED, absent(0, 0, 2), True, ("up-to-date", UP_TO_DATE)),
        (STALE, absent(1, 0, 2), True, ("make", Reason("members_to_be_made", (1,)))),
        (STALE, absent(0, 0, 2, members=0), True, ("refuse", Reason("members_failed", (2,)))),
    ],
)
def test_members_that_are_absent_decide(
    decision: Decision, state: GroupState, accepts_failures: bool, expected: Sequence[object]
) -> None:
    """Failed ones outweigh those to be made, unless a part is enough; then those outweigh the members there are."""
    decided = decide_absent(decision, state, accepts_failures)
    assert (decided.action, decided.reason) == expected and decided.origin == GROUP


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Texts in two folders, each made loud."""
    project = Project(tmp_path, "inputs: in\nstages:\n  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}\n")
    project.write("stages/upper.py", MOODY)
    project.write("stages/names.py", GATHER)
    for name in ("a/1.txt", "a/2.log", "b/1.txt"):
        project.write(f"in/{name}", name)
    return project


@pytest.mark.parametrize(
    ("group", "output", "expected"),
    [
        ("", "out/all.txt", {"/sheet": 3}),
        ("group: '{dir}', ", "out/{dir}/sheet.txt", {"/sheet/a": 2, "/sheet/b": 1}),
        ("group: '{suffix}', ", "out/all{suffix}", {"/sheet/.log": 1, "/sheet/.txt": 2}),
        ("group: '{dir} {stem}', ", "out/{dir}/{stem}", {"/sheet/a 1": 1, "/sheet/a 2": 1, "/sheet/b 1": 1}),
    ],
)
def test_the_template_names_the_groups(project: Project, group: str, output: str, expected: dict[str, int]) -> None:
    """An output belongs to the group that the template makes of its source."""
    with (project.folder / "pipeline.yaml").open("a") as file:
        file.write(f"  - {{name: sheet, from: up, uses: names, gather: true, {group}output: '{output}'}}\n")
    planned = {key.removeprefix("sheet "): why for key, (_, why) in project.plan().items() if key.startswith("sheet ")}
    assert planned == {name: f"{count} member{'s' if count > 1 else ''} to be made" for name, count in expected.items()}


def test_without_groups_nothing_of_them_is_loaded(project: Project) -> None:
    """A pipeline that gathers nothing pays nothing for those that do."""
    modules = ("pipeline.planning.groups", "pipeline.planning.group_members", "pipeline.planning.group_freshness")
    loaded = {name: sys.modules.pop(name) for name in modules if name in sys.modules}
    try:
        project.plan()
        assert not [name for name in modules if name in sys.modules]
    finally:
        sys.modules.update(loaded)
