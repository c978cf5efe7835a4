"""Links below the output folders and the input root: those of the user count, those that others plant do not."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from tests.support.mounts import bound
from tests.support.project import Project, contents_below

_PLANT = """
import os
def upper(text: str) -> str:
    if text == "plant":
        {plant}
    return text.upper()
"""
_NOBODY = 65534
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may make the links of another user")


def _project(folder: Path) -> Project:
    project = Project(folder)
    for name in ("2023/a.txt", "2024/a.txt", "2024/jan/b.txt", "c.txt"):
        project.write(f"in/{name}", "text")
    (folder / "disk").mkdir()
    return project


def _listed(project: Project) -> dict[str, str]:
    found: dict[str, str] = json.loads((project.folder / "out/.filemill").read_text()).get("links", {})
    return found


def test_a_folder_may_be_linked_to_another_disk(tmp_path: Path) -> None:
    """A link that was there before the run is listed in the owner file and written through, night after night."""
    project = _project(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/2024").symlink_to("../disk")
    assert (project.run().done, project.run().up_to_date) == (4, 4)
    assert contents_below(tmp_path / "disk") == {"a.txt": b"TEXT", "jan/b.txt": b"TEXT"}
    assert _listed(project) == {"2024": str(tmp_path / "disk")}
    project.write("in/c.txt", "another")
    assert project.run().done == 1 and _listed(project)
    (tmp_path / "out/2024").unlink()
    project.write("in/c.txt", "one more")
    assert project.run().done == 3 and not _listed(project)


@pytest.mark.parametrize("engine", ["serial", "pool\npool: {processes: 1}"])
def test_a_link_that_appears_during_the_run_is_refused(tmp_path: Path, engine: str) -> None:
    """The files that would go through it fail and say so, all others are made, and nothing lies behind the link."""
    project = _project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", f"engine: {engine}")
    plant = f"os.symlink({str(tmp_path / 'disk')!r}, {str(tmp_path / 'out/2024')!r})"
    project.write("stages/upper.py", _PLANT.format(plant=plant))
    project.write("in/2023/a.txt", "plant")
    summary = project.run()
    assert (summary.done, summary.failed, summary.exit) == (2, 2, 1)
    for _, result in summary.failures:
        assert result.text == (
            f"{tmp_path}/out/2024 is a link to {tmp_path}/disk: it leads among the inputs, came after the run began, "
            "or another user may have made it, so nothing is written through it; remove it, or make it yourself"
        )
    assert not os.listdir(tmp_path / "disk")
    assert project.run().done == 2 and _listed(project)  # whoever ran it had made it


def test_a_link_that_leads_elsewhere_meanwhile_is_refused(tmp_path: Path) -> None:
    """What was listed is the place to which it led when the run began."""
    project = _project(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out/2024").symlink_to("../disk")
    link = str(tmp_path / "out/2024")
    plant = f"os.unlink({link!r}); os.symlink({str(tmp_path / 'elsewhere')!r}, {link!r})"
    project.write("stages/upper.py", _PLANT.format(plant=plant))
    project.write("in/2023/a.txt", "plant")
    assert (project.run().failed, os.listdir(tmp_path / "elsewhere")) == (2, [])


@needs_root
@pytest.mark.parametrize(("mode", "is_made"), [(0o1777, False), (0o775, False), (0o755, True)])
def test_a_link_of_another_user_counts_where_only_the_owner_writes(tmp_path: Path, mode: int, is_made: bool) -> None:
    """In a folder that others can write to, a link of somebody else may have been planted to have us write anywhere."""
    project = _project(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out").chmod(mode)
    (tmp_path / "out/2024").symlink_to("../disk")
    os.lchown(tmp_path / "out/2024", _NOBODY, _NOBODY)
    summary = project.run()
    assert (summary.failed, len(contents_below(tmp_path / "disk"))) == ((0, 2) if is_made else (2, 0))


def test_an_output_is_not_renamed_through_a_link(tmp_path: Path) -> None:
    """A changed template has what would lie behind a link made there, or refused, as any other output."""
    project = _project(tmp_path)
    assert project.run().done == 4
    (tmp_path / "out/new").mkdir()
    (tmp_path / "out/new/2024").symlink_to("../../disk")
    project.edit("pipeline.yaml", "out/{dir}/{name}", "out/{dir}/{name}.new")
    assert project.run().renamed == 4
    project.edit("pipeline.yaml", "out/{dir}/{name}.new", "'out/new/{dir}/{name}'")
    summary = project.run()
    assert (summary.renamed, summary.done, summary.exit) == (2, 2, 0)
    assert contents_below(tmp_path / "disk") == {"a.txt": b"TEXT", "jan/b.txt": b"TEXT"}


# -- the input root ----------------------------------------------------------------------------------------------------


def test_links_to_files_are_read_and_linked_folders_counted(tmp_path: Path) -> None:
    """An annex consists of links. What lies behind a link to a folder may lie twice below the root, or in it."""
    project = Project(tmp_path)
    project.write("annex/1a/key", "text")
    (tmp_path / "in/x.txt").symlink_to("../annex/1a/key")
    (tmp_path / "in/linked").symlink_to("../annex")
    (tmp_path / "in/drafts").symlink_to("../annex")
    for inputs, left_out in (
        ("in", "drafts, linked"),
        ("{root: in, include: ['*.txt'], exclude: [drafts]}", "linked"),
    ):
        project.edit("pipeline.yaml", "inputs: in", f"inputs: {inputs}")
        summary = project.run()
        assert (summary.sources, summary.exit) == (1, 0)
        assert summary.notes == [f"left out, a linked folder: {left_out}"]
    assert project.outputs() == {"x.txt": b"TEXT"}


@needs_root
@pytest.mark.parametrize("inputs", ["in", "{root: in, include: ['*.txt']}"])
@pytest.mark.parametrize(("mode", "owner", "is_read"), [
    (0o1777, _NOBODY, False), (0o775, _NOBODY, False), (0o755, _NOBODY, True), (0o1777, 0, True),
])  # fmt: skip
def test_a_planted_link_is_not_read(tmp_path: Path, mode: int, owner: int, is_read: bool, inputs: str) -> None:
    """What others link in a folder that they can write to may be a file that we can read and they cannot."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "inputs: in", f"inputs: {inputs}")
    project.write("secret", "key").chmod(0o600)
    project.write("in/y.txt", "text")
    (tmp_path / "in/x.txt").symlink_to("../secret")
    os.lchown(tmp_path / "in/x.txt", owner, owner)
    (tmp_path / "in").chmod(mode)
    for names in (None, [b"x.txt", b"y.txt"]):
        summary = project.run(names=names)
        left_out = [] if is_read else ["left out, another user's link in a folder that others can write to: x.txt"]
        assert (summary.exit, summary.notes) == (0, left_out)
    assert ("x.txt" in project.outputs()) is is_read


