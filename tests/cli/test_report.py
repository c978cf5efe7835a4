"""Where the report of a run lies, and what has changed from one run to another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.program import Pipeline
from support.project import MOODY, Project, ledger_of

YAML = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{dir}/{name}'}
engine: serial
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project that has run twice: first two of three files are made, then one that is new, while one fails anew."""
    made = Project(tmp_path, YAML)
    made.write("stages/upper.py", MOODY)
    for name, text in (("a", "text"), ("b", "text"), ("c", "bad")):
        made.write(f"in/{name}", text)
    assert made.run().exit == 1
    made.write("in/d", "four")
    made.write("in/c", "skip")
    made.write("in/e", b"\xff")
    assert made.run().exit == 1
    return made


def test_the_path_of_a_report(project: Project, pipeline: Pipeline) -> None:
    """That of the last run, or of one that is named: an absolute path alone on stdout, which a shell can use."""
    folder = project.folder / ".pipeline/pipeline/reports"
    last = json.loads((folder / "report.json").read_text())["run"]
    (first,) = {each.stem for each in folder.glob("2*.html")} - {last}
    ways = {
        (): last, ("pipeline.yaml",): last, ("last",): last, ("2",): last, (last,): last, ("1",): first,
        ("last-1",): first, ("pipeline.yaml", "1"): first, ("1", "pipeline.yaml"): first,
        ("-f", "pipeline.yaml", first): first,
    }  # fmt: skip
    for words, run in ways.items():
        ended = pipeline("report", *words)
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, f"{folder / run}.html\n", ""), words


def test_without_a_page_it_is_the_json(project: Project, pipeline: Pipeline) -> None:
    for page in (project.folder / ".pipeline/pipeline/reports").glob("*.html"):
        page.unlink()
    assert pipeline("report").stdout.endswith(".json\n")


def test_the_report_itself(project: Project, pipeline: Pipeline) -> None:
    ended = pipeline("report", "--json", "1")
    assert ended.returncode == 0
    assert json.loads(ended.stdout)["counts"]["done"] == 2


def test_two_runs_side_by_side(project: Project, pipeline: Pipeline) -> None:
    """Counts with their difference, other figures in percent, and what failed in only one of them."""
    ended = pipeline("report", "--compare", "last-1", "2")
    assert (ended.returncode, ended.stderr) == (0, "")
    lines = ended.stdout.splitlines()
    rows = {line[:16].strip(): line[16:].split() for line in lines}
    assert lines[0].split() == ["run", "1", "run", "2", "change"]
    assert rows["sources"] == ["3", "5", "+2"] and rows["done"] == ["2", "1", "-1"]
    assert rows["exit"] == ["1", "1"] and rows["skipped"] == ["0", "1", "+1"]
    assert rows["bytes in"] == ["8", "bytes", "4", "bytes", "-50%"]
    assert lines[-2].startswith("new: up: error: ") and lines[-2].endswith("(1 file, e.g. e)")
    assert lines[-1] == "gone: up: error: ValueError (1 file, e.g. c)"
    compared = json.loads(pipeline("report", "--compare", "1", "2", "--json").stdout)
    assert [each["number"] for each in compared["runs"]] == [1, 2]
    assert {"name": "done", "unit": "outputs", "before": 2, "after": 1} in compared["rows"]
    assert [each["example"] for each in (*compared["new"], *compared["gone"])] == ["e", "c"]


@pytest.mark.parametrize("words", [("7",), ("last-2",), ("--compare", "1", "nights")])
def test_a_run_that_is_not_there(words: tuple[str, ...], project: Project, pipeline: Pipeline) -> None:
    """It says which there are, as `runs show` does."""
    ended = pipeline("report", *words)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"no run '{words[-1]}': there are the runs 1 to 2; 'last' is the last one\n"


def test_a_run_without_a_report(project: Project, pipeline: Pipeline) -> None:
    """The last run is the same for `report` and `runs`; without a word it is the last report that is shown."""
    folder = project.folder / ".pipeline/pipeline/reports"
    second = json.loads((folder / "report.json").read_text())["run"]
    (project.folder / "in/e").unlink()
    assert project.run().exit == 0
    assert pipeline("runs", "show", "last").stdout.startswith("run 3 (")
    ended = pipeline("report", "last")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "run 3 left no report, since it had nothing to do; the last one is that of run 2\n"
    assert pipeline("report").stdout == pipeline("report", "last-1").stdout == f"{folder / second}.html\n"
    (folder / f"{second}.json").write_text("{")  # one that is damaged is none
    ended = pipeline("report", "2")
    assert ended.stderr == "run 2 left no report, or it is not kept any more; the last one is that of run 1\n"
    with ledger_of(project.folder) as ledger:
        ledger._connection.execute("UPDATE runs SET exit = NULL WHERE id = 3")
    ended = pipeline("report", "last")
    assert ended.stderr == "run 3 left no report, since it was cut off; the last one is that of run 1\n"


