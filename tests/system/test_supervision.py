"""The pool as a user meets it: every way in which a file can hurt its worker costs that file alone, by its name."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from support.program import Pipeline, wait_until

pytestmark = pytest.mark.processes

METHODS = ["fork", "forkserver", "spawn"]

YAML = """\
inputs: in
stages:
  - name: hurt
    uses: hurt
    output: out/{name}
  - name: copy
    from: inputs
    uses: plain
    output: copies/{name}
pool: {processes: 2, context: CONTEXT, max_memory: 200MB}
timeout: 8s
"""
# What a file says is what is done to the worker that reads it.
HURT = """\
import ctypes
import locale
import multiprocessing.connection
import os
import signal
import subprocess
import sys
import time


def hurt(text: str) -> str:
    word = text.strip()
    if word == "segv":
        ctypes.string_at(0)
    elif word == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif word == "leave":
        os._exit(0)
    elif word == "exit":
        sys.exit("enough")
    elif word == "interrupt":
        raise KeyboardInterrupt
    elif word == "hang":
        subprocess.Popen(["sleep", "1000"])
        print("about to hang", flush=True)
        time.sleep(1000)
    elif word == "hog":
        held = bytearray(450_000_000)
        time.sleep(1)
    elif word == "memory":
        raise MemoryError
    elif word == "raise":
        print("a word before the end")
        raise ValueError("not this one")
    elif word == "talk":
        raise ValueError("x" * 20_000_000)
    elif word == "close":
        sys.stdout.close()
        sys.stderr.close()
    elif word == "unset":
        sys.stdout = sys.stderr = None
    elif word == "three":
        os.closerange(0, 3)
    elif word == "all":
        os.closerange(0, 1000)
    elif word == "pool":
        multiprocessing.connection.Connection._send_bytes = lambda *_: os._exit(9)
    elif word == "umask":
        os.umask(0o777)
    elif word == "folder":
        os.chdir("/")
    elif word == "handler":
        signal.signal(signal.SIGALRM, signal.SIG_IGN)
    elif word == "timer":
        signal.alarm(1)
    elif word == "locale":
        locale.setlocale(locale.LC_ALL, "C.UTF-8" if locale.setlocale(locale.LC_ALL) == "C" else "C")
    elif word == "environment":
        os.environ["LEFT"] = "behind"
    return text.upper()
"""
# What is the same for every file, whatever another did to the worker.
PLAIN = """\
import locale
import os
import signal


def plain(text: str) -> str:
    umask = os.umask(0o77)
    os.umask(umask)
    handler, variable = signal.getsignal(signal.SIGALRM), os.environ.get("LEFT")
    print("written to stdout")
    return f"{umask} {handler} {variable} {os.getcwd()} {locale.setlocale(locale.LC_ALL)}"
