"""`metrics`: a file for Prometheus that every run writes, also one that has nothing to do, and `status --metrics`."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families
from support.program import Pipeline, wait_until
from support.project import Project

from pipeline.config.load import load_config
from pipeline.errors import RunHangs
from pipeline.operations.telling import tell_refused

YAML = """
name: photos
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
engine: serial
metrics: metrics/{name}.prom
"""
STAGE = """
import time
from pathlib import Path
HERE = Path(__file__).parent.parent
def upper(text: str) -> str:
    if text == "bad":
        raise ValueError("bad text")
    if text == "wait":
        while not (HERE / "go").exists():
            time.sleep(0.01)
    return text.upper()
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """A project of one text of three bytes, and a folder for the metrics."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", STAGE)
    project.write("in/a", "abc")
    (tmp_path / "metrics").mkdir()
    return project


def metrics(project: Project, file: str = "metrics/photos.prom") -> dict[str, float]:
    """The samples of the file, by name and labels but for that of the pipeline."""
    samples = {}
    for family in text_string_to_metric_families((project.folder / file).read_text()):
        for sample in family.samples:
            assert sample.labels.pop("pipeline") == "photos"
            name = sample.name.removeprefix("filemill_")
            samples[" ".join([name, *sample.labels.values()])] = sample.value
    return samples


@pytest.mark.parametrize("engine", ["serial", "pool"])
def test_nights(project: Project, pipeline: Pipeline, engine: str) -> None:
    """The last success moves on by every night that goes well, the oldest failure stays where it began."""
    project.edit("pipeline.yaml", "serial", engine)
    began = time.time()
    assert pipeline("pipeline.yaml").returncode == 0
    first = metrics(project)
    assert began < first["last_success_timestamp_seconds"] == first["last_run_timestamp_seconds"] < time.time()
    assert (first["files done"], first["input_files"], first["run_exit_code"]) == (1, 1, 0)
    assert (first["bytes in"], first["bytes out"]) == (3, 3) and 0 < first["run_duration_seconds"] < 100
    assert "oldest_failure_timestamp_seconds" not in first
    assert pipeline("pipeline.yaml").returncode == 0
    assert (project.folder / ".pipeline/photos/quiet-runs").exists()
    quiet = metrics(project)
    assert quiet["last_success_timestamp_seconds"] > first["last_success_timestamp_seconds"]
    assert (quiet["files done"], quiet["files up_to_date"], quiet["bytes in"]) == (0, 1, 0)
    project.write("in/b", "bad")
    assert pipeline("pipeline.yaml").returncode == 1
    failing = metrics(project)
    assert failing["last_success_timestamp_seconds"] == quiet["last_success_timestamp_seconds"]
    assert failing["last_run_timestamp_seconds"] > quiet["last_run_timestamp_seconds"]
    assert (failing["files failed"], failing["run_exit_code"]) == (1, 1)
    assert failing["bytes in"] == failing["bytes out"] == 0, "nothing was made of what failed, as the report has it"
    assert quiet["last_run_timestamp_seconds"] < failing["oldest_failure_timestamp_seconds"] < time.time()
    assert pipeline("pipeline.yaml").returncode == 1
    oldest = "oldest_failure_timestamp_seconds"
    assert metrics(project)[oldest] == failing[oldest]
    os.unlink(project.folder / "in/b")
    assert pipeline("pipeline.yaml").returncode == 0
    assert oldest not in metrics(project) and metrics(project)["run_exit_code"] == 0


def test_a_run_that_ends_before_it_begins(project: Project, pipeline: Pipeline) -> None:
    """Its exit code is there; what is known of files is that of the run before."""
    assert pipeline("pipeline.yaml").returncode == 0
    before = metrics(project)
    (project.folder / "in").rename(project.folder / "elsewhere")
    assert pipeline("pipeline.yaml").returncode == 3
    after = metrics(project)
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {"run_exit_code", "last_run_timestamp_seconds"} and after["run_exit_code"] == 3


def test_a_part_of_the_files_is_no_success(project: Project, pipeline: Pipeline) -> None:
    """Else a person's trial would hide that the nights have stopped."""
    assert pipeline("pipeline.yaml").returncode == 0
    before = metrics(project)
    assert pipeline("--only", "a").returncode == 0
    after = metrics(project)
    assert after["last_success_timestamp_seconds"] == before["last_success_timestamp_seconds"]
    assert after["last_run_timestamp_seconds"] > before["last_run_timestamp_seconds"]


