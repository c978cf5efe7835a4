"""One file by several paths: through links, and on disks that take names of other case for the same."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.damage import Trial
from support.mounts import mounted
from support.project import Project, contents_below, ledger_of

from pipeline.config.load import load_config
from pipeline.errors import ConfigError, EnvironmentFailure

TWO_STAGES = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
  - {name: more, from: inputs, uses: upper, with: {mark: '!'}, output: 'link/{dir}/{name}'}
engine: serial
"""
PRUNED = "\nprune: {max: 100%}\n"
PARTS_BY_NAME = """
from collections.abc import Iterator
from pipeline import Part
def upper(text: str) -> Iterator[str]:
    for name in text.split():
        yield Part(name, name=name)
"""


# -- through links -----------------------------------------------------------------------------------------------------


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Two files, made, in a folder to which a link leads, too."""
    project = Project(tmp_path)
    project.write("in/a", "a")
    project.write("in/sub/b", "b")
    assert project.run().done == 2
    (tmp_path / "link").symlink_to("out")
    return project


def test_two_stages_through_two_spellings_collide_when_loaded(project: Project) -> None:
    """They would write the same files."""
    project.write("pipeline.yaml", TWO_STAGES)
    with pytest.raises(ConfigError, match="stages 'up' and 'more' have the same output"):
        load_config(project.folder / "pipeline.yaml")


@pytest.mark.parametrize("other", ["link/{dir}/{stem}{suffix}.x", "{folder}/link/{dir}/{name}.x", "out/sub/{name}.x"])
def test_or_when_they_are_planned(project: Project, other: str) -> None:
    """Templates that differ and lead to one path are refused file by file."""
    project.write(
        "pipeline.yaml",
        TWO_STAGES.replace("out/{dir}/{name}", "out/{dir}/{name}.x").replace(
            "link/{dir}/{name}", other.replace("{folder}", str(project.folder)) + "{suffix}"
        ),
    )
    summary = project.run()
    made = {path for path in project.outputs() if path.endswith(".x")}
    # Only the suffix, which is empty here, tells the two templates apart.
    if "dir" in other:
        assert (summary.failed, made) == (4, set())
    else:
        assert (summary.failed, made) == (2, {"a.x", "sub/a.x"})


@pytest.mark.parametrize("folder", ["link", "../{name}/link", "{folder}/link", "{folder}/out"])
def test_a_respelt_template_is_the_same(project: Project, folder: str) -> None:
    """Nothing is made again, refused, or pruned."""
    spelt = folder.replace("{folder}", str(project.folder)).replace("{name}", project.folder.name)
    project.edit("pipeline.yaml", "output: out/", f"output: {spelt}/")
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    assert project.orphans() == []
    summary = project.run()
    assert (summary.up_to_date, summary.done, summary.failed, summary.pruned) == (2, 0, 0, 0)
    assert project.outputs() == {"a": b"A", "sub/b": b"B"}


def test_a_folder_may_be_moved_and_a_link_take_its_place(project: Project) -> None:
    """To another disk, to yet another, and back: nothing is made again."""
    folder = project.folder
    for before, after in (("out", "disk"), ("disk", "other disk")):
        shutil.move(folder / before, folder.parent / after) if before == "out" else shutil.move(
            folder.parent / before, folder.parent / after
        )
        (folder / "out").unlink(missing_ok=True)
        (folder / "out").symlink_to(folder.parent / after)
        assert project.orphans() == [] and project.run().up_to_date == 2
        assert project.run().up_to_date == 2
    (folder / "out").unlink()
    shutil.move(folder.parent / "other disk", folder / "out")
    assert project.orphans() == [] and project.run().up_to_date == 2


@pytest.mark.parametrize("kind", ["plain", "fan-out"])
@pytest.mark.parametrize("how", ["by a link", "as a link"])
def test_what_a_killed_run_had_in_hand_is_ours_in_the_respelt_folder(tmp_path: Path, kind: str, how: str) -> None:
    """Also the parts of a fan-out that it had made and not recorded: made again, and none is refused or left over."""
    trial = Trial(tmp_path, kind)
    trial.add("new", 4)
    trial.kill_run(after=2)
    assert len(trial.project.outputs()) >= len(trial.outputs_of("old0")) * 8
    (tmp_path / "out").rename(tmp_path / "disk")
    (tmp_path / "out").symlink_to("disk")
    if how == "by a link":
        trial.project.edit("pipeline.yaml", "'out/", "'disk/")
    planned = trial.project.plan()
    assert not [each for each in planned.values() if "not ours" in each[1]] and trial.project.orphans() == []
    if kind == "fan-out":  # what is not made any more goes, although the killed run had made it
        trial.project.edit("stages/upper.py", "range(3)", "range(2)")
        summary = trial.project.run()
        assert (summary.exit, summary.failed, len(trial.project.outputs())) == (0, 0, 18)
        trial.project.edit("stages/upper.py", "range(2)", "range(3)")
    trial.check()


def test_a_disk_that_is_away_is_noticed_behind_a_link(project: Project) -> None:
    """Also by the first run that finds a link where there was a folder."""
    shutil.move(project.folder / "out", project.folder.parent / "disk")
    (project.folder / "out").symlink_to(project.folder.parent / "disk")
    shutil.move(project.folder.parent / "disk", project.folder.parent / "away")
    for _ in range(2):
        with pytest.raises(EnvironmentFailure, match="is gone, and the ledger knows of 2 outputs there"):
            project.run()
    shutil.move(project.folder.parent / "away", project.folder.parent / "disk")
    assert project.run().up_to_date == 2


def test_one_path_is_kept_in_one_way(tmp_path: Path) -> None:
    """A folder beside the project, written relative to it by one stage and in full by another."""
    project = Project(tmp_path / "project", TWO_STAGES) if (tmp_path / "project").mkdir() is None else None
    assert project is not None
    project.edit("pipeline.yaml", "out/{dir}/{name}", "../beside/{name}")
    project.edit("pipeline.yaml", "link/{dir}/{name}", f"{tmp_path}/beside/{{stem}}.x")
    project.write("in/a", "a")
    project.write("in/a.x", "x")
    summary = project.run()
    # a.x of the one stage is a.x of the other for both files; only a is alone.
    assert (summary.done, summary.failed) == (1, 3)
    with ledger_of(project.folder) as ledger:
        assert {row.target for row in ledger.outputs.all()} == {b"../beside/a"}


def test_what_links_below_the_folder_make_one_is_a_collision(tmp_path: Path) -> None:
    """Two folders of sources, of which the outputs' folders are one: the second is refused, and nothing is lost."""
    project = Project(tmp_path)
    project.write("in/x/a", "from x")
    assert project.run().done == 1
    (tmp_path / "out/y").symlink_to("x")
    project.write("in/y/a", "from y")
    summary = project.run()
    assert (summary.failed, [result.text for _, result in summary.failures]) == (
        1, ["collision with x/a: both want out/y/a"],
    )  # fmt: skip
    assert (tmp_path / "out/x/a").read_bytes() == b"FROM X"


