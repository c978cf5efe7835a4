"""`runs`: which runs there were, what each did, and what cost it most."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support.program import Pipeline, wait_until
from support.project import MOODY, ONE_STAGE, Project, ledger_of

from pipeline.files.quiet_runs import QuietRun, add_quiet_run

STATE = ".pipeline/pipeline"
SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(100)\n    return text\n"


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three texts and a bad one, after two runs."""
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    for name, text in (("a", "text"), ("b", "longer text"), ("sub/c", "the longest text"), ("bad", "bad")):
        project.write(f"in/{name}", text)
    assert (project.run().done, project.run().failed) == (3, 1)
    return project


def listed(pipeline: Pipeline, *arguments: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in pipeline("runs", *arguments, "--json").stdout.splitlines()]


def fold_all_but_last(project: Project) -> None:
    with ledger_of(project.folder) as ledger:
        *old, last = ledger.runs.past()
        ledger._connection.execute("DELETE FROM runs WHERE id < ?", (last.number,))
        ledger.days.add(each._replace(started_ns=10**18) for each in old)


# -- the list ----------------------------------------------------------------------------------------------------------


def test_a_line_for_each_run_the_newest_last(project: Project, pipeline: Pipeline) -> None:
    """Number, start, how long it took, exit, the counts that matter, and what else it said."""
    said = pipeline("runs")
    header, *lines = said.stdout.splitlines()
    assert header.split() == ["run", "started", "took", "exit", "done", "failed", "new", "held"]
    moment, took = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", r"\d+(?:\.\d+)? m?s"
    assert re.fullmatch(rf"  1  {moment} +{took}     1     3       1.*", lines[0]), lines[0]
    assert re.fullmatch(rf"  2  {moment} +{took}     1 +1 +3 up to date", lines[1]), lines[1]
    assert (said.returncode, said.stderr, len(lines)) == (0, "", 2)


def test_the_list_as_json(project: Project, pipeline: Pipeline) -> None:
    """An object for each run, and before them one for each day, which has the key `day`."""
    first, second = listed(pipeline)
    assert (first["number"], first["exit"], first["done"], first["failed"]) == (1, 1, 3, 1)
    assert first["started"] <= first["ended"] <= second["started"] and first["host"] == os.uname().nodename
    fold_all_but_last(project)
    day, run = listed(pipeline)
    assert run == second
    assert (day["day"], day["first_run"], day["last_run"], day["runs"], day["exits"]) == (
        "2001-09-09", 1, 1, 1, {"1": 1},
    )  # fmt: skip
    assert day["totals"]["done"] == 3


def test_days_come_first(project: Project, pipeline: Pipeline) -> None:
    """What is oldest stands above, as all else."""
    fold_all_but_last(project)
    said = pipeline("runs").stdout.splitlines()
    assert said[0].startswith("2001-09-09  1 run (1), ") and ", exit 1: 1, " in said[0] and "3 done" in said[0]
    assert said[1] == "" and said[2].split()[0] == "run" and said[3].split()[0] == "2"


def test_runs_that_needed_no_ledger_are_listed(project: Project, pipeline: Pipeline) -> None:
    """With the numbers that they will have, before and after the ledger learns of them."""
    (project.folder / "in/bad").unlink()
    last = project.run().run
    for number in range(2):
        add_quiet_run(project.folder / STATE, QuietRun(f"20260101-000000-000{number}", last, 10**18, 10**18 + 1, 3, 3))
    before = listed(pipeline)
    assert [each["number"] for each in before] == [1, 2, 3, 4, 5] and before[-1]["run"] == "20260101-000000-0001"
    project.run()
    assert [dict(each, ended=0) for each in listed(pipeline)[:5]] == [dict(each, ended=0) for each in before]


def test_no_run_yet(tmp_path: Path, pipeline: Pipeline) -> None:
    """Nothing on stdout, and no state is made."""
    Project(tmp_path)
    said = pipeline("runs")
    assert (said.returncode, said.stdout, said.stderr) == (0, "", "no run is on record yet\n")
    said = pipeline("runs", "show")
    assert (said.returncode, said.stderr) == (2, "no run 'last': none is on record yet\n")
    assert not (tmp_path / ".pipeline").exists()


@pytest.mark.processes
def test_a_run_that_is_running_and_one_that_was_cut_off(tmp_path: Path, pipeline: Pipeline) -> None:
    """Neither has an exit code, and a person wants to know which it is."""
    project = Project(tmp_path)
    project.write("stages/upper.py", SLOW)
    project.write("in/a", "text")
    process = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=tmp_path, stderr=subprocess.DEVNULL)
    wait_until(lambda: pipeline("runs").stdout.rstrip().endswith("is running"))
    assert "\n  is running\n" in pipeline("runs", "show").stdout
    process.send_signal(signal.SIGKILL)
    process.wait(100)
    wait_until(lambda: pipeline("runs").stdout.rstrip().endswith("was cut off"))
    assert listed(pipeline)[0]["exit"] is None


