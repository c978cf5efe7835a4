"""Whatever becomes of the processes that import the stages: it works, or one clear error says what was wrong."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import pytest
from support.program import Pipeline, pids_in, wait_until, wait_until_gone
from support.project import UPPER, Project

pytestmark = pytest.mark.processes

# The stage says which processes there are, and imports no more before it is let go on.
WAITING = """
import os, time
from pathlib import Path
here = Path(__file__).parent.parent
if not (here / "go_on").exists():
    (here / "pids.new").write_text(f"{os.getppid()} {os.getpid()}")
    (here / "pids.new").rename(here / "pids")
    time.sleep(1000)
"""


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """One file to be made."""
    project = Project(tmp_path)
    project.write("in/a", "text")
    return project


def start(project: Project, *arguments: str) -> subprocess.Popen[str]:
    """Start a run as the leader of a group of its own, and wait until its stage is being imported."""
    process = subprocess.Popen(
        [sys.executable, "-m", "pipeline", *arguments],
        cwd=project.folder, process_group=0, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    wait_until((project.folder / "pids").exists)
    return process


def end(process: subprocess.Popen[str]) -> tuple[int, str]:
    _, said = process.communicate(timeout=60)
    assert "Traceback" not in said and "bug" not in said, said
    return process.returncode, said


# -- killed ------------------------------------------------------------------------------------------------------------


def test_a_server_that_is_killed_between_two_calls(tmp_path: Path) -> None:
    """Another takes its place."""
    code = (
        "import os, signal; from pipeline.stage.isolation import call\n"
        "for _ in range(3): os.kill(call('os:getppid'), signal.SIGKILL)\n"
        "assert call('os:getcwd') == os.getcwd()"
    )
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=60)


def test_a_server_that_is_killed_while_a_stage_is_imported(project: Project) -> None:
    """Its child dies with it, and the stage is imported once more."""
    project.write("stages/upper.py", WAITING + UPPER)
    process = start(project)
    server, child = pids_in(project.folder / "pids", 2)
    (project.folder / "go_on").touch()
    os.kill(server, signal.SIGKILL)
    assert end(process) == (0, "") and project.outputs() == {"a": b"TEXT"}
    wait_until_gone([server, child])


def test_a_child_that_is_killed(project: Project) -> None:
    """It is told which stage it was importing, since nobody knows that it was none of its fault."""
    project.write("stages/upper.py", WAITING + UPPER)
    process = start(project)
    os.kill(pids_in(project.folder / "pids", 2)[1], signal.SIGKILL)
    code, said = end(process)
    assert code == 2 and "the import of 'upper' ended the process by signal 9 (SIGKILL)" in said


ENDS = {signal.SIGTERM: -signal.SIGTERM, signal.SIGHUP: -signal.SIGHUP, signal.SIGKILL: -signal.SIGKILL,
        signal.SIGINT: 130}  # fmt: skip


@pytest.mark.parametrize("group", [False, True])
@pytest.mark.parametrize("number", ENDS)
def test_a_program_that_is_ended_while_a_stage_is_imported(project: Project, number: int, group: bool) -> None:
    """Alone, or with all processes of its group, as a terminal does it: none is left."""
    project.write("stages/upper.py", WAITING + UPPER)
    process = start(project)
    (os.killpg if group else os.kill)(process.pid, number)
    assert end(process)[0] == ENDS[signal.Signals(number)]
    wait_until_gone(pids_in(project.folder / "pids", 2))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_server_outlives_a_signal_that_its_program_does(tmp_path: Path, number: int) -> None:
    """A program may mean to go on, such as a run that drains."""
    code = (
        "import os, sys; from pipeline.stage.isolation import call\n"
        "server = call('os:getppid'); print(server, flush=True); sys.stdin.read()\n"
        "assert call('os:getppid') == server"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=tmp_path, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdin and process.stdout
    os.kill(int(process.stdout.readline()), number)
    process.communicate("", timeout=60)
    assert process.returncode == 0


def test_a_stage_that_kills_the_server(project: Project) -> None:
    """Each time: it is told which it was."""
    project.write("stages/upper.py", f"import os, time\nos.kill(os.getppid(), 9)\ntime.sleep(1000)\n{UPPER}")
    process = subprocess.run(
        [sys.executable, "-m", "pipeline"], cwd=project.folder, capture_output=True, text=True, timeout=60
    )
    assert process.returncode == 2 and "the import of 'upper' ended the process with the one that had" in process.stderr


# -- what an import may do ---------------------------------------------------------------------------------------------

DAEMON = """
import os
if os.fork():
    os._exit(0)