def assert_second_collides(project: Project, made: Path, text: bytes) -> None:
    """In every run, and by force: the second stage is refused, and the file of the first stays as it is."""
    for force in (False, False, True, False):
        summary = project.run(force=force)
        ((_, result),) = summary.failures
        assert (summary.exit, summary.edited, result.stage, result.kind) == (1, 0, "more", "collision"), result
        assert result.text.startswith("collision with another stage's: both want "), result
        assert made.read_bytes() == text


@pytest.mark.parametrize("is_late", [False, True], ids=["from the first run on", "later"])
def test_two_stages_collide_where_a_link_below_the_folder_leads_to_one_file(tmp_path: Path, is_late: bool) -> None:
    """Whether the link was there before anything was made, or takes the place of a folder of outputs."""
    project = Project(tmp_path, TWO_STAGES.replace("link/{dir}/", "out/{dir}y/"))
    project.write("in/x/a", "a")
    if is_late:
        assert project.run().done == 2
        shutil.rmtree(tmp_path / "out/xy")
    (tmp_path / "out/x").mkdir(parents=True, exist_ok=True)
    (tmp_path / "out/xy").symlink_to("x")
    assert_second_collides(project, tmp_path / "out/x/a", b"A")


def assert_set_aside(project: Project, output: str, edit: bytes) -> None:
    """The next run makes the output, and keeps the edit apart and names it; the run after that does nothing."""
    summary = project.run()
    assert (summary.exit, summary.done, summary.set_aside) == (0, 1, 1), summary
    assert any(output in note for note in summary.notes)
    kept = (project.folder / ".pipeline/pipeline/set-aside").rglob("*")
    assert edit in [file.read_bytes() for file in kept if file.is_file()]
    again = project.run()
    assert (again.exit, again.done, again.set_aside, again.edited) == (0, 0, 0, 0)