DAMAGED: dict[str, Callable[[dict[str, Any]], object]] = {
    "a list": lambda fields: [fields],
    "another format": lambda fields: fields | {"format": 2},
    "no number": lambda fields: fields | {"number": "2"},
    "no counts": lambda fields: fields | {"counts": [1, 2]},
    "a text as a count": lambda fields: fields | {"counts": {"done": "many"}},
    "stages without seconds": lambda fields: fields | {"stages": [{"name": "up"}]},
    "a time that is none": lambda fields: fields | {"started": 1e300},
    "seconds that are none": lambda fields: fields | {"seconds": float("nan")},
    "failures of numbers": lambda fields: fields | {"failures": [1]},
    "nothing": lambda fields: None,
}


@pytest.mark.parametrize("damage", DAMAGED)
def test_a_damaged_report_is_none(damage: str, project: Project, pipeline: Pipeline) -> None:
    """All that is read of a report is looked at before."""
    file = project.folder / ".pipeline/pipeline/reports" / f"{last_run(project)}.json"
    file.write_text(json.dumps(DAMAGED[damage](json.loads(file.read_text()))))
    is_passed_over(project, pipeline)


@pytest.mark.parametrize("kind", ["too deep", "a FIFO", "a folder", "no text", "a loop"])
def test_what_cannot_be_a_report_is_none(kind: str, project: Project, pipeline: Pipeline) -> None:
    """And nobody waits for it."""
    file = project.folder / ".pipeline/pipeline/reports" / f"{last_run(project)}.json"
    file.unlink()
    if kind == "a FIFO":
        os.mkfifo(file)
    elif kind == "a folder":
        file.mkdir()
    elif kind == "a loop":
        file.symlink_to(file.name)
    else:
        file.write_bytes(b"[" * 100_000 if kind == "too deep" else b"\xff")
    is_passed_over(project, pipeline)


def last_run(project: Project) -> str:
    with ledger_of(project.folder) as ledger:
        return [run.name for run in ledger.runs.past()][-1]


def is_passed_over(project: Project, pipeline: Pipeline) -> None:
    """Only the first of two reports is one."""
    assert json.loads(pipeline("report", "--json").stdout)["number"] == 1
    why = "run 2 left no report, or it is not kept any more; the last one is that of run 1\n"
    for words in (("2",), ("--compare", "1", "2")):
        ended = pipeline("report", *words)
        assert (ended.returncode, ended.stderr) == (2, why)


def test_a_report_outlasts_the_row_of_its_run(project: Project, pipeline: Pipeline) -> None:
    """That of a run which was folded into its day by its number, that of one which a lost ledger knew by its name."""
    with ledger_of(project.folder) as ledger:
        first, _ = ledger.runs.past()
        ledger._connection.execute("DELETE FROM runs WHERE id = 1")
        ledger.days.add([first])
    assert pipeline("report", "1").stdout == pipeline("report", first.name).stdout != ""
    (project.folder / f".pipeline/pipeline/reports/{first.name}.json").unlink()
    ended = pipeline("report", "1")
    assert ended.stderr == "run 1 left no report, or it is not kept any more; the last one is that of run 2\n"


def test_before_the_first_run(tmp_path: Path, pipeline: Pipeline) -> None:
    """Asking makes nothing."""
    Project(tmp_path)
    ended = pipeline("report")
    assert ended.returncode == 2 and "there is no report in " in ended.stderr
    assert not (tmp_path / ".pipeline").exists()


@pytest.mark.parametrize(("opens", "exit_code"), [("true", 0), ("false", 3)])
def test_opening_the_page(opens: str, exit_code: int, project: Project, pipeline: Pipeline) -> None:
    """The path is printed in any case; without a browser one line says so."""
    ended = pipeline(
        "report", "--open", BROWSER=opens, DISPLAY="", PATH="/nowhere" if opens == "false" else "/usr/bin:/bin"
    )
    assert ended.returncode == exit_code and ended.stdout.endswith(".html\n")
    assert ("no browser can be started here" in ended.stderr) == bool(exit_code)


def test_words_that_contradict_each_other(project: Project, pipeline: Pipeline) -> None:
    for words in (("1", "--compare", "1", "2"), ("--open", "--compare", "1", "2"), ("1", "2")):
        ended = pipeline("report", *words)
        assert (ended.returncode, ended.stdout) == (2, ""), words
        assert ended.stderr
