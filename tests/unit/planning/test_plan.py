"""Fresh or stale, and why; whose a path is; what is gone. Every row of "Fresh or stale" in DESIGN section 5."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.project import MOODY, ONE_STAGE, UPPER, Project, contents_below, ledger_of, temporaries

from pipeline.config.load import load_config
from pipeline.ledger.ledger import Ledger
from pipeline.messages import Job, Source, Target
from pipeline.operations.guards import Confirmations
from pipeline.planning.plan import make_plan
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection

# What lets a run go on where all the files that it knew are gone.
REBUILD = Confirmations(rebuild=True)
FRESH = ("up-to-date", "up to date")
Change = Callable[[Project], object]

TREE = """
inputs: in
stages:
  - name: first
    uses: upper
    output: out/first/{dir}/{name}
  - name: second
    from: first
    uses: upper
    with: {mark: "2"}
    output: out/second/{name}
  - name: other
    from: inputs
    uses: ./stages/lower.py:lower
    output: out/other/{name}
engine: serial
"""
LOWER = "def lower(text: str, *, mark: str = '') -> str:\n    return text.lower() + mark\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One stage over one file, made."""
    project = Project(tmp_path)
    project.write("in/a", "hello")
    assert project.run().done == 1
    assert project.plan() == {"up a": FRESH}
    return project


@pytest.fixture
def tree(tmp_path: Path) -> Project:
    """Two outputs in a row and a sibling, of one file, made."""
    project = Project(tmp_path, TREE)
    project.write("stages/lower.py", LOWER)
    project.write("in/a", "Hello")
    assert project.run().done == 3
    return project


def touch(file: Path, seconds: float) -> None:
    found = file.stat()
    os.utime(file, ns=(found.st_atime_ns, found.st_mtime_ns + int(seconds * 1e9)))


def stale(project: Project) -> dict[str, str]:
    return {output: why for output, (action, why) in project.plan().items() if action == "make"}


# -- the source --------------------------------------------------------------------------------------------------------


def test_another_size_is_a_change(project: Project) -> None:
    """A source of another size is redone, whatever its time says."""
    file = project.folder / "in/a"
    before = file.stat()
    file.write_text("hello!")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert stale(project) == {"up a": "source changed (size 5 -> 6)"}


@pytest.mark.parametrize("seconds", [1e-9, 1, -1, 1e6, -1e6])
def test_another_time_is_a_change(project: Project, seconds: float) -> None:
    """A source whose time is another by a nanosecond, later or earlier, is redone."""
    os.utime(project.folder / "in/a", ns=(0, 1_700_000_000_512_345_678))
    project.run()
    os.utime(project.folder / "in/a", ns=(0, 1_700_000_000_512_345_678 + round(seconds * 1e9)))
    assert stale(project) == {"up a": "source changed (its time)"}


@pytest.mark.parametrize("when", [0, -10, 2**32, 2**34])
def test_any_time_is_remembered(project: Project, when: int) -> None:
    """1970, before it, and long after the year 2262, which is SQLite's last: done once and fresh then."""
    try:
        os.utime(project.folder / "in/a", (when, when))
    except OverflowError:
        pytest.skip("no such time on this machine")
    assert stale(project) and project.run().done == 1
    assert project.plan() == {"up a": FRESH}


# -- the output --------------------------------------------------------------------------------------------------------


def remove(project: Project) -> None:
    (project.folder / "out/a").unlink()


def tear(project: Project) -> None:
    before = (project.folder / "out/a").stat()
    (project.folder / "out/a").write_text("HEL")
    os.utime(project.folder / "out/a", ns=(0, before.st_mtime_ns))


def empty(project: Project) -> None:
    (project.folder / "out/a").write_text("")
    touch(project.folder / "out/a", 1000)


def edit(project: Project) -> None:
    (project.folder / "out/a").write_text("mine")
    touch(project.folder / "out/a", 1000)