@pytest.mark.parametrize("include", ["", "['*.txt', '*.prom']"])
def test_it_may_lie_among_the_inputs(project: Project, pipeline: Pipeline, include: str) -> None:
    """It is no input, of the pipeline or of a sample, however often it is written anew; another's is one."""
    root = f"{{root: in, include: {include}}}" if include else "in"
    project.edit("pipeline.yaml", "inputs: in", f"inputs: {root}")
    project.edit("pipeline.yaml", "metrics/{name}", "in/below/{name}")
    (project.folder / "in/below").mkdir()
    project.write("in/c.txt", "abc")
    project.write("in/other.prom", "abc")
    for _ in range(3):
        assert pipeline("pipeline.yaml").returncode == 0
    assert set(project.outputs()) == {"c.txt", "other.prom", *([] if include else ["a"])}
    assert metrics(project, "in/below/photos.prom")["files up_to_date"] == len(project.outputs())
    assert (project.folder / ".pipeline/photos/quiet-runs").exists()
    assert pipeline("--sample", "9", "--output-root", "sample").returncode == 0
    assert not list((project.folder / "sample").rglob("photos.prom"))
    ended = pipeline("--files-from", "-", "--json", cwd=project.folder)  # stdin is empty
    assert ended.returncode == 0


def folder_is_gone(project: Project) -> None:
    (project.folder / "metrics").rmdir()


def another_wrote_it(project: Project) -> None:
    project.write("metrics/photos.prom", "# The metrics of filemill's pipeline videos\n")


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (folder_is_gone, "No such file or directory"),
        (another_wrote_it, "is no file of this pipeline's metrics"),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("text", "code"), [("good", 0), ("bad", 1)])
def test_what_cannot_be_written_is_a_warning_and_no_more(
    project: Project, pipeline: Pipeline, fault: object, said: str, text: str, code: int
) -> None:
    """One line, whether there is something to do or not; the exit code is that of the run."""
    project.write("in/b", text)
    fault(project)  # type: ignore[operator]
    for _ in range(2):
        ended = pipeline("pipeline.yaml")
        assert ended.returncode == code and (project.folder / "out/a").read_text() == "ABC"
        (warning,) = (line for line in ended.stderr.splitlines() if line.startswith("warning: "))
        assert warning.startswith(f"warning: metrics: {project.folder}/metrics/photos.prom") and said in warning
    assert pipeline("status", "--metrics").returncode == 0


@pytest.mark.processes
def test_while_a_run_is_on(project: Project, pipeline: Pipeline) -> None:
    """`status --metrics` says what is in hand and how far the run has come; how the last one ended stays."""
    assert pipeline("pipeline.yaml").returncode == 0
    before = metrics(project)
    project.write("in/b", "wait")
    command = [sys.executable, "-m", "pipeline", "run", "-j", "2", "--engine", "pool"]
    with subprocess.Popen(command, cwd=project.folder) as process:
        wait_until(lambda: json.loads(pipeline("status", "--json").stdout).get("in_hand"))
        ended = pipeline("status", "--metrics")
        assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
        found = metrics(project)
        project.write("go", "")
        assert process.wait(60) == 0
    assert (found["files_in_hand"], found["files done"]) == (1, 0) and found["run_duration_seconds"] > 0
    assert found["last_run_timestamp_seconds"] == before["last_run_timestamp_seconds"]
    after = metrics(project)
    assert (after["files_in_hand"], after["files done"]) == (0, 1)
    assert pipeline("status", "--metrics").returncode == 0 and metrics(project) == after


@pytest.mark.processes
def test_who_finds_a_run_that_hangs_tells_what_that_holds(project: Project, pipeline: Pipeline) -> None:
    """The exit code alone is that of whoever was locked out."""
    assert pipeline("pipeline.yaml").returncode == 0
    before = metrics(project)
    project.write("in/b", "wait")
    command = [sys.executable, "-m", "pipeline", "run", "-j", "2", "--engine", "pool"]
    with subprocess.Popen(command, cwd=project.folder) as process:
        wait_until(lambda: json.loads(pipeline("status", "--json").stdout).get("in_hand"))
        tell_refused(load_config(project.folder / "pipeline.yaml"), RunHangs("the run of 02:30 has not moved"))
        found = metrics(project)
        project.write("go", "")
        assert process.wait(60) == 0
    assert (found["files_in_hand"], found["run_exit_code"]) == (1, 3)
    for name in ("last_success_timestamp_seconds", "input_files", "bytes in"):
        assert found[name] == before[name]


def test_without_the_word_there_is_no_file_to_write(project: Project, pipeline: Pipeline) -> None:
    project.edit("pipeline.yaml", "metrics: metrics/{name}.prom\n", "")
    ended = pipeline("status", "--metrics")
    assert ended.returncode == 2 and "has no 'metrics', which names the file to write" in ended.stderr
