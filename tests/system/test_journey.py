"""The whole thing as a user runs it: `python -m pipeline` in processes of its own, over small text stages."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.odd_names import ODD_NAMES, source_of
from support.program import Pipeline, on_terminal, wait_until
from support.project import MOODY, ONE_STAGE, Project, temporaries

ENGINES = ("serial", "pool")
BOTH = pytest.mark.parametrize("engine", ENGINES)

FAILED_ONCE = "failed before (error, attempt 1 of 3)"


SLOW = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.3)\n    return text.upper()\n"


@pytest.fixture(autouse=True)
def no_bytecode(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stages are edited here more often than once a second, which is all that .pyc files can tell."""
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    project = Project(tmp_path)
    project.write("stages/upper.py", MOODY)
    return project


def snapshot(folder: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder there is, with size and time."""
    return {str(path): (path.lstat().st_size, path.lstat().st_mtime_ns) for path in sorted(folder.rglob("*"))}


# -- one run after the other -------------------------------------------------------------------------------------------


@BOTH
def test_a_run_does_all_and_the_next_nothing(project: Project, pipeline: Pipeline, engine: str) -> None:
    """The same line again changes no byte and no time of anything made; both are silent without a terminal."""
    for number in range(20):
        project.write(f"in/d{number % 3}/{number}", f"text {number}")
    ran = pipeline("pipeline.yaml", "--engine", engine)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert project.outputs() == {f"d{n % 3}/{n}": f"TEXT {n}".encode() for n in range(20)}
    before = snapshot(project.folder / "out")
    ran = pipeline("--engine", engine)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert snapshot(project.folder / "out") == before and not temporaries(project.folder)


@BOTH
def test_the_summary_as_json(project: Project, pipeline: Pipeline, engine: str) -> None:
    """One object with exactly the keys that scripts may count on, its numbers adding up; exit 1 where a file failed."""
    for name, text in {"a": "x", "b": "skip", "c": "bad", "d": "y"}.items():
        project.write(f"in/{name}", text)
    keys = ["run", "done", "up_to_date", "skipped", "failed", "held", "pruned", "seconds", "exit", "sources"]
    expected = [(2, 0, 1, 1), (0, 3, 0, 1)]
    for done, up_to_date, skipped, failed in expected:
        ran = pipeline("--json", "--engine", engine)
        said = json.loads(ran.stdout)
        rare = ["new_failed"] if done else []  # those that are 0 are left out
        assert list(said) == [*keys, *rare] and ran.stdout.count("\n") == 1
        assert (said["done"], said["up_to_date"], said["skipped"], said["failed"]) == (
            done, up_to_date, skipped, failed,
        )  # fmt: skip
        assert (said["held"], said["pruned"], said["exit"], said["sources"], ran.returncode) == (0, 0, 1, 4, 1)
        assert ("c (up): ValueError: bad text (in stage 'up')" in ran.stderr) == bool(done)  # said when it was new


@BOTH
def test_any_name_goes_all_the_way(project: Project, pipeline: Pipeline, engine: str) -> None:
    """Whatever bytes a name has, its output has them too, and plan, ledger and a second run know it again."""
    root = os.fsencode(project.folder)
    for name in ODD_NAMES:
        os.makedirs(os.path.dirname(os.path.join(root, b"in", name)), exist_ok=True)
        with open(os.path.join(root, b"in", name), "wb") as file:
            file.write(b"hello")
    planned = [json.loads(line) for line in pipeline("plan", "--json").stdout.splitlines()]
    assert [source_of(line) for line in planned] == sorted(ODD_NAMES)
    assert all((line["action"], line["why"]) == ("make", "new") for line in planned)
    ran = pipeline("--json", "--engine", engine)
    assert (ran.returncode, json.loads(ran.stdout)["done"]) == (0, len(ODD_NAMES)), ran.stderr
    for name in ODD_NAMES:
        with open(os.path.join(root, b"out", name), "rb") as file:
            assert file.read() == b"HELLO"
    assert json.loads(pipeline("--json").stdout)["up_to_date"] == len(ODD_NAMES)


def test_one_line_on_a_terminal(project: Project) -> None:
    """Somebody who looks on is told what was done, in one line; -q says nothing."""
    project.write("in/a", "x")
    for what in ("1 done", "1 up to date"):
        code, said = on_terminal("python -m pipeline", project.folder)
        assert code == 0 and said.startswith(f"pipeline: {what} (1 file, ") and "\n" not in said
    assert on_terminal("python -m pipeline -q", project.folder) == (0, "")


# -- the plan ----------------------------------------------------------------------------------------------------------


def test_plan_touches_nothing(project: Project, pipeline: Pipeline) -> None:
    """Before the first run there is no state folder after it either; later nothing changes."""
    project.write("in/a", "x")
    before = snapshot(project.folder)
    for arguments in (["plan"], ["plan", "--json"], ["plan", "-v"], ["--dry-run"], ["failures"], ["check"]):
        assert pipeline(*arguments).returncode == 0
    assert snapshot(project.folder) == before
    pipeline()
    before = {
        path: found for path, found in snapshot(project.folder).items() if not path.endswith(".pipeline/pipeline")
    }
    pipeline("plan")
    after = snapshot(project.folder)
    assert {path: after[path] for path in before} == before and not [p for p in after if p.endswith(("-wal", "-shm"))]


def test_plan_says_what_the_run_does(project: Project, pipeline: Pipeline) -> None:
    """One object a line with the five keys; the counts are those of the run that follows."""
    for name, text in {"a": "x", "b": "skip", "c": "bad"}.items():
        project.write(f"in/{name}", text)
    pipeline()
    project.write("in/a", "longer")
    lines = [json.loads(line) for line in pipeline("plan", "--json").stdout.splitlines()]
    assert lines == [
        {
            "source": "a",
            "stage": "up",
            "action": "make",
            "why": "source changed (size 1 -> 6)",
            "code": "source_changed",
            "output": "out/a",
        },
        {
            "source": "b",
            "stage": "up",
            "action": "up-to-date",
            "why": "skipped: not wanted",
            "code": "skipped",
            "output": "out/b",
        },
        {
            "source": "c",
            "stage": "up",
            "action": "make",
            "why": FAILED_ONCE,
            "code": "failed_before",
            "output": "out/c",
        },
    ]
    assert pipeline("plan").stdout.startswith("3 outputs of 3 files\n")


@BOTH
def test_the_plan_is_complete_before_the_first_job(project: Project, pipeline: Pipeline, engine: str) -> None:
    """A stage that makes new inputs while it runs does not feed itself."""
    project.write(
        "stages/upper.py",
        "from pathlib import Path\ndef upper(path: Path) -> bytes:\n"
        "    path.with_name('z' + path.name).write_text('new')\n    return path.read_bytes()\n",
    )
    for number in range(10):
        project.write(f"in/{number}", "x")
    assert json.loads(pipeline("--json", "--engine", engine).stdout)["done"] == 10
    assert len(project.outputs()) == 10 and len(list((project.folder / "in").iterdir())) == 20


# -- who may run -------------------------------------------------------------------------------------------------------


def start(project: Project, *arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=project.folder,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


@pytest.mark.processes
@BOTH
def test_a_second_run_exits_75_and_a_killed_ones_lock_is_free(
    project: Project, pipeline: Pipeline, engine: str
) -> None:
    """One run at a time, plans at any time; after kill -9 the same line again just works."""
    project.write("stages/upper.py", SLOW)
    for number in range(30):
        project.write(f"in/{number:02}", "x")
    first = start(project, "--engine", engine)
    wait_until((project.folder / "out" / "00").exists)
    second = pipeline()
    assert second.returncode == 75 and f"(pid {first.pid} on" in second.stderr
    assert pipeline("plan").returncode == 0
    first.send_signal(signal.SIGKILL)
    first.wait()
    project.write("stages/upper.py", SLOW.replace("0.3", "0"))
    assert pipeline("--engine", engine).returncode == 0
    assert len(project.outputs()) == 30 and not temporaries(project.folder)


def test_a_second_pipeline_over_the_same_outputs_is_refused(project: Project, pipeline: Pipeline) -> None:
    """Exit 2, one sentence, nothing touched."""
    project.write("in/a", "x")
    assert pipeline().returncode == 0
    project.write("other.yaml", ONE_STAGE)
    before = snapshot(project.folder / "out")
    refused = pipeline("other.yaml")
    assert refused.returncode == 2 and "belongs to pipeline 'pipeline'" in refused.stderr
    assert "Traceback" not in refused.stderr and snapshot(project.folder / "out") == before


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["nowhere.yaml"], 2), (["--set", "inputs=nowhere"], 2), (["--set", "stages.up.uses=nothing"], 2),
        (["--limit", "0"], 2), (["--nonsense"], 2), (["--set", "state=in/a/b"], 3), (["--only", "a"], 0),
        (["--only", "b"], 1), (["--limit", "1"], 0),
    ],
)  # fmt: skip
def test_exit_codes(project: Project, pipeline: Pipeline, arguments: list[str], code: int) -> None:
    """What a cron job goes by: 2 before anything was run, 1 for a failed file, 3 for the machine; never a traceback."""
    project.write("in/a", "x")
    project.write("in/b", "bad")
    ran = pipeline(*arguments)
    assert ran.returncode == code and "Traceback" not in ran.stderr and bool(ran.stderr) is bool(code)


# -- nothing lost ------------------------------------------------------------------------------------------------------


@pytest.mark.processes
@pytest.mark.parametrize("force", [False, True])
def test_kill_at_any_moment_then_the_same_line_again(project: Project, pipeline: Pipeline, force: bool) -> None:
    """After kill -9 at a random moment no output is a part of one; the rerun ends as an undisturbed run does."""
    slow = "import time\ndef upper(text: str) -> str:\n    time.sleep(0.004)\n    return text.upper() * 2000\n"
    project.write("stages/upper.py", slow)
    expected = {}
    for number in range(60):
        project.write(f"in/{number}", f"text {number} " * 20)
        expected[str(number)] = (f"text {number} " * 20).upper().encode() * 2000
    if force:
        pipeline("--engine", "serial")
    for delay in (random.uniform(0.15, 0.75) for _ in range(6)):
        run = start(project, "--engine", "serial", *(["--force"] if force else []))
        time.sleep(delay)
        run.kill()
        run.wait()
        for name, data in project.outputs().items():
            assert name.startswith(".filemill-") or data == expected[name], f"{name} after {delay} s"
    ran = pipeline("--json", "--engine", "serial")
    assert ran.returncode == 0, ran.stderr
    assert project.outputs() == expected and not temporaries(project.folder)
    assert json.loads(pipeline("--json").stdout)["up_to_date"] == 60


def test_a_kill_between_rename_and_record_leaves_no_wrong_output(project: Project, pipeline: Pipeline) -> None:
    """An output made with options that were taken back afterwards is no edit of somebody's: it is redone."""
    project.write("in/a", "x")
    project.write(
        "stages/upper.py", "def upper(text: str, *, mark: str = '') -> str:\n    return text.upper() + mark\n"
    )
    pipeline()
    project.edit("pipeline.yaml", "uses: upper", "uses: upper\n    with: {mark: changed}")
    project.write("kill.py", "import os\nfrom pipeline.cli import main\nfrom pipeline.ledger.ledger import Ledger\n"
                  "Ledger.record = lambda *_: os.kill(os.getpid(), 9)\nmain(['--engine', 'serial'])\n")  # fmt: skip
    killed = subprocess.run([sys.executable, "kill.py"], cwd=project.folder, check=False)
    assert killed.returncode == -9 and project.outputs() == {"a": b"Xchanged"}
    project.edit("pipeline.yaml", "\n    with: {mark: changed}", "")
    old = time.time() - 1000
    os.utime(project.folder / "out" / "a", (old, old))
    assert pipeline().returncode == 0 and project.outputs() == {"a": b"X"}


def test_json_is_utf_8_whatever_the_locale(project: Project, pipeline: Pipeline) -> None:
    """What a script reads does not depend on where cron runs it."""
    project.write("in/caf\u00e9", "x")
    said = pipeline("plan", "--json", PYTHONIOENCODING="ascii").stdout
    assert json.loads(said)["source"] == "caf\u00e9"