@pytest.mark.parametrize(
    ("damage", "why"),
    [(remove, "output missing"), (tear, "output torn (size 5 -> 3)"), (empty, "output torn (size 5 -> 0)")],
)
def test_a_damaged_output_is_redone(project: Project, damage: Change, why: str) -> None:
    """An output that is gone, cut short at its own time, or empty is made again."""
    damage(project)
    assert stale(project) == {"up a": why}
    project.run()
    assert project.outputs() == {"a": b"HELLO"} and project.plan() == {"up a": FRESH}


def test_a_link_that_leads_nowhere_is_left_alone(project: Project) -> None:
    """The plan and the run say so in the same words."""
    remove(project)
    (project.folder / "out/a").symlink_to("nowhere")
    action, why = project.plan()["up a"]
    ((_, result),) = project.run().failures
    assert action == "refuse" and result.text.startswith(why) and "no file stands in its place" in why
    assert (project.folder / "out/a").is_symlink()


def test_an_edited_output_is_kept(project: Project) -> None:
    """What someone else made of an output stays until its source or recipe changes, or --force is said."""
    edit(project)
    assert project.plan() == {"up a": ("up-to-date", "edited by someone else: kept")}
    assert project.run().edited == 1 and project.outputs() == {"a": b"mine"}
    assert project.plan(force=True)["up a"] == ("make", "forced")
    touch(project.folder / "in/a", 5)
    project.run()
    assert project.outputs() == {"a": b"HELLO"}


def test_a_forced_run_redoes_what_is_edited(project: Project) -> None:
    """--force is how to have ours back."""
    edit(project)
    project.run(force=True)
    assert project.outputs() == {"a": b"HELLO"}


def test_times_within_two_seconds_are_one(project: Project) -> None:
    """File systems and copies cut the times of outputs: that is no edit."""
    touch(project.folder / "out/a", 1.9)
    assert project.plan() == {"up a": FRESH}


def test_an_output_that_is_rightly_empty_is_fresh(tmp_path: Path) -> None:
    """An empty file's output is empty, and that is no damage."""
    project = Project(tmp_path)
    project.write("in/a", "")
    project.run()
    assert project.plan() == {"up a": FRESH}


# -- the recipe --------------------------------------------------------------------------------------------------------


def test_another_option_redoes_what_is_below_it_only(tree: Project) -> None:
    """Its own outputs and those made from them; never a sibling's."""
    tree.edit("pipeline.yaml", 'mark: "2"', 'mark: "3"')
    assert stale(tree) == {"second a": "second: mark 2 -> 3"}
    tree.edit("pipeline.yaml", "uses: upper\n    output", "uses: upper\n    with: {mark: x}\n    output")
    assert set(stale(tree)) == {"first a", "second a"}
    assert stale(tree)["second a"] == 'first: mark "" -> x'


def test_an_option_written_out_as_its_default_is_no_change(tree: Project) -> None:
    """Options count after defaults."""
    tree.edit("pipeline.yaml", "uses: upper\n    output", "uses: upper\n    with: {mark: ''}\n    output")
    assert stale(tree) == {}


def test_code_counts_and_its_looks_do_not(tree: Project) -> None:
    """Other code redoes what is made by it; other docstrings and layout nothing."""
    tree.edit("stages/upper.py", '"""Shout."""', '"""Shout louder."""  # said')
    assert stale(tree) == {}
    tree.edit("stages/upper.py", "text.upper()", "text.title()")
    where = os.path.relpath(tree.folder / "stages/upper.py")
    assert stale(tree) == {
        "first a": f"first: code changed ({where})", "second a": f"first: code changed ({where})",
    }  # fmt: skip


def test_names_of_stages_and_their_order_are_no_recipe(tree: Project) -> None:
    """Renaming a stage redoes nothing, nor does moving one about, nor adding one beside it."""
    tree.edit("pipeline.yaml", "name: first", "name: premier")
    tree.edit("pipeline.yaml", "from: first", "from: premier")
    assert stale(tree) == {}
    more = "  - {name: more, from: inputs, uses: upper, output: 'out/more/{name}'}\nengine"
    tree.edit("pipeline.yaml", "engine", more)
    assert stale(tree) == {"more a": "new"}


