"""What a person has the ledger take as true: `adopt` and `accept`."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest
from support.program import Pipeline, answered
from support.project import MOODY, Project, ledger_of

FRESH = ("up-to-date", "up to date")
TWO_STAGES = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: twice, from: up, uses: twice, output: 'out/twice/{dir}/{name}'}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two stages over three files, made."""
    project = Project(tmp_path, TWO_STAGES)
    project.write("stages/twice.py", "def twice(text: str) -> str:\n    return text * 2\n")
    for name in ("a", "b", "sub/c"):
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == 6
    return project


def overrides(project: Project) -> list[tuple[str, dict[str, object]]]:
    with ledger_of(project.folder) as ledger:
        return [(each.verb, each.details) for each in ledger.overrides.all()]


# -- adopt -------------------------------------------------------------------------------------------------------------


def test_a_lost_ledger_does_not_cost_the_work(project: Project, pipeline: Pipeline) -> None:
    """What is there is shown by stage, taken as made, on record, and up to date for the next run."""
    shutil.rmtree(project.folder / ".pipeline")
    before = project.outputs()
    ran = pipeline("adopt", "--yes")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.splitlines() == [
        "6 outputs to adopt, as made from the files as they are by the stages as they are",
        "          3  up",
        "          3  twice",
        "6 outputs adopted",
    ]
    assert project.run().up_to_date == 6 and project.outputs() == before
    assert overrides(project) == [("adopt", {"outputs": {"up": 3, "twice": 3}})]
    with ledger_of(project.folder) as ledger:
        assert {row.override for row in ledger.outputs.all()} == {1}
    assert pipeline("adopt").stderr == "no outputs to adopt\n"
    project.write("in/a", "another text")
    assert project.run().done == 2


def test_only_what_can_be_as_made_is_adopted(tmp_path: Path, pipeline: Pipeline) -> None:
    """What is empty, older than its source, or no regular file is counted apart, and left."""
    project = Project(tmp_path)
    for name in ("good", "empty", "old", "link", "later"):
        project.write(f"in/{name}", name)
        project.write(f"out/{name}", name.upper())
    project.write("out/empty", "")
    os.utime(project.folder / "out/old", (1, 1))
    (project.folder / "out/link").unlink()
    (project.folder / "out/link").symlink_to("good")
    ran = pipeline("adopt", "--only", "/[!l]*", "--yes")
    assert ran.stderr.splitlines() == [
        "1 output to adopt, as made from the files as they are by the stages as they are",
        "          1  up",
        "2 outputs left, to be moved away, or made anew by --force",
        "          1  up: empty",
        "          1  up: older than its source",
        "1 output adopted",
    ]
    assert project.plan()["up good"] == FRESH and project.plan()["up later"] == ("refuse", "exists, not ours")
    assert "up: no regular file" in pipeline("adopt", "--yes").stderr
    assert project.plan()["up later"] == FRESH and project.plan()["up link"] == ("refuse", "exists, not ours")


def test_what_was_adopted_is_known_as_if_it_were_made(project: Project, pipeline: Pipeline) -> None:
    """`verify` has contents to compare with, and `explain` tells by which override it is taken as made."""
    shutil.rmtree(project.folder / ".pipeline")
    pipeline("adopt", "--yes", "--only", "a")
    assert pipeline("verify").stderr == "2 outputs verified: 2 as recorded\n"
    said = pipeline("explain", "out/up/a").stdout
    assert re.search(r'^  decreed: by adopt, [-\d]+ [:\d]+: outputs \{"up": 1, "twice": 1\}, only a$', said, re.M), said
    before = (project.folder / "out/up/a").stat()
    os.utime(project.write("out/up/a", "TEXT B"), ns=(0, before.st_mtime_ns))
    assert "out/up/a: contents changed" in pipeline("verify").stdout


def test_what_was_adopted_is_judged_by_contents_too(project: Project, pipeline: Pipeline) -> None:
    """Under `changed_by: hash` a source that is touched makes nothing stale, and one whose contents changed does."""
    shutil.rmtree(project.folder / ".pipeline")
    project.edit("pipeline.yaml", "inputs: in", "inputs: in\nchanged_by: hash")
    pipeline("adopt", "--yes")
    os.utime(project.folder / "in/a", (1, 1))
    assert project.plan()["up a"] == FRESH
    os.utime(project.write("in/b", "text x"), (1, 1))
    assert project.plan()["up b"] == ("make", "source changed (its contents)")
    assert project.run().done == 2


def test_adopt_asks_first(project: Project, pipeline: Pipeline) -> None:
    """On a terminal y is needed, and anything else is no; where nobody can be asked, --yes."""
    shutil.rmtree(project.folder / ".pipeline")
    refused = pipeline("adopt")
    assert refused.returncode == 2 and "--yes" in refused.stderr and overrides(project) == []
    for answer in ("", "n"):
        code, screen = answered("adopt", answer, project.folder)
        assert code == 0 and "nothing was adopted" in screen and overrides(project) == []
    assert answered("adopt", "y", project.folder)[0] == 0 and len(overrides(project)) == 1
    assert project.run().up_to_date == 6


