"""Code and tables that are edited during a run, or between two in one process: nothing false is recorded."""

from __future__ import annotations

import importlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from support.program import wait_until
from support.project import Project
from support.warm_start import run_warm

from pipeline import load, run
from pipeline.files.state_dir import open_state
from pipeline.ledger.session import open_to_write
from pipeline.messages import Job, Outcome, Result, Source, Target

YAML = """
inputs: in
stages:
  - name: up
    uses: upper
    output: out/{name}
pool: {processes: 1, maxtasksperchild: 1, context: %s}
"""
COUNT = """
from collections.abc import Iterator
from pipeline import Item
def count(items: Iterator[Item[str]]) -> str:
    return "".join(sorted(item.value for item in items))
"""
# Whoever wants a job to wait for an edit removes the file `go`; the stage says that it was called.
STAGE = """
import helper, time
from pathlib import Path
HERE = Path(__file__).parent.parent
def upper(text: str) -> str:
    with open(HERE / "called", "a") as file:
        file.write(text)
    while not (HERE / "go").exists():
        time.sleep(0.01)
    return text + helper.MARK
"""


def project_in(folder: Path, *names: str, context: str = "forkserver") -> Project:
    """A project whose stage waits in each call until there is a file `go`."""
    project = Project(folder, YAML % context)
    project.write("stages/upper.py", STAGE)
    project.write("helper.py", "MARK = '1'\n")
    for name in names:
        project.write(f"in/{name}", name)
    return project


