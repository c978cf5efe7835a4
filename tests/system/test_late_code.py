"""Code that stages load only when called, by names that their text does not tell, counts once it was met."""

from __future__ import annotations

import subprocess
import sys
from itertools import product
from pathlib import Path

import pytest
from support.program import wait_until
from support.project import Project
from support.warm_start import run_warm

YAML = """
inputs: in
stages:
  - name: up
    uses: up
    output: out/{name}
"""
BY_NAME = """
import importlib
def up(text: str) -> str:
    return importlib.import_module("plugs." + text).go(text)
"""
BY_PATH = """
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
def up(text: str) -> str:
    spec = spec_from_file_location("plug", Path("plugs", text + ".py").absolute())
    plug = module_from_spec(spec)
    spec.loader.exec_module(plug)
    return plug.go(text)
"""
WHEN_BUILT = """
import importlib
class Up:
    def __init__(self, *, folder: str = "plugs"):
        self.plugs = {name: importlib.import_module(f"{folder}.{name}") for name in "ab"}
    def __call__(self, text: str) -> str:
        return self.plugs[text].go(text)
"""
SAID = "loaded only when a stage was called"
PLUG = "def go(text: str) -> str:\n    return text + '%s'\n"


def project_in(folder: Path, stage: str = BY_NAME, yaml: str = YAML) -> Project:
    """A project with the files a and b, and a plug-in for each."""
    project = Project(folder, yaml)
    project.write("stages/up.py", stage)
    for name in "ab":
        project.write(f"in/{name}", name)
        project.write(f"plugs/{name}.py", PLUG % 1)
    return project


def program(folder: Path, *arguments: str) -> str:
    done = run_warm(*arguments, cwd=folder)
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


def made(folder: Path, *arguments: str) -> str:
    """Run the pipeline, and return its log."""
    program(folder, *arguments)
    return max((folder / ".pipeline/pipeline/runs").glob("*.log"), key=lambda each: each.stat().st_mtime_ns).read_text()


QUICK = [(BY_NAME, "forkserver"), (BY_NAME, "serial"), (BY_PATH, "fork"), (WHEN_BUILT, "forkserver")]
WAYS = product((BY_NAME, BY_PATH, WHEN_BUILT), ("serial", "fork", "forkserver", "spawn"))


@pytest.mark.parametrize(
    ("stage", "context"), [pytest.param(*each, marks=[] if each in QUICK else pytest.mark.slow) for each in WAYS]
)
def test_a_plug_in_counts_from_the_run_that_loads_it(stage: str, context: str, tmp_path: Path) -> None:
    """It is said once; edits are named and made, whichever way they go; comments are no edits."""
    pool = "engine: serial" if context == "serial" else f"pool: {{processes: 1, context: {context}}}"
    project = project_in(tmp_path, stage, YAML + pool)
    project.edit("pipeline.yaml", "uses: up", "uses: ./stages/up.py:Up" if stage is WHEN_BUILT else "uses: up")
    log = made(tmp_path)
    assert log.count(SAID) == 1 and "plugs/a.py" in log and "plugs/b.py" in log
    assert "plugs/a.py, plugs/b.py, stages/up.py" in program(tmp_path, "explain", "in/a")
    for mark in "212":
        project.write("plugs/a.py", PLUG % mark)
        assert "code changed (plugs/a.py)" in program(tmp_path, "plan")
        assert SAID not in made(tmp_path)
        assert project.outputs() == {"a": b"a" + mark.encode(), "b": b"b1"}
        project.write("plugs/a.py", f"# Said.\n{PLUG % mark}")
        assert "make" not in program(tmp_path, "plan")


def test_only_stages_that_load_by_computed_names_are_made_again(tmp_path: Path) -> None:
    """A second stage that may find the plug-in loaded by the first has it, too; one that names its imports has not."""
    yaml = YAML + "".join(
        f"  - {{name: {name}, uses: {name}, from: inputs, output: '{name}/{{name}}'}}\n" for name in ("too", "not")
    )
    project = project_in(tmp_path, BY_NAME, yaml)
    project.write("stages/too.py", BY_NAME.replace("def up", "def too"))
    project.write("stages/not.py", "def plain(text: str) -> str:\n    return text\n")
    project.edit("pipeline.yaml", "uses: not", "uses: './stages/not.py:plain'")
    made(tmp_path, "run", "--force")
    project.write("plugs/a.py", PLUG % 2)
    plan = program(tmp_path, "plan")
    assert "up: code changed (plugs/a.py)" in plan and "too: code changed (plugs/a.py)" in plan and "not:" not in plan
    made(tmp_path)
    assert (tmp_path / "too/a").read_text() == (tmp_path / "out/a").read_text() == "a2"


