"""An output whose path changed and nothing else is renamed, not made again; whatever happens, nothing is lost."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import Pipeline
from support.project import Project, die_after, ledger_of, made

from pipeline.ledger.ledger import Ledger

FRESH = ("up-to-date", "up to date")
NAMES = ("a", "b.txt", "sub/c", "sub/deep/d")

TWO = """
inputs: in
stages:
  - name: one
    uses: upper
    with: {mark: "1"}
    output: out/one/{dir}/{name}
  - name: two
    from: inputs
    uses: upper
    with: {mark: "2"}
    output: out/two/{dir}/{name}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Four files, made."""
    return made(tmp_path, *NAMES)


def moved(project: Project, template: str) -> None:
    project.edit("pipeline.yaml", "out/{dir}/{name}", template)


def inodes(project: Project) -> set[int]:
    """The files below the project's outputs, whatever they are called."""
    files = [file for folder in ("out", "other") for file in (project.folder / folder).rglob("*")]
    return {file.stat().st_ino for file in files if file.is_file() and file.name != ".filemill"}


TEMPLATES = {
    "a folder below": "out/new/{dir}/{name}",
    "another folder": "other/{dir}/{name}",
    "another name": "out/{dir}/of {name}",
    "another suffix, of a text": "out/{dir}/{name}.up",
    "no folders": "out/{name}",
    "far away": "other/deep/down/{stem}{suffix}",
}


@pytest.mark.parametrize("template", TEMPLATES.values(), ids=TEMPLATES)
def test_another_path_renames(project: Project, pipeline: Pipeline, template: str) -> None:
    """The very files are under their new names, the old folders gone, and the next run finds nothing to do."""
    before = inodes(project)
    moved(project, template)
    changed = {f"up {name}" for name in NAMES if template != "out/{name}" or "/" in name}
    planned = project.plan()
    assert {each for each in planned if planned[each][0] == "rename"} == changed and project.orphans() == []
    assert planned["up sub/c"] == ("rename", "moved from out/sub/c")
    assert f"{len(changed):>9} {len(changed):>9}  rename: path changed\n" in pipeline("plan").stdout
    ran = pipeline("--json")
    said = json.loads(ran.stdout)
    assert (said["renamed"], said["done"], said["up_to_date"], said["exit"]) == (
        len(changed), 0, len(NAMES) - len(changed), 0,
    )  # fmt: skip
    assert inodes(project) == before and (project.folder / "out/sub").exists() == template.startswith("out/{dir}")
    for name in NAMES:
        folder, _, base = name.rpartition("/")
        stem, suffix = os.path.splitext(base)
        place = project.folder / template.format(dir=folder or ".", name=base, stem=stem, suffix=suffix)
        assert place.read_text() == f"TEXT {name}".upper()
    assert project.plan() == {f"up {name}": FRESH for name in NAMES} and project.run().up_to_date == len(NAMES)


def test_a_stage_of_another_name_and_path(project: Project) -> None:
    """What it is called is no part of a recipe: it is renamed all the same, and known under the new name then."""
    moved(project, "other/{dir}/{name}")
    project.edit("pipeline.yaml", "name: up", "name: lift")
    assert project.run().renamed == len(NAMES)
    with ledger_of(project.folder) as ledger:
        assert {row.stage for row in ledger.outputs.all()} == {"lift"}


def test_what_is_left_out_moves_too(project: Project) -> None:
    """That a file was left out is remembered under the new path, without a file."""
    project.write("in/s", "skip it")
    project.run()
    moved(project, "other/{dir}/{name}")
    assert project.run().renamed == len(NAMES) + 1
    assert project.plan()["up s"] == ("up-to-date", "skipped: not wanted")


def edited(project: Project) -> None:
    (project.folder / "out/a").write_text("mine")


def longer_ago(project: Project) -> None:
    os.utime(project.folder / "out/a", (1, 1))


def source_changed(project: Project) -> None:
    project.write("in/a", "longer than before")


def link(project: Project) -> None:
    (project.folder / "out/a").rename(project.folder / "elsewhere")
    (project.folder / "out/a").symlink_to(project.folder / "elsewhere")


def at_work(project: Project) -> None:
    with ledger_of(project.folder) as ledger:
        ledger._connection.execute("UPDATE outputs SET at_work = 1 WHERE target = ?", (b"out/a",))