# -- owner files -------------------------------------------------------------------------------------------------------


def test_an_owner_file_is_not_written_through_a_link(tmp_path: Path) -> None:
    """What somebody links in the place of the owner file, or of its temporary, stays as it is."""
    project = _project(tmp_path)
    (tmp_path / "out").mkdir()
    for name in (".filemill", ".filemill-owner"):
        (tmp_path / "out" / name).symlink_to(project.write(f"disk/{name}", "a file of somebody's"))
    assert project.run().exit == 0
    assert not (tmp_path / "out/.filemill").is_symlink() and not os.path.lexists(tmp_path / "out/.filemill-owner")
    assert {file.read_text() for file in (tmp_path / "disk").iterdir()} == {"a file of somebody's"}


@needs_root
def test_a_link_in_a_folder_of_another_user(tmp_path: Path) -> None:
    """Whoever owns a folder can write to it, whatever its mode."""
    project = _project(tmp_path)
    (tmp_path / "disk" / "secret.txt").write_text("secret")
    for place, link, to in (("out", "2024", tmp_path / "disk"), ("in/2023", "l.txt", tmp_path / "disk/secret.txt")):
        (tmp_path / place).mkdir(exist_ok=True)
        (tmp_path / place / link).symlink_to(to)
        os.chown(tmp_path / place / link, _NOBODY, _NOBODY, follow_symlinks=False)
        os.chown(tmp_path / place, _NOBODY, _NOBODY)
    summary = project.run()
    assert (summary.failed, summary.done) == (2, 2)
    assert contents_below(tmp_path / "disk") == {"secret.txt": b"secret"}
    assert not (tmp_path / "out/2023/l.txt").exists()


def test_a_link_that_leads_to_a_disk_that_is_away(tmp_path: Path) -> None:
    """It is the machine's fault: exit 3 and no attempt; a file in the way of a folder is the files' own."""
    project = _project(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out/2024").symlink_to("../away")
    for _ in range(3):
        summary = project.run()
        assert summary.exit == 3 and "is a link to ../away, which is not there; is its disk mounted?" in summary.stopped
    (tmp_path / "away").mkdir()
    assert project.run().exit == 0
    project.write("in/d/e.txt", "text")
    (tmp_path / "out/d").write_text("a person's")
    summary = project.run()
    assert summary.exit == 1 and "out/d is a file, and so no folder for outputs" in summary.lines()[1]


def test_a_folder_of_inputs_that_is_a_link_now(tmp_path: Path) -> None:
    """Moved to another disk and linked back: its outputs are kept, although the walk does not enter it."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", "engine: serial\nprune: {max: 100%}")
    for name in ("old/a.txt", "old/b.txt", "c.txt"):
        project.write(f"in/{name}", "text")
    assert project.run().done == 3
    (tmp_path / "in/old").rename(tmp_path / "disk")
    (tmp_path / "in/old").symlink_to("../disk")
    summary = project.run()
    assert (summary.exit, summary.pruned) == (0, 0) and len(contents_below(tmp_path / "out")) == 3


def test_a_link_that_leads_among_the_inputs(tmp_path: Path) -> None:
    """No output takes the place of an input, whatever was linked to what since."""
    project = _project(tmp_path)
    assert project.run().done == 4
    for number in range(3):
        if not number:
            for name in ("a.txt", "jan/b.txt"):
                (tmp_path / "out/2024" / name).unlink()
            (tmp_path / "out/2024/jan").rmdir()
            (tmp_path / "out/2024").rmdir()
            (tmp_path / "out/2024").symlink_to("../in/2024")
        project.write("in/2024/a.txt", f"a day of work, {number}")
        project.run(force=number == 2)
        assert (tmp_path / "in/2024/a.txt").read_text() == f"a day of work, {number}"
        assert (tmp_path / "in/2024/jan/b.txt").read_text() == "text"


def test_an_output_folder_that_is_the_input_root(tmp_path: Path) -> None:
    """By a bind mount the names differ, and the folder is one."""
    project = _project(tmp_path)
    assert project.run().done == 4
    with bound(tmp_path / "in", tmp_path / "out"), pytest.raises(UsageError, match="the input root by another name"):
        project.run(force=True)
    assert set(contents_below(tmp_path / "in").values()) == {b"text"}
