"""Folders that are gone: a disk that is away costs nothing that was made, and what was removed on purpose is."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import ONE_STAGE, Project, every_kind, ledger_of

from pipeline.errors import EnvironmentFailure
from pipeline.operations.guards import Confirmations

REBUILD = Confirmations(rebuild=True)


class Disks:
    """File systems that are mounted and unmounted at will."""

    def __init__(self) -> None:
        self._mounted: list[Path] = []

    def mount(self, place: Path, *, bind: Path | None = None) -> Path:
        """Mount an empty file system, or a folder at another place; the test is skipped where that cannot be."""
        place.mkdir(parents=True, exist_ok=True)
        what = ["--bind", bind] if bind else ["-t", "tmpfs", "none"]
        ran = subprocess.run(["mount", *what, place], capture_output=True, text=True)
        if ran.returncode:
            pytest.skip(f"no file system can be mounted here: {ran.stderr.strip()}")
        self._mounted.append(place)
        return place

    def unmount(self, place: Path) -> None:
        """Take a file system away, with all that is in it; its folder stays."""
        subprocess.run(["umount", place], check=True)
        self._mounted.remove(place)

    def forget(self, place: Path) -> None:
        """Leave alone what a stage has unmounted."""
        self._mounted.remove(place)

    def unmount_all(self) -> None:
        """Take away what is left."""
        for place in reversed(self._mounted):
            subprocess.run(["umount", "-l", place], check=True)


@pytest.fixture
def disks() -> Iterator[Disks]:
    """Mounts, which are gone after the test."""
    disks = Disks()
    yield disks
    disks.unmount_all()


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project in which nothing was made yet."""
    return Project(tmp_path)


# -- outputs -----------------------------------------------------------------------------------------------------------


def test_an_output_folder_that_was_removed_is_made_again(project: Project) -> None:
    """`rm -rf dist`, or a cache that kept the state alone: no flag, one note; the night after says nothing."""
    for name in ("a", "sub/b"):
        project.write(f"in/{name}", name)
    project.run()
    shutil.rmtree(project.folder / "out")
    summary = project.run()
    assert (summary.done, summary.exit) == (2, 0) and set(project.outputs()) == {"a", "sub/b"}
    assert summary.notes == [f"the output folder {project.folder}/out was removed: its outputs are made again"]
    assert project.run().notes == []


@pytest.mark.parametrize("place", ["disk/out", "disk"])
def test_an_output_folder_on_a_disk_that_is_away_is_refused(project: Project, disks: Disks, place: str) -> None:
    """Be it the disk itself or a folder on it: nothing is written to what lies beneath."""
    disk = disks.mount(project.folder / "disk")
    project.edit("pipeline.yaml", "out/{dir}", f"{place}/{{dir}}")
    project.write("in/a", "a")
    assert project.run().done == 1
    disks.unmount(disk)
    for _ in range(2):
        with pytest.raises(EnvironmentFailure, match="and the ledger knows of 1 output there; is its disk mounted"):
            project.run()
        if disk.exists():
            os.rmdir(disk)  # its mount point may be gone, too
    assert not disk.exists()
    disks.mount(disk)
    with pytest.raises(EnvironmentFailure) if place == "disk" else nullcontext():
        assert project.run().done == 1  # an empty disk may be another one, a folder that is gone was removed from it
    assert project.run(confirmed=REBUILD).exit == 0 and (project.folder / place / "a").exists()


def test_an_output_folder_is_made_again_where_the_project_was_moved_without_it(project: Project) -> None:
    """As a cache of the state alone is, to a place of another depth."""
    project.write("in/a", "a")
    project.run()
    shutil.rmtree(project.folder / "out")
    moved = project.folder / "another/place"
    moved.mkdir(parents=True)
    for name in (".pipeline", "in", "stages", "pipeline.yaml"):
        (project.folder / name).rename(moved / name)
    summary = Project(moved).run()
    assert (summary.done, summary.exit) == (1, 0) and "was removed: its outputs are made again" in summary.notes[0]


# -- inputs ------------------------------------------------------------------------------------------------------------


PRUNED = ONE_STAGE + "prune: {max: 100%}\n"


def fill(project: Project, folder: str, files: int) -> None:
    """Write small files into a folder of inputs."""
    for number in range(files):
        project.write(f"in/{folder}/{number}", f"text {number}")


def kept(project: Project) -> Counter[str]:
    """Return how many outputs there are in each top folder."""
    return Counter(name.partition("/")[0] for name in project.outputs())


