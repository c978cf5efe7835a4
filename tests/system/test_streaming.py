"""A first run hands out jobs while its files are still being listed, and what is only known later still counts.

The engine has room for a few jobs here, and what waits for it for none, so that the plan is made in step with the jobs:
by the first outcome of a file, most files are not planned yet.
"""

from __future__ import annotations

import os
import shutil
import signal
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from support.permissions import permissions_hold
from support.project import LINES, Project, ledger_of

from pipeline.api import iterate
from pipeline.cli import main
from pipeline.config.load import load_config
from pipeline.engines import pool
from pipeline.ledger.ledger import UnchangedRange
from pipeline.messages import Outcome, Source
from pipeline.observer import RunObserver
from pipeline.operations import work
from pipeline.operations.run import run
from pipeline.planning.made_ranges import MadeRanges
from pipeline.planning.recipe import output_specs
from pipeline.planning.selection import Selection
from pipeline.planning.unchanged import ComparedRange, settled_ranges
from pipeline.report.summary import Summary

YAML = "inputs: in\nstages: [{name: up, uses: upper, output: 'out/{dir}/{name}'}]\npool: {processes: 2}\n"
FILES = 120
# A text that begins so fails; a file of it is written to where the text says.
STAGE = """
from pathlib import Path
def upper(text: str) -> str:
    if text.startswith("bad"):
        raise ValueError("bad text")
    if text.startswith("write "):
        Path(text.split()[1]).write_text(text)
    return text.upper()
"""


class OnFirst(RunObserver):
    """Calls a function after the first outcome; `planned` is then 0 if the plan is not whole by then."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        self._then = then
        self._files = 0
        self.planned = -1

    def on_planned(self, files: int) -> None:
        self._files += files

    def on_outcome(self, outcome: Outcome) -> None:
        if self.planned < 0:
            self.planned = self._files
            self._then()


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project whose plan is made in step with its jobs."""
    monkeypatch.setattr(pool, "WINDOW_PER_WORKER", 8)
    monkeypatch.setattr(work, "_HELD_BACK_S", 0.0)
    monkeypatch.setattr(work, "_MAX_WAITING", 1)
    monkeypatch.setattr(work, "_MAX_WAIT_S", 3600.0)
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", STAGE)
    for number in range(FILES):
        project.write(f"in/d{number // 40}/{number:03}.txt", f"text {number}")
    return project


def run_with(project: Project, observer: RunObserver) -> Summary:
    return run(load_config(project.folder / "pipeline.yaml"), Selection(), [observer])


def expected(project: Project) -> dict[str, bytes]:
    inputs = project.folder / "in"
    return {
        str(path.relative_to(inputs)): path.read_bytes().upper() for path in sorted(inputs.rglob("*")) if path.is_file()
    }


def test_the_first_file_is_done_before_the_last_is_planned(project: Project) -> None:
    first = OnFirst()
    summary = run_with(project, first)
    assert (summary.exit, summary.done, summary.sources, first.planned) == (0, FILES, FILES, 0)
    assert project.outputs() == expected(project)
    again = project.run()
    assert (again.exit, again.done, again.up_to_date) == (0, 0, FILES)


def test_a_second_run_waits_for_its_plan(project: Project) -> None:
    project.run()
    project.edit("stages/upper.py", "text.upper()", "text.upper() + '!'")
    first = OnFirst()
    assert (run_with(project, first).done, first.planned) == (FILES, FILES)


def test_files_that_contend_for_an_output_are_refused_and_the_others_made(project: Project) -> None:
    project.edit("pipeline.yaml", "{name}", "{stem}.out")
    for name in ("d1/050", "d1/050.md", "d1/050-b.txt", "d1/050.a.txt", "d2/x.a", "d2/x.b", "d2/y"):
        project.write(f"in/{name}", "text")
    first = OnFirst()
    summary = run_with(project, first)
    assert (summary.exit, summary.failed, first.planned) == (1, 5, 0)
    assert sorted(str(origin) for origin, _ in summary.failures) == [
        *("d1/050", "d1/050.md", "d1/050.txt"), *("d2/x.a", "d2/x.b"),
    ]  # fmt: skip
    assert all("d1/050" in result.text or "d2/x" in result.text for _, result in summary.failures)
    made = project.outputs()
    assert len(made) == FILES + 7 - 5 and {"d1/050-b.out", "d1/050.a.out", "d2/y.out"} <= made.keys()
    assert project.run().failed == 5


def test_stages_whose_outputs_may_meet_wait_for_the_whole_plan(project: Project) -> None:
    stages = "{name: up, uses: upper, output: 'out/{dir}/{stem}.txt'}"
    other = "{name: two, from: inputs, uses: upper, output: 'out/{dir}/{stem}-b.txt'}"
    project.write("pipeline.yaml", f"inputs: in\nstages: [{stages}, {other}]\npool: {{processes: 2}}\n")
    project.write("in/d0/001-b.txt", "of the one stage, where the other has its own")
    first = OnFirst()
    summary = run_with(project, first)
    assert first.planned == FILES + 1
    assert (summary.exit, summary.failed, summary.done) == (1, 2, 2 * FILES)
    assert "001-b.txt" not in " ".join(project.outputs())