@pytest.mark.parametrize("how", ["moved", "copied"])
def test_moving_the_project_redoes_nothing(tree: Project, tmp_path: Path, how: str) -> None:
    """Neither absolute paths nor inodes are remembered."""
    place = tmp_path.parent / f"{tmp_path.name}-{how}"
    if how == "moved":
        tree.folder.rename(place)
    else:
        shutil.copytree(tree.folder, place)
    there = Project.__new__(Project)
    there.folder = place
    assert stale(there) == {}
    summary = there.run()
    assert (summary.up_to_date, summary.done, summary.exit) == (3, 0, 0)
    shutil.move(place, tmp_path / "back")


PATH_STAGE = """
from pathlib import Path
def upper(text: str, *, logo: Path) -> str:
    return text.upper() + logo.read_text()
"""


def test_the_contents_behind_a_path_option_count(tmp_path: Path) -> None:
    """A new logo under the old name is a new recipe; a touched one is not."""
    project = Project(tmp_path, ONE_STAGE.replace("uses: upper", "uses: upper\n    with: {logo: logo.txt}"))
    project.write("stages/upper.py", PATH_STAGE)
    logo = project.write("logo.txt", "1")
    project.write("in/a", "x")
    assert project.run().done == 1
    touch(logo, 100)
    assert stale(project) == {}
    logo.write_text("2")
    assert stale(project) == {"up a": "up: contents of logo.txt changed"}
    project.run()
    assert project.outputs() == {"a": b"X2"}


def test_the_initializer_and_its_arguments_count(tmp_path: Path) -> None:
    """Its code, its arguments, and the contents of files that they name."""
    pool = "pool: {initializer: 'models:load', initargs: [model.bin, 1]}\n"
    project = Project(tmp_path, ONE_STAGE + pool)
    project.write("models.py", "def load(file, number):\n    pass\n")
    project.write("model.bin", "1")
    project.write("in/a", "x")
    assert project.run().done == 1
    changes = [
        ("model.bin", "1", "2", "initargs: contents of model.bin changed"),
        ("models.py", "pass", "return None", "initializer: code changed"),
        ("pipeline.yaml", "model.bin, 1", "model.bin, 2", 'initargs ["model.bin", 1] -> ["model.bin", 2]'),
        ("pipeline.yaml", "pool: {initializer: 'models:load', initargs: [model.bin, 2]}\n", "", "initializer removed"),
    ]
    for file, old, new, why in changes:
        project.edit(file, old, new)
        assert stale(project) == {"up a": why}, file
        project.run()
        assert stale(project) == {}


def test_a_script_that_a_command_names_counts(tmp_path: Path) -> None:
    """By its absolute path; nobody has to name it a second time."""
    script = tmp_path / "double.py"
    command = f"uses: command\n    with: {{argv: [python3, {script}, '{{source}}', '{{target}}']}}"
    project = Project(tmp_path, ONE_STAGE.replace("uses: upper", command))
    project.write("double.py", "import sys\nopen(sys.argv[2], 'w').write(open(sys.argv[1]).read() * 2)\n")
    project.write("in/a", "x")
    assert project.run().done == 1
    project.edit("double.py", "* 2", "* 3")
    assert stale(project) == {"up a": f"up: contents of {script} changed"}
    project.run()
    assert project.outputs() == {"a": b"xxx"} and stale(project) == {}


PICTURES = """
inputs: in
stages:
  - name: first
    uses: resize
    with: {width: 8}
    output: {path: "out/{stem}.jpg", save: {quality: 80}}
  - name: second
    from: first
    uses: resize
    with: {width: 4}
    output: {path: "out/small/{stem}.jpg", save: {quality: 70}}
engine: serial
"""


