"""Inputs that were renamed or moved: their outputs follow, nothing is made twice, and nothing is ever stale."""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from support.mounts import mounted
from support.program import Pipeline
from support.project import ONE_STAGE, Project, every_kind, ledger_of

from pipeline.files import naming
from pipeline.ledger.outputs import Outputs
from pipeline.planning import renames

PRUNED = ONE_STAGE + "prune: {max: 10%}\n"
# A stage that tells which files it was called for.
TELLING = """
def upper(text: str, *, mark: str = "") -> str:
    with open({called!r}, "a") as file:
        file.write(text + "\\n")
    return text.upper() + mark
"""


class Told(Project):
    """A project whose stage tells the texts it was called for."""

    def __init__(self, folder: Path, yaml: str = PRUNED) -> None:
        super().__init__(folder, yaml)
        self.write("stages/upper.py", TELLING.format(called=str(folder / "called")))

    def called(self) -> list[str]:
        """Return the texts since the last time."""
        file = self.folder / "called"
        texts = sorted(file.read_text().split("\n")[:-1]) if file.exists() else []
        file.unlink(missing_ok=True)
        return texts

    def move(self, old: str, new: str) -> None:
        """Rename an input, or a folder of them."""
        place = self.folder / "in" / new
        place.parent.mkdir(parents=True, exist_ok=True)
        (self.folder / "in" / old).rename(place)


@pytest.fixture
def project(tmp_path: Path) -> Told:
    """Two folders of inputs, all made."""
    project = Told(tmp_path)
    for number in range(25):
        project.write(f"in/2023/{number}.txt", f"text {number}")
    project.write("in/other/a.txt", "text a")
    assert project.run().done == 26 and len(project.called()) == 26
    return project


def inodes(project: Project) -> set[int]:
    """Return what tells whether an output is the very file that it was."""
    return {file.stat().st_ino for file in (project.folder / "out").rglob("*.txt")}


def test_a_renamed_folder_is_moved(project: Told, pipeline: Pipeline) -> None:
    """Nothing is made twice, no guard stops it, the old folder is gone, and the verbs say so beforehand."""
    before = inodes(project)
    project.move("2023", "holiday/in spring")
    said = pipeline("plan").stdout
    assert "       25        25  rename: source moved\n" in said and "orphan" not in said
    explained = pipeline("explain", "in/holiday/in spring/7.txt").stdout
    assert "source moved from 2023/7.txt" in explained
    assert "no orphans" in pipeline("prune", "--yes").stderr
    summary = project.run()
    assert (summary.renamed, summary.done, summary.up_to_date, summary.pruned, summary.exit) == (25, 0, 1, 0, 0)
    assert project.called() == [] and inodes(project) == before
    assert sorted(os.listdir(project.folder / "out")) == [".filemill", "holiday", "other"]
    again = project.run()
    assert (again.up_to_date, again.exit) == (26, 0) and project.orphans() == []
    project.write("in/holiday/in spring/7.txt", "another")
    assert (project.run().done, project.called()) == (1, ["another"])


def test_a_file_is_moved_and_another_removed(project: Told) -> None:
    """Each is what it is; a name that is used again is another file."""
    project.move("2023/1.txt", "other/b.txt")
    project.move("2023/2.txt", "2023/1.txt")  # it takes the place of one that was there
    (project.folder / "in/2023/3.txt").unlink()
    summary = project.run()
    assert (summary.renamed, project.called(), summary.pruned, summary.exit) == (0, ["text 1", "text 2"], 2, 0)
    project.move("2023/4.txt", "other/c.txt")
    (project.folder / "in/2023/5.txt").unlink()
    summary = project.run()
    assert (summary.renamed, summary.pruned, project.called()) == (1, 1, [])
    assert project.outputs() == {
        **{f"2023/{n}.txt": b"TEXT %d" % n for n in range(6, 25)}, "2023/0.txt": b"TEXT 0", "2023/1.txt": b"TEXT 2",
        "other/a.txt": b"TEXT A", "other/b.txt": b"TEXT 1", "other/c.txt": b"TEXT 4",
    }  # fmt: skip


def test_two_files_that_trade_places_are_made_anew(project: Told) -> None:
    """None of them is gone, so each has changed."""
    project.move("2023/1.txt", "between")
    project.write("in/2023/2.txt", "a longer text")
    project.run()
    project.called()
    project.move("2023/2.txt", "2023/1.txt")
    project.move("between", "2023/2.txt")
    project.run()
    found = project.outputs()
    assert (found["2023/1.txt"], found["2023/2.txt"]) == (b"A LONGER TEXT", b"TEXT 1") and "between" not in found