@pytest.mark.parametrize("prune", ["", PRUNED])
def test_an_edit_is_kept_where_a_template_leads_to_it_by_a_link(tmp_path: Path, prune: str) -> None:
    """The path is another one, the file is the same, and a person has written to it."""
    project = Project(tmp_path)
    project.edit("pipeline.yaml", "engine", f"{prune}engine")
    project.write("in/x/a", "a")
    assert project.run().done == 1
    (tmp_path / "out/xy").symlink_to("x")
    project.write("out/x/a", "by a person")
    assert project.run().edited == 1
    project.edit("pipeline.yaml", "{dir}/", "{dir}y/")
    assert_set_aside(project, "out/xy/a", b"by a person")
    assert (tmp_path / "out/x/a").read_bytes() == b"A"


def test_prune_spares_what_is_an_output_by_another_path(tmp_path: Path) -> None:
    """A folder that has become a link: what was made in it before lies where another file's output is."""
    project = Project(tmp_path)
    project.write("in/x/a", "same")
    project.write("in/y/a", "same")
    assert project.run().done == 2
    shutil.rmtree(tmp_path / "out/y")
    (tmp_path / "out/y").symlink_to("x")
    (tmp_path / "in/y/a").unlink()
    with ledger_of(tmp_path) as ledger:  # both were made in one moment
        x, y = (ledger.outputs.get(b"out/%s/a" % each) for each in (b"x", b"y"))
        assert x is not None and y is not None
        ledger.outputs._connection.execute("UPDATE outputs SET mtime_ns = ?", (x.mtime_ns,))
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    summary = project.run()
    assert (summary.exit, summary.pruned) == (0, 0) and (tmp_path / "out/x/a").exists()


# -- names of other case -----------------------------------------------------------------------------------------------


@pytest.fixture
def case_project(tmp_path: Path) -> Iterator[Project]:
    """A project whose outputs go to a disk that ignores case."""
    with mounted("ignores case", tmp_path) as disk:
        project = Project(tmp_path)
        project.edit("pipeline.yaml", "out/{dir}/{name}", f"'{disk}/out/{{dir}}/{{name}}'")
        yield project


def on_disk(project: Project) -> dict[str, bytes]:
    """What lies on the disk that ignores case."""
    return contents_below(project.folder / "mounted ignores case/out")


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_names_that_the_disk_takes_for_the_same_collide(case_project: Project, engine: str) -> None:
    """The first keeps its output, the others are told whose it is, and no run after that says otherwise."""
    project = case_project
    project.edit("pipeline.yaml", "engine: serial", f"engine: {engine}")
    names = {"a.txt": "A.TXT", "sub/É": "sub/é", "b": "c"}
    for number, name in enumerate([*names, *names.values()]):
        project.write(f"in/{name}", f"text {number}")
    for _ in range(3):
        summary = project.run()
        assert summary.done + summary.up_to_date == 4 and summary.failed == 2, summary.failures
        made = on_disk(project)
        assert len(made) == 4
        for origin, result in summary.failures:
            assert result.kind == "collision" and result.text.startswith("collision with "), result
            rival = result.text.removeprefix("collision with ").partition(":")[0]
            name = str(origin)
            assert {rival, name} in ({"a.txt", "A.TXT"}, {"sub/É", "sub/é"})
            assert made[rival.lower()] == (project.folder / "in" / rival).read_bytes().upper()


def test_a_source_of_another_case_takes_over(case_project: Project) -> None:
    """When the file that has the name is gone, the output follows the other, and prune leaves it alone."""
    project = case_project
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    project.write("in/a.txt", "one")
    project.write("in/b", "two")
    assert project.run().done == 2
    os.rename(project.folder / "in/a.txt", project.folder / "in/A.txt")
    summary = project.run()
    assert (summary.done, summary.renamed, summary.pruned) == (0, 1, 0)
    assert list(on_disk(project).values()) == [b"ONE", b"TWO"]
    assert project.run().up_to_date == 2 and list(on_disk(project).values()) == [b"ONE", b"TWO"]


@pytest.mark.parametrize(
    ("old", "new"), [("/out/", "/OUT/"), ("{name}'", "{stem}.TXT'"), ("mounted ignores case/out", "link")]
)
def test_a_template_of_another_case_is_the_same(case_project: Project, old: str, new: str) -> None:
    """Whether a folder or a name is spelt otherwise: nothing is refused, lost or made again."""
    project = case_project
    (project.folder / "link").symlink_to("mounted ignores case/OUT")
    project.edit("pipeline.yaml", "engine", "prune: {max: 100%}\nengine")
    project.write("in/a.txt", "one")
    project.write("in/sub/b.txt", "two")
    assert project.run().done == 2
    project.edit("pipeline.yaml", old, new)
    summary = project.run()
    assert (summary.exit, summary.done, summary.pruned) == (0, 0, 0)
    assert list(on_disk(project).values()) == [b"ONE", b"TWO"]
    assert project.run().up_to_date == 2 and list(on_disk(project).values()) == [b"ONE", b"TWO"]