def test_a_share_of_errors_waits_until_all_files_are_known(project: Project) -> None:
    for number in range(5):
        project.write(f"in/d0/{number:03}.txt", "bad")
    project.edit("pipeline.yaml", "pool:", "errors: {max: 5%}\npool:")
    summary = project.run()  # the first 5 of 120 files fail: of those known by then, all
    assert (summary.exit, summary.failed, summary.done, summary.stopped) == (1, 5, FILES - 5, "")


def test_a_share_of_errors_that_failed_before_all_files_were_known_stops_the_run(project: Project) -> None:
    for number in range(7):
        project.write(f"in/d0/{number:03}.txt", "bad")
    project.edit("pipeline.yaml", "pool:", "errors: {max: 5%}\npool:")
    summary = project.run()
    assert summary.exit == 4 and "errors.max is 5%" in summary.stopped
    assert summary.done and project.run().exit == 4


def test_a_number_of_errors_stops_the_run_before_the_plan_is_whole(project: Project) -> None:
    for number in range(4):
        project.write(f"in/d0/{number:03}.txt", "bad")
    project.edit("pipeline.yaml", "pool:", "errors: {max: 2}\npool:")
    first = OnFirst()
    summary = run_with(project, first)
    assert (summary.exit, first.planned) == (4, 0) and summary.done < FILES / 2
    assert summary.done == len(project.outputs())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_files_are_listed_ends_the_run_in_order(project: Project, number: signal.Signals) -> None:
    first = OnFirst(lambda: os.kill(os.getpid(), number))
    summary = run_with(project, first)
    assert (summary.exit, first.planned) == (128 + number, 0) and number.name in summary.stopped
    assert 0 < summary.done < FILES and summary.done == len(project.outputs())
    again = project.run()
    assert (again.exit, again.up_to_date, again.done) == (0, summary.done, FILES - summary.done)
    assert project.outputs() == expected(project)


def test_a_folder_that_cannot_be_listed_is_told_and_the_others_are_done(project: Project) -> None:
    (project.folder / "in/d2").chmod(0)
    try:
        with permissions_hold():
            first = OnFirst()
            summary = run_with(project, first)
    finally:
        (project.folder / "in/d2").chmod(0o755)
    assert (summary.exit, summary.done, first.planned) == (1, 80, 0)
    assert any("d2" in note and "Permission denied" in note for note in summary.notes)
    assert (project.run().done, project.outputs()) == (40, expected(project))


def test_a_guard_that_speaks_after_the_first_job_ends_the_run_in_order(project: Project) -> None:
    first = OnFirst(lambda: (project.folder / "out").rename(project.folder / "away"))
    summary = run_with(project, first)
    assert summary.exit == 3 and "out" in summary.stopped
    shutil.rmtree(project.folder / "out", ignore_errors=True)
    (project.folder / "away").rename(project.folder / "out")
    assert project.run().exit == 0 and project.outputs() == expected(project)


def test_code_that_changes_while_files_are_listed_counts_for_all(project: Project) -> None:
    first = OnFirst(lambda: project.edit("stages/upper.py", "text.upper()", "text.upper() + '!'"))
    project.edit("pipeline.yaml", "pool: {processes: 2}", "pool: {processes: 2, maxtasksperchild: 10}")
    yaml = project.folder / "pipeline.yaml"
    summary = run(load_config(yaml), Selection(), [first], reload=lambda: load_config(yaml))
    assert (summary.exit, first.planned) == (0, 0)
    assert any("planned again" in note for note in summary.notes)
    assert project.outputs() == {name: made + b"!" for name, made in expected(project).items()}


def test_a_file_in_an_output_folder_has_the_run_wait_for_its_plan(project: Project) -> None:
    project.write("out/d1/050.txt", "somebody's")
    first = OnFirst()
    with pytest.raises(Exception, match="knows of"):
        run_with(project, first)
    assert first.planned == -1 and project.outputs() == {"d1/050.txt": b"somebody's"}


def test_a_file_that_appears_in_an_output_folder_is_not_replaced(project: Project) -> None:
    target = project.folder / "out/d2/100.txt"
    project.write("in/d0/000.txt", f"write {target}")
    (project.folder / "out").mkdir()
    first = OnFirst()
    project.edit("stages/upper.py", "Path(text", "Path(text.split()[1]).parent.mkdir(); Path(text")
    summary = run_with(project, first)
    assert (summary.exit, summary.failed, first.planned) == (1, 1, 0)
    assert [(str(origin), result.kind) for origin, result in summary.failures] == [("d2/100.txt", "collision")]
    assert target.read_text().startswith("write ")


def test_who_follows_a_run_may_leave_before_its_plan_is_whole(project: Project) -> None:
    outcomes = iterate(load_config(project.folder / "pipeline.yaml"))
    next(outcomes)
    outcomes.close()
    done = len(project.outputs())
    assert 0 < done < FILES
    again = project.run()
    assert (again.exit, again.up_to_date + again.done) == (0, FILES)