# -- one run -----------------------------------------------------------------------------------------------------------


def test_everything_about_a_run(project: Project, pipeline: Pipeline) -> None:
    """The same by its number, its name, and from the last one."""
    run = listed(pipeline)[0]["run"]
    said = pipeline("runs", "show", "1").stdout
    assert said == pipeline("runs", "show", run).stdout == pipeline("runs", "show", "last-1").stdout
    lines = said.splitlines()
    assert lines[0] == f"run 1 ({run})"
    assert lines[2].startswith("  ended: ") and lines[2].endswith(", with exit 1")
    assert lines[3] == f"  by: {os.uname().nodename}, filemill 0.1.0 Python {sys.version.split()[0]}"
    assert lines[4].startswith("  outputs: 3 done, 1 failed") and lines[4].endswith("; of 4 sources")
    assert f"  log: {project.folder}/{STATE}/runs/{run}.log" in lines
    assert lines[5].startswith("  sizes: ") and lines[5].endswith(" bytes out")
    assert f"  report: {project.folder}/{STATE}/reports/{run}.html" in lines
    for suffix in ("html", "json"):
        (project.folder / STATE / "reports" / f"{run}.{suffix}").unlink()
    said = pipeline("runs", "show", "1").stdout
    assert "  report: none" in said.splitlines()
    assert pipeline("runs", "show").stdout == pipeline("runs", "show", "last").stdout != said


def test_a_run_that_was_stopped_says_why(tmp_path: Path, pipeline: Pipeline) -> None:
    """In the list too; a refusal as well as a limit."""
    project = Project(tmp_path, ONE_STAGE + "errors: {max: 0%}\n")
    project.write("stages/upper.py", MOODY)
    project.write("in/a", "bad")
    project.write("in/b", "good")
    assert project.run().exit == 4
    assert "  stopped: 1 of 2 files failed already, and errors.max is 0%; " in pipeline("runs", "show").stdout
    assert "stopped: 1 of 2 files failed already" in pipeline("runs").stdout
    assert project.run(only="b").done == 1
    (tmp_path / "in").rename(tmp_path / "away")
    (tmp_path / "in").mkdir()
    assert pipeline("run").returncode == 3
    assert "  stopped: " in pipeline("runs", "show").stdout and "stopped" in listed(pipeline)[-1]


def test_the_slowest_and_the_biggest(project: Project, pipeline: Pipeline) -> None:
    """So many of each, with what is known of them; of outputs that were made again the later run tells."""
    with ledger_of(project.folder) as ledger:
        for source, seconds in ((b"a", 3.0), (b"b", 1.0), (b"sub/c", 2.0)):
            ledger._connection.execute("UPDATE outputs SET seconds = ? WHERE source = ?", (seconds, source))
    said = json.loads(pipeline("runs", "show", "1", "--slowest", "2", "--json").stdout)
    assert [(each["source"], each["seconds"]) for each in said["slowest"]] == [("a", 3.0), ("sub/c", 2.0)]
    assert [(each["source"], each["bytes_out"]) for each in said["biggest"]] == [("sub/c", 16), ("b", 11)]
    assert said["slowest"][0]["stages"] == ["up"] and said["slowest"][0]["bytes_in"] == 4
    lines = pipeline("runs", "show", "1", "--slowest", "9" * 30).stdout.split("\n\n")[1].splitlines()
    assert lines[0] == "slowest:" and [line.split()[-2] for line in lines[2:]] == ["a", "sub/c", "b"]
    project.write("in/a", "another text")
    project.run()
    said = json.loads(pipeline("runs", "show", "1", "--slowest", "20", "--json").stdout)
    assert [each["source"] for each in said["slowest"]] == ["sub/c", "b"]
    assert "slowest: nothing on record was made by this run" in pipeline("runs", "show", "2", "--slowest", "3").stdout


