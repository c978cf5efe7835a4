"""pipeline/api.py: the program from Python, in scripts, notebooks, threads and tests; nothing of it is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.project import MOODY, Project

from pipeline import FilemillError, Outcome, Summary, iterate, load, run
from pipeline.errors import ConfigError, UsageError
from pipeline.stage.resolve import forget_stages

YAML = "inputs: in\nstages:\n  - name: up\n    uses: upper\n    output: out/{dir}/{name}\nengine: serial\n"
UPPER = "from tables import MARK\ndef upper(text: str) -> str:\n    return text.upper() + MARK\n"
SCRIPT = """
from pipeline import load, run
summary = run(load("pipeline.yaml"), processes=2, engine="pool")
print(summary.done, summary.failed, summary.exit)
"""


@pytest.fixture(autouse=True)
def sys_path() -> Iterator[None]:
    """What is imported from a project of one test is not there for the next."""
    path = list(sys.path)
    yield
    forget_stages()
    sys.path[:] = path


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Three texts, of which one fails and one is left out."""
    project = Project(tmp_path, YAML)
    project.write("stages/upper.py", MOODY)
    for name in ("a", "bad", "skip"):
        project.write(f"in/{name}.txt", f"{name} text")
    return project


def test_a_run_gives_a_summary(project: Project, capfd: pytest.CaptureFixture[str]) -> None:
    """What was done, with the failures by source and text; nothing is raised for a file, and nothing printed."""
    summary = run(load(project.folder / "pipeline.yaml"))
    assert isinstance(summary, Summary)
    assert (summary.done, summary.skipped, summary.failed, summary.exit) == (1, 1, 1, 1)
    [(origin, result)] = summary.failures
    assert (str(origin), result.text) == ("bad.txt", "ValueError: bad text (in stage 'up')") and summary.seconds > 0
    assert capfd.readouterr() == ("", "")
    run(load(project.folder / "pipeline.yaml"), progress=True)
    assert capfd.readouterr().err.startswith("pipeline: 2 up to date, 1 failed (3 files, ")


def test_the_options_of_run_are_arguments(project: Project) -> None:
    """Edits at load, and at the run what the command line has as well."""
    config = load(str(project.folder / "pipeline.yaml"), ["stages.up.output=other/{name}"])
    assert run(config, only="a.*").done == 1 and (project.folder / "other" / "a.txt").exists()
    assert run(config, files=["a.txt", b"skip.txt", project.folder / "in" / "bad.txt"]).sources == 3
    assert run(config, only="a.*", force=True, limit=1).done == 1
    assert run(config, only=None).sources == run(config, only="").sources == 3  # type: ignore[typeddict-item]
    with pytest.raises(UsageError, match="only: a pattern or a list of patterns is needed, not 5"):
        run(config, only=5)  # type: ignore[typeddict-item]
    with pytest.raises(UsageError, match="processes: a number from 1 is needed, not 0"):
        run(config, processes=0)
    with pytest.raises(UsageError, match="engine: 'pool' or 'serial' is needed, not 'dask'"):
        run(config, engine="dask")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="no option 'proceses'; did you mean 'processes'"):
        run(config, proceses=2)  # type: ignore[call-arg]


def test_what_is_wrong_with_the_whole_is_raised(project: Project) -> None:
    """As an exception of our own, with every complaint; never as an exit."""
    project.edit("pipeline.yaml", "upper", "uper")
    with pytest.raises(ConfigError, match="did you mean 'upper'") as raised:
        load(project.folder / "pipeline.yaml")
    assert isinstance(raised.value, FilemillError)
    with pytest.raises(FilemillError, match="No such file"):
        load(project.folder / "nowhere.yaml")