"""
LEFT = "stage 'hurt' left {} changed for the next files; set back what a call changes"
SAID = {
    "segv": ("crashed", "killed by SIGSEGV in stage 'hurt'"),
    "kill": ("crashed", "killed by SIGKILL in stage 'hurt', perhaps out of memory"),
    "leave": ("crashed", "the worker ended by exit code 0 in stage 'hurt'"),
    "exit": ("crashed", "SystemExit: enough (in stage 'hurt')"),
    "interrupt": ("crashed", "KeyboardInterrupt (in stage 'hurt')"),
    "hang": ("timeout", "took longer than 8 s in stage 'hurt'"),
    "memory": ("memory", "MemoryError (in stage 'hurt')"),
    "raise": ("error", "ValueError: not this one (in stage 'hurt')"),
    "talk": ("error", "ValueError: xxx"),
    "close": ("error", LEFT.format("sys.stdout and sys.stderr")),
    "unset": ("error", LEFT.format("sys.stdout and sys.stderr")),
    "three": ("error", LEFT.format("file descriptor 0 and 1 and 2")),
    "all": ("error", "file descriptors that are not its own were closed or replaced in stage 'hurt'"),
    "pool": ("crashed", "the worker ended by exit code 9, after the last call of a stage"),
    "umask": ("error", LEFT.format("the umask")),
    "folder": ("error", LEFT.format("the working folder")),
    "handler": ("error", LEFT.format("the handler of SIGALRM")),
    "timer": ("error", LEFT.format("a timer")),
    "locale": ("error", LEFT.format("the locale")),
    "environment": ("error", LEFT.format("the environment (LEFT)")),
}


def project(folder: Path, context: str, stage: str = HURT, yaml: str = YAML) -> None:
    """A pipeline with a stage that hurts and one that does not."""
    (folder / "in").mkdir(exist_ok=True)
    (folder / "stages").mkdir(exist_ok=True)
    (folder / "stages" / "hurt.py").write_text(stage)
    (folder / "stages" / "plain.py").write_text(PLAIN)
    (folder / "pipeline.yaml").write_text(yaml.replace("CONTEXT", context))


@pytest.mark.parametrize("context", ["fork", "forkserver", pytest.param("spawn", marks=pytest.mark.slow)])
def test_every_hurt_costs_one_file(tmp_path: Path, pipeline: Pipeline, context: str) -> None:
    """Each guilty file fails by its own kind and text; the innocents, and the guilty ones' other outputs, are done.

    One that only needs more memory than its share is done, too, and no file meets what another has changed.
    """
    project(tmp_path, context)
    for index in range(60):
        (tmp_path / "in" / f"{index:02}.txt").write_text("fine\n")
    for word in (*SAID, "hog"):
        (tmp_path / "in" / f"{word}.txt").write_text(word)
    done = pipeline("--json")
    summary = json.loads(done.stdout)
    assert done.returncode == 1
    assert (summary["done"], summary["failed"]) == (61 * 2 + len(SAID) - 1, len(SAID) + 1), done.stderr
    listed = [json.loads(line) for line in pipeline("failures", "--json").stdout.splitlines()]
    found = {each["source"].removesuffix(".txt"): (each["kind"], each["error"]) for each in listed}
    assert {word: kind for word, (kind, _) in found.items()} == {word: kind for word, (kind, _) in SAID.items()}
    for word, (_, text) in SAID.items():
        assert found[word][1].startswith(text), found[word]
    assert {each["source"] for each in listed if each["stage"] != "hurt"} == {"pool.txt"}
    assert len({path.read_text() for path in (tmp_path / "copies").glob("*.txt")}) == 1
    assert sum(path.stat().st_size for path in (tmp_path / ".pipeline").rglob("*.log")) < 1_000_000
    left = [path for path in (tmp_path / "out").iterdir() if path.name.startswith(".filemill-")]
    assert left == [], "a killed worker leaves no temporary"


def test_what_a_failing_file_printed_is_shown_on_request(tmp_path: Path, pipeline: Pipeline) -> None:
    """Output of stages never reaches our stdout; `-v` shows it under the file's name."""
    project(tmp_path, "forkserver", yaml=YAML.replace("timeout: 8s", "timeout: 3s"))
    (tmp_path / "in" / "raise.txt").write_text("raise")
    (tmp_path / "in" / "hang.txt").write_text("hang")
    silent = pipeline("--json")
    assert "a word before the end" not in silent.stdout + silent.stderr
    loud = pipeline("-v")
    assert "raise.txt printed:\n    a word before the end\n" in loud.stderr
    assert "hang.txt printed:\n    about to hang\n" in loud.stderr
    assert loud.stdout == ""


def test_a_stage_has_a_limit_of_its_own(tmp_path: Path, pipeline: Pipeline) -> None:
    """A stage's `timeout` covers each call of it, and is the one that is named."""
    yaml = YAML.replace("timeout: 8s\n", "").replace("    uses: hurt\n", "    uses: hurt\n    timeout: 500ms\n")
    project(tmp_path, "forkserver", yaml=yaml)
    (tmp_path / "in" / "hang.txt").write_text("hang")
    done = pipeline()
    assert done.returncode == 1
    assert "took longer than 0.5 s in stage 'hurt'" in done.stderr


