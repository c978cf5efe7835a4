"""What nothing produces any more is removed when that is wanted; nobody else's file ever is."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import Pipeline, answered
from support.project import ONE_STAGE, Project, ledger_of, made, temporaries

from pipeline.files.atomic import temporary_for

NIGHTLY = ONE_STAGE + "prune: {max: 50%}\n"
FRESH = ("up-to-date", "up to date")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four files, made."""
    return made(tmp_path, "a", "b", "sub/deep/c", "sub/d")


def remove(project: Project, *names: str) -> None:
    for name in names:
        (project.folder / "in" / name).unlink()


def recorded(project: Project) -> dict[str, str]:
    """The outputs in the ledger, with their status."""
    with ledger_of(project.folder) as ledger:
        return {row.target.decode(): row.status for row in ledger.outputs.all()}


# -- the verb ----------------------------------------------------------------------------------------------------------


def test_it_shows_and_removes(project: Project, pipeline: Pipeline) -> None:
    """The orphans are named first; files, records and emptied folders go, the rest stays; it is on record."""
    remove(project, "a", "sub/deep/c")
    ran = pipeline("prune", "--yes")
    assert (ran.returncode, ran.stdout) == (0, "")
    assert ran.stderr.splitlines() == [
        "  prune out/a: source gone", "  prune out/sub/deep/c: source gone", "2 orphans to remove, 21 bytes",
        "2 orphans removed",
    ]  # fmt: skip
    assert set(project.outputs()) == {"b", "sub/d"} == {each[4:] for each in recorded(project)}
    assert not (project.folder / "out/sub/deep").exists()
    with ledger_of(project.folder) as ledger:
        (override,) = ledger.overrides.all()
        assert (override.verb, override.details["removed"]) == ("prune", 2)
    again = pipeline("prune", "--yes")
    assert (again.returncode, again.stderr) == (0, "no orphans to remove\n")


def test_it_asks_on_a_terminal_and_nowhere_else(project: Project, pipeline: Pipeline) -> None:
    """A script must say --yes; a person says y, and anything else is no."""
    remove(project, "a")
    ran = pipeline("prune")
    assert ran.returncode == 2 and "--yes" in ran.stderr and len(project.outputs()) == 4
    for answer, left in (("", 4), ("n", 4), ("y", 3)):
        assert answered("prune", answer, project.folder)[0] == 0 and len(project.outputs()) == left


def test_json_alone_only_lists(project: Project, pipeline: Pipeline) -> None:
    """Nobody is asked, and nothing is removed."""
    remove(project, "a")
    assert pipeline("prune", "--json").returncode == 0 and len(project.outputs()) == 4


def test_json_lists_all(project: Project, pipeline: Pipeline) -> None:
    """One object a line, on stdout, whatever bytes a name has; with --yes they are removed too."""
    project.write("in/\udcff", "x")
    project.run()
    remove(project, "a", "\udcff")
    lines = [json.loads(line) for line in pipeline("prune", "--json", "--yes").stdout.splitlines()]
    assert lines[0] == {
        "source": "a", "stage": "up", "action": "prune", "why": "source gone", "size_bytes": 6, "output": "out/a",
    }  # fmt: skip
    assert (lines[1]["output"], lines[1]["output_b64"]) == ("out/\\xff", "b3V0L/8=")
    assert set(project.outputs()) == {"b", "sub/deep/c", "sub/d"}


def edit(project: Project) -> None:
    project.write("out/a", "mine!!")
    os.utime(project.folder / "out/a", (1, 1))


def grow(project: Project) -> None:
    before = (project.folder / "out/a").stat()
    project.write("out/a", "longer than before")
    os.utime(project.folder / "out/a", ns=(1, before.st_mtime_ns))


def link_file(project: Project) -> None:
    (project.folder / "out/a").rename(project.folder / "precious")
    (project.folder / "out/a").symlink_to("../precious")


def link_folder(project: Project) -> None:
    (project.folder / "out/sub").rename(project.folder / "precious")
    (project.folder / "out/sub").symlink_to("../precious")


