"""A project of small pictures whose runs are killed, and the checks of what is left of it afterwards."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from copy import copy
from pathlib import Path

import pytest
from PIL import Image

from support.project import contents_below, temporaries

YAML = """
inputs: in
stages:
  - {name: seen, uses: seen}
  - {name: web, uses: resize, with: {width: 32, height: 32}, output: 'out/web/{dir}/{stem}.png'}
  - {name: thumb, from: web, uses: resize, with: {width: 8, height: 8}, output: 'out/thumb/{dir}/{stem}.jpg'}
pool: {processes: 2}
"""
# A stage that appends the time and the source of each call to a file, in one write, so that no line is torn.
SEEN = '''
import os, time
from pathlib import Path
from pipeline import Item
FILE = Path(__file__).parent.parent / "seen"
def seen(item: Item[Path]) -> bool:
    """Leaves nothing out."""
    fd = os.open(FILE, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    os.write(fd, f"{time.monotonic()} {item.source}\\n".encode())
    os.close(fd)
    return True
'''


class Gallery:
    """A project with pictures and a pipeline that makes two outputs of each."""

    def __init__(self, folder: Path, pictures: int) -> None:
        self.folder = folder
        self.pictures = pictures
        (folder / "stages").mkdir(parents=True)
        (folder / "stages" / "seen.py").write_text(SEEN)
        (folder / "pipeline.yaml").write_text(YAML)
        for number in range(pictures):
            place = folder / "in" / f"d{number % 3}"
            place.mkdir(parents=True, exist_ok=True)
            noise = random.Random(number).randbytes(64 * 48 * 3)
            Image.frombytes("RGB", (64, 48), noise).save(place / f"{number:03}.png")

    def copy(self, folder: Path) -> Gallery:
        """Copy the project, with its outputs and its ledger, to another folder."""
        shutil.copytree(self.folder, folder)
        other = copy(self)
        other.folder = folder
        return other

    def change(self) -> None:
        """Change an option, so that every output is made again with other contents."""
        text = (self.folder / "pipeline.yaml").read_text()
        (self.folder / "pipeline.yaml").write_text(text.replace("width: 32, height: 32", "width: 20, height: 20"))

    def forget(self) -> None:
        """Remove the outputs and the ledger, as before the first run."""
        for name in ("out", ".pipeline"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        (self.folder / "seen").unlink(missing_ok=True)

    def start(self, *arguments: str, before: tuple[str, ...] = ()) -> subprocess.Popen[str]:
        """Start a run as the leader of a process group; `before` is the command that it runs under, such as strace."""
        return subprocess.Popen(
            [*before, sys.executable, "-m", "pipeline", *arguments],
            cwd=self.folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, process_group=0,
            env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
        )  # fmt: skip

    def finish(self, *arguments: str, before: tuple[str, ...] = ()) -> int:
        """Run to the end, check that stderr reports no damage, and return the exit code."""
        process = self.start(*arguments, before=before)
        _, said = process.communicate(timeout=100)
        assert not any(word in said for word in ("Traceback", "bug", "set aside", "lost")), said
        return process.returncode

    def failures(self) -> str:
        """Return what `failures` prints."""
        command = [sys.executable, "-m", "pipeline", "failures"]
        return subprocess.run(command, cwd=self.folder, capture_output=True, text=True, check=True).stdout

    def outputs(self) -> dict[str, bytes]:
        """Return the contents of every output by its path; temporaries are left out."""
        found = contents_below(self.folder / "out")
        return {name: data for name, data in found.items() if "/.filemill-" not in name}

    def seen(self) -> dict[str, list[float]]:
        """Return the times at which each source was processed."""
        times: dict[str, list[float]] = {}
        for line in (self.folder / "seen").read_text().splitlines() if (self.folder / "seen").exists() else ():
            at, name = line.split(" ", 1)
            times.setdefault(name, []).append(float(at))
        return times

    def check_whole(self, *states: dict[str, bytes]) -> None:
        """Assert that every output that exists has the contents that it has in one of these states."""
        for name, data in self.outputs().items():
            assert any(data == state.get(name) for state in states), f"{name} is a part of an output"

    def processes(self) -> dict[int, str]:
        """Return the command line of every process whose working directory is the project, by its id."""
        found = {}
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):  # it has ended meanwhile
                if (process / "cwd").readlink() == self.folder:
                    found[int(process.name)] = (process / "cmdline").read_text()
        return found

    def check_nobody_lives(self) -> None:
        """Assert that all processes in the project's folder end within 10 s."""
        until = time.monotonic() + 10.0
        while left := self.processes():
            assert time.monotonic() < until, left
            time.sleep(0.01)

    def check_ended_well(self, expected: dict[str, bytes], *arguments: str) -> None:
        """Assert that a run succeeds, makes the expected outputs, and leaves no temporaries."""
        assert self.finish(*arguments) == 0
        assert self.outputs() == expected
        assert not temporaries(self.folder)
        assert not list((self.folder / ".pipeline" / "pipeline").glob("s[cl]*/*"))

    def lost_s(self, runs: list[tuple[float, float]]) -> list[float]:
        """Return for each repeated call how long before the kill the lost one began; `runs` are (start, end) times."""
        found = []
        for times in self.seen().values():
            for begun in times[:-1]:
                killed = max(run for run in runs if run[0] <= begun)[1]
                found.append(max(0.0, killed - begun))  # a worker outlives its parent by a moment
        return found


