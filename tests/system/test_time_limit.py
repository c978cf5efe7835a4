"""`--max-time`: a run ends in time, with all that was in hand done, and the next one does the rest."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from support.program import Pipeline
from support.project import NAMES, Project, ledger_of

from pipeline.config.load import load_config
from pipeline.messages import InHand
from pipeline.observer import RunObserver
from pipeline.operations.run import run
from pipeline.operations.time_limit import MaxTime
from pipeline.planning.selection import Selection
from pipeline.report.standing import read_progress
from pipeline.report.summary import Summary

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
engine: ENGINE
"""
POOL = "pool\npool: {processes: 2}"
ENGINES = pytest.mark.parametrize("engine", ["serial", POOL])
# Takes its time until there is a file `go`, for ever where the text says so.
STAGE = """
import time
from pathlib import Path
GO = Path(__file__).parent.parent / "go"
def upper(text: str) -> str:
    if text.startswith("bad"):
        raise ValueError("bad text")
    while text == "wait" and not GO.exists():
        time.sleep(0.01)
    if text == "slow" and not GO.exists():
        time.sleep(0.05)
    return text.upper()
"""
HOUR = MaxTime("1h", time.monotonic() + 3600)
# Far more than an hour.
DAYS_S = 1e6


def over() -> MaxTime:
    """Return a time limit that has passed."""
    return MaxTime("1s", time.monotonic() - 1)


@pytest.fixture
def project(tmp_path: Path, engine: str) -> Project:
    project = Project(tmp_path, YAML.replace("ENGINE", engine))
    project.write("stages/upper.py", STAGE)
    return project


def run_within(
    project: Project, max_time: MaxTime, observers: Sequence[RunObserver] = (), grace_s: float = 20.0
) -> Summary:
    """Run the pipeline with a time limit."""
    project._forget_modules()
    config = load_config(project.folder / "pipeline.yaml")
    return run(config, Selection(), observers, max_time=max_time, grace_s=grace_s)


def learn(project: Project, **seconds: float) -> None:
    """Have it be known what jobs with an output of each of these stages take, whose sources have about a megabyte."""
    with ledger_of(project.folder) as ledger:
        ledger.begin()
        known: list[Any] = [[[stage], 20, {"jobs": 9, "mean_s": each}] for stage, each in seconds.items()]
        small: list[Any] = [[[stage], 1, {"jobs": 9, "mean_s": 0.001}] for stage in seconds]
        ledger.facts.set("learnt", known + small)
        ledger.commit()


def set_facts(project: Project, facts: dict[str, Any]) -> None:
    """Have the ledger know of a run before what it told."""
    with ledger_of(project.folder) as ledger:
        ledger.begin()
        for name, value in facts.items():
            ledger.facts.set(name, value)
        ledger.commit()


def facts(project: Project) -> dict[str, Any]:
    """Return what was told, as the ledger knows it."""
    with ledger_of(project.folder) as ledger:
        return {name: ledger.facts.get(name) for name in ("told_notes", "told_held_at")}


BIG = "x" * 1_000_000


@ENGINES
def test_a_job_that_is_known_not_to_fit_is_not_started(project: Project) -> None:
    """Smaller ones are, however large it is, and however early its turn comes."""
    project.write("in/first", "x")
    assert project.run().done == 1
    learn(project, up=DAYS_S)
    project.write("in/big", BIG)
    for number in range(20):
        project.write(f"in/{number:02}", "x")
    summary = run_within(project, HOUR)
    assert (summary.exit, summary.done, summary.failed) == (5, 20, 0)
    assert summary.stopped == "by its time limit of 1h, all well so far; 1 file left; the same line resumes"
    assert not (project.folder / "out/big").exists()
    assert project.run().done == 1 and (project.folder / "out/big").exists()


