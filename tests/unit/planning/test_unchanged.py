"""Spans: a night in which nothing changed reads next to nothing, and whatever did change is noticed all the same."""

from __future__ import annotations

import itertools
import os
import shutil
import tempfile
import zlib
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.examples import examples
from support.project import LINES, MOODY, ONE_STAGE, Project, ledger_of
from support.project import NAMES as NAMES_OF_ITEMS

from pipeline.config.load import load_config
from pipeline.operations.guards import Confirmations
from pipeline.operations.unchanged_note import answer_unchanged
from pipeline.planning import unchanged
from pipeline.planning.decisions import Orphan, text_of
from pipeline.planning.plan import Plan, make_plan
from pipeline.planning.ranges import Looked
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection
from pipeline.report.summary import Summary

# Names with which a span begins, and others: so a handful of files makes several spans.
FIRSTS = list(itertools.islice((n for n in map(str, itertools.count()) if not zlib.crc32(n.encode()) & 0x3FF), 6))
NAMES = [*FIRSTS, "0", "1000", "2500", "5", "a", "b"]

TWO_LEAVES = """
inputs: in
stages:
  - name: up
    uses: upper
    output: out/up/{dir}/{stem}.txt
  - name: again
    from: up
    uses: upper
    with: {mark: "2"}
    output: out/{name}/again
engine: serial
"""


def planned(
    project: Project, *, everything: bool = False, looked: Looked | None = None
) -> tuple[Plan, Counter[tuple[str, str]], list[Orphan]]:
    """A plan, its counts of outputs and of files, and its orphans; by spans, or with `everything` file by file."""
    config = load_config(project.folder / "pipeline.yaml")
    with ledger_of(project.folder) as ledger:
        leaves = output_specs(config, ledger, record=False)
        plan = make_plan(config, ledger, leaves, Selection(), everything=everything, looked=looked)
        assert sum(plan.files.values()) == plan.sources
        files = {(f"{action} files", text_of(why)): count for (action, why), count in plan.files.items() if count}
        counts = plan.counts + plan.counts_of_groups
        outputs = {(action, text_of(why)): count for (action, why), count in counts.items()}
        return plan, Counter[tuple[str, str]](outputs | files), list(plan.store.orphans())


def made(folder: Path, yaml: str = ONE_STAGE, names: list[str] = NAMES) -> Project:
    """A project whose files are all done, and known as spans."""
    folder.mkdir(exist_ok=True)
    project = Project(folder, yaml)
    for name in names:
        project.write(f"in/{name}", f"text {name}")
    assert project.run().exit == 0
    return project


@pytest.mark.parametrize("yaml", [ONE_STAGE, TWO_LEAVES, ONE_STAGE.replace("{dir}/{name}", "{stem}{suffix}.x")])
def test_what_nothing_happened_to_is_passed_over(tmp_path: Path, yaml: str) -> None:
    """Right after a run, no file is judged, and the counts are what they would be."""
    project = made(tmp_path, yaml, [*NAMES, "d/1", "d/e/2"])
    plan, counts, orphans = planned(project)

    assert plan.compared == [] and not orphans
    assert counts == planned(project, everything=True)[1]
    assert plan.sources == len(NAMES) + 2
    assert project.run().up_to_date == plan.counts.total()


def test_a_change_is_judged_in_its_own_span_only(tmp_path: Path) -> None:
    """Of many spans, the one with the changed file is looked into."""
    project = made(tmp_path)
    project.write(f"in/{FIRSTS[3]}", "another text")
    plan, counts, _ = planned(project)

    assert plan.compared is not None and len(plan.compared) == 1
    assert counts["make", "source changed"] == 1


def looked_at(project: Project) -> Looked:
    """What the note tells of the files of a project where something has to be done."""
    found = answer_unchanged(project.folder / "pipeline.yaml")
    assert isinstance(found, Looked)
    return found