@pytest.fixture
def pruned(tmp_path: Path) -> Project:
    """A project that removes whatever is an orphan."""
    return Project(tmp_path, PRUNED)


def test_a_disk_that_is_away_costs_no_output(pruned: Project, disks: Disks, pipeline: Pipeline) -> None:
    """One of several below the root, with few files: kept night after night, named, exit 4, until it is back.

    The rest is done, and pruned, and every verb says the same.
    """
    disk = disks.mount(pruned.folder / "in/disk")
    fill(pruned, "disk", 3)
    fill(pruned, "other", 3)
    assert pruned.run().done == 6
    shutil.copytree(disk, pruned.folder / "backup")
    disks.unmount(disk)
    for number in range(3):
        (pruned.folder / f"in/other/{number}").unlink(missing_ok=True)
        pruned.write(f"in/other/new{number}", "x")
        ran = pipeline("--json")
        said = json.loads(ran.stdout)
        assert (ran.returncode, said["done"], said["pruned"]) == (4, 1, 1), ran.stderr
        assert kept(pruned)["disk"] == 3
        text = (
            "folder disk/ is not on the disk any more that it was on, and 3 known files of it are gone; their outputs "
        )
        text += "are kept; if this is meant, 'run --rebuild' goes on without them\n"
        assert text in ran.stderr and text in pipeline("plan").stderr and "stopped" not in ran.stderr
        if number == 1:
            os.rmdir(disk)  # its mount point, too
    assert "prune" not in pipeline("plan", "-v").stdout and text.strip() in pipeline("explain", "out/disk/1").stdout
    ran = pipeline("prune", "--yes")
    assert ran.returncode == 4 and text in ran.stderr and kept(pruned)["disk"] == 3
    assert pipeline("--only", "other/").returncode == 0  # a selection prunes nothing, and knows nothing of it
    disks.mount(disk)
    shutil.copytree(pruned.folder / "backup", disk, dirs_exist_ok=True, copy_function=shutil.copy2)
    assert pruned.run().exit == 0 and kept(pruned)["disk"] == 3
    disks.unmount(disk)
    assert pruned.run(confirmed=REBUILD).exit == 0 and kept(pruned)["disk"] == 0
    assert pruned.run().exit == 0


@pytest.mark.parametrize("is_alone", [False, True], ids=["beside a file", "with all files of the top folder"])
def test_a_disk_below_a_top_folder_that_is_away(
    pruned: Project, disks: Disks, pipeline: Pipeline, is_alone: bool
) -> None:
    """At any depth, with as few files as many; it is the disk that is named."""
    for files in (3, 30):
        disk = disks.mount(pruned.folder / "in/photos/usb")
        fill(pruned, "photos/usb", files)
        if not is_alone:
            pruned.write("in/photos/beside", "x")
        pruned.write("in/other/o", "o")
        pruned.run()
        disks.unmount(disk)
        for _ in range(2):
            ran = pipeline("--json")
            assert (ran.returncode, json.loads(ran.stdout)["pruned"]) == (4, 0)
            assert f"folder photos/usb/ is not on the disk any more that it was on, and {files} known" in ran.stderr
            assert "vanished" not in ran.stderr and kept(pruned)["photos"] == files + (not is_alone)
        assert pruned.run(confirmed=REBUILD).pruned == files and pruned.run().exit == 0


def test_a_folder_that_is_mounted_from_the_same_file_system(pruned: Project, disks: Disks) -> None:
    """Its device is that of the folder above it."""
    fill(pruned, "../elsewhere", 3)
    disk = disks.mount(pruned.folder / "in/disk", bind=pruned.folder / "elsewhere")
    fill(pruned, "other", 1)
    assert pruned.run().done == 4
    disks.unmount(disk)
    assert pruned.run().exit == 4 and kept(pruned)["disk"] == 3
    disks.mount(disk, bind=pruned.folder / "elsewhere")
    assert pruned.run().exit == 0


def test_a_project_that_was_moved_is_on_no_disk_that_is_away(pruned: Project, disks: Disks) -> None:
    """Neither deeper nor to another disk; what is deleted then is pruned, be it in the root or in a mount point."""
    disk = disks.mount(pruned.folder / "disk")
    there = Project(disk / "project", PRUNED)
    fill(there, "a", 3)
    fill(there, "mounted", 1)
    inner = disks.mount(there.folder / "in/mounted")
    fill(there, "mounted", 3)
    assert there.run().done == 6
    here = pruned.folder / "b/c"
    shutil.copytree(there.folder, here)
    disks.unmount(inner)
    disks.unmount(disk)
    moved = Project(here, PRUNED)
    for folder in ("a", "mounted"):
        (here / "in" / folder / "1").unlink()
        assert (moved.run().pruned, moved.run().exit) == (1, 0)


