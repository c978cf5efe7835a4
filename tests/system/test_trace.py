"""`trace` in pipeline.yaml: a file with one row a job, whatever runs the jobs and becomes of them."""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from support.mounts import mounted
from support.project import ONE_STAGE, Project, every_kind

pytestmark = pytest.mark.processes

TRACE = "trace: 'runs/{name}/{run}.ndjson'\n"
POOL = {"serial": "engine: serial", "pool": "pool: {processes: 2}"}
TWO_POOLS = """
inputs: in
stages:
  - {name: up, uses: upper, output: 'out/{name}'}
  - {name: more, from: up, uses: upper, pool: {processes: 1}, output: 'out/more-{name}'}
pool: {processes: 1}
"""
# Each text says what becomes of it.
DEEDS = """
import os, subprocess, sys, time
from pipeline import Skip
def upper(text: str, *, mark: str = "") -> str:
    if text == "skip":
        raise Skip("not wanted")
    if text == "bad":
        raise ValueError("bad text")
    if text == "die":
        os._exit(7)
    if text == "slow":
        time.sleep(100)
    if text == "busy":
        while time.process_time() < 0.2: pass
    if text == "child":
        subprocess.run([sys.executable, "-c", "import time\\nwhile time.process_time() < 0.2: pass"], check=True)
    return text.upper() + mark
"""


def traces(project: Project) -> list[Path]:
    """The traces of a project, the oldest first."""
    return sorted((project.folder / "runs/pipeline").glob("*"), key=lambda path: path.stat().st_mtime_ns)


def last_rows(project: Project) -> dict[str, dict[str, Any]]:
    """The rows of the last trace, by the source or group of each."""
    found = [json.loads(line) for line in traces(project)[-1].read_text().splitlines()]
    named = {row["source"] or f"{row['stage']} {row['group']}": row for row in found}
    assert len(named) == len(found), "one row a job"
    return named


def project_of(folder: Path, engine: str, *texts: str) -> Project:
    """A project with a trace over these texts, each in a file of that name."""
    project = Project(folder, ONE_STAGE.replace("engine: serial", engine) + TRACE)
    project.write("stages/upper.py", DEEDS)
    for text in texts:
        project.write(f"in/{text}", text)
    return project


def test_every_job_has_a_row(tmp_path: Path) -> None:
    """Those that fail, are left out, or cost their worker too; with what it took and which worker had it."""
    began = time.time()
    project = project_of(tmp_path, "pool: {processes: 2}\ntimeout: 2s", "ok", "bad", "skip", "die", "slow")
    summary = project.run()
    assert (summary.done, summary.skipped, summary.failed, summary.exit) == (1, 1, 3, 1)
    rows = last_rows(project)
    assert traces(project)[0].name == f"{summary.run}.ndjson"
    assert {name: (row["outcome"], row.get("kind")) for name, row in rows.items()} == {
        "ok": ("done", None), "skip": ("skipped", None), "bad": ("failed", "error"), "die": ("failed", "crashed"),
        "slow": ("failed", "timeout"),
    }  # fmt: skip
    for row in rows.values():
        assert began - 1 < row["start"] < time.time() + 1 and row["worker"] in range(6) and row["stage"] == "up"
        assert (row["bytes_in"], row["bytes_out"]) == (len(row["source"]), 2 if row["source"] == "ok" else 0)
    assert rows["slow"]["seconds"] >= 2 and rows["slow"]["cpu"] is rows["die"]["cpu"] is None
    assert 0 < rows["ok"]["seconds"] < 1 and rows["ok"]["peak_rss"] > 1_000_000


@pytest.mark.parametrize("engine", POOL)
def test_cpu_is_that_of_the_job_and_of_the_programs_it_runs(tmp_path: Path, engine: str) -> None:
    project = project_of(tmp_path, POOL[engine], "ok", "busy", "child")
    assert project.run().done == 3
    rows = last_rows(project)
    assert rows["child"]["cpu"] >= 0.2 and rows["ok"]["cpu"] < 0.2
    # The time of the process counts, so that it may have spent some of it before.
    assert engine == "serial" or rows["busy"]["cpu"] > 0.05


def test_parts_and_groups_have_rows(tmp_path: Path) -> None:
    """A file is one row with all of its outputs, and so is a group, by its name."""
    project = every_kind(tmp_path)
    project.edit("pipeline.yaml", "engine: serial", "pool: {processes: 2}\n" + TRACE)
    for name in ("a/1", "a/2", "b/3"):
        project.write(f"in/{name}", "one\ntwo\n")
    assert project.run().exit == 0
    rows = last_rows(project)
    assert {name: (row["stage"], row["bytes_in"]) for name, row in rows.items() if name.startswith("a/")} == {
        "a/1": ("up,lines", 8), "a/2": ("up,lines", 8),
    }  # fmt: skip
    assert rows["a/1"]["bytes_out"] == 8 + 6
    sheet = rows["sheet a"]
    assert (sheet["bytes_in"], sheet["outcome"]) == (16, "done")
    assert sheet["bytes_out"] == (tmp_path / "out/a/sheet.txt").stat().st_size