def test_a_folded_run_is_shown_as_its_day(project: Project, pipeline: Pipeline) -> None:
    fold_all_but_last(project)
    assert pipeline("runs", "show", "1").stdout.startswith("2001-09-09  1 run (1), ")
    assert json.loads(pipeline("runs", "show", "1", "--json").stdout)["day"] == "2001-09-09"
    said = pipeline("runs", "show", "last-1")
    assert said.returncode == 2 and "there are the runs 2 to 2, and 1 to 1 by the day" in said.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["show", "99"], "no run '99': there are the runs 1 to 2; 'last' is the last one"),
        (["show", "last-2"], "no run 'last-2': there are the runs 1 to 2"),
        (["show", "0"], "no run '0': there are"), (["show", "x\x1b[31m"], r"no run 'x\x1b[31m': there are"),
        (["show", "9" * 5000], "there are the runs 1 to 2"), (["show", "²"], "no run '²'"),
        (["99"], "'99': to be asked as 'runs', or 'runs show RUN'"),
        (["show", "1", "2"], "to be asked as 'runs', or 'runs show RUN'"),
        (["--slowest", "3"], "--slowest: a number from 1 on, with 'runs show'"),
        (["show", "--slowest", "0"], "--slowest: a number from 1 on, with 'runs show'"),
    ],
)  # fmt: skip
def test_what_is_asked_wrongly_is_said(project: Project, pipeline: Pipeline, words: list[str], said: str) -> None:
    """Exit 2 and one line, with the runs that there are."""
    done = pipeline("runs", *words)
    assert done.returncode == 2 and said in done.stderr and len(done.stderr.splitlines()) == 1


def test_the_pipeline_may_stand_anywhere(project: Project, pipeline: Pipeline) -> None:
    project.write("elsewhere/x", "")
    wanted = pipeline("runs", "show", "1").stdout
    there = project.folder / "elsewhere"
    for words in (["../pipeline.yaml", "show", "1"], ["show", "1", "../pipeline.yaml"],
                  ["-f", "../pipeline.yaml", "show", "1"], ["show", "-f", "../pipeline.yaml", "1"]):  # fmt: skip
        assert pipeline("runs", *words, cwd=there).stdout == wanted, words
    assert len(pipeline("runs", "../pipeline.yaml", cwd=there).stdout.splitlines()) == 3


def test_nothing_in_names_or_reasons_acts_on_a_terminal(tmp_path: Path, pipeline: Pipeline) -> None:
    """Neither of sources nor of what stopped a run, nor of the folder; JSON has them whole."""
    project = Project(tmp_path)
    project.write(os.fsdecode(b"in/a\x1b[31m\n\xff"), "text")
    project.run()
    with ledger_of(tmp_path) as ledger:
        more = {"notes": {"\x07": 1}, "bytes_in": 1_234_567}
        stopped = json.dumps({"stopped": "\x1b[31mred\n" + "x" * 10_000, **more})
        ledger._connection.execute("UPDATE runs SET summary = json_patch(summary, ?)", (stopped,))
    for words in (["runs"], ["runs", "show", "--slowest", "5"]):
        said = pipeline(*words).stdout
        assert all(line.isprintable() for line in said.splitlines()) and max(map(len, said.splitlines())) < 700
    assert "; of 1 source\n  sizes: 1.2 MB in, " in said
    said = json.loads(pipeline("runs", "show", "--slowest", "5", "--json").stdout)
    assert said["slowest"][0]["source"] == "a\x1b[31m\n\\xff" and "source_b64" in said["slowest"][0]


# -- of a pipeline that does not load ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "text"),
    [("pipeline.yaml", ONE_STAGE + "inputs: [\n"), ("pipeline.yaml", ONE_STAGE + "nonsense: 1\n"),
     ("stages/upper.py", "def upper(:\n")],
)  # fmt: skip
@pytest.mark.parametrize("words", [["runs"], ["runs", "--json"], ["runs", "show", "1"], ["report"], ["report", "1"]])
def test_runs_and_reports_of_a_pipeline_that_does_not_load(
    project: Project, pipeline: Pipeline, file: str, text: str, words: list[str]
) -> None:
    """The same as before, and one line that says what is wrong: just then a person wants them."""
    before = pipeline(*words).stdout
    project.write(file, text)
    said = pipeline(*words)
    assert (said.returncode, said.stdout, said.stderr.count("\n")) == (0, before, 1)
    assert said.stderr.startswith("pipeline.yaml:") and f"from its state {project.folder / STATE}" in said.stderr


def test_a_state_that_may_be_of_another_pipeline_is_not_shown(project: Project, pipeline: Pipeline) -> None:
    """One that another file ran with, or none at all: then all that is said is what is wrong."""
    state = project.folder / STATE
    project.write("other.yaml", "state: .pipeline/pipeline\ninputs: [\n")
    project.write("none.yaml", "inputs: [\n")
    assert json.loads((state / "progress.json").read_text())["yaml"] == "pipeline.yaml"
    for file in ("other.yaml", "none.yaml", "missing.yaml"):
        said = pipeline("runs", file)
        assert (said.returncode, said.stdout) == (2, "") and said.stderr.startswith(file)