def test_a_disk_that_only_a_partial_run_has_seen(pruned: Project, disks: Disks) -> None:
    """`--only` and `--limit` note a mount as well, and never take a folder beneath a mount for the disk."""
    fill(pruned, "other", 3)
    pruned.run()
    disk = disks.mount(pruned.folder / "in/disk")
    fill(pruned, "disk", 3)
    assert pruned.run(only="disk/").done == 3
    disks.unmount(disk)
    pruned.write("in/disk/beneath", "x")
    assert pruned.run(only="disk/").done == 1
    assert pruned.run().exit == 4 and kept(pruned)["disk"] == 4


def test_a_disk_whose_files_were_copied_to_the_folder_is_no_loss(pruned: Project, disks: Disks) -> None:
    """Where nothing is gone nothing is said, and it is a folder like any other from then on."""
    disk = disks.mount(pruned.folder / "in/disk")
    fill(pruned, "disk", 3)
    fill(pruned, "other", 1)
    pruned.run()
    shutil.copytree(disk, pruned.folder / "copy")
    disks.unmount(disk)
    shutil.copytree(pruned.folder / "copy", disk, dirs_exist_ok=True)
    assert pruned.run().exit == 0
    (disk / "1").unlink()
    assert (pruned.run().pruned, kept(pruned)["disk"]) == (1, 2)


@pytest.mark.parametrize("beneath", [False, True], ids=["empty", "with files of its own"])
def test_a_root_whose_disk_is_away(pruned: Project, disks: Disks, pipeline: Pipeline, beneath: bool) -> None:
    """Without any known file a run is refused, also after runs over nothing and over a part; else all is kept."""
    root = pruned.folder / "in"
    assert pruned.run().exit == 0  # an empty night
    if beneath:
        pruned.write("in/b", "the same")
        shutil.copy2(root / "b", pruned.folder / "b")
    disks.mount(root)
    for name in ("a", "b", "sub/c"):
        pruned.write(f"in/{name}", "the same")
    if beneath:
        shutil.copy2(pruned.folder / "b", root / "b")
    assert pruned.run(only="*").done == 3
    disks.unmount(root)
    for _ in range(2):
        ran = pipeline()
        assert ran.returncode == (4 if beneath else 3), ran.stderr
        assert ("the input root is not on the disk any more" in ran.stderr) == beneath and len(pruned.outputs()) == 3
    assert pruned.run(confirmed=REBUILD).exit == 0 and len(pruned.outputs()) == beneath
    assert pruned.run().exit == 0


def test_twenty_files_that_vanish_at_once_are_kept(pruned: Project, pipeline: Pipeline) -> None:
    """Without a mount, too, and again the next night, also beside new files; the flag says that it is meant."""
    fill(pruned, "many", 20)
    fill(pruned, "few", 19)
    fill(pruned, "other", 1)
    assert pruned.run().done == 40
    shutil.move(pruned.folder / "in/many", pruned.folder / "away")
    shutil.rmtree(pruned.folder / "in/few")
    text = "20 known files of folder many/ vanished at once and are gone; their outputs are kept; if this is meant, "
    for night in range(3):
        ran = pipeline("--json")
        assert ran.returncode == 4 and text in ran.stderr and kept(pruned) == {"many": 20 + night, "other": 1}
        assert json.loads(ran.stdout)["pruned"] == (0 if night else 19) and text in pipeline("plan").stderr
        pruned.write(f"in/many/new{night}", "x")  # another disk is mounted there
    shutil.move(pruned.folder / "away", pruned.folder / "in/back")
    (pruned.folder / "in/back").rename(pruned.folder / "back")
    for file in (pruned.folder / "back").iterdir():
        file.rename(pruned.folder / "in/many" / file.name)
    assert pruned.run().exit == 0 and kept(pruned) == {"many": 23, "other": 1}
    shutil.rmtree(pruned.folder / "in/many")
    assert pruned.run().exit == 4
    assert text[:10] not in pipeline("plan", "--rebuild").stderr
    assert pruned.run(confirmed=REBUILD).pruned == 23 and pruned.run().exit == 0
    fill(pruned, "many", 20)
    assert pruned.run().done == 20 and pruned.run().exit == 0