@ENGINES
def test_a_file_that_fits_into_no_run_is_told_once(project: Project) -> None:
    """Else it would be left for ever, and nobody know; what the others take changes nothing of it."""
    project.write("in/first", "x")
    assert project.run().done == 1
    project.write("in/big", BIG)
    learn(project, up=DAYS_S)
    text = "big needs about 12 days: longer than --max-time 1h, so that no run with it does that"
    for is_new in (True, False):
        summary = run_within(project, MaxTime("1h", time.monotonic() + 3600, 3600.0))
        assert (summary.exit, summary.notes) == (5, [text])
        assert (text in summary.news()) is is_new
    learn(project, up=3000.0)  # only what is left of this run is too short
    assert run_within(project, MaxTime("1h", time.monotonic() + 60, 3600.0)).notes == []


@ENGINES
def test_of_a_first_run_the_rest_is_left(project: Project) -> None:
    """Nothing is known of any file, and some are done while others are still looked for; nothing is half done."""
    for number in range(300):
        project.write(f"in/{number:03}", "slow")
    summary = run_within(project, MaxTime("2s", time.monotonic() + 2))
    assert summary.exit == 5 and summary.stopped.startswith("by its time limit of 2s, all well so far; ")
    assert summary.done == len(project.outputs()) < 300 and not summary.cut_off
    if "left" in summary.stopped:  # else the time was up while files were still looked for
        assert f"; {300 - summary.done} files left; " in summary.stopped
    project.write("go", "")
    rest = project.run()
    assert (rest.exit, rest.done) == (0, 300 - summary.done) and len(project.outputs()) == 300


@pytest.mark.parametrize("engine", [POOL])
def test_the_time_may_be_up_before_all_files_are_found(project: Project) -> None:
    """A first run that does its files as it finds them ends then, and knows of no number that is left."""
    for number in range(10_000):
        project.write(f"in/{number}", "x")
    summary = run_within(project, over())
    assert (summary.exit, summary.done, summary.cut_off) == (5, 0, [])
    assert summary.stopped == "by its time limit of 1s, all well so far; the same line resumes"
    assert summary.sources < 10_000 and project.outputs() == {}


class UpOnceInHand(RunObserver):
    """Has the time be up a moment after a job is in hand, however long that takes to begin."""

    def __init__(self) -> None:
        self.limit = MaxTime("1h", time.monotonic() + 3600)
        self.is_up = False

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        if jobs and not self.is_up:
            self.is_up = True
            object.__setattr__(self.limit, "deadline", time.monotonic())


@ENGINES
def test_what_is_in_hand_far_beyond_the_limit_is_cut_off(project: Project) -> None:
    """After the grace, as after a signal; the file is named, and no attempt is counted: it is held by no night."""
    project.edit("pipeline.yaml", "engine:", "errors: {hold_after: 1}\nengine:")
    project.write("in/a", "wait")
    for is_new in (True, False):
        up = UpOnceInHand()
        summary = run_within(project, up.limit, [up], grace_s=0.2)
        assert summary.exit == 5 and "what was in hand was cut off; 1 file left" in summary.stopped
        assert len(summary.cut_off) == 1 and summary.cut_off[0].startswith("a: cut off after")
        assert summary.notes[0].startswith("cut off by the time limit: a; what is cut off each time needs a longer ")
        assert bool(summary.news()) is is_new
    project.write("go", "")
    assert project.run().done == 1


@pytest.mark.parametrize("engine", [POOL])
def test_what_is_to_be_tried_again_is_left(project: Project) -> None:
    """It has not failed, and counts no attempt."""
    project.edit("pipeline.yaml", "engine:", "retry: {max: 1, backoff: 1h}\nengine:")
    tell = 'if text.startswith("bad"):\n        (GO.parent / "tried").touch()\n'
    project.edit("stages/upper.py", 'if text.startswith("bad"):\n', tell)
    project.write("in/a", "wait")
    project.write("in/b", "bad")

    class UpOnceTried(UpOnceInHand):
        def on_in_hand(self, jobs: Sequence[InHand]) -> None:
            if (project.folder / "tried").exists():
                super().on_in_hand(jobs)
                project.write("go", "")

    up = UpOnceTried()
    summary = run_within(project, up.limit, [up], grace_s=3600)
    assert (summary.exit, summary.done, summary.failed) == (5, 1, 0)
    assert summary.stopped == "by its time limit of 1h, all well so far; 1 file left; the same line resumes"
    with ledger_of(project.folder) as ledger:
        assert not list(ledger.failures.all())