def make_folder(project: Project) -> None:
    (project.folder / "out/a").unlink()
    project.write("out/a/file", "x")


def take_over(project: Project) -> None:
    project.edit("out/.filemill", '"state": "', '"state": "another')


@pytest.mark.parametrize("change", [edit, grow, link_file, link_folder, make_folder, take_over])
def test_nothing_else_is_ever_removed(project: Project, pipeline: Pipeline, change: Callable[[Project], None]) -> None:
    """Not what someone changed, not through a link, no folder, nothing in a folder that is another pipeline's."""
    remove(project, "a", "sub/deep/c")
    change(project)
    before = {str(path) for path in project.folder.rglob("*") if "out" in path.parts or path.name == "precious"}
    assert pipeline("prune", "--yes").returncode == 0
    lost = before - {str(path) for path in project.folder.rglob("*")}
    mine = {"edit": "sub/deep", "grow": "sub/deep", "link_file": "sub/deep", "make_folder": "sub/deep"}
    expected = {"link_folder": ["out/a"], "take_over": []}.get(change.__name__, ["out/sub/deep/c", "out/sub/deep"])
    assert mine and lost == {str(project.folder / each) for each in expected}


def test_a_linked_output_folder_is_ours(project: Project, pipeline: Pipeline) -> None:
    """The output folder itself may lie on another disk, by a link."""
    (project.folder / "out").rename(project.folder / "disk")
    (project.folder / "out").symlink_to("disk")
    remove(project, "sub/deep/c")
    assert "1 orphan removed" in pipeline("prune", "--yes").stderr
    assert set(project.outputs()) == {"a", "b", "sub/d"}


def test_what_is_missing_is_forgotten(project: Project, pipeline: Pipeline) -> None:
    """An orphan whose file is gone already needs no question."""
    remove(project, "a")
    (project.folder / "out/a").unlink()
    ran = pipeline("prune")
    assert ran.returncode == 0 and "out/a" not in recorded(project)


def test_a_skip_stays_known(project: Project, pipeline: Pipeline) -> None:
    """The old output of a file that is left out by now goes; that it is left out stays on record."""
    project.write("in/a", "skip it")
    project.run()
    assert "prune out/a: skipped now" in pipeline("prune", "--yes").stderr
    assert "a" not in project.outputs() and recorded(project)["out/a"] == "skipped"
    assert project.plan()["up a"] == ("up-to-date", "skipped: not wanted")
    project.write("in/a", "good again")
    assert project.run().done == 1 and project.outputs()["a"] == b"GOOD AGAIN"


def test_a_failed_file_keeps_its_output(project: Project, pipeline: Pipeline) -> None:
    """What was good stays until there is better."""
    project.write("in/a", "bad now")
    project.run()
    assert "no orphans" in pipeline("prune", "--yes").stderr and project.outputs()["a"] == b"TEXT A"


def test_it_waits_for_nobody(project: Project, pipeline: Pipeline) -> None:
    """Beside a run it leaves with 75."""
    with open(project.folder / ".pipeline/pipeline/lock", "r+") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert pipeline("prune", "--yes").returncode == 75


def test_an_input_root_without_a_file_is_no_proof(project: Project, pipeline: Pipeline) -> None:
    """A disk that is away must not cost everything that was made from it; a run says that it is meant."""
    remove(project, "a", "b", "sub/deep/c", "sub/d")
    ran = pipeline("prune", "--yes")
    assert ran.returncode == 3 and "is its disk mounted?" in ran.stderr and len(project.outputs()) == 4
    assert pipeline("--rebuild").returncode == 0 and len(project.outputs()) == 4
    assert pipeline("prune", "--yes").returncode == 0 and project.outputs() == {}


def test_an_output_folder_that_is_away(project: Project, pipeline: Pipeline) -> None:
    """The guards of a run guard this too."""
    remove(project, "a")
    (project.folder / "out").rename(project.folder / "away")
    (project.folder / "out").mkdir()
    ran = pipeline("prune", "--yes")
    assert ran.returncode == 3 and "is empty" in ran.stderr