def test_what_failed_by_an_exception_is_tried_again(tmp_path: Path, pipeline: Pipeline) -> None:
    """`retry` gives a file another chance within the run, after a pause in which others go on."""
    stage = """\
from pathlib import Path


def hurt(path: Path) -> str:
    mark = path.parent.parent / (path.name + ".tried")
    if not mark.exists():
        mark.touch()
        raise ConnectionError("try again")
    return "well"
"""
    project(tmp_path, "forkserver", stage, YAML + "retry: {max: 1, backoff: 300ms}\n")
    (tmp_path / "in" / "a.txt").write_text("a")
    assert pipeline("--json").returncode == 0
    assert (tmp_path / "out" / "a.txt").read_text() == "well"


BAD_STARTS = {
    "raises": ("raise RuntimeError('no licence')", "RuntimeError: no licence"),
    "exits": ("import os; os._exit(7)", "exit code 7"),
    "segfaults": ("import ctypes; ctypes.string_at(0)", "killed by SIGSEGV"),
    "hangs": ("import time; time.sleep(1000)", "was not ready after 4 s (pool.start_timeout)"),
    "imports": ("import nowhere_to_be_found", "nowhere_to_be_found"),
    "hogs": ("self.held = bytearray(450_000_000)", "right after its start; pool.max_memory is 200.0 MB"),
}
# Each fault by the method that most people have, and one of the others.
QUICK_STARTS = {
    *((how, "forkserver") for how in BAD_STARTS),
    ("raises", "fork"),
    ("segfaults", "spawn"),
    ("exits", "fork"),
}


@pytest.mark.parametrize(
    ("body", "says", "context"),
    [
        pytest.param(
            *BAD_STARTS[how], context, id=f"{context}-{how}",
            marks=[] if (how, context) in QUICK_STARTS else pytest.mark.slow,
        )
        for how in BAD_STARTS
        for context in METHODS
    ],
)  # fmt: skip
def test_workers_that_cannot_start_end_the_run_once(
    tmp_path: Path, pipeline: Pipeline, context: str, body: str, says: str
) -> None:
    """One message, exit 3, no storm of replacements, and no file is blamed."""
    stage = f"""\
class Hurt:
    def __init__(self) -> None:
        {body}

    def __call__(self, text: str) -> str:
        return text
"""
    start_timeout = "4s" if "sleep" in body else "60s"
    yaml = YAML.replace("max_memory: 200MB", f"max_memory: 200MB, start_timeout: {start_timeout}")
    project(tmp_path, context, stage, yaml)
    for index in range(20):
        (tmp_path / "in" / f"{index}.txt").write_text("text")
    done = pipeline("--json")
    assert done.returncode == 3, done.stderr
    assert says in done.stderr
    assert done.stderr.count(says) == 1
    assert json.loads(done.stdout)["failed"] == 0
    assert pipeline("failures").stdout == ""


@pytest.mark.parametrize("context", METHODS)
def test_nobody_outlives_the_parent(tmp_path: Path, pipeline: Pipeline, context: str) -> None:
    """Workers, and the programs they started, are gone when the parent is killed, and the lock is free."""
    stage = HURT.replace('"hang"', '"hang me"')
    project(tmp_path, context, stage.replace("    word = text.strip()\n", "    word = 'hang me'\n"))
    (tmp_path / "pipeline.yaml").write_text(YAML.replace("CONTEXT", context).replace("timeout: 8s\n", ""))
    for index in range(4):
        (tmp_path / "in" / f"{index}.txt").write_text("text")
    process = subprocess.Popen([sys.executable, "-m", "pipeline"], cwd=tmp_path)
    wait_until(lambda: len(_in_folder(tmp_path, "sleep")) == 2)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    wait_until(lambda: not _in_folder(tmp_path), most_s=10)
    (tmp_path / "stages" / "hurt.py").write_text("def hurt(text: str) -> str:\n    return text\n")
    assert pipeline().returncode == 0