def test_what_was_just_looked_at_is_not_looked_at_again(tmp_path: Path) -> None:
    """A change right after the look, in a range that was as before, waits for the next night; elsewhere it is met."""
    project = made(tmp_path)
    project.run()  # the first run has put the project on the path, which is part of the question
    project.write(f"in/{max(FIRSTS)}", "another text")
    looked = looked_at(project)
    assert [each.first.decode() for each in looked.held] == ["0", *sorted(FIRSTS)[:-1]]
    assert planned(project, looked=looked)[1] == planned(project, everything=True)[1]
    project.write(f"in/{min(FIRSTS)}", "a later text")
    project.write("in/b", "a later text")
    _, counts, _ = planned(project, looked=looked)
    assert counts["make", "source changed"] == 2
    assert planned(project)[1]["make", "source changed"] == 3


@pytest.mark.parametrize("change", ["another template", "less included", "other code", "another folder"])
def test_what_was_looked_at_for_another_pipeline_tells_nothing(tmp_path: Path, change: str) -> None:
    project = made(tmp_path)
    project.run()  # the first run has put the project on the path, which is part of the question
    project.write("in/5", "another text")
    looked = looked_at(project)
    CHANGES[change](project)
    project._forget_modules()
    assert planned(project, looked=looked)[1:] == planned(project, everything=True)[1:]


def test_a_range_that_has_lost_its_first_source_is_judged_with_the_one_before(tmp_path: Path) -> None:
    """Which then goes on into it."""
    project = made(tmp_path)
    project.run()  # the first run has put the project on the path, which is part of the question
    (project.folder / "in" / sorted(FIRSTS)[2]).unlink()
    looked = looked_at(project)
    plan, counts, orphans = planned(project, looked=looked)
    assert (counts, orphans) == planned(project, everything=True)[1:]
    assert plan.compared is not None and [each.first for each in plan.compared] == [sorted(FIRSTS)[1].encode()]


def test_other_names_of_stages_make_no_difference(tmp_path: Path) -> None:
    """Renamed, or with each other's names, they are passed over; and once more after a file was judged and made."""
    project = made(tmp_path, TWO_LEAVES)
    for up, again in (("loud", "again"), ("again", "loud"), ("up", "louder")):
        yaml = TWO_LEAVES.replace("name: again", f"name: {again}").replace("name: up", f"name: {up}")
        project.write("pipeline.yaml", yaml.replace("from: up", f"from: {up}"))
        assert planned(project)[0].compared == []
        project.write("in/a", f"text {up}")
        assert project.run().done == 2
        assert planned(project)[0].compared == []