def test_a_run_that_streams_is_recorded_as_any_other(project: Project) -> None:
    summary = project.run()
    with ledger_of(project.folder) as ledger:
        rows = list(ledger.outputs.all())
        assert [row.source for row in rows] == [os.fsencode(name) for name in sorted(expected(project))]
        assert {row.status for row in rows} == {"done"} and not any(row.in_flight for row in rows)
        assert ledger.intents.get(rows[0].target) is None
    assert summary.done == FILES


def test_parts_are_made_while_files_are_listed(project: Project) -> None:
    project.write("stages/lines.py", LINES)
    project.write("in/d0/001.txt", "one\ntwo")
    project.edit("pipeline.yaml", "uses: upper", "uses: lines")
    project.edit("pipeline.yaml", "{name}", "{stem}/{part}.txt")
    first = OnFirst()
    summary = run_with(project, first)
    assert (summary.exit, summary.done, first.planned) == (0, FILES + 1, 0)
    made = project.outputs()
    assert [made[name] for name in sorted(made) if name.startswith("d0/001/")] == [b"one", b"two"]
    assert len(made) == FILES + 1
    assert project.run().up_to_date == FILES + 1


WHY = {
    "out/{stem}.txt": "files of different folders may have the same output of stage 'up', out/{stem}.txt",
    "{dir}/{name}": "the outputs of stage 'up' may lie among the inputs",
}


@pytest.mark.parametrize("template", ["out/{dir}/{name}", "out/{dir}/{stem}.x", "out/{dir}/a/{stem}{suffix}", "out/"])
def test_plan_says_that_a_pipeline_streams(project: Project, template: str, capsys: pytest.CaptureFixture[str]) -> None:
    project.edit("pipeline.yaml", "out/{dir}/{name}", template)
    assert main(["plan", str(project.folder / "pipeline.yaml"), "-v"]) == 0
    assert "a first run streams: it makes outputs while its files are still being listed" in capsys.readouterr().out


@pytest.mark.parametrize("template", WHY)
def test_plan_says_why_a_pipeline_does_not_stream(
    project: Project, template: str, capsys: pytest.CaptureFixture[str]
) -> None:
    project.edit("pipeline.yaml", "out/{dir}/{name}", template)
    assert main(["plan", str(project.folder / "pipeline.yaml"), "-v"]) == 0
    assert f"does not stream, but makes a whole plan first: {WHY[template]}" in capsys.readouterr().out


def ranges_of(project: Project, monkeypatch: pytest.MonkeyPatch) -> tuple[set[bytes], list[object], list[object]]:
    """Run, and return which ranges were digested meanwhile, what is kept of all, and what their records tell."""
    compared, found = list[ComparedRange](), dict[bytes, UnchangedRange]()
    expect = MadeRanges.expect

    def note(made: MadeRanges, each: ComparedRange, sources: Sequence[Source]) -> None:
        compared.append(each)
        expect(made, each, sources)
        made._found = found

    monkeypatch.setattr(MadeRanges, "expect", note)
    config = load_config(project.folder / "pipeline.yaml")
    run(config, Selection())
    with ledger_of(project.folder) as ledger:
        told = settled_ranges(config, ledger, output_specs(config, ledger, record=False), compared, {})
        return set(found), [ledger.unchanged.get(each.first) for each in compared], list(told)


# Names with which a range begins, so that a few files make several.
FIRSTS = [name for name in (f"d1/{number}.txt" for number in range(9999)) if not zlib.crc32(name.encode()) & 0x3FF]


@pytest.mark.parametrize("templates", [["out/{dir}/{name}"], ["a/{dir}/{name}", "b/{dir}/{name}"]], ids=len)
def test_ranges_are_digested_as_their_records_tell(
    project: Project, templates: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """While the outputs are made, also of ranges with files that no stage takes; the next run passes them over."""
    stages = [f"{{name: up{at}, from: inputs, uses: upper, output: '{each}'}}" for at, each in enumerate(templates)]
    project.edit("pipeline.yaml", "{name: up, uses: upper, output: 'out/{dir}/{name}'}", ", ".join(stages))
    for name in (*FIRSTS, "d1/5.png"):
        project.write(f"in/{name}", "\0" if name.endswith("png") else "text")
    found, kept, told = ranges_of(project, monkeypatch)
    assert len(kept) == len(FIRSTS) + 1 == len(found)
    assert kept == told
    assert project.run().up_to_date == (FILES + len(FIRSTS)) * len(templates)


def test_a_range_with_a_failed_file_is_not_digested(project: Project, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in FIRSTS:
        project.write(f"in/{name}", "bad" if name == FIRSTS[3] else "text")
    found, kept, told = ranges_of(project, monkeypatch)
    assert len(kept) == len(FIRSTS) + 1 == len(found) + 1 and FIRSTS[3].encode() not in found
    assert [each for each in kept if each] == told and len(told) == len(found)