def test_accept_asks_first(project: Project, pipeline: Pipeline) -> None:
    """As `adopt` does."""
    project.edit("stages/upper.py", "text.upper() + mark", "mark.join([text.upper(), ''])")
    code, screen = answered("accept --stage up --because code", "n", project.folder)
    assert code == 0 and "nothing was accepted" in screen and overrides(project) == []
    code, screen = answered("accept --stage up --because code", "y", project.folder)
    assert code == 0 and "6 outputs accepted" in screen and project.run().up_to_date == 6


def test_another_pipelines_outputs_are_not_adopted(project: Project, pipeline: Pipeline) -> None:
    """They are first taken over."""
    project.write("other.yaml", TWO_STAGES)
    ran = pipeline("adopt", "other.yaml", "--yes")
    assert ran.returncode == 2 and "belongs to pipeline 'pipeline'" in ran.stderr
    assert pipeline("run", "other.yaml", "--take-over").returncode == 2
    assert pipeline("adopt", "other.yaml", "--yes").returncode == 0
    assert pipeline("run", "other.yaml").returncode == 0 and pipeline().returncode == 2


def test_a_failure_that_was_for_want_of_a_place_is_forgotten(tmp_path: Path, pipeline: Pipeline) -> None:
    """What exists and is not ours fails; once it is adopted nothing has failed any more."""
    project = Project(tmp_path)
    project.write("in/0", "x")
    project.run()
    project.write("in/a", "x")
    project.write("out/a", "X")
    assert project.run().failed == 1
    assert pipeline("adopt", "--yes").returncode == 0
    assert pipeline("failures").stdout == "" and project.run().exit == 0


def test_what_lies_where_nothing_was_made_is_adopted_too(tmp_path: Path, pipeline: Pipeline) -> None:
    """The record of a source that was left out, and is not any more, gives way."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "skip this")
    project.run()
    project.write("in/a", "good")
    project.write("out/a", "GOOD")
    assert "1 output adopted" in pipeline("adopt", "--yes").stderr and project.plan()["up a"] == FRESH


# -- accept ------------------------------------------------------------------------------------------------------------


def test_an_edit_that_changes_nothing_does_not_cost_the_work(project: Project, pipeline: Pipeline) -> None:
    """All at or below the stage that are stale for its code alone are taken as made by it; on record."""
    project.edit("stages/upper.py", "text.upper() + mark", "mark.join([text.upper(), ''])")
    assert all(why.startswith("up: code changed") for _, why in project.plan().values())
    ran = pipeline("accept", "--stage", "up", "--because", "code", "--yes")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.splitlines() == [
        "6 outputs to accept, stale for nothing but up: code",
        "          3  up",
        "          3  twice",
        "6 outputs accepted",
    ]
    assert project.run().up_to_date == 6
    said = {"stage": "up", "because": "code", "outputs": {"up": 3, "twice": 3}}
    assert overrides(project) == [("accept", said)]
    project.edit("stages/upper.py", "mark.join([text.upper(), ''])", "text.upper() + mark")
    assert project.run().done == 6


def test_what_is_stale_for_more_is_left(project: Project, pipeline: Pipeline) -> None:
    """A source that changed too, or another part of the recipe, is counted apart with its reason, and made."""
    project.edit("stages/upper.py", "text.upper() + mark", "mark.join([text.upper(), ''])")
    project.edit("stages/twice.py", "text * 2", "2 * text")
    project.write("in/a", "another text")
    ran = pipeline("accept", "--stage", "up", "--because", "code", "--yes")
    assert ran.stderr.splitlines() == [
        "2 outputs to accept, stale for nothing but up: code",
        "          2  up",
        "4 outputs left, stale for more",
        "          1  up: source changed",
        "          3  twice: twice: code changed (stages/twice.py)",
        "2 outputs accepted",
    ]
    assert project.plan()["up b"] == FRESH and project.run().done == 4


def test_where_there_is_nothing_to_accept_it_says_so(project: Project, pipeline: Pipeline) -> None:
    """No question, exit 0; a stage or a part that there is not, exit 2 with what may be meant."""
    ran = pipeline("accept", "--stage", "up", "--because", "options")
    assert ran.returncode == 0
    assert ran.stderr == "no outputs to accept: none is stale for nothing but up: options\n"
    for arguments, said in (
        (("--stage", "upp", "--because", "code"), "--stage: no stage 'upp'; did you mean 'up'?"),
        (("--stage", "up", "--because", "option"), "--because: no part of a recipe 'option'; did you mean 'options'?"),
        (("--stage", "zzz", "--because", "code"), "--stage: no stage 'zzz'; there are up, twice"),
    ):
        ran = pipeline("accept", *arguments)
        assert ran.returncode == 2 and ran.stderr == f"{said}\n"
    project.edit("stages/upper.py", "text.upper() + mark", "mark.join([text.upper(), ''])")
    assert pipeline("accept", "--stage", "up", "--because", "code").returncode == 2 and overrides(project) == []