CHANGES: dict[str, Callable[[Project], object]] = {
    "source of another size": lambda project: project.write("in/5", "longer than before"),
    "source of another time": lambda project: os.utime(project.folder / "in/5", (1, 1)),
    "source gone": lambda project: (project.folder / "in/5").unlink(),
    "first source gone": lambda project: (project.folder / "in" / min(NAMES)).unlink(),
    "last source gone": lambda project: (project.folder / "in" / max(NAMES)).unlink(),
    "a span gone": lambda project: (project.folder / "in" / FIRSTS[2]).unlink(),
    "all gone": lambda project: [file.unlink() for file in (project.folder / "in").iterdir()],
    "new source": lambda project: project.write("in/51", "new"),
    "new first": lambda project: project.write("in/!", "new"),
    "output gone": lambda project: (project.folder / "out/5").unlink(),
    "output edited": lambda project: project.write("out/5", "edited by someone"),
    "output touched": lambda project: os.utime(project.folder / "out/5", (1, 1)),
    "output a folder": lambda project: [(project.folder / "out/5").unlink(), (project.folder / "out/5").mkdir()],
    "another option": lambda project: project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    with: {mark: x}"),
    "another template": lambda project: project.edit("pipeline.yaml", "{dir}/{name}", "{dir}/{name}.x"),
    "another folder": lambda project: project.edit("pipeline.yaml", "out/{dir}", "other/{dir}"),
    "less included": lambda project: project.edit("pipeline.yaml", "inputs: in", "inputs: {root: in, exclude: ['5']}"),
    "other code": lambda project: project.edit("stages/upper.py", "text.upper()", "text.title()"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_every_change_is_noticed(tmp_path: Path, change: str) -> None:
    """By spans or file by file, the plan is the same, and so is what a run leaves behind."""
    project = made(tmp_path)
    CHANGES[change](project)
    project._forget_modules()
    _, counts, orphans = planned(project)
    project._forget_modules()
    _, expected, expected_orphans = planned(project, everything=True)

    assert (counts, orphans) == (expected, expected_orphans)
    assert project.run(confirmed=Confirmations(rebuild=True)).exit in (0, 1)
    project._forget_modules()
    assert planned(project)[1] == planned(project, everything=True)[1]


def run_as_noted(project: Project) -> None:
    """Run, and compare what is said with the answer from the note, if there is one."""
    noted = answer_unchanged(project.folder / "pipeline.yaml")
    ran = project.run()
    if isinstance(noted, Summary):
        own = {"run": "", "seconds": 0}
        assert noted.as_json() | own == ran.as_json() | own and noted.notes == ran.notes


@pytest.mark.parametrize("many", [3, 9])
def test_a_new_file_that_begins_a_range_is_met_wherever_it_lies(tmp_path: Path, many: int) -> None:
    """Before all others, between them and behind them; by one process and, of many ranges, by two."""
    ranges = (n for n in map(str, itertools.count()) if not zlib.crc32(n.encode()) & 0x3FF)
    names = list(itertools.islice(ranges, many + 1))
    for new in names:
        project = made(tmp_path / new, names=[name for name in names if name != new])
        project.run()  # the first one has put the project on sys.path, which is part of what a note answers
        assert isinstance(answer_unchanged(project.folder / "pipeline.yaml"), Summary)
        project.write(f"in/{new}", "text")
        assert not isinstance(answer_unchanged(project.folder / "pipeline.yaml"), Summary), new
        assert (project.run().done, project.run().up_to_date) == (1, len(names))


@settings(max_examples=examples(40), deadline=None)
@given(st.data())
def test_any_history_is_judged_alike(data: st.DataObject) -> None:
    """Files that come, go, change, fail and are left out, runs over a part and over all: nothing hides a thing.

    Neither do spans, nor does a note that a run leaves for the next one.
    """
    with tempfile.TemporaryDirectory() as folder:
        project = Project(Path(folder))
        project.write("stages/upper.py", MOODY)
        project.write("in/kept", "good")
        project.run()
        for _ in range(data.draw(st.integers(1, 12))):
            name = data.draw(st.sampled_from(NAMES))
            match data.draw(
                st.sampled_from(["write", "write", "write", "gone", "output gone", "edited", "run", "some"])
            ):
                case "write":
                    project.write(f"in/{name}", data.draw(st.sampled_from(["good", "fine!", "skip it", "bad one"])))
                case "gone":
                    (project.folder / "in" / name).unlink(missing_ok=True)
                case "output gone":
                    (project.folder / "out" / name).unlink(missing_ok=True)
                case "edited" if (project.folder / "out").exists():
                    project.write(f"out/{name}", "edited")
                case "run":
                    run_as_noted(project)
                case "some":
                    project.run(only=name)
        run_as_noted(project)
        run_as_noted(project)
        _, counts, orphans = planned(project)
        _, expected, expected_orphans = planned(project, everything=True)

        assert (counts, orphans) == (expected, expected_orphans)


# Every kind of output that is not one file for each source: in parts, of some sources, without a file, and of groups.
OTHER_KINDS = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/up/{dir}/{name}'}
  - {name: lines, from: inputs, uses: lines, output: 'out/lines/{dir}/{stem}/{part}.txt'}
  - {name: some, from: inputs, uses: upper, match: ['*5*'], output: 'out/some/{dir}/{name}'}
  - {name: sent, from: inputs, uses: upper, output: none}
  - {name: sheet, from: up, uses: names, gather: true, group: '{dir}', output: 'out/{dir}/sheet.txt'}
engine: serial
"""


def of_other_kinds(folder: Path, yaml: str = OTHER_KINDS) -> Project:
    """A project whose outputs are of every kind, all made; `skip` is left out."""
    project = Project(folder, yaml)
    project.write("stages/upper.py", MOODY)
    project.write("stages/lines.py", LINES)
    project.write("stages/names.py", NAMES_OF_ITEMS)
    for name in (*NAMES, "d/5", "d/6"):
        project.write(f"in/{name}", f"text {name}\nand\nmore")
    project.write("in/skip", "skip it")
    assert project.run().exit == 0
    return project


def test_every_kind_of_output_is_passed_over(tmp_path: Path) -> None:
    """With the counts that they have file by file, in a plan and in the summary of a run."""
    project = of_other_kinds(tmp_path)
    plan, counts, orphans = planned(project)

    assert plan.compared == [] and plan.groups is None and not orphans
    assert counts == planned(project, everything=True)[1]
    assert project.run().up_to_date == plan.counts.total() + plan.counts_of_groups.total()


CHANGES_OF_OTHER_KINDS: dict[str, Callable[[Project], object]] = {
    "part gone": lambda project: (project.folder / "out/lines/5/000002.txt").unlink(),
    "part edited": lambda project: project.write("out/lines/5/000002.txt", "edited"),
    "part touched": lambda project: os.utime(project.folder / "out/lines/d/5/000001.txt", (1, 1)),
    "parts gone": lambda project: shutil.rmtree(project.folder / "out/lines/5"),
    "more parts": lambda project: project.write("in/5", "text 5\nand\nmore\nof it"),
    "fewer parts": lambda project: project.write("in/5", "text 5"),
    "group's output gone": lambda project: (project.folder / "out/d/sheet.txt").unlink(),
    "group's output edited": lambda project: project.write("out/d/sheet.txt", "edited"),
    "member gone": lambda project: (project.folder / "out/up/d/5").unlink(),
    "member edited": lambda project: project.write("out/up/d/5", "edited"),
    "member's source gone": lambda project: (project.folder / "in/d/5").unlink(),
    "a group gone": lambda project: shutil.rmtree(project.folder / "in/d"),
    "new member": lambda project: project.write("in/d/7", "new"),
    "new group": lambda project: project.write("in/e/7", "new"),
    "matched output gone": lambda project: (project.folder / "out/some/5").unlink(),
    "matched output edited": lambda project: project.write("out/some/d/5", "edited"),
    "other files match": lambda project: project.edit("pipeline.yaml", "*5*", "*6*"),
    "more files match": lambda project: project.edit("pipeline.yaml", "'*5*'", "'*5*', '*6*'"),
    "left out no more": lambda project: project.write("in/skip", "good"),
    "source without a file changed": lambda project: os.utime(project.folder / "in/a", (1, 1)),
    "other groups": lambda project: project.edit(
        "pipeline.yaml", "group: '{dir}', output: 'out/{dir}/sheet.txt'", "output: out/sheet.txt"
    ),
    "groups of others": lambda project: project.edit("pipeline.yaml", "sheet, from: up", "sheet, from: some"),
    "a stage gone": lambda project: project.edit(
        "pipeline.yaml", "  - {name: sent, from: inputs, uses: upper, output: none}\n", ""
    ),
    "stages renamed": lambda project: project.edit("pipeline.yaml", "name: sent", "name: told"),
}


@pytest.mark.parametrize("change", CHANGES_OF_OTHER_KINDS)
def test_every_change_of_other_kinds_is_noticed(tmp_path: Path, change: str) -> None:
    """By ranges or file by file, the plan is the same, and so is what a run leaves behind."""
    project = of_other_kinds(tmp_path)
    CHANGES_OF_OTHER_KINDS[change](project)
    project._forget_modules()
    _, counts, orphans = planned(project)
    _, expected, expected_orphans = planned(project, everything=True)

    assert (counts, orphans) == (expected, expected_orphans)
    assert project.run(confirmed=Confirmations(rebuild=True)).exit in (0, 1, 2)
    assert planned(project)[1] == planned(project, everything=True)[1]


def test_what_was_pruned_is_made_again_when_its_source_comes_back(tmp_path: Path) -> None:
    """Nothing on the disk tells that an output without a file is not on record any more."""
    project = of_other_kinds(
        tmp_path, OTHER_KINDS.split("  - {name: sheet")[0] + "engine: serial\nprune: {max: 100%}\n"
    )
    (project.folder / "in/5").rename(project.folder / "aside")
    assert project.run().pruned
    (project.folder / "aside").rename(project.folder / "in/5")
    counts = planned(project)[1]
    assert counts == planned(project, everything=True)[1]
    assert counts["make", "new"] >= 3


def test_a_film_in_many_frames_is_compared_each_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The records of a range are in memory together, and so may not be any number."""
    monkeypatch.setattr(unchanged, "_MOST_RECORDS", 20)
    project = of_other_kinds(tmp_path)
    plan, counts, _ = planned(project)
    assert plan.compared and counts == planned(project, everything=True)[1]


def test_what_is_not_done_is_looked_at_every_time(tmp_path: Path) -> None:
    """A failed file's span is judged until it is mended; one that was left out is passed over with its reason."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "bad")
    project.write(f"in/{FIRSTS[0]}", "skip this")
    assert project.run().failed == 1
    plan, counts, _ = planned(project)

    assert plan.compared is not None and len(plan.compared) == 1
    assert counts["up-to-date", "skipped: not wanted"] == 1
    project.write("in/a", "good")
    project.run()
    assert planned(project)[0].compared == []


def test_a_run_that_was_stopped_has_forgotten_the_spans_it_worked_on(tmp_path: Path) -> None:
    """Forgotten before the first job is handed out, so that a kill leaves none that is no longer true."""
    project = made(tmp_path)
    project.write("in/5", "bad")
    deadly = (
        "import os, signal\ndef upper(text: str) -> str:\n    os.kill(os.getpid(), signal.SIGKILL)\n    return ''\n"
    )
    project.write("stages/upper.py", deadly)
    if (child := os.fork()) == 0:
        try:
            project.run()
        finally:
            os._exit(9)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -9
    with ledger_of(project.folder) as ledger:
        assert ledger._connection.execute("SELECT count(*) FROM spans").fetchone() == (0,)


def test_a_run_over_a_part_forgets_all(tmp_path: Path) -> None:
    """What `--only` redid stands in no span until a run over everything has looked at it."""
    project = made(tmp_path)
    project.write("in/5", "other")
    project.run(only="5")
    plan, counts, _ = planned(project)

    assert counts == planned(project, everything=True)[1]
    assert plan.compared


SKIPPED_LINES = """
from collections.abc import Iterator
from pipeline import Skip
def lines(text: str) -> Iterator[str]:
    if text.startswith("skip"):
        raise Skip("not wanted")
    yield from text.splitlines()
"""


@pytest.mark.parametrize(
    ("output", "stage", "change"),
    [
        ("none", "upper", lambda file: file.unlink()),
        ("'out/{dir}/{stem}/{part}.txt'", "lines", lambda file: file.unlink()),
        ("'out/{dir}/{stem}/{part}.txt'", "lines", lambda file: file.write_text("skip it")),
        ("'out/{dir}/{name}'", "upper", lambda file: file.write_text("skip it")),
    ],
)
def test_what_is_pruned_leaves_nothing_that_every_run_looks_at(
    tmp_path: Path, output: str, stage: str, change: Callable[[Path], object]
) -> None:
    """Records of what has no file, and of parts, are forgotten with it, and the note answers again."""
    yaml = (
        f"inputs: in\nstages: [{{name: up, uses: {stage}, output: {output}}}]\nprune: {{max: 100%}}\nengine: serial\n"
    )
    project = Project(tmp_path, yaml)
    project.write("stages/upper.py", MOODY)
    project.write("stages/lines.py", SKIPPED_LINES)
    for name in ("a", "b", "c"):
        project.write(f"in/{name}", f"text {name}\nand more")
    for _ in range(2):
        assert project.run().exit == 0
    assert isinstance(answer_unchanged(tmp_path / "pipeline.yaml"), Summary)
    change(tmp_path / "in/b")
    for _ in range(2):
        assert project.run().exit == 0
    assert isinstance(answer_unchanged(tmp_path / "pipeline.yaml"), Summary)
    assert not any(name.startswith("b") for name in project.outputs())