@ENGINES
def test_what_ends_within_the_grace_is_kept(project: Project) -> None:
    """It is recorded as any other, and if it was the last one, all is done."""
    project.write("in/a", "wait")

    class Going(UpOnceInHand):
        def on_in_hand(self, jobs: Sequence[InHand]) -> None:
            if self.is_up:
                project.write("go", "")
            super().on_in_hand(jobs)

    going = Going()
    summary = run_within(project, going.limit, [going], grace_s=3600)
    assert (summary.exit, summary.done, summary.stopped) == (0, 1, "")


@ENGINES
def test_nothing_to_do_is_0_and_nothing_begins_when_the_time_is_up(project: Project) -> None:
    """Also planning counts, which may take all of the time."""
    for name in "abc":
        project.write(f"in/{name}", "x")
    summary = run_within(project, over())
    assert (summary.exit, summary.done, project.outputs()) == (5, 0, {})
    assert "; 3 files left; " in summary.stopped and not summary.cut_off
    assert project.run().done == 3
    assert run_within(project, over()).exit == 0


@pytest.mark.parametrize("engine", ["serial"])
def test_a_failed_file_is_graver_and_no_orphan_is_removed(project: Project) -> None:
    """The exit code is 1, and yet the run has not come to its end: only one that has may prune."""
    project.edit("pipeline.yaml", "engine:", "prune: {max: 100%}\nengine:")
    for name in ("first", "gone"):
        project.write(f"in/{name}", "x")
    assert project.run().done == 2
    learn(project, up=DAYS_S)
    (project.folder / "in/gone").unlink()
    project.write("in/big", BIG)
    project.write("in/bad", "bad")
    told = {"told_notes": ["said before"], "told_held_at": 1.0}
    set_facts(project, told)
    summary = run_within(project, HOUR)
    assert (summary.exit, summary.failed) == (1, 1)
    assert facts(project) == told  # it has not met all files of which the run before told
    assert summary.stopped == "by its time limit of 1h; 1 file left; the same line resumes"
    assert (project.folder / "out/gone").exists() and project.orphans() == ["out/gone"]
    (project.folder / "in/bad").unlink()
    summary = run_within(project, HOUR)
    assert summary.exit == 5 and (project.folder / "out/gone").exists()
    assert project.run().pruned == 1 and not (project.folder / "out/gone").exists()
    assert facts(project) == {"told_notes": [], "told_held_at": None}


@ENGINES
def test_a_group_waits_for_all_its_members(project: Project) -> None:
    """No sheet is made of half of a folder; what is left of groups is left as files are."""
    sheet = "  - {name: sheet, from: up, uses: names, gather: true, output: out/sheet.txt}\n"
    project.edit("pipeline.yaml", "engine:", f"{sheet}engine:")
    project.write("stages/names.py", NAMES)
    project.write("in/first", "x")
    assert project.run().done == 2
    learn(project, up=DAYS_S)
    project.write("in/big", BIG)
    project.write("in/small", "x")
    before = (project.folder / "out/sheet.txt").read_text()
    summary = run_within(project, HOUR)
    assert (summary.exit, summary.done) == (5, 1) and (project.folder / "out/sheet.txt").read_text() == before
    assert project.run().done == 2 and "small" in (project.folder / "out/sheet.txt").read_text()


@ENGINES
def test_as_the_command_line_has_it(project: Project, pipeline: Pipeline) -> None:
    """Said with what to do, told by `status`, and a success for a monitor."""
    project.write("in/a", "x")
    done = pipeline("--max-time", "0s")
    assert done.returncode == 5
    assert read_progress(project.folder / ".pipeline/pipeline")[1]["exit"] == 5
    assert "with exit 5, stopped: by its time limit of 0s, all well so far; 1 file left" in pipeline("status").stdout
    assert pipeline("status", "--check", "--max-age", "1h").returncode == 0
    assert pipeline("--max-time=1h").returncode == 0 and project.outputs() == {"a": b"X"}