def test_outcomes_are_given_while_it_runs(project: Project) -> None:
    """One for each file, as it comes; the summary is there in the end."""
    outcomes = iterate(load(project.folder / "pipeline.yaml"))
    found = {outcome.source.path: outcome.results[0].status for outcome in outcomes}
    assert found == {b"a.txt": "done", b"bad.txt": "failed", b"skip.txt": "skipped"}
    assert outcomes.summary and outcomes.summary.failed == 1


def test_who_follows_a_run_may_print(project: Project) -> None:
    """What is printed meanwhile goes where it is meant to, whatever the engine."""
    code = """
from pipeline import iterate, load
for outcome in iterate(load("pipeline.yaml"), only="a.*"):
    print(outcome.results[0].status)
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("done\n", "")


@pytest.mark.processes
def test_who_leaves_ends_the_run(project: Project) -> None:
    """Leaving the `with` ends it: what came so far is on record, and the next run does the rest."""
    project.write(
        "stages/upper.py", "import time\ndef upper(text: str) -> str:\n    time.sleep(0.05)\n    return text\n"
    )
    for number in range(20):
        project.write(f"in/{number}.txt", "text")
    config = load(project.folder / "pipeline.yaml")
    with iterate(config, engine="pool", processes=1) as outcomes:
        first: Outcome = next(outcomes)
    assert first.results[0].status == "done" and outcomes.summary
    assert outcomes.summary.exit == 130 and "nobody takes its outcomes any more" in outcomes.summary.stopped
    assert not [thread for thread in threading.enumerate() if thread.name == "filemill-run"]
    rest = run(config)
    assert rest.exit == 0 and 0 < rest.up_to_date < 23 and rest.up_to_date + rest.done == 23


@pytest.mark.processes
def test_leaving_does_not_wait_for_what_is_in_hand(project: Project) -> None:
    """A job that takes minutes is cut off, as by a second Ctrl-C, and is done by the next run."""
    sleeps = (
        "import time\ndef upper(text: str) -> str:\n    time.sleep(100 if text[0] == 'b' else 0)\n    return text\n"
    )
    project.write("stages/upper.py", sleeps)
    config = load(project.folder / "pipeline.yaml")
    began = time.monotonic()
    with iterate(config, engine="pool", processes=2) as outcomes:
        next(outcomes)
    assert time.monotonic() - began < 50 and outcomes.summary and outcomes.summary.exit == 130


def test_what_stops_a_run_is_raised_to_who_follows_it(project: Project) -> None:
    """A guard's refusal comes out of the loop as it would out of `run`."""
    config = load(project.folder / "pipeline.yaml")
    run(config)
    for name in ("a", "bad", "skip"):
        (project.folder / "in" / f"{name}.txt").unlink()
    with pytest.raises(FilemillError) as raised:
        run(config)
    with pytest.raises(type(raised.value), match=str(raised.value)[:40]):
        list(iterate(config))
    assert run(config, rebuild=True).exit == 0


def test_two_pipelines_of_one_process_have_each_their_own_stages(tmp_path: Path) -> None:
    """Stages and what lies beside them may have the same names: each pipeline gets its own, in any order."""
    configs = []
    for mark in "ab":
        (tmp_path / mark).mkdir()
        project = Project(tmp_path / mark, YAML)
        project.write("stages/upper.py", UPPER)
        project.write("stages/tables.py", f"MARK = {mark!r}\n")
        project.write("in/x.txt", "x")
        configs.append(load(project.folder / "pipeline.yaml"))
    for _ in range(2):
        for config, mark in zip(configs, "ab", strict=True):
            run(config, force=True, engine="serial")
            assert (tmp_path / mark / "out" / "x.txt").read_text() == f"X{mark}"
    assert [run(config).up_to_date for config in configs] == [1, 1]


def test_a_stage_that_was_edited_is_loaded_anew(project: Project) -> None:
    """In a notebook a stage is edited and loaded again, with other options than before."""
    load(project.folder / "pipeline.yaml")
    sys.dont_write_bytecode = True
    project.write("stages/upper.py", "def upper(text: str, *, mark: str = '?') -> str:\n    return text + mark\n")
    config = load(project.folder / "pipeline.yaml", ["stages.up.with.mark=!"])
    assert run(config, only="a.*").done == 1
    assert (project.folder / "out" / "a.txt").read_text() == "a text!"