def same_time(project: Told, *names: str) -> None:
    for name in names:
        os.utime(project.folder / "in" / name, ns=(1, 10**18))


@pytest.mark.parametrize("case", ["two gone", "two new", "one is there", "other contents"])
def test_what_may_be_another_file_is_made_anew(project: Told, case: str) -> None:
    """Size and time must be those of one file that is gone, and of no other; the contents must be those recorded."""
    same_time(project, "2023/10.txt", "2023/11.txt") if case != "other contents" else same_time(project, "2023/10.txt")
    project.run()
    project.called()
    project.move("2023/10.txt", "other/new.txt")
    expected = ["text 10"]
    if case == "two gone":
        (project.folder / "in/2023/11.txt").unlink()
    elif case == "two new":
        shutil.copy2(project.folder / "in/other/new.txt", project.folder / "in/other/new 2.txt")
        expected *= 2
    elif case == "other contents":
        project.write("in/other/new.txt", "text xx")
        same_time(project, "other/new.txt")
        expected = ["text xx"]
    summary = project.run()
    assert (summary.renamed, project.called()) == (0, expected)
    assert project.outputs()["other/new.txt"] == expected[0].upper().encode()
    assert "2023/10.txt" not in project.outputs() and project.run().up_to_date == summary.sources


def test_a_recipe_that_changes_at_the_same_time(project: Told) -> None:
    """The output is moved, and then made anew in its new place; nothing is left in the old one."""
    project.move("2023", "2024")
    project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    with: {mark: '!'}")
    planned = project.plan()["up 2024/1.txt"]
    assert planned[0] == "make" and "mark" in planned[1] and project.orphans() == []
    summary = project.run()
    assert (summary.renamed, summary.done, summary.pruned, summary.exit) == (0, 26, 0, 0)
    assert project.outputs()["2024/1.txt"] == b"TEXT 1!" and not (project.folder / "out/2023").exists()
    assert project.run().up_to_date == 26


@pytest.mark.parametrize("how", ["edited", "missing", "torn"])
def test_an_output_that_is_not_as_it_was_made(project: Told, how: str) -> None:
    """An edit goes where its source goes, and stays an edit; what is missing or torn is made at its new place."""
    out = project.folder / "out/2023/1.txt"
    out.write_text("by hand, and longer") if how == "edited" else out.write_text("") if how == "torn" else out.unlink()
    project.move("2023", "2024")
    summary = project.run()
    assert (summary.renamed, summary.exit) == ((25 if how == "edited" else 24), 0)
    text = b"by hand, and longer" if how == "edited" else b"TEXT 1"
    assert project.outputs()["2024/1.txt"] == text
    again = project.run()
    assert (again.edited, again.done, again.exit) == (how == "edited", 0, 0)


def test_a_place_that_is_taken_is_left_alone(project: Told) -> None:
    """What we did not make is refused as ever, and is not overwritten."""
    project.write("out/2024/1.txt", "somebody's")
    project.move("2023", "2024")
    summary = project.run()
    assert (summary.renamed, summary.failed, summary.exit) == (24, 1, 1)
    assert project.outputs()["2024/1.txt"] == b"somebody's"


def test_the_same_path_of_another_source(tmp_path: Path) -> None:
    """Where the template leads to the same output, that is of the new name from then on."""
    project = Told(tmp_path, PRUNED.replace("{dir}/{name}", "{stem}.up"))
    project.write("in/a/x.txt", "text x")
    project.write("in/y.txt", "text y")
    project.run()
    project.called()
    project.move("a/x.txt", "b/x.md")
    planned = project.plan()["up b/x.md"]
    assert planned == ("rename", "source moved from a/x.txt")
    summary = project.run()
    assert (summary.renamed, summary.pruned, summary.exit, project.called()) == (1, 0, 0, [])
    assert project.outputs() == {"x.up": b"TEXT X", "y.up": b"TEXT Y"} and project.run().up_to_date == 2
    with ledger_of(tmp_path) as ledger:
        assert [row.source for row in ledger.outputs.all()] == [b"b/x.md", b"y.txt"]