def test_save_options_are_the_outputs_own(tmp_path: Path) -> None:
    """How a parent is saved has no part in what is made from it."""
    from PIL import Image

    project = Project(tmp_path, PICTURES)
    Image.new("RGB", (16, 16)).save(tmp_path / "in" / "a.png")
    assert project.run().done == 2
    project.edit("pipeline.yaml", "quality: 80", "quality: 81")
    assert stale(project) == {"first a.png": "first: save quality 80 -> 81"}


# -- results -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def moody(tmp_path: Path) -> Project:
    """A stage that leaves out, fails or does what it is given."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    return project


def test_a_skip_is_up_to_date_until_something_changes(moody: Project) -> None:
    """A file that was left out is not asked about again, and its reason is known."""
    file = moody.write("in/a", "skip this")
    assert (moody.run().skipped, moody.run().up_to_date) == (1, 1)
    assert moody.plan() == {"up a": ("up-to-date", "skipped: not wanted")}
    touch(file, 5)
    assert stale(moody) == {"up a": "source changed (its time)"}
    file.write_text("good now")
    assert moody.run().done == 1 and moody.outputs() == {"a": b"GOOD NOW"}


def test_a_failure_keeps_the_old_output_and_stays_stale(moody: Project) -> None:
    """What was good stays until there is better; the failure is tried again by the next runs."""
    file = moody.write("in/a", "good")
    moody.run()
    file.write_text("bad one")
    for attempt in (1, 2):
        summary = moody.run()
        assert (summary.failed, summary.exit) == (1, 1)
        assert moody.plan() == {"up a": ("make", f"failed before (error, attempt {attempt} of 3)")}
        assert moody.outputs() == {"a": b"GOOD"} and not temporaries(moody.folder)
    file.write_text("better")
    assert moody.run().exit == 0 and moody.outputs() == {"a": b"BETTER"}


def failures(project: Project) -> list[bytes]:
    with ledger_of(project.folder) as ledger:
        return [failure.source for failure in ledger.failures.all()]


def test_a_failure_is_forgotten_when_it_says_nothing_any_more(moody: Project) -> None:
    """When the source is gone, is as it was when it was done, or its stage is no more; never by a selection."""
    file = moody.write("in/a", "good")
    other = moody.write("in/b", "bad b")
    moody.run()
    before = file.stat()
    file.write_text("bad one")
    moody.run()
    assert failures(moody) == [b"a", b"b"]
    file.write_text("good")
    os.utime(file, ns=(0, before.st_mtime_ns))
    other.unlink()
    moody.run(only="a")
    assert failures(moody) == [b"b"]
    assert moody.run().exit == 0 and failures(moody) == []


# -- whose a path is ---------------------------------------------------------------------------------------------------


def test_what_exists_and_is_not_ours_is_refused_alone(tmp_path: Path) -> None:
    """A file that somebody put there is not overwritten; the others are done; --force means it."""
    project = Project(tmp_path)
    project.write("in/0", "w")
    project.run()
    project.write("in/a", "x")
    project.write("in/b", "y")
    project.write("out/a", "precious")
    assert project.plan() == {"up 0": FRESH, "up a": ("refuse", "exists, not ours"), "up b": ("make", "new")}
    summary = project.run()
    assert (summary.done, summary.failed, summary.exit) == (1, 1, 1)
    assert project.outputs() == {"0": b"W", "a": b"precious", "b": b"Y"}
    assert project.run(force=True).exit == 0 and project.outputs() == {"0": b"W", "a": b"X", "b": b"Y"}


@pytest.mark.parametrize("change", ["source", "recipe"])
def test_a_file_in_the_place_of_what_was_left_out_is_not_ours(moody: Project, change: str) -> None:
    """A source that was left out made nothing: what lies there later is somebody's, until --force says otherwise."""
    moody.write("in/a", "skip this")
    moody.run()
    moody.write("out/a", "precious")
    assert moody.plan() == {"up a": ("up-to-date", "skipped: not wanted")}
    if change == "source":
        moody.write("in/a", "good now")
    else:
        moody.write("stages/upper.py", UPPER)
    for _ in range(2):
        assert moody.plan()["up a"] == ("refuse", "exists, not ours")
        assert moody.run().failed == 1 and moody.outputs() == {"a": b"precious"}
    assert moody.run(force=True).done == 1 and moody.outputs()["a"] != b"precious"