def anothers(project: Project) -> None:
    project.write("other/a", "not ours")


@pytest.mark.parametrize("change", [edited, longer_ago, source_changed, link, at_work, anothers])
def test_only_what_is_intact_is_renamed(project: Project, change: Callable[[Project], None]) -> None:
    """What is not as we left it, or of another state of its source, stays where it is; nothing is overwritten."""
    change(project)
    old = (project.folder / "out/a").read_bytes()
    moved(project, "other/{dir}/{name}")
    action = "refuse" if change is anothers else "make"
    assert project.plan()["up a"][0] == action
    summary = project.run()
    assert (summary.renamed, summary.done, summary.failed) == (3, action == "make", action == "refuse")
    assert (project.folder / "out/a").read_bytes() == old
    expected = b"not ours" if change is anothers else (project.folder / "in/a").read_bytes().upper()
    assert (project.folder / "other/a").read_bytes() == expected


def test_another_recipe_is_made(project: Project) -> None:
    """A new path with a new option: the old outputs are orphans."""
    moved(project, "other/{dir}/{name}")
    project.edit("stages/upper.py", "text.upper()", "text.title()")
    assert {action for action, _ in project.plan().values()} == {"make"} and len(project.orphans()) == len(NAMES)


# -- several places at once --------------------------------------------------------------------------------------------


@pytest.fixture
def two(tmp_path: Path) -> Project:
    """Two stages that make different things of each file."""
    project = Project(tmp_path, TWO)
    for name in NAMES:
        project.write(f"in/{name}", name)
    assert project.run().done == 2 * len(NAMES)
    return project


def right(project: Project, one: str, two: str) -> bool:
    return all(
        (project.folder / place / name).read_text() == f"{name.upper()}{mark}"
        for place, mark in ((one, "1"), (two, "2"))
        for name in NAMES
    )


def test_a_chain_is_renamed_from_its_end(two: Project) -> None:
    """One takes the other's place, which takes a new one: each is moved when its place is free."""
    two.edit("pipeline.yaml", "out/two", "out/three")
    two.edit("pipeline.yaml", "out/one", "out/two")
    assert {action for action, _ in two.plan().values()} == {"rename"}
    assert two.run().renamed == 2 * len(NAMES) and right(two, "out/two", "out/three")
    assert set(two.plan().values()) == {FRESH}


def test_a_swap_is_made(two: Project) -> None:
    """Two that want each other's place are both made: no fresh file is lost, and the plan says so."""
    text = (two.folder / "pipeline.yaml").read_text()
    two.write("pipeline.yaml", text.replace("out/one", "X").replace("out/two", "out/one").replace("X", "out/two"))
    assert {action for action, _ in two.plan().values()} == {"make"} and two.orphans() == []
    assert two.run().done == 2 * len(NAMES) and right(two, "out/two", "out/one")
    assert set(two.plan().values()) == {FRESH}


def test_a_place_that_is_left_can_be_taken(two: Project) -> None:
    """A new stage writes where another's outputs were: those are moved before the first job is handed out."""
    two.edit("pipeline.yaml", "out/one", "out/first")
    stage = "  - {name: new, from: inputs, uses: upper, with: {mark: '3'}, output: 'out/one/{dir}/{name}'}\nengine"
    two.edit("pipeline.yaml", "engine", stage)
    summary = two.run()
    assert (summary.renamed, summary.done) == (len(NAMES), len(NAMES)) and right(two, "out/first", "out/two")
    assert (two.folder / "out/one/a").read_text() == "A3"


def test_names_that_follow_each_other(tmp_path: Path) -> None:
    """`a.b.c` wants the place of `a.b`, which wants that of `a`: all is right in the end."""
    project = Project(tmp_path)
    for name in ("x", "a.b", "a.b.c", "a.b.c.d"):
        project.write(f"in/{name}", name)
    project.run()
    moved(project, "out/{dir}/{stem}")
    assert project.run().exit == 0
    assert project.outputs() == {"x": b"X", "a": b"A.B", "a.b": b"A.B.C", "a.b.c": b"A.B.C.D"} | {
        name: data for name, data in project.outputs().items() if name == "a.b.c.d"
    }
    assert set(project.plan().values()) == {FRESH}