def test_a_lost_folder_whose_files_come_back_one_by_one(pruned: Project) -> None:
    """As from a restore at night: what is still gone stays kept until nothing is."""
    fill(pruned, "many", 25)
    fill(pruned, "other", 1)
    pruned.run()
    shutil.move(pruned.folder / "in/many", pruned.folder / "away")
    assert pruned.run().exit == 4
    (pruned.folder / "in/many").mkdir()
    for back in (1, 24):
        for number in range(back):
            shutil.copy2(pruned.folder / f"away/{number}", pruned.folder / f"in/many/{number}")
        summary = pruned.run()
        assert (summary.exit, summary.done, kept(pruned)["many"]) == (4, 0, 25)
        text = (
            "24 known files of folder many/ vanished at once and are" if back == 1 else "1 known file of folder many/"
        )
        assert summary.notes[0].startswith(text)
    shutil.copy2(pruned.folder / "away/24", pruned.folder / "in/many/24")
    assert pruned.run().exit == 0
    (pruned.folder / "in/many/24").unlink()
    assert (pruned.run().pruned, kept(pruned)["many"]) == (1, 24)


def test_the_files_in_the_root_itself_are_a_folder_like_the_others(pruned: Project, pipeline: Pipeline) -> None:
    """They vanish beside a folder that stays."""
    fill(pruned, ".", 20)
    fill(pruned, "sub", 2)
    pruned.run()
    for number in range(20):
        (pruned.folder / f"in/{number}").unlink()
    (pruned.folder / "in/sub/1").unlink()
    for night in range(2):
        ran = pipeline("--json")
        assert (ran.returncode, json.loads(ran.stdout)["pruned"]) == (4, 0 if night else 1)
        assert "20 known files of the input root itself vanished at once and are gone" in ran.stderr
        assert len(pruned.outputs()) == 21
    assert "of the input root itself" in pipeline("explain", "out/7").stdout
    assert pruned.run(confirmed=REBUILD).pruned == 20 and pruned.run().exit == 0


@pytest.mark.parametrize("what", ["moved", "excluded", "dangling", "linked"])
def test_files_that_are_no_longer_known_there_do_not_tell_that_a_folder_stays(pruned: Project, what: str) -> None:
    """One was moved away, is excluded now, a link that leads nowhere, or behind one: all others are gone."""
    fill(pruned, "many", 25)
    fill(pruned, "other", 1)
    one = pruned.write("in/many/sub/one", "this one")
    if what == "dangling":
        one.unlink()
        one.symlink_to(pruned.write("elsewhere", "this one"))
    assert pruned.run().done == 27
    for number in range(25):
        (pruned.folder / f"in/many/{number}").unlink()
    if what == "moved":
        one.rename(pruned.folder / "in/other/one")
    elif what == "excluded":
        pruned.edit("pipeline.yaml", "inputs: in", "inputs: {root: in, exclude: [one]}")
    elif what == "dangling":
        (pruned.folder / "elsewhere").unlink()
    else:
        one.parent.symlink_to(one.parent.rename(pruned.folder / "sub"))
    summary = pruned.run()
    assert summary.exit == 4
    assert "25 known files of folder many/ vanished at once" in " ".join(summary.notes)
    assert all(f"many/{number}" in pruned.outputs() for number in range(25))


def test_files_that_go_by_and_by_are_no_loss(pruned: Project) -> None:
    """Nor is a folder of which less than twenty were left, or one that loses all but one file."""
    fill(pruned, "many", 30)
    fill(pruned, "other", 1)
    pruned.edit("pipeline.yaml", "prune: {max: 100%}", "")
    pruned.run()
    for number in range(1, 30):
        (pruned.folder / f"in/many/{number}").unlink()
    assert pruned.run().exit == 0
    (pruned.folder / "in/many/0").unlink()
    assert pruned.run().exit == 0 and kept(pruned)["many"] == 30  # nothing prunes here
    pruned.write("pipeline.yaml", PRUNED)
    assert pruned.run().pruned == 30


def test_a_group_keeps_the_members_of_a_lost_folder(tmp_path: Path) -> None:
    """A sheet of all is not made again without them; the sheet of the folder stays, and its failures are remembered."""
    project = every_kind(tmp_path)
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    fill(project, "many", 20)
    project.write("in/many/sub/bad", "bad")
    fill(project, "other", 1)
    assert project.run().exit == 1
    before = project.outputs()
    shutil.rmtree(project.folder / "in/many")
    assert project.run().exit == 4 and project.outputs() == before
    with ledger_of(project.folder) as ledger:
        assert next(failure.source for failure in ledger.failures.all()) == b"many/sub/bad"