def test_a_suffix_that_decides_the_format_is_no_mere_name(tmp_path: Path) -> None:
    """`{suffix}` of another kind makes another file; another case of it does not."""
    from PIL import Image

    project = Project(tmp_path, PRUNED.replace("uses: upper", "uses: resize\n    with: {width: 9}"))
    for name in ("a.png", "b.png"):
        Image.effect_noise((30, 30), 50).save(tmp_path / "in" / name)
    assert project.run().done == 2
    (tmp_path / "in/a.png").rename(tmp_path / "in/a.jpg")
    (tmp_path / "in/b.png").rename(tmp_path / "in/B.PNG")
    summary = project.run()
    assert (summary.renamed, summary.done, summary.exit) == (1, 1, 0)
    with Image.open(tmp_path / "out/a.jpg") as made:
        assert made.format == "JPEG" and (tmp_path / "out/B.PNG").exists()


NAMING = """
from pathlib import Path
from pipeline import Item
def upper(value: {type}) -> str:
    path = value if isinstance(value, Path) else value.source
    return f"made of {{path.name}}"
"""


@pytest.mark.parametrize("type_", ["Path", "Item[str]"])
def test_what_may_have_the_name_in_it_is_made_again(tmp_path: Path, type_: str) -> None:
    """And yet no guard takes a renamed folder for one that vanished; the old outputs are pruned."""
    project = Project(tmp_path, PRUNED)
    project.write("stages/upper.py", NAMING.format(type=type_).replace("value.source", "Path(str(value.source))"))
    for number in range(25):
        project.write(f"in/old/{number}", f"text {number}")
    project.run()
    (tmp_path / "in/old").rename(tmp_path / "in/new")
    (tmp_path / "in/new/7").rename(tmp_path / "in/new/seven")
    summary = project.run()
    assert (summary.renamed, summary.done, summary.pruned, summary.exit) == (0, 25, 25, 0)
    assert project.outputs()["new/seven"] == b"made of seven" and not (tmp_path / "out/old").exists()


def test_parts_and_groups_are_right(tmp_path: Path) -> None:
    """Parts are made again, a group is one of other members; nothing of the old folder is left, all is up to date."""
    project = every_kind(tmp_path)
    project.edit("pipeline.yaml", "engine", "prune: {max: 10%}\nengine")
    for number in range(25):
        project.write(f"in/old/{number}", f"one {number}\ntwo")
    assert project.run().exit == 0
    (tmp_path / "in/old").rename(tmp_path / "in/new")
    summary = project.run()
    assert (summary.renamed, summary.exit) == (25, 0)
    found = project.outputs()
    assert not [name for name in found if "old" in name] and found["up/new/3"] == b"ONE 3\nTWO"
    assert b"new/3 ONE 3" in found["new/sheet.txt"] and len(found) == 25 * 3 + 1
    assert (project.run().done, project.run().exit) == (0, 0)


def test_a_group_notices_the_new_name_of_a_member_in_its_place(tmp_path: Path) -> None:
    """Also where the paths of the members do not tell it."""
    yaml = "inputs: in\nstages:\n  - {name: up, uses: upper, output: 'out/{stem}.up'}\n"
    yaml += "  - {name: sheet, uses: names, from: up, gather: true, output: out/sheet.txt}\nengine: serial\n"
    project = every_kind(tmp_path)
    project.write("pipeline.yaml", yaml)
    project.write("in/a.txt", "text")
    project.run()
    (tmp_path / "in/a.txt").rename(tmp_path / "in/a.md")
    assert project.run().renamed == 1 and project.outputs()["sheet.txt"] == b"a.md TEXT\n"


def test_a_branch_for_other_names(tmp_path: Path) -> None:
    """`match` decides by the new name; nothing of the branch that the file left is taken for the other."""
    yaml = "inputs: in\nstages:\n  - {name: up, uses: upper, match: ['*.txt'], output: 'out/{stem}.txt'}\n"
    yaml += (
        "  - {name: more, uses: upper, with: {mark: '!'}, from: inputs, match: ['*.md'], output: 'more/{stem}.txt'}\n"
    )
    project = Project(tmp_path, yaml + "engine: serial\nprune: {max: 100%}\n")
    project.write("in/a.txt", "text")
    project.write("in/b.txt", "text b")
    project.run()
    (tmp_path / "in/a.txt").rename(tmp_path / "in/a.md")
    project.run()
    assert project.outputs() == {"b.txt": b"TEXT B"} and (tmp_path / "more/a.txt").read_text() == "TEXT!"


def test_a_stage_without_a_file_is_not_called_twice(tmp_path: Path) -> None:
    """`output: none`: what was done with the contents is done."""
    project = Told(tmp_path, PRUNED.replace("output: out/{dir}/{name}", "output: none"))
    project.write("in/a.txt", "text a")
    project.write("in/b.txt", "text b")
    assert project.run().done == 2 and len(project.called()) == 2
    project.move("a.txt", "c.txt")
    assert (project.run().renamed, project.called()) == (1, []) and project.run().up_to_date == 2