def _in_folder(folder: Path, name: str = "") -> list[str]:
    """The living processes that work in a folder."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and name in (process / "comm").read_text():
                found.append((process / "cmdline").read_text())
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_workers_that_were_started_for_nothing_are_gone(tmp_path: Path, pipeline: Pipeline) -> None:
    """They start while the plan is made; a run that is refused by then has left nobody behind, and said why."""
    project(tmp_path, "forkserver")
    (tmp_path / "in" / "a.txt").write_text("fine\n")
    assert pipeline().returncode == 0
    shutil.rmtree(tmp_path / ".pipeline")
    refused = pipeline()
    assert refused.returncode == 2 and "adopt" in refused.stderr
    assert _in_folder(tmp_path) == []


@pytest.mark.processes
@pytest.mark.parametrize("context", METHODS)
def test_a_signal_while_the_pool_is_opened_leaves_nothing(tmp_path: Path, context: str) -> None:
    """Ctrl-C that falls into the building of the pool ends the run, and its workers, as a later one does."""
    project(tmp_path, context, HURT)
    for index in range(50):
        (tmp_path / "in" / f"{index}.txt").write_text("text")
    code = """
import os, signal, sys
from pipeline.cli import main
from pipeline.engines.pool import PoolSpec
opened = PoolSpec.open
def open_in_the_midst_of_a_signal(self, *given, **also):
    engine = opened(self, *given, **also)
    os.kill(os.getpid(), signal.SIGINT)
    return engine
PoolSpec.open = open_in_the_midst_of_a_signal
sys.exit(main(["pipeline.yaml"]))
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=100)
    assert ended.returncode == 130, ended.stderr


@pytest.mark.parametrize("context", METHODS)
def test_a_third_signal_while_the_pool_is_closed_leaves_nothing(tmp_path: Path, context: str) -> None:
    """The second ends the jobs in hand; one that falls into that changes nothing."""
    project(tmp_path, context, HURT, YAML.replace("timeout: 8s\n", ""))
    for index in range(2):
        (tmp_path / "in" / f"{index}.txt").write_text("hang")
    code = """
import os, signal, sys
from pipeline.cli import main
from pipeline.engines.pool import PoolEngine
from pipeline.engines.pool_session import PoolSession
drain, kill = PoolEngine.drain, PoolSession.kill
def say_that_it_drains(self):
    drain(self)
    open("draining", "w").close()
def kill_after_a_signal(self):
    os.kill(os.getpid(), signal.SIGINT)
    return kill(self)
PoolEngine.drain, PoolSession.kill = say_that_it_drains, kill_after_a_signal
sys.exit(main(["pipeline.yaml"]))
"""
    process = subprocess.Popen([sys.executable, "-c", code], cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: len(_in_folder(tmp_path, "sleep")) == 2)
    process.send_signal(signal.SIGINT)
    wait_until((tmp_path / "draining").exists)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 130, said
    assert "Traceback" not in said
    wait_until(lambda: not _in_folder(tmp_path))


def test_a_long_tmpdir_is_no_reason_to_stop(
    tmp_path: Path, pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The socket of the forkserver, whose path may have 107 bytes, lies in /tmp then."""
    project(tmp_path, "forkserver")
    (tmp_path / "in" / "a.txt").write_text("fine\n")
    long = tmp_path / ("long" * 25)
    long.mkdir()
    monkeypatch.setenv("TMPDIR", str(long))
    done = pipeline()
    assert done.returncode == 0, done.stderr
    assert list(long.iterdir()) == []


@pytest.mark.parametrize("context", METHODS)
def test_shared_memory_without_room_ends_the_run_by_its_name(context: str) -> None:
    """Exit 3, and a sentence that says where to make room."""
    if os.geteuid() or not shutil.which("unshare"):
        pytest.skip("needs root and unshare")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:  # that of the tests may lie in shared memory itself
        project(Path(folder), context)
        (Path(folder) / "in" / "a.txt").write_text("fine\n")
        fill = "mount -t tmpfs -o size=4k none /dev/shm && head -c 4096 /dev/zero >/dev/shm/full"
        command = f"{fill} && exec {sys.executable} -m pipeline"
        done = subprocess.run(
            ["unshare", "-m", "sh", "-c", command], cwd=folder, capture_output=True, text=True, timeout=100
        )
    assert done.returncode == 3, done.stderr
    assert "make room" in done.stderr and "/dev/shm" in done.stderr and "Traceback" not in done.stderr
