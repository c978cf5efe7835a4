"""Orphans are found with their reason and shown; an output whose source is only unknown is never one."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.program import Pipeline
from support.project import Project, ledger_of, made

from pipeline.config.load import load_config
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.decisions import Reason
from pipeline.planning.orphans import RecordCursor, fates
from pipeline.planning.plan import make_plan
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three files, made."""
    return made(tmp_path, "a", "b", "sub/c")


def orphans(project: Project) -> dict[str, tuple[str, str]]:
    """Every orphan with what may be done about it, and why."""
    project._forget_modules()
    config = load_config(project.folder / "pipeline.yaml")
    with ledger_of(project.folder) as ledger:
        plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection())
        return {each.orphan.target.decode(): (each.action, each.why) for each in fates(plan.store, config.folder)}


def edit(project: Project) -> None:
    project.write("out/a", "mine")
    os.utime(project.folder / "out/a", (1, 1))


def link(project: Project) -> None:
    (project.folder / "out/a").rename(project.folder / "elsewhere")
    (project.folder / "out/a").symlink_to("../elsewhere")


def exclude(project: Project) -> None:
    project.edit("pipeline.yaml", "inputs: in", "inputs: {root: in, exclude: [a]}")


def bring_back_an_older_version(project: Project) -> None:
    before = (project.folder / "out/a").read_bytes()
    project.write("in/a", "another text, and longer")
    project.run()
    assert (project.folder / "out/a").read_bytes() != before
    (project.folder / "out/a").write_bytes(before)