def test_a_failure_keeps_the_old_output(tmp_path: Path) -> None:
    """Where the output has to be made again and cannot be, the one of the former name stays."""
    project = Project(tmp_path, PRUNED.replace("10%", "100%"))
    project.write("stages/upper.py", NAMING.format(type="Path"))
    for name in "ab":
        project.write(f"in/{name}", f"text {name}")
    project.run()
    (tmp_path / "in/a").rename(tmp_path / "in/c")
    project.write("stages/upper.py", "from pathlib import Path\ndef upper(path: Path) -> str:\n    return 1 / 0\n")
    assert project.run().exit == 1 and set(project.outputs()) == {"a", "b"}


def test_a_name_in_another_case(tmp_path: Path) -> None:
    """The output follows, also where the file system has the file by either name."""
    with mounted("fat", tmp_path) as disk:
        project = Told(tmp_path, PRUNED.replace("inputs: in", f"inputs: '{disk}'"))
        for name, text in (("a.txt", "text a"), ("b.txt", "another")):
            (disk / name).write_text(text)
            os.utime(disk / name, (10**9, 10**9))
        project.run()
        project.called()
        (disk / "a.txt").rename(disk / "A.txt")
        os.utime(disk / "A.txt", (10**9, 10**9))  # this file system forgets it
        if not (disk / "a.txt").exists():
            pytest.skip("this file system takes a name of another case for another name")
        summary = project.run()
        assert (summary.renamed, summary.pruned, project.called()) == (1, 0, [])
        assert project.outputs() == {"A.txt": b"TEXT A", "b.txt": b"ANOTHER"}
        assert project.run().up_to_date == 2


def test_an_edit_of_code_without_effect_is_accepted_for_moved_outputs(project: Told, pipeline: Pipeline) -> None:
    """`accept` knows them where they were, and the next run moves them."""
    project.move("2023", "2024")
    project.edit("stages/upper.py", "+ mark", "+ '' + mark")
    assert project.plan()["up 2024/1.txt"][0] == "make"
    assert "26 outputs accepted" in pipeline("accept", "--stage", "up", "--because", "code", "--yes").stderr
    assert (project.run().renamed, project.called(), project.run().up_to_date) == (25, [], 26)


@pytest.mark.parametrize("force", [True, False])
def test_a_selection_moves_nothing(project: Told, force: bool) -> None:
    """Nor does --force; neither takes the renamed folder for a lost one."""
    project.move("2023", "2024")
    if force:
        summary = project.run(force=True)
        assert (summary.renamed, summary.pruned, summary.exit) == (0, 25, 0)
    else:
        assert project.run(only="2024/1.txt").done == 1
        summary = project.run()
        assert (summary.renamed, summary.pruned, summary.exit) == (24, 1, 0)
    assert project.run().up_to_date == 26 and len(project.outputs()) == 26


def before_it_is_named(*_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def between_link_and_unlink(old: bytes, new: bytes) -> None:
    os.link(old, new)
    os.kill(os.getpid(), signal.SIGKILL)


def after_some(old: bytes, new: bytes, seen: list[bytes] = []) -> None:  # noqa: B006
    naming._rename_new(old, new)
    seen.append(new)
    if len(seen) == 3:
        os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.parametrize("dies", [before_it_is_named, between_link_and_unlink, after_some, "as it is recorded"])
@pytest.mark.parametrize("change", ["", "mark"])
def test_a_kill_at_any_instant_is_healed(project: Told, dies: Callable[..., None] | str, change: str) -> None:
    """The same line again does the rest: no file is made twice that need not be, none is left, none is refused."""
    project.move("2023", "2024")
    if change:
        project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    with: {mark: '!'}")
    before = inodes(project)
    if (child := os.fork()) == 0:
        try:
            if isinstance(dies, str):
                Outputs.move = before_it_is_named  # type: ignore[method-assign, assignment]
            else:
                renames.name_new = dies  # type: ignore[assignment]
            project.run()
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    summary = project.run()
    assert summary.exit == 0, summary
    mark = b"!" if change else b""
    assert project.outputs() == {
        **{f"2024/{n}.txt": b"TEXT %d%b" % (n, mark) for n in range(25)}, "other/a.txt": b"TEXT A" + mark,
    }  # fmt: skip
    if not change:
        assert (summary.renamed, project.called()) == (25, []) and inodes(project) == before
    assert project.run().up_to_date == 26 and project.orphans() == []