def test_an_edit_is_kept_where_its_path_changes_only_in_case(case_project: Project) -> None:
    """With the name of the source, or with the template."""
    project = case_project
    project.write("in/a.txt", "one")
    project.write("in/b.TXT", "two")
    assert project.run().done == 2
    made = project.folder / "mounted ignores case/out/a.txt"
    made.write_bytes(b"the first edit")
    assert project.run().edited == 1
    os.rename(project.folder / "in/a.txt", project.folder / "in/A.txt")
    assert_set_aside(project, "out/A.txt", b"the first edit")
    made.write_bytes(b"the second edit")
    assert project.run().edited == 1
    project.edit("pipeline.yaml", "{name}'", "{stem}.TXT'")
    assert_set_aside(project, "out/A.TXT", b"the second edit")
    assert made.read_bytes() == b"ONE"


def test_two_stages_whose_names_differ_in_case_collide(case_project: Project) -> None:
    """The suffix alone, in capitals."""
    project, disk = case_project, case_project.folder / "mounted ignores case"
    more = f"  - {{name: more, from: inputs, uses: upper, with: {{mark: '!'}}, output: '{disk}/out/{{stem}}.TXT'}}\n"
    project.edit("pipeline.yaml", "engine", f"{more}engine")
    project.write("in/a.txt", "a")
    assert_second_collides(project, disk / "out/a.txt", b"A")


def test_folders_whose_names_differ_in_case_collide(case_project: Project) -> None:
    """Both sources are named, in every run and by force, and `adopt` finds nothing that is not ours."""
    project = case_project
    project.write("in/X/a.txt", "first")
    project.write("in/X/b.txt", "other")
    project.write("in/x/a.txt", "second")
    for force in (False, False, True, False):
        summary = project.run(force=force)
        ((origin, result),) = summary.failures
        assert (str(origin), summary.exit, summary.edited, result.kind) == ("x/a.txt", 1, 0, "collision"), result
        assert result.text.startswith("collision with X/a.txt: both want "), result
        assert sorted(on_disk(project).values()) == [b"FIRST", b"OTHER"]
    action, why = project.plan()["up x/a.txt"]
    assert action == "refuse" and why.startswith("collision with X/a.txt: ")


def test_parts_of_one_source_collide(case_project: Project) -> None:
    """None of them is kept, and the text says why."""
    project = case_project
    project.write("stages/upper.py", PARTS_BY_NAME)
    project.edit("pipeline.yaml", "{name}'", "{stem}-{part}'")
    project.write("in/x", "a A")
    project.write("in/s", "t-b c")
    project.write("in/s-t", "d B")
    summary = project.run()
    said = {str(origin): result.text for origin, result in summary.failures}
    assert said["x"].startswith("two of its parts want ") and set(on_disk(project)) == {"s-t-b", "s-c"}
    assert said["s-t"].startswith("collision with s: both want ")


def test_a_part_whose_name_changes_only_in_case_is_replaced(case_project: Project) -> None:
    """It is the same file; two parts that want one are refused, and what was made stays."""
    project = case_project
    project.write("stages/upper.py", PARTS_BY_NAME)
    project.edit("pipeline.yaml", "{name}'", "{stem}-{part}'")
    for text in ("Q b", "q b"):
        project.write("in/x", text)
        summary = project.run()
        assert (summary.exit, summary.failed) == (0, 0), summary.failures
        assert sorted(on_disk(project).values()) == sorted(text.encode().split())
        assert project.run().done == 0
    project.write("in/x", "q Q b")
    ((_, result),) = project.run().failures
    assert result.text.startswith("two of its parts want ") and sorted(on_disk(project).values()) == [b"b", b"q"]


def test_what_appears_after_the_plan_is_not_replaced(tmp_path: Path) -> None:
    """A file that somebody puts there during the run is theirs."""
    project = Project(tmp_path)
    project.write(
        "stages/upper.py",
        f"from pathlib import Path\ndef upper(text: str) -> str:\n"
        f"    Path({str(tmp_path)!r}, 'out/a').write_text('mine')\n    return text\n",
    )
    project.write("in/a", "a")
    summary = project.run()
    ((_, result),) = summary.failures
    assert (result.kind, result.text) == ("collision", "exists, not ours: out/a") or "exists" in result.text
    assert (tmp_path / "out/a").read_text() == "mine"
    assert json.loads((tmp_path / "out/.filemill").read_text())