CASES: dict[str, tuple[Callable[[Project], object], tuple[str, str]]] = {
    "gone": (lambda project: (project.folder / "in/a").unlink(), ("prune", "source gone")),
    "a folder now": (
        lambda project: [(project.folder / "in/a").unlink(), (project.folder / "in/a").mkdir()],
        ("prune", "source gone"),
    ),
    "excluded": (exclude, ("prune", "excluded now")),
    "excluded and edited": (
        lambda project: [exclude(project), edit(project)],
        ("keep", "excluded now, edited by someone else"),
    ),
    "excluded and an older version is back": (
        lambda project: [bring_back_an_older_version(project), exclude(project)],
        ("prune", "excluded now"),
    ),
    "skipped and an older version is back": (
        lambda project: [bring_back_an_older_version(project), project.write("in/a", "skip it"), project.run()],
        ("prune", "skipped now"),
    ),
    "excluded and a link": (
        lambda project: [exclude(project), link(project)],
        ("keep", "excluded now, edited by someone else"),
    ),
    "excluded and missing": (
        lambda project: [exclude(project), (project.folder / "out/a").unlink()],
        ("forget", "excluded now"),
    ),
    "skipped": (
        lambda project: [project.write("in/a", "skip it"), project.run()],
        ("prune", "skipped now"),
    ),
    "skipped and edited": (
        lambda project: [project.write("in/a", "skip it"), project.run(), edit(project)],
        ("keep", "skipped now, edited by someone else"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_an_orphan_has_a_reason(project: Project, case: str) -> None:
    """Why nothing produces it, and that it is kept where somebody changed it since."""
    change, expected = CASES[case]
    change(project)
    assert orphans(project) == {"out/a": expected}


def test_a_stage_that_is_gone_and_one_whose_path_is_another(project: Project) -> None:
    """The source is there: its output is an orphan of its stage's, or of its template's."""
    project.edit("pipeline.yaml", "name: up", "name: lift")
    assert orphans(project) == {}
    project.edit("pipeline.yaml", "uses: upper", "uses: ./stages/low.py:low")
    project.write("stages/low.py", "def low(text: str) -> str:\n    return text.lower()\n")
    project.edit("pipeline.yaml", "out/{dir}/{name}", "low/{dir}/{name}")
    assert set(orphans(project).values()) == {("prune", "stage gone")} and len(orphans(project)) == 3
    project.edit("pipeline.yaml", "name: lift", "name: up")
    assert set(orphans(project).values()) == {("prune", "path changed")}


@pytest.mark.parametrize("text", ["bad now", "good again"])
def test_what_is_to_be_made_again_is_none(project: Project, text: str) -> None:
    """A file that fails keeps its old output; so does one that is not left out any more, until it is made."""
    project.write("in/a", "skip it" if text == "good again" else text)
    project.run()
    project.write("in/a", text)
    assert orphans(project) == {}
    project.run()
    assert orphans(project) == {}


def test_a_link_that_leads_nowhere_is_no_proof(project: Project) -> None:
    """What it leads to may lie on a disk that is away for a moment."""
    (project.folder / "in/a").unlink()
    (project.folder / "in/a").symlink_to("/nowhere/a")
    assert orphans(project) == {}


def test_the_plan_shows_orphans_apart(project: Project, pipeline: Pipeline) -> None:
    """Below the counts, which are of what there is; in JSON as lines of their own."""
    exclude(project)
    (project.folder / "in/b").unlink()
    edit(project)
    assert pipeline("plan").stdout.splitlines() == [
        "1 output of 1 file",
        "    files   outputs",
        "        1         1  up to date",
        "2 orphans",
        "                  1  keep: excluded now, edited by someone else",
        "                  1  prune: source gone",
    ]
    said = [json.loads(line) for line in pipeline("plan", "--json").stdout.splitlines()]
    assert said[1:] == [
        {"source": "a", "stage": "up", "action": "keep", "why": "excluded now, edited by someone else",
         "code": "excluded_now", "output": "out/a"},
        {"source": "b", "stage": "up", "action": "prune", "why": "source gone",
             "code": "source_gone", "output": "out/b"},
    ]  # fmt: skip
    assert "2 orphans" not in pipeline("plan", "--only", "sub/").stdout


# -- counts ------------------------------------------------------------------------------------------------------------

MANY = """
inputs: in
stages:
  - name: one
    uses: upper
    output: out/one/{stem}
  - name: two
    from: inputs
    uses: upper
    output: out/two/{name}
engine: serial
"""


def test_the_columns_add_up(tmp_path: Path, pipeline: Pipeline) -> None:
    """Every file is counted once, by the foremost of what is said of its outputs, and every output once."""
    project = Project(tmp_path, MANY)
    for name in ("a.x", "a.y", "b.x", "c", "e.x", "e.y"):
        project.write(f"in/{name}", name)
    project.run()
    project.write("in/d", "d")
    project.write("out/two/d", "not ours")
    project.run()
    (project.folder / "out/one/c").unlink()
    project.write("in/b.x", "longer than before")
    project.write("in/b.z", "new")
    assert pipeline("plan").stdout.splitlines()[:-1] == [
        "16 outputs of 8 files",
        "    files   outputs",
        "        1         2  make: source changed",
        "        1         1  make: new",
        "        1         1  make: output missing",
        "        4         5  collision: refused",
        "        1         1  exists, not ours: refused",
        "                  6  up to date",
    ]


def test_as_many_sizes_as_files_are_one_reason(tmp_path: Path) -> None:
    """Counts are by reason, not by what is particular to a file: they stay few whatever the number of files."""
    project = Project(tmp_path)
    for number in range(30):
        project.write(f"in/{number}", "x")
    project.run()
    for number in range(30):
        project.write(f"in/{number}", "x" * (number + 2))
    config = load_config(project.folder / "pipeline.yaml")
    with ledger_of(project.folder) as ledger:
        plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection())
        assert plan.counts == plan.files == {("make", Reason("source_changed")): 30}
    assert project.plan()["up 3"] == ("make", "source changed (size 1 -> 5)")


KEYS = st.lists(st.binary(min_size=1, max_size=3), max_size=30, unique=True).map(sorted)


@settings(deadline=None)
@given(KEYS, KEYS)
def test_the_merge_passes_each_record_once(walked: list[bytes], recorded: list[bytes]) -> None:
    """Every record is either met with its source or passed as gone, in one go over both."""
    passed: list[OutputRecord] = []
    rows = iter([OutputRecord(key, key, "up", "done", 1, 1, 1, "", 1, 1, 0) for key in recorded])
    cursor: RecordCursor[OutputRecord] = RecordCursor(rows, passed.append)
    met = [row.source for source in walked for row in cursor.take(source)]
    cursor.pass_the_rest()
    assert met == [key for key in walked if key in recorded]
    assert [row.source for row in passed] == [key for key in recorded if key not in walked]


def test_the_old_output_of_a_file_that_fails_at_its_new_path_is_none(project: Project) -> None:
    """It is kept until the new one is made, by runs and by `prune`."""
    project.edit("pipeline.yaml", "output: out/", "output: new/")
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    project.edit("stages/upper.py", '"bad"', '"text a"')
    for pruned in (2, 0):
        summary = project.run()
        assert (summary.exit, summary.failed, summary.pruned) == (1, 1, pruned)
        assert project.outputs() == {"a": b"TEXT A"} and project.orphans() == []
    project.edit("stages/upper.py", '"text a"', '"none"')
    assert project.run().exit == 0 and project.outputs() == {}
    assert (project.folder / "new/a").read_bytes() == b"TEXT A"


def test_the_old_output_of_a_file_that_is_refused_its_new_path_is_none(project: Project) -> None:
    """The ledger keeps what it knows, so that the next run says the same."""
    shutil.copytree(project.folder / "out", project.folder / "new")
    project.edit("pipeline.yaml", "output: out/", "output: new/")
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    for _ in range(2):
        summary = project.run()
        assert (summary.exit, summary.failed, summary.pruned) == (1, 3, 0)
        assert len(project.outputs()) == 3 and project.orphans() == []


TWO_KINDS = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{stem}.txt'}
  - {name: lines, from: inputs, uses: lines, output: 'out/lines/{dir}/{stem}/{part}.txt'}
engine: serial
prune: {max: 100%}
"""
UPPER_OR_NOT = """
def upper(text: str) -> str:
    if text.startswith("bad"):
        raise ValueError("bad text")
    return text.upper()
"""
LINES_OR_NOT = """
from collections.abc import Iterator
def lines(text: str) -> Iterator[str]:
    if text.startswith("bad"):
        raise ValueError("bad text")
    yield from text.splitlines()
"""


def test_what_lies_where_a_file_that_fails_has_its_outputs_is_none(tmp_path: Path) -> None:
    """A source has got another suffix, and fails: what was made of it under the former one is kept, held or not."""
    project = Project(tmp_path, TWO_KINDS)
    project.write("stages/lines.py", LINES_OR_NOT)
    project.write("stages/upper.py", UPPER_OR_NOT)
    project.write("in/a.md", "one\ntwo\nthree")
    project.write("in/b.md", "other")
    assert project.run().exit == 0
    before = project.outputs()
    assert len(before) == 6
    (tmp_path / "in/a.md").unlink()
    project.write("in/a.txt", "bad text")
    for exit_code in (1, 1, 1, 6, 6):
        assert (summary := project.run()).exit == exit_code and summary.pruned == 0
        assert project.outputs() == before and project.orphans() == []
    assert summary.held == 2
    project.write("in/a.txt", "four\nfive")
    assert project.run().exit == 0
    made = {"a.txt": b"FOUR\nFIVE", "lines/a/000001.txt": b"four", "lines/a/000002.txt": b"five"}
    assert project.outputs() == made | {name: before[name] for name in ("b.txt", "lines/b/000001.txt")}