def test_what_an_initializer_loads_is_any_stages(tmp_path: Path) -> None:
    """Plug-ins that the pool's initializer finds count for every stage."""
    project = project_in(tmp_path, "import setup\ndef up(text: str) -> str:\n    return setup.PLUGS[text].go(text)\n")
    project.write(
        "setup.py",
        "import importlib\nPLUGS = {}\ndef load(*names):\n"
        "    PLUGS.update({each: importlib.import_module('plugs.' + each) for each in names})\n",
    )
    project.write("pipeline.yaml", YAML + "pool: {initializer: 'setup:load', initargs: [a, b]}\n")
    assert SAID in made(tmp_path)
    project.write("plugs/b.py", PLUG % 2)
    made(tmp_path)
    assert project.outputs() == {"a": b"a1", "b": b"b2"}


def test_a_plug_in_that_is_edited_during_the_run_that_meets_it_first(tmp_path: Path) -> None:
    """Where a second worker loads another version than the first, the run plans again, and all are of the new one."""
    yaml = YAML + "pool: {processes: 1, maxtasksperchild: 1}\n"
    stage = """
import importlib, time
from pathlib import Path
def up(text: str) -> str:
    made = importlib.import_module("plugs." + "both").go(text)
    Path("called").touch()
    while not Path("go").exists():
        time.sleep(0.01)
    return made
"""
    project = project_in(tmp_path, stage, yaml)
    project.write("plugs/both.py", PLUG % 1)
    with subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=tmp_path) as process:
        wait_until(lambda: (tmp_path / "called").exists())
        project.write("plugs/both.py", PLUG % 2)
        project.write("go", "")
        assert process.wait(timeout=100) == 0
    assert project.outputs() == {"a": b"a2", "b": b"b2"} and "make" not in program(tmp_path, "plan")


def test_a_plug_in_that_vanished(tmp_path: Path) -> None:
    """What it made is stale, and its stage says what is missing."""
    project = project_in(tmp_path)
    made(tmp_path)
    (tmp_path / "plugs/a.py").unlink()
    assert "code changed (plugs/a.py)" in program(tmp_path, "plan")
    project.write("plugs/a.py", PLUG % 1)
    assert "make" not in program(tmp_path, "plan")


def test_a_module_with_a_recipe_is_taken_at_its_word(tmp_path: Path) -> None:
    """Neither what its import loads nor what its calls do counts, and nothing is said."""
    project = project_in(tmp_path, f"RECIPE = 1\nimport helper\n{BY_NAME}")
    project.write("helper.py", "A = 1\n")
    assert SAID not in made(tmp_path)
    project.write("plugs/a.py", PLUG % 2)
    project.write("helper.py", "A = 2\n")
    assert "make" not in program(tmp_path, "plan")


def test_a_script_that_runs_a_pipeline_is_no_plug_in(tmp_path: Path) -> None:
    """The main module of whoever calls us, and what that imports, are nobody's code."""
    project = project_in(tmp_path, "def up(text: str) -> str:\n    return text\n")
    project.write("other.py", "A = 1\n")
    project.write(
        "main.py",
        "import other\nfrom pipeline import load, run\n"
        "if __name__ == '__main__':\n    summary = run(load('pipeline.yaml'))\n"
        "    assert summary.exit == 0 and not summary.notes, summary.notes\n",
    )
    for context in ("fork", "forkserver", "spawn"):
        project.write("pipeline.yaml", f"{YAML}pool: {{context: {context}}}\nstate: state-{context}\n")
        project.edit("pipeline.yaml", "out/", f"out-{context}/")
        subprocess.run([sys.executable, "main.py"], cwd=tmp_path, check=True, timeout=100)


def test_a_package_that_hides_a_plug_in(tmp_path: Path) -> None:
    """A folder of the plug-in's name comes first from now on."""
    project = project_in(tmp_path)
    made(tmp_path)
    project.write("plugs/a/__init__.py", PLUG % 2)
    made(tmp_path)
    assert project.outputs() == {"a": b"a2", "b": b"b1"}


def test_a_plug_in_stays_known_when_an_edit_of_its_stage_is_accepted(tmp_path: Path) -> None:
    """What changes nothing makes nothing anew; what the plug-in says afterwards does."""
    project = project_in(tmp_path)
    made(tmp_path)
    project.edit("stages/up.py", "return", "text = text\n    return")
    program(tmp_path, "accept", "--stage", "up", "--because", "code", "--yes")
    assert "make" not in program(tmp_path, "plan")
    project.write("plugs/a.py", PLUG % 2)
    made(tmp_path)
    assert project.outputs() == {"a": b"a2", "b": b"b1"}