os.setsid()
if os.fork():
    os._exit(0)
"""
OWN_FILE = """
import os
os.closerange(3, 256)
mine = os.open(os.path.join(os.path.dirname(__file__), "mine"), os.O_WRONLY | os.O_CREAT)
while mine < 60:
    mine = os.dup(mine)
"""
CASES: dict[str, tuple[str, str]] = {
    "becomes a daemon": (DAEMON, "the import of 'upper' ended the process with exit code 0"),
    "forks, and both go on": ("import os\nos.fork()", ""),
    "forks, and the other sleeps": ("import os, time\nif os.fork() == 0:\n    time.sleep(1000)", ""),
    "starts a program": ("import subprocess\nsubprocess.Popen(['sleep', '1000'])", ""),
    "starts a thread": ("import threading, time\nthreading.Thread(target=time.sleep, args=(1000,)).start()", ""),
    "closes what it prints to": ("import os\nos.close(1)\nos.close(2)", ""),
    "closes its streams": ("import sys\nsys.stdout.close()\nsys.stderr.close()", ""),
    "has no streams": ("import sys\nsys.stdin = sys.stdout = sys.stderr = None", ""),
    "has streams of its own": ("import sys\nsys.stdout = sys.stderr = type('Mine', (), {'write': len})()", ""),
    "closes all": ("import os\nos.closerange(0, 256)", "ended the process by losing the pipe"),
    "opens files in their place": (OWN_FILE, "ended the process by losing the pipe"),
    "ignores all signals": ("import signal\nfor n in (1, 2, 3, 15):\n    signal.signal(n, signal.SIG_IGN)", ""),
    "changes the folder": ("import os\nos.chdir('/')", ""),
    "removes its environment": ("import os\nos.environ.clear()", ""),
    "lets no memory be had": (
        "import resource\nresource.setrlimit(resource.RLIMIT_AS, (1, 1))\nx = bytearray(1 << 26)", "MemoryError"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_what_an_import_may_do(project: Project, pipeline: Pipeline, case: str) -> None:
    """It does no harm to the reading, or is a complaint that names the stage; nothing of it is left."""
    code, said = CASES[case]
    project.write("stages/upper.py", f"{code}\n{UPPER}")
    before = running_in(project.folder)
    checked = pipeline("check")
    assert (checked.returncode, "'up'" in checked.stderr) == ((2, True) if said else (0, False)), checked.stderr
    assert said in checked.stderr and "Traceback" not in checked.stderr
    assert not (project.folder / "stages/mine").exists() or not (project.folder / "stages/mine").stat().st_size
    wait_until(lambda: running_in(project.folder) == before)


def test_an_import_that_lets_no_file_be_opened(project: Project, pipeline: Pipeline) -> None:
    """Its code cannot be read then: that is not the code of a file that says so."""
    project.write("stages/upper.py", f"import resource\nresource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\n{UPPER}")
    checked = pipeline("check")
    said = f"{project.folder}/stages/upper.py: too many open files (at most 3 in one process: ulimit -n)\n"
    assert (checked.returncode, checked.stderr) == (3, said)


def running_in(folder: Path) -> set[str]:
    """The processes whose working directory is a folder."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if (process / "cwd").readlink() == folder and "\nState:\tZ" not in (process / "status").read_text():
                found.add(process.name)
        except OSError:  # it has ended meanwhile
            continue
    return found


def test_megabytes_that_an_import_prints(project: Project, pipeline: Pipeline) -> None:
    """All of it arrives, on stderr, and no letter is torn."""
    project.write("stages/upper.py", f"import sys\nprint('x' + 'ü' * 3_000_000)\nprint('y', file=sys.stderr)\n{UPPER}")
    checked = pipeline("check")
    assert checked.returncode == 0 and f"x{'ü' * 3_000_000}\ny\n" in checked.stderr


# -- where the program is ----------------------------------------------------------------------------------------------

STREAMS = [each for count in (1, 2, 3) for each in combinations((0, 1, 2), count)]