def test_what_a_killed_run_put_there_is_ours(moody: Project) -> None:
    """A run that was killed before it could record what it made where nothing was: made anew, not refused."""
    moody.write("in/a", "skip this")
    moody.run()
    moody.write("in/a", "good now")
    if (child := os.fork()) == 0:
        Ledger.record = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment,method-assign]
        moody.run()
        os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    assert moody.outputs() == {"a": b"GOOD NOW"}
    assert moody.run().done == 1 and moody.run().up_to_date == 1


def test_a_place_that_was_left_out_is_not_ours_for_another_source_either(tmp_path: Path) -> None:
    """Another source that wants the path does not get what somebody put there."""
    project = collide(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/a.x", "skip this")
    project.write("in/b", "good")
    project.run()
    (project.folder / "in/a.x").rename(project.folder / "in/a.y")
    project.write("in/a.y", "good")
    project.write("out/a", "precious")
    assert project.plan()["up a.y"] == ("refuse", "exists, not ours")
    assert project.run().failed == 1 and project.outputs()["a"] == b"precious"


def collide(tmp_path: Path) -> Project:
    project = Project(tmp_path, ONE_STAGE.replace("{name}", "{stem}"))
    project.write("in/a.x", "x")
    return project


A_X = "collision with a.x: both want out/a"
A_Y = "collision with a.y: both want out/a"


def test_two_new_ones_that_want_one_path_both_fail(tmp_path: Path) -> None:
    """Neither is chosen by chance; each names the other; the rest is done."""
    project = collide(tmp_path)
    project.write("in/a.y", "y")
    project.write("in/b.x", "b")
    for _ in range(2):
        assert project.plan() == {
            "up a.x": ("refuse", A_Y), "up a.y": ("refuse", A_X), "up b.x": project.plan()["up b.x"],
        }  # fmt: skip
        summary = project.run()
        assert (summary.failed, summary.exit) == (2, 1) and project.outputs() == {"b": b"B"}


@pytest.mark.parametrize("left_out", [False, True])
def test_who_has_the_path_keeps_it(tmp_path: Path, left_out: bool) -> None:
    """The one that was first stays up to date, even when it was left out; the newcomer fails alone."""
    project = collide(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/a.x", "skip" if left_out else "x")
    project.run()
    project.write("in/a.y", "y")
    assert project.plan()["up a.x"][0] == "up-to-date" and project.plan()["up a.y"] == ("refuse", A_X)
    assert (project.run().failed, project.run().up_to_date) == (1, 1)
    assert project.outputs() == ({} if left_out else {"a": b"X"})
    project.write("in/a.x", "x again")
    assert project.run().done == 1 and project.outputs() == {"a": b"X AGAIN"}


@pytest.mark.parametrize("only", [None, "a.y"])
def test_the_path_of_one_that_is_gone_is_free(tmp_path: Path, only: str | None) -> None:
    """A source renamed from a.x to a.y takes over the output, which is no orphan then."""
    project = collide(tmp_path)
    project.run()
    (project.folder / "in/a.x").rename(project.folder / "in/a.y")
    expected = ("make", "new") if only else ("rename", "source moved from a.x")
    assert project.plan(only=only) == {"up a.y": expected}
    summary = project.run(only=only, confirmed=REBUILD)
    assert (summary.done, summary.renamed) == ((1, 0) if only else (0, 1))
    assert project.plan() == {"up a.y": FRESH} and project.orphans() == []


def test_no_output_lies_among_the_inputs(tmp_path: Path) -> None:
    """A template over the root's own parent cannot be led back into the root, not even by --force."""
    project = Project(tmp_path, ONE_STAGE.replace("out/{dir}/{name}", "'{dir}/{name}'"))
    project.write("in/in/a", "other")
    project.write("in/a", "precious")
    (project.folder / "link").symlink_to(".")
    for template in ("'{dir}/{name}'", "link/{dir}/{name}"):
        project.write("pipeline.yaml", ONE_STAGE.replace("out/{dir}/{name}", template))
        assert project.run(force=True).failed == 1
    assert (project.folder / "in/a").read_text() == "precious"


# -- what is gone, and what is not asked about -------------------------------------------------------------------------


def test_orphans_are_what_nothing_produces_any_more(tree: Project) -> None:
    """The outputs of a source that is gone, of a stage that is gone, and those under an old path that are no more."""
    tree.write("in/b", "y")
    tree.run()
    assert tree.orphans() == []
    (tree.folder / "in/a").unlink()
    assert tree.orphans() == ["out/first/a", "out/other/a", "out/second/a"]
    tree.edit("pipeline.yaml", "out/other/{name}", "out/others/{name}")
    assert "out/other/b" not in tree.orphans() and tree.plan()["other b"] == ("rename", "moved from out/other/b")
    tree.edit("stages/lower.py", "text.lower()", "text.title()")
    assert "out/other/b" in tree.orphans() and tree.plan()["other b"] == ("make", "new")


def test_a_selection_never_says_what_is_gone(tree: Project) -> None:
    """--only narrows which jobs run: nothing else is counted, done, or an orphan."""
    tree.write("in/b", "y")
    tree.write("in/c", "z")
    (tree.folder / "in/a").unlink()
    assert tree.orphans(only="b") == []
    summary = tree.run(only="b")
    assert (summary.sources, summary.done, summary.up_to_date) == (1, 3, 0)
    assert {output for output in tree.plan() if output.endswith("c")} == set(stale(tree))


def test_limit_counts_sources_with_work(tmp_path: Path) -> None:
    """Run after run, the next N are done; what is up to date does not use up the number."""
    project = Project(tmp_path)
    for name in "abcde":
        project.write(f"in/{name}", name)
    assert [project.run(limit=2).done for _ in range(4)] == [2, 2, 1, 0]
    assert project.plan() == {f"up {name}": FRESH for name in "abcde"}


def test_what_lies_in_a_folder_that_cannot_be_listed_is_unknown(project: Project) -> None:
    """A root that is away for a moment makes no orphans."""
    config = load_config(project.folder / "pipeline.yaml")
    with ledger_of(project.folder) as ledger:
        (project.folder / "in").rename(project.folder / "away")
        plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection())
        assert list(plan.store.orphans()) == [] and plan.walk.unlisted and plan.sources == 0


# -- interrupted -------------------------------------------------------------------------------------------------------


def hand_out(project: Project) -> None:
    """What a run does before a job, and then it is killed."""
    config = load_config(project.folder / "pipeline.yaml")
    with ledger_of(project.folder) as ledger:
        leaves = output_specs(config, ledger, record=True)
        target = Target("up", leaves[0].template.fill(b"a"))
        ledger.intend([Job(Source(b"a", 1, 1), (target,))], lambda stage, path: leaves[0].template.key(path))


def test_what_was_handed_out_and_not_recorded_is_redone(project: Project) -> None:
    """The output may be of a recipe that is none any more: it must not pass for somebody's edit."""
    hand_out(project)
    (project.folder / "out/a").write_text("made with other options, and never recorded")
    touch(project.folder / "out/a", 1000)
    assert stale(project) == {"up a": "interrupted"}
    project.run()
    assert project.outputs() == {"a": b"HELLO"} and project.plan() == {"up a": FRESH}


def test_a_target_that_was_only_intended_is_ours(project: Project) -> None:
    """A new output that was renamed before the run was killed is made once more, not refused."""
    (project.folder / "in/a").rename(project.folder / "in/b")
    project.write("out/b", "half")
    with ledger_of(project.folder) as ledger:
        ledger._connection.execute(
            "INSERT INTO outputs (target, source, stage, status, at_work) VALUES (?, ?, 'up', 'intended', 1)",
            (b"out/b", b"b"),
        )
    assert stale(project) == {"up b": "interrupted"}


def test_memory_does_not_depend_on_how_many_files_there_are(tmp_path: Path) -> None:
    """Two thousand files and eight thousand: the plan of the larger takes hardly more."""
    import tracemalloc

    peaks = []
    for count in (2000, 8000):
        Project(tmp_path)
        for number in range(count):
            path = tmp_path / "in" / f"{number // 100:03}" / f"{number:05}"
            path.parent.mkdir(exist_ok=True)
            path.touch()
        config = load_config(tmp_path / "pipeline.yaml")
        with closing(Ledger(None)) as ledger:
            leaves = output_specs(config, ledger, record=False)
            tracemalloc.start()
            plan = make_plan(config, ledger, leaves, Selection())
            assert (plan.jobs, sum(1 for _ in plan.store.jobs())) == (count, count)
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
    # One range of sources is in memory, and the longest is longer where there are more; all of them would take 300
    # bytes each.
    assert peaks[1] - peaks[0] < 100 * 6000, peaks


# -- any history -------------------------------------------------------------------------------------------------------

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.sampled_from("abc"), st.sampled_from(["x", "yy", "skip", "bad"])),
        st.tuples(st.just("delete"), st.sampled_from("abc"), st.just("")),
        st.tuples(st.just("lose"), st.sampled_from("abc"), st.just("")),
        st.tuples(st.just("mark"), st.sampled_from("12"), st.just("")),
        st.tuples(st.just("run"), st.sampled_from(["", "a", "b"]), st.just("")),
    ),
    max_size=12,
)