class Reader(threading.Thread):
    """Reads outputs in a loop, as a web server would, and collects those with other contents than in these states."""

    def __init__(self, folder: Path, *states: dict[str, bytes]) -> None:
        super().__init__(daemon=True)
        self._folder, self._states = folder, states
        self._is_over = threading.Event()
        self.reads = 0
        self.wrong: list[str] = []

    def run(self) -> None:
        names = sorted(set().union(*self._states))
        while not self._is_over.is_set():
            for name in names:
                self.reads += 1
                try:
                    data: bytes | None = (self._folder / name).read_bytes()
                except FileNotFoundError:
                    data = None
                if not any(data == state.get(name) for state in self._states):
                    self.wrong.append(name)

    def stop(self) -> None:
        """Stop reading, and assert that every read found the contents of one of the states."""
        self._is_over.set()
        self.join()
        assert self.reads and not self.wrong, self.wrong[:5]


def kill_after(process: subprocess.Popen[str], seconds: float, *, group: bool = False) -> float:
    """Kill a process, or its group, after some seconds unless it has ended; return the time of the kill."""
    time.sleep(seconds)
    if process.poll() is None:
        (os.killpg if group else os.kill)(process.pid, signal.SIGKILL)
    at = time.monotonic()
    code = process.wait(100)
    assert process.stderr
    process.stderr.close()
    assert code in (0, -signal.SIGKILL)
    return at


# -- strace ------------------------------------------------------------------------------------------------------------

STRACE = shutil.which("strace")
# Of all processes; it stops them at the calls that are traced, and not at every one. It injects no signals then.
FOLLOWING = ("-f", "--seccomp-bpf", "-qq")

# System calls that change what is on disk: between two of them nothing new can be left behind.
CHANGING = (
    "openat", "write", "pwrite64", "ftruncate", "fchmod", "fchown", "fdatasync", "fsync", "syncfs", "close",
    "rename", "renameat", "renameat2", "unlink", "unlinkat", "mkdir", "rmdir", "link", "linkat", "sendfile",
    "copy_file_range",
)  # fmt: skip


def can_inject() -> bool:
    """Whether strace is installed and may trace, which some containers forbid."""
    if STRACE is None:
        return False
    traced = [[*injecting("rename", what, 9), "true"] for what in ("signal=KILL", "error=EIO")]
    return all(subprocess.run(each, capture_output=True).returncode == 0 for each in traced)


def injecting(call: str, what: str, number: int, log: str = os.devnull) -> tuple[str, ...]:
    """Return the strace command under which the `number`th such call of each process fails or kills it."""
    assert STRACE
    inject = f"inject={call}:{what}:when={number}"
    following = ("-f", "-qq") if what.startswith("signal=") else FOLLOWING
    return (STRACE, *following, "-o", log, "-e", f"trace={call}", "-e", "signal=none", "-e", inject)


def calls_below(project: Gallery, *arguments: str) -> Iterator[tuple[str, int]]:
    """Yield every system call by which a first run changes a file of the project: name, and number in its process.

    Files that are opened for reading, such as those of imports, are left out.
    """
    assert STRACE
    log = project.folder / "trace"
    trace = f"trace={','.join(CHANGING)}"
    before = (STRACE, *FOLLOWING, "-y", "-s", "256", "-o", str(log), "-e", trace, "-e", "signal=none")
    project.forget()
    assert project.finish(*arguments, before=before) == 0
    counts: dict[tuple[str, str], int] = {}
    found = set()
    for line in log.read_text(errors="replace").splitlines():
        if match := re.match(r"(\d+) +(\w+)\(", line):
            process, call = match.groups()
            counts[process, call] = counts.get((process, call), 0) + 1
            reads = call == "openat" and "O_WRONLY" not in line and "O_RDWR" not in line
            if re.search(rf"{re.escape(str(project.folder))}/(out|\.pipeline)\b", line) and not reads:
                found.add((call, counts[process, call]))
    log.unlink()
    yield from sorted(found)


@pytest.fixture
def strace() -> None:
    """Skip the test if strace cannot be used."""
    if not can_inject():
        pytest.skip("no strace that may trace")