@pytest.mark.parametrize("verb", ["check", "run", "stages"])
@pytest.mark.parametrize("closed", STREAMS, ids=lambda closed: "".join(map(str, closed)))
def test_streams_that_are_closed(project: Project, verb: str, closed: tuple[int, ...]) -> None:
    """No pipe or socket of ours takes their place."""
    project.write("stages/upper.py", f"print('hello')\n{UPPER}")
    command = " ".join([sys.executable, "-m", "pipeline", verb, *(f"{each}>&-" for each in closed)])
    ran = subprocess.run(["sh", "-c", command], cwd=project.folder, timeout=60, capture_output=True, text=True)
    assert ran.returncode == 0 and (verb != "run" or project.outputs() == {"a": b"TEXT"})
    assert ran.stderr.count("hello") == (2 not in closed) * (2 if verb == "run" else 1), ran.stderr


def test_a_folder_that_is_gone(project: Project, tmp_path: Path) -> None:
    """Who names the pipeline in full needs no working directory."""
    file = project.folder / "pipeline.yaml"
    command = f"mkdir gone && cd gone && rmdir ../gone && exec {sys.executable} -m pipeline run {file}"
    ran = subprocess.run(["sh", "-c", command], cwd=tmp_path, timeout=60, capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (0, "") and project.outputs() == {"a": b"TEXT"}


def test_a_huge_environment(project: Project, pipeline: Pipeline) -> None:
    """As large as the system lets it be."""
    huge = {f"HUGE_{number}": "x" * 100_000 for number in range(15)}
    project.write("stages/upper.py", f"import os\nassert len(os.environ['HUGE_14']) == 100_000\n{UPPER}")
    ran = pipeline("check", **huge)
    assert (ran.returncode, ran.stderr) == (0, "")


def limited_to(files: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (files, files))


def test_too_few_files_that_may_be_open(project: Project) -> None:
    """However many they are: it works, or one line says what it lacks."""
    codes = []
    for files in (5, 6, 7, 9, 11, 13, 15, 17, 20, 23):
        ran = subprocess.run(
            [sys.executable, "-m", "pipeline", "check"],
            cwd=project.folder, preexec_fn=limited_to(files), capture_output=True, text=True, timeout=60,
        )  # fmt: skip
        codes.append(ran.returncode)
        assert ran.returncode in (0, 3), (files, ran.stderr)
        assert ran.returncode == 0 or "Too many open files" in ran.stderr.splitlines()[-1], (files, ran.stderr)
    assert codes == sorted(codes, reverse=True) and {*codes} == {0, 3}


def test_only_the_program_is_copied(project: Project) -> None:
    """In a script, which may have threads and whatever is imported, the server is a new process."""
    project.write("stages/upper.py", WAITING + UPPER)
    project.write("script.py", "from pipeline.cli import main\nmain(['check'])\n")
    commands = []
    for script in (["-m", "pipeline", "check"], ["script.py"]):
        process = subprocess.Popen([sys.executable, *script], cwd=project.folder, stderr=subprocess.PIPE, text=True)
        server, _ = pids_in(project.folder / "pids", 2)
        commands.append([Path(f"/proc/{pid}/cmdline").read_bytes() for pid in (process.pid, server)])
        (project.folder / "go_on").touch()
        os.kill(server, signal.SIGKILL)
        assert end(process) == (0, "")
        for name in ("pids", "go_on"):
            (project.folder / name).unlink()
    assert [program == server for program, server in commands] == [True, False]


FORKED = """
import multiprocessing, os, sys
from pathlib import Path
from pipeline.config.load import load_config
from pipeline.stage import isolation
def load():
    isolation.call("os:getcwd")
    return load_config(Path("pipeline.yaml")).name
if __name__ == "__main__":
    server = isolation.call("os:getppid")
    isolation._one_at_a_time.acquire()
    context = multiprocessing.get_context("fork")
    child = context.Process(target=load)
    child.start()
    child.join(50)
    isolation._one_at_a_time.release()
    assert child.exitcode == 0 and isolation.call("os:getppid") == server
"""


def test_a_process_that_was_forked_from_ours(project: Project) -> None:
    """It has a server of its own, and waits for no lock that was held when it was forked; ours stays as it is."""
    project.write("script.py", FORKED)
    subprocess.run([sys.executable, "script.py"], cwd=project.folder, check=True, timeout=60)