def test_an_older_ledger_guards_by_what_it_knows(pruned: Project) -> None:
    """The first night after an upgrade nothing is noted of folders yet."""
    fill(pruned, "many", 20)
    fill(pruned, "other", 1)
    pruned.run()
    with ledger_of(pruned.folder) as ledger:
        ledger._connection.execute("DELETE FROM folders")
    shutil.rmtree(pruned.folder / "in/many")
    for _ in range(2):
        assert pruned.run().exit == 4 and kept(pruned)["many"] == 20
    assert pruned.run(confirmed=REBUILD).pruned == 20 and pruned.run().exit == 0


BY_PATH = "from pathlib import Path\ndef upper(path: Path) -> str:\n    return path.read_text().upper()\n"


@pytest.mark.parametrize("how", ["a stage takes the path", "a part of it first", "of one time", "by contents"])
def test_a_folder_that_was_renamed_is_no_loss_later(pruned: Project, how: str) -> None:
    """Its files are there, although nothing could follow them in the first run that saw them; a copy is no rename."""
    fill(pruned, "other", 3)
    for number in range(30):
        file = pruned.write(f"in/a/{number}", f"{number:02}" if "time" in how else "x" * (number + 1))
        os.utime(file, (10**9, 10**9)) if "time" in how else None
    if "path" in how:
        pruned.write("stages/upper.py", BY_PATH)
    if "contents" in how:
        pruned.edit("pipeline.yaml", "inputs: in", "inputs: in\nchanged_by: hash")
    assert pruned.run().exit == 0
    (pruned.folder / "in/a").rename(pruned.folder / "in/b")
    if "contents" in how:
        for file in (pruned.folder / "in/b").iterdir():
            os.utime(file)
    if "part" in how:
        assert pruned.run(only="b/1*").exit == 0
    for _ in range(3):
        assert pruned.run().exit == 0
    assert kept(pruned)["b"] == 30 and not kept(pruned)["a"]


SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.01)\n    return text.upper()\n"


def test_a_copy_of_a_folder_is_no_reason_to_prune(pruned: Project) -> None:
    """What was there twice before is not renamed, although a run records the second of them later."""
    pruned.write("stages/upper.py", SLOW)
    for folder in "ab":
        for number in range(30):
            os.utime(pruned.write(f"in/{folder}/{number}", "x" * (number + 1)), (10**9, 10**9))
    assert pruned.run().exit == 0
    shutil.rmtree(pruned.folder / "in/a")
    assert pruned.run().exit == 4 and kept(pruned)["a"] == 30


@pytest.mark.parametrize("how", ["mounted", "linked"])
def test_a_disk_in_an_output_folder_that_is_away(pruned: Project, disks: Disks, how: str) -> None:
    """Nothing is made beneath its mount point: exit 3, until it is back or somebody says that it is meant."""
    fill(pruned, "2023", 2)
    fill(pruned, "2024", 2)
    place = pruned.folder / ("out/2024" if how == "mounted" else "elsewhere")
    disks.mount(place)
    if how == "linked":
        (pruned.folder / "out").mkdir()
        (pruned.folder / "out/2024").symlink_to("../elsewhere")
    assert pruned.run().done == 4 and pruned.run().up_to_date == 4
    disks.unmount(place)
    with pytest.raises(EnvironmentFailure, match=r"lie on a disk that was mounted at .*, where none is now"):
        pruned.run()
    assert not list(place.iterdir())
    assert pruned.run(confirmed=Confirmations(rebuild=True)).done == 2 and pruned.run().up_to_date == 4


TAKES_AWAY = """
import subprocess
def upper(text: str) -> str:
    if text == "take away":
        subprocess.run(["umount", "-l", DISK], check=True)
    return text.upper()
"""


@pytest.mark.parametrize("place", ["in/disk", "out/disk"])
def test_a_disk_that_is_taken_away_during_the_run(pruned: Project, disks: Disks, place: str) -> None:
    """The run stops with 3: what is gone with it has not vanished, and nothing is made beneath its mount point."""
    disk = disks.mount(pruned.folder / place)
    fill(pruned, "disk", 30)
    assert pruned.run().done == 30
    pruned.write("stages/upper.py", TAKES_AWAY.replace("DISK", repr(str(disk))))
    pruned.write("in/a", "take away")
    summary = pruned.run()
    disks.forget(disk)
    assert summary.exit == 3 and "disk" in summary.stopped
    assert not [each for each in disk.rglob("*") if each.is_file()]
    assert len(pruned.outputs()) == (31 if "in" in place else 1)