def test_two_that_want_one_place_are_refused(project: Project) -> None:
    """A template that tells files apart no longer: both fail, and both outputs stay where they are."""
    project.write("in/sub/a", "other")
    project.run()
    moved(project, "out/all/{name}")
    assert project.plan()["up a"][0] == project.plan()["up sub/a"][0] == "refuse"
    assert (
        project.run().renamed == 3 and (project.folder / "out/a").exists() and (project.folder / "out/sub/a").exists()
    )
    assert project.orphans() == []  # so that `prune` leaves them alone


def test_a_selection_renames_its_own(project: Project) -> None:
    """--only narrows this too."""
    moved(project, "other/{dir}/{name}")
    assert project.run(only="sub/c").renamed == 1
    assert (project.folder / "out/a").exists() and (project.folder / "other/sub/c").exists()
    assert project.run().renamed == 3


# -- what goes wrong ---------------------------------------------------------------------------------------------------


def test_another_device_is_made(project: Project) -> None:
    """What cannot be renamed across devices is made there, and the old one is an orphan."""
    devices = {os.stat(each).st_dev: each for each in ("/dev/shm", "/var/tmp") if os.path.isdir(each)}
    devices.pop(project.folder.stat().st_dev, None)
    if not devices:
        pytest.skip("no other device at hand")
    place = Path(devices.popitem()[1]) / f"filemill-test-{os.getpid()}"
    try:
        moved(project, f"{place}/{{dir}}/{{name}}")
        summary = project.run()
        assert (summary.renamed, summary.done, summary.exit) == (0, len(NAMES), 0)
        assert (place / "sub/c").read_text() == "TEXT SUB/C" and len(project.orphans()) == len(NAMES)
    finally:
        shutil.rmtree(place, ignore_errors=True)


def test_what_is_taken_meanwhile_is_not_overwritten(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody's file that appears in the new place between plan and rename stays what it is until a job asks."""
    moved(project, "other/{dir}/{name}")
    link = os.link

    def late(old: bytes, new: bytes, **more: bool) -> None:
        Path(os.fsdecode(new)).write_text("a moment earlier")
        link(old, new, **more)

    monkeypatch.setattr(os, "link", late)
    assert project.run().renamed == 0
    assert len([file for file in (project.folder / "out").rglob("*") if file.is_file()]) == len(NAMES) + 1


@pytest.mark.parametrize("step", ["noted", "linked", "moved"])
def test_killed_on_the_way(project: Project, step: str) -> None:
    """After each step of a rename: the next run renames the rest, and makes nothing again."""
    moved(project, "other/{dir}/{name}")
    (project.folder / "other").mkdir()

    def note(ledger: Ledger) -> None:
        ledger.begin_run("killed")
        ledger.intents.add([b"other/a", b"a", b"up"])

    die_after(project.folder, note)
    if step != "noted":
        os.link(project.folder / "out/a", project.folder / "other/a")
    if step == "moved":
        os.unlink(project.folder / "out/a")
    assert project.plan()["up a"] == ("rename", "moved from out/a")
    assert project.run().renamed == len(NAMES)
    assert not (project.folder / "out/a").exists() and (project.folder / "other/a").read_text() == "TEXT A"
    assert project.plan() == {f"up {name}": FRESH for name in NAMES}


def calls(monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
    """End this process, without a word, at the n-th call that changes a name."""
    count = iter(range(1, 10**9))
    for name in ("link", "unlink", "makedirs", "rmdir"):
        real = getattr(os, name)

        def deadly(*arguments: object, real: Callable[..., None] = real, **more: object) -> None:
            if next(count) == fatal:
                os._exit(9)
            real(*arguments, **more)

        monkeypatch.setattr(os, name, deadly)


@pytest.mark.parametrize("fatal", [1, 2, 3, 4, 5, 6, 7, 8, 9, 14, 19, 20, 26, 33])
def test_killed_anywhere(project: Project, monkeypatch: pytest.MonkeyPatch, fatal: int) -> None:
    """At any call that changes a name: the next run has every output under its new path, and made none again."""
    moved(project, "other/{name}")
    for number in range(8):
        project.write(f"in/n{number}", "x")
    before = inodes(project)
    if (child := os.fork()) == 0:
        try:
            calls(monkeypatch, fatal)
            project.run()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert project.run().exit == 0
    assert before <= inodes(project), "an output was made again"
    assert set(project.plan().values()) == {FRESH} and not list((project.folder / "out").rglob("*/*"))