def test_one_pipeline_at_a_time(project: Project) -> None:
    """While one is running in a process, another is refused in a sentence, not mixed up with it."""
    project.write(
        "stages/upper.py", "import time\ndef upper(text: str) -> str:\n    time.sleep(0.2)\n    return text\n"
    )
    config = load(project.folder / "pipeline.yaml")
    with iterate(config) as outcomes:
        next(outcomes)
        for meddle in (lambda: run(config), lambda: load(config.file), lambda: next(iterate(config))):
            with pytest.raises(UsageError, match="one at a time"):
                meddle()
    assert run(config).exit == 0


def test_a_run_in_a_thread(project: Project) -> None:
    """Not the main thread: no signal handlers, and the same summary."""
    before = signal.getsignal(signal.SIGTERM)
    summaries: list[Summary] = []
    config = load(project.folder / "pipeline.yaml")
    thread = threading.Thread(target=lambda: summaries.append(run(config, engine="pool", processes=1)))
    thread.start()
    thread.join()
    assert summaries[0].done == 1 and signal.getsignal(signal.SIGTERM) is before


@pytest.mark.parametrize("context", ["spawn", "forkserver", "fork"])
def test_a_script_without_a_guard(project: Project, context: str) -> None:
    """A script that runs a pipeline needs no `if __name__ == "__main__":`, whatever the start method."""
    project.write("script.py", SCRIPT)
    project.edit("pipeline.yaml", "engine: serial", f"pool: {{context: {context}}}")
    done = subprocess.run([sys.executable, "script.py"], cwd=project.folder, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr, done.returncode) == ("1 1 1\n", "", 0)


def test_a_main_without_a_file_and_an_event_loop(project: Project) -> None:
    """As in a notebook: `__main__` has no file, and an event loop is running."""
    script = SCRIPT.replace("\n", "\n    ")
    code = f"import asyncio\nasync def cell():\n    {script}\nasyncio.run(cell())\n"
    done = subprocess.run(
        [sys.executable, "-"], cwd=project.folder, input=code, capture_output=True, text=True, timeout=60
    )
    assert (done.stdout, done.stderr) == ("1 1 1\n", "")


@pytest.mark.processes
def test_ctrl_c_goes_to_who_follows(project: Project) -> None:
    """KeyboardInterrupt is raised in the loop of whoever follows a run, as in any loop, and the run ends."""
    code = """
import os, signal
from pipeline import iterate, load
outcomes = iterate(load("pipeline.yaml"), engine="pool", processes=1)
try:
    with outcomes:
        for outcome in outcomes:
            os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted", outcomes.summary.exit)
"""
    for number in range(5):
        project.write(f"in/{number}.txt", "text")
    project.write(
        "stages/upper.py", "import time\ndef upper(text: str) -> str:\n    time.sleep(0.1)\n    return text\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=project.folder, capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("interrupted 130\n", "")


def test_the_names_are_light_and_lasting() -> None:
    """`import pipeline` loads nothing heavy, and `load` and `run` stay functions when their modules are imported."""
    code = """
import sys, pipeline
assert not {"pydantic", "sqlite3", "yaml", "PIL", "pipeline.api"} & set(sys.modules)
import pipeline.operations.run, pipeline.config.load, pipeline.values
assert pipeline.values.register.__doc__
from pipeline.operations.run import GRACE_S
from pipeline import load, run
assert load.__module__ == run.__module__ == "pipeline.api" and callable(pipeline.run)
assert set(pipeline.__all__) <= {name for name in pipeline.__all__ if hasattr(pipeline, name)}
"""
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ, timeout=60)