def test_a_file_that_passes_through_two_pools_has_one_row(tmp_path: Path) -> None:
    project = Project(tmp_path, TWO_POOLS + TRACE)
    project.write("stages/upper.py", DEEDS)
    for name in "abc":
        project.write(f"in/{name}", f"text {name}")
    assert project.run().done == 6
    assert {name: (row["stage"], row["bytes_out"]) for name, row in last_rows(project).items()} == {
        name: ("up,more", 12) for name in "abc"
    }
    assert not any(row["start"] is None for row in last_rows(project).values())


def test_a_run_without_jobs_writes_none_and_an_old_one_stays(tmp_path: Path) -> None:
    """A trace is the user's, whatever later runs do."""
    project = project_of(tmp_path, POOL["serial"], "one")
    project.run()
    [first] = traces(project)
    contents = first.read_bytes()
    assert project.run().up_to_date == 1 and traces(project) == [first]
    project.write("in/two", "two")
    assert project.run().done == 1
    assert traces(project)[0].read_bytes() == contents and [*last_rows(project)] == ["two"]


def test_a_trace_changes_no_recipe(tmp_path: Path) -> None:
    """It may be asked for, moved, and given up, and nothing is made again."""
    project = Project(tmp_path)
    project.write("in/a", "a")
    assert project.run().done == 1
    for trace in ("trace: 'runs/{run}'\n", "trace: 'in/.hidden/{run}/trace'\n", ""):
        project.write("pipeline.yaml", ONE_STAGE + trace)
        assert project.plan() == {"up a": ("up-to-date", "up to date")}
        summary = project.run()
        assert (summary.done, summary.up_to_date) == (0, 1)


def test_traces_are_no_inputs(tmp_path: Path) -> None:
    """Their folder below the input root is left out of the walk."""
    project = Project(tmp_path, ONE_STAGE + "trace: 'in/runs/{run}.ndjson'\n")
    for number in range(2):
        project.write(f"in/{number}", "new")
        assert project.run().done == 1
    assert project.plan() == {"up 0": ("up-to-date", "up to date"), "up 1": ("up-to-date", "up to date")}
    assert len(list((tmp_path / "in/runs").iterdir())) == 2


@pytest.mark.parametrize("engine", POOL)
def test_an_impossible_trace_is_noted_once(tmp_path: Path, engine: str) -> None:
    """Every output is made, and the exit code is that of a run without a trace."""
    project = project_of(tmp_path, POOL[engine], *map(str, range(40)))
    project.write("runs", "no folder")
    summary = project.run()
    assert (summary.done, summary.exit) == (40, 0)
    [note] = [note for note in summary.notes if "trace" in note]
    assert note.startswith(f"no trace is written from here on: {tmp_path}/runs/pipeline/{summary.run}.ndjson: ")


def test_a_full_disk_costs_the_trace_and_not_the_run(tmp_path: Path) -> None:
    """Every output is made; what is written already is whole rows, and one note says that there are no more."""
    project = project_of(tmp_path, POOL["pool"], *map(str, range(20)))
    with mounted("tmpfs", tmp_path) as disk:
        project.edit("pipeline.yaml", "runs/{name}", str(disk))
        with suppress(OSError), open(disk / "full", "wb", buffering=0) as file:
            while file.write(b"x" * 65536):
                pass
        summary = project.run()
        assert [path.read_bytes() for path in disk.glob("*.ndjson")] == [b""]
    assert (summary.done, summary.exit) == (20, 0)
    [note] = [note for note in summary.notes if "trace" in note]
    assert "no space left on device (tmpfs at " in note


def test_a_run_that_is_killed_leaves_whole_rows(tmp_path: Path, pipeline: Any) -> None:
    """Those of the jobs that had ended about a second before."""
    project = project_of(tmp_path, "engine: serial", *map(str, range(3)))
    project.write("stages/upper.py", KILLS)
    assert pipeline("pipeline.yaml").returncode in (-9, 137)
    [trace] = traces(project)
    assert {json.loads(line)["outcome"] for line in trace.read_text().splitlines()} == {"done"}


# Kills its run once the trace of the file before is there.
KILLS = """
import os, signal, time
from pathlib import Path
def upper(text: str) -> str:
    runs = Path(__file__).parents[1] / "runs"
    if text == "1":
        while not list(runs.rglob("*.ndjson")):
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)
    return text
"""


def test_samples_leave_no_trace(tmp_path: Path, pipeline: Any) -> None:
    """Nor does `try`: what they do is no run of the pipeline."""
    project = project_of(tmp_path, POOL["serial"], "one", "two")
    assert pipeline("run", "pipeline.yaml", "--sample", "1", "--output-root", "samples").returncode == 0
    assert pipeline("try", "pipeline.yaml", os.fspath(project.folder / "in/one")).returncode == 0
    assert not (tmp_path / "runs").exists()