@settings(max_examples=examples(25), deadline=None)
@given(STEPS)
def test_after_any_history_outputs_are_what_their_sources_say(steps: list[tuple[str, str, str]]) -> None:
    """Whatever came, went, failed or was left out before, a run leaves for each source that is good its very output."""
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder), ONE_STAGE.replace("uses: upper", "uses: upper\n    with: {mark: '0'}"))
        project.write(
            "stages/upper.py",
            MOODY.replace("text: str)", "text: str, *, mark: str)").replace("upper()", "upper() + mark"),
        )
        mark = "0"
        for number, (step, what, text) in enumerate(steps):
            file = project.folder / "in" / what
            if step == "write":
                file.write_text(text)
                os.utime(file, ns=(0, number * 10**10))
            elif step == "delete":
                file.unlink(missing_ok=True)
            elif step == "lose":
                (project.folder / "out" / what).unlink(missing_ok=True)
            elif step == "mark":
                project.edit("pipeline.yaml", f"mark: '{mark}'", f"mark: '{what}'")
                mark = what
            else:
                project.run(only=what or None, confirmed=REBUILD)
        summary = project.run(confirmed=REBUILD)
        sources = contents_below(project.folder / "in")
        assert summary.exit == (b"bad" in sources.values())
        for name, text in sources.items():
            if text not in (b"bad", b"skip"):
                assert project.outputs()[name] == text.upper() + mark.encode()
        assert [name for name in sources if sources[name] == b"bad"] == [name.decode() for name in failures(project)]
        assert project.run(confirmed=REBUILD).done == 0 and not temporaries(project.folder)


# -- ahead of time -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fresh", "calls"), [(False, 1), (True, 0)])
def test_work_is_announced_once(project: Project, fresh: bool, calls: int) -> None:
    """Whoever is to do it can get ready while the plan is made; where there is none, nobody is called."""
    if not fresh:
        for name in ("b", "c"):
            project.write(f"in/{name}", "x")
    config, announced = load_config(project.folder / "pipeline.yaml"), []
    with closing(Ledger(config.state / "ledger.sqlite")) as ledger:
        leaves = output_specs(config, ledger, record=False)
        make_plan(config, ledger, leaves, Selection(), on_work=lambda: announced.append(1))
    assert len(announced) == calls