def started(folder: Path) -> subprocess.Popen[str]:
    """The program, once a stage of its run has been called."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", "run", "--json"],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    wait_until(lambda: (folder / "called").exists())
    return process


def plan(folder: Path) -> str:
    planned = run_warm("plan", cwd=folder)
    assert planned.returncode == 0, planned.stderr
    return planned.stdout


def log_of(folder: Path) -> str:
    return max((folder / ".pipeline/pipeline/runs").glob("*.log"), key=lambda each: each.stat().st_mtime_ns).read_text()


def test_a_helper_that_is_edited_while_a_run_is_on(tmp_path: Path) -> None:
    """What is in hand is finished, the rest and what was made are made with the new code, and it is said once."""
    project = project_in(tmp_path, "a", "b", "c")
    process = started(tmp_path)
    project.write("helper.py", "MARK = '2'\n")
    project.write("go", "")
    assert process.communicate(timeout=100)[0] and process.returncode == 0
    assert project.outputs() == {"a": b"a2", "b": b"b2", "c": b"c2"}
    assert log_of(tmp_path).count("helper.py changed during the run: planned again") == 1
    assert "up to date" in plan(tmp_path) and "make" not in plan(tmp_path)


def test_an_edit_that_is_put_back(tmp_path: Path) -> None:
    """A worker that met the other version made nothing that counts; what was made before that stays."""
    project = project_in(tmp_path, "a", "b", "c")
    process = started(tmp_path)
    waits = f"while not __import__('os').path.exists({str(tmp_path / 'go2')!r}):\n    pass\n"
    project.write("helper.py", f"{waits}MARK = '2'\n")
    project.write("go", "")
    wait_until(lambda: (tmp_path / "called").read_text() == "a")
    project.write("helper.py", "MARK = '1'\n")
    project.write("go2", "")
    assert process.communicate(timeout=100)[0] and process.returncode == 0
    assert project.outputs() == {"a": b"a1", "b": b"b1", "c": b"c1"}
    assert "make" not in plan(tmp_path)


def test_comments_and_touches_are_no_edits(tmp_path: Path) -> None:
    """A worker that starts later takes the same code, whatever its layout and its times."""
    project = project_in(tmp_path, "a", "b", "c")
    process = started(tmp_path)
    project.write("helper.py", "# Said.\nMARK = '1'\n")
    os.utime(tmp_path / "stages/upper.py")
    project.write("go", "")
    assert process.communicate(timeout=100)[0] and process.returncode == 0
    assert project.outputs() == {"a": b"a1", "b": b"b1", "c": b"c1"} and "changed" not in log_of(tmp_path)


def test_a_table_that_is_edited_while_a_run_is_on(tmp_path: Path) -> None:
    """What a worker may have read of a file of `depends` that was edited meanwhile is not recorded as made of it."""
    project = project_in(tmp_path, "a", "b", "c")
    project.write("stages/upper.py", STAGE.replace("helper.MARK", "(HERE / 'table').read_text()"))
    project.write("table", "1")
    project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    depends: [table]")
    process = started(tmp_path)
    project.write("table", "2")
    project.write("go", "")
    assert process.communicate(timeout=100)[0] and process.returncode == 0
    assert project.outputs() == {"a": b"a2", "b": b"b2", "c": b"c2"}
    assert "table changed during the run" in log_of(tmp_path) and "make" not in plan(tmp_path)


def test_the_third_edit_ends_the_run(tmp_path: Path) -> None:
    """Somebody who is at work on the code is not raced: exit 3, and the next run goes on."""
    project = project_in(tmp_path, *"abcdefgh")
    helper = (
        "import os, itertools\nN = next(n for n in itertools.count() if not os.path.exists(f'edit{n}'))\nMARK = '%s'\n"
    )
    project.write("helper.py", helper % 0)
    # Each call edits the helper of the next worker.
    edits = "    (HERE / 'helper.py').write_text(f'MARK = {time.time_ns()!r}\\n')\n    return text"
    project.write("stages/upper.py", STAGE.replace("    return text", edits))
    project.write("go", "")
    process = started(tmp_path)
    said = process.communicate(timeout=100)
    assert process.returncode == 3 and "helper.py changed during the run" in said[1]
    project.write("stages/upper.py", STAGE)
    project.write("helper.py", "MARK = '9'\n")
    again = subprocess.run([sys.executable, "-m", "pipeline"], cwd=tmp_path, timeout=100)
    assert again.returncode == 0 and project.outputs() == {each: f"{each}9".encode() for each in "abcdefgh"}


def test_an_edit_during_a_run_with_groups(tmp_path: Path) -> None:
    """The run plans again, and its groups know which members are new."""
    project = project_in(tmp_path, "a", "b", "c")
    project.write("stages/count.py", COUNT)
    gathers = "pool:", "  - {name: sum, uses: count, from: up, gather: true, output: out/all.txt}\npool:"
    project.edit("pipeline.yaml", *gathers)
    process = started(tmp_path)
    project.write("helper.py", "MARK = '2'\n")
    project.write("go", "")
    assert process.communicate(timeout=100)[0] and process.returncode == 0
    assert project.outputs() == {"a": b"a2", "b": b"b2", "c": b"c2", "all.txt": b"a2b2c2"}
    assert "make" not in plan(tmp_path)


def test_what_was_in_hand_when_the_run_planned_again_is_known(tmp_path: Path) -> None:
    """An output that was made by the code in between, and never recorded, is neither up to date nor an edit."""
    ledger_folder = project_in(tmp_path, "a").folder
    config = load(ledger_folder / "pipeline.yaml")
    with closing(open_state(config.state, config.name)) as state, open_to_write(state, is_run=True) as ledger:
        ledger.begin_run(state.run)
        job = Job(Source(b"a", 1, 1), (Target("up", os.fsencode(tmp_path / "out/a")),))
        for _ in range(2):  # once recorded, once handed out again
            ledger.begin()
            ledger.intend([job], lambda stage, path: b"out/a")
            ledger.commit()
            if not ledger.outputs.get(b"out/a"):
                result = Result("up", job.targets[0].path, "done", size_bytes=2, mtime_ns=1, digest=b"d" * 16)
                ledger.record(Outcome(job.source, (result,)), lambda stage, path: b"out/a", {"up": 1})
            ledger.forget_plan()
        record = ledger.outputs.get(b"out/a")
        assert record and record.status == "done" and record.in_flight


def test_a_link_to_a_helper_that_is_switched(tmp_path: Path) -> None:
    """Bytecode beside the link may be of the file to which it led before, although that file is as old."""
    project = project_in(tmp_path, "a")
    project.write("go", "")
    (tmp_path / "helper.py").unlink()
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for mark in "12":
        project.write(f"versions/{mark}.py", f"MARK = '{mark}'\n")
        os.utime(tmp_path / f"versions/{mark}.py", ns=(10**18, 10**18))
    time.sleep(1.1 - time.time() % 1)  # bytecode of the same second is not used in any case
    for mark in "12":
        (tmp_path / "helper.py").unlink(missing_ok=True)
        (tmp_path / "helper.py").symlink_to(f"versions/{mark}.py")
        subprocess.run([sys.executable, "-m", "pipeline"], cwd=tmp_path, env=environment, timeout=100, check=True)
        assert project.outputs() == {"a": f"a{mark}".encode()}
        time.sleep(1.1 - time.time() % 1)
        if mark == "1":
            subprocess.run([sys.executable, "-c", "import helper"], cwd=tmp_path, env=environment, check=True)
        time.sleep(1.1 - time.time() % 1)


# -- two files, one text -----------------------------------------------------------------------------------------------


def test_two_helpers_that_swap_their_contents(tmp_path: Path) -> None:
    """They are other code, named; what was made before is made again, and once more when they are swapped back."""
    project = Project(tmp_path, YAML % "fork")
    project.write("stages/upper.py", "import one, two\ndef upper(text: str) -> str:\n    return text + one.M + two.M\n")
    project.write("in/a", "a")
    for first, second in ("12", "21", "12"):
        project.write("one.py", f"M = '{first}'\n")
        project.write("two.py", f"M = '{second}'\n")
        if (tmp_path / "out").exists():
            assert "up: code changed (one.py, two.py)" in plan(tmp_path)
        assert project.run().done == 1 and project.outputs() == {"a": f"a{first}{second}".encode()}
        assert project.run().done == 0


# -- in one process ----------------------------------------------------------------------------------------------------


@pytest.fixture
def own_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Project]:
    """A project whose helper the script itself has imported, as in a notebook."""
    project = project_in(tmp_path, "a")
    project.write("go", "")
    project.write("helper.py", "class Mark(str):\n    pass\nMARK = Mark('0')\n")
    monkeypatch.syspath_prepend(tmp_path)
    yield project
    sys.modules.pop("helper", None)


@pytest.mark.parametrize("engine", ["serial", "fork", "forkserver", "spawn"])
def test_edits_between_two_runs_of_one_process(own_modules: Project, engine: str) -> None:
    """Each run has the code that is there, without a pause between edits; the script's own modules are its own."""
    project, helper = own_modules, importlib.import_module("helper")
    before = dict(vars(helper))
    project.write("pipeline.yaml", YAML % (engine if engine != "serial" else "fork"))
    kind = "serial" if engine == "serial" else "pool"
    config = load(project.folder / "pipeline.yaml")
    for mark in ("1", "2", "3"):
        project.write("helper.py", f"class Mark(str):\n    pass\nMARK = Mark('{mark}')\n")
        if mark != "2":  # an edit between load and run is met by a worker
            config = load(project.folder / "pipeline.yaml")
        summary = run(config, engine=kind)  # type: ignore[arg-type]
        assert (summary.exit, summary.done) == (0, 1), summary.stopped
        assert project.outputs() == {"a": f"a{mark}".encode()}
    assert sys.modules["helper"] is helper and vars(helper) == before
    assert pickle.loads(pickle.dumps(helper.MARK)) == "0"
    assert importlib.reload(helper).MARK == "3"


def test_a_helper_saved_twice_within_a_second(tmp_path: Path) -> None:
    """Workers take the text that counts, never bytecode of the text before, however fast and small the edit.

    Whoever else imports a helper leaves its bytecode, and an editor may set its time back.
    """
    project = project_in(tmp_path, "a")
    project.write("go", "")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONDONTWRITEBYTECODE"}
    for number in range(3):
        project.write("helper.py", f"MARK = '{number}'\n")
        os.utime(tmp_path / "helper.py", ns=(time.time_ns(), 10**18))
        if number == 0:
            subprocess.run([sys.executable, "-c", "import helper"], cwd=tmp_path, env=environment, check=True)
        done = subprocess.run([sys.executable, "-m", "pipeline"], cwd=tmp_path, env=environment, timeout=100)
        assert done.returncode == 0 and project.outputs() == {"a": f"a{number}".encode()}