def test_without_a_ledger_there_is_nothing(tmp_path: Path, pipeline: Pipeline) -> None:
    """Nothing was made, so nothing is ours to remove, and no state folder comes of asking."""
    Project(tmp_path)
    assert pipeline("prune", "--yes").returncode == 0 and not (tmp_path / ".pipeline").exists()


def test_temporaries_of_a_killed_run_go_with_their_orphan(project: Project, pipeline: Pipeline) -> None:
    """Nobody else would come by them once the record is gone."""
    with ledger_of(project.folder) as ledger:
        ledger.begin_run("killed")
    Path(os.fsdecode(temporary_for(os.fsencode(project.folder / "out/a"), "killed"))).touch()
    remove(project, "a")
    assert pipeline("prune", "--yes").returncode == 0 and not temporaries(project.folder)


# -- at the end of every run -------------------------------------------------------------------------------------------


@pytest.fixture
def nightly(project: Project) -> Project:
    project.write("pipeline.yaml", NIGHTLY)
    return project


def test_every_run_prunes_if_it_is_told_to(nightly: Project, pipeline: Pipeline) -> None:
    """Within the share that is allowed, without a question, counted in the summary."""
    remove(nightly, "a", "sub/deep/c")
    ran = pipeline("--json")
    assert (ran.returncode, json.loads(ran.stdout)["pruned"]) == (0, 2)
    assert set(nightly.outputs()) == {"b", "sub/d"} and not (nightly.folder / "out/sub/deep").exists()
    assert nightly.run().pruned == 0


def test_too_many_are_not_pruned(nightly: Project, pipeline: Pipeline) -> None:
    """Above the share nothing is removed, exit 4; the line that does it once is said, and does it."""
    remove(nightly, "a", "b", "sub/d")
    nightly.write("in/new", "x")
    ran = pipeline()
    assert ran.returncode == 4 and len(nightly.outputs()) == 5
    assert "3 of 5 outputs are orphans, and prune.max is 50%; none was removed" in ran.stderr
    assert f"next: python -m pipeline prune {nightly.folder}/pipeline.yaml\n" in ran.stderr
    command = ran.stderr.rpartition("python -m pipeline ")[2].partition("\n")[0].split()
    assert pipeline(*command, "--yes").returncode == 0 and set(nightly.outputs()) == {"new", "sub/deep/c"}
    assert pipeline().returncode == 0


@pytest.mark.parametrize("selection", [["--only", "b"], ["--limit", "1"], ["--files-from", "list"]])
def test_a_selection_never_prunes(nightly: Project, pipeline: Pipeline, selection: list[str]) -> None:
    """What was not asked about is not gone."""
    nightly.write("list", "b\n")
    remove(nightly, "a")
    assert pipeline(*selection).returncode == 0 and len(nightly.outputs()) == 4


def test_a_run_that_was_stopped_never_prunes(nightly: Project) -> None:
    """Only a run that ended in order is trusted to know what is gone."""
    nightly.edit("pipeline.yaml", "prune", "errors: {max: 1}\nprune")
    remove(nightly, "a")
    nightly.write("in/x", "bad")
    nightly.write("in/y", "bad")
    assert nightly.run().exit == 4 and "a" in nightly.outputs()


def test_what_is_left_out_by_this_run_goes_with_it(nightly: Project) -> None:
    """From done to left out, failed, and back, each run leaves exactly what its sources say."""
    for text, left, exit_code in (("skip it", None, 0), ("good", b"GOOD", 0), ("bad", b"GOOD", 1), ("skip", None, 0)):
        nightly.write("in/a", text)
        assert nightly.run().exit == exit_code
        assert nightly.outputs().get("a") == left, text
    assert nightly.run().pruned == 0


def test_a_share_is_written_as_one(tmp_path: Path, pipeline: Pipeline) -> None:
    """`max` is a percentage."""
    Project(tmp_path, NIGHTLY.replace("50%", "10"))
    ran = pipeline("check")
    assert ran.returncode == 2 and "a percentage is needed, such as 5%" in ran.stderr
