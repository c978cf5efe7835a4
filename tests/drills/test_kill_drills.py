"""kill -9 anywhere: what lies under an output's name is whole, and the same line again ends as if nothing had been."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

import pytest
from support.kill_drill import Gallery, Reader, calls_below, injecting, kill_after, strace

__all__ = ["strace"]  # a fixture

ENGINES = pytest.mark.parametrize("engine", ["serial", "pool"])
# What a kill may cost, in seconds of work: what was done since the ledger was committed last, 0.1 s ago, and the batch
# in each worker's hands. The rest is for machines that have others to serve, and is more where those are many.
LOST_S = 0.5


class Line:
    """The same command line, again and again, and what it makes of the pictures when it is let be."""

    def __init__(self, folder: Path, pictures: int, engine: str) -> None:
        self.project = Gallery(folder, pictures)
        self.arguments = ("--engine", engine)
        began = time.monotonic()
        assert self.project.finish(*self.arguments) == 0
        self.seconds = time.monotonic() - began
        """How long it takes."""
        self.expected = self.project.outputs()
        began = time.monotonic()
        assert self.project.finish(*self.arguments) == 0
        self.allowed_lost_s = max(LOST_S, 2 * (time.monotonic() - began))
        """How long before a kill work may have been begun that is done again: more where doing nothing is slow."""
        assert len(self.expected) == 2 * pictures

    def kill(self, moment: random.Random, *, kills: int = 1, group: bool = False) -> list[float]:
        """Kill a run from nothing at a random moment, and those that resume it, but for the last.

        Gives how long before a kill the work was begun that was done again.
        """
        self.project.forget()
        runs = []
        for _ in range(kills):
            began = time.monotonic()
            process = self.project.start(*self.arguments)
            runs.append((began, kill_after(process, moment.uniform(0, self.seconds), group=group)))
            self.project.check_nobody_lives()
            self.project.check_whole(self.expected)
        self.project.check_ended_well(self.expected, *self.arguments)
        return self.project.lost_s(runs)


@pytest.mark.processes
def test_killed_at_any_moment(tmp_path: Path) -> None:
    """Killed, and again while it resumes: nothing half, nothing left over, nobody alive, little done twice."""
    line, moment = Line(tmp_path, 60, "pool"), random.Random()
    for kills in (1, 2):
        assert max(line.kill(moment, kills=kills), default=0) < line.allowed_lost_s


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize(
    ("engine", "seed", "kills"), [("pool", 1, 12), ("pool", 1, 50), ("pool", 2, 50), ("pool", 3, 50), ("serial", 4, 50)]
)
def test_killed_at_many_moments(tmp_path: Path, engine: str, seed: int, kills: int) -> None:
    """The same over 300 pictures, with every fourth killed as a group and every third killed twice."""
    line, moment = Line(tmp_path, 300, engine), random.Random(seed)
    lost = []
    for number in range(kills):
        lost += [line.kill(moment, kills=1 + (number % 3 == 2), group=number % 4 == 3)]
    worst = sorted(max(each, default=0.0) for each in lost)
    print(f"{engine}: files done again a kill: {sum(map(len, lost)) / kills:.1f}, at most {max(map(len, lost))};"
          f" begun before it: median {worst[len(worst) // 2] * 1e3:.0f} ms, most {worst[-1] * 1e3:.0f} ms")  # fmt: skip
    assert worst[-1] < line.allowed_lost_s


def rebuild(folder: Path, pictures: int, engine: str, kills: int, moment: random.Random) -> None:
    """Kill runs that make every output anew, since an option changed, while somebody reads the outputs all the time."""
    line = Line(folder, pictures, engine)
    old, project = line.expected, line.project
    undisturbed = project.copy(folder.with_name("undisturbed"))
    for each in (project, undisturbed):
        each.change()
    assert undisturbed.finish(*line.arguments) == 0
    new = undisturbed.outputs()
    assert set(new) == set(old) and not set(new.items()) & set(old.items())
    reader = Reader(folder / "out", old, new)
    reader.start()
    for _ in range(kills):
        kill_after(project.start(*line.arguments), moment.uniform(0, line.seconds))
        project.check_whole(old, new)
        assert set(project.outputs()) == set(new)
    project.check_ended_well(new, *line.arguments)
    reader.stop()


@pytest.mark.processes
def test_killed_while_it_makes_everything_anew(tmp_path: Path) -> None:
    """An output is the whole old or the whole new one whenever it is looked at, and never away."""
    rebuild(tmp_path / "project", 40, "pool", 2, random.Random())


@pytest.mark.slow
@ENGINES
def test_killed_often_while_it_makes_everything_anew(tmp_path: Path, engine: str) -> None:
    """The same over 300 pictures, ten times in a row."""
    rebuild(tmp_path / "project", 300, engine, 10, random.Random(5))


@pytest.mark.processes
@pytest.mark.parametrize("kills", [1, pytest.param(30, marks=pytest.mark.slow)])
def test_a_killed_worker_costs_nothing(tmp_path: Path, kills: int) -> None:
    """A worker is killed, or the server that forks them: the run ends as if nothing had been."""
    line, moment = Line(tmp_path, 100, "pool"), random.Random()
    for _ in range(kills):
        line.project.forget()
        process = line.project.start(*line.arguments)
        time.sleep(moment.uniform(line.seconds / 3, line.seconds))
        others = [pid for pid, what in line.project.processes().items() if "forkserver" in what]
        if others:
            with suppress(ProcessLookupError):
                os.kill(moment.choice(others), signal.SIGKILL)
        assert process.wait(60) == 0 and process.stderr and process.stderr.read() == ""
        process.stderr.close()
        line.project.check_ended_well(line.expected, *line.arguments)


def killed_at_calls(line: Line, calls: Iterable[tuple[str, int]]) -> int:
    """Kill a process of a run from nothing at each of these system calls; gives how often one was."""
    kills = 0
    for call, number in calls:
        line.project.forget()
        code = line.project.finish(*line.arguments, before=injecting(call, "signal=KILL", number))
        # 3 is the run whose process that imports the stages was killed: that one makes no output.
        assert code in (0, 3, -signal.SIGKILL), (call, number, code)
        kills += code != 0
        line.project.check_whole(line.expected)
        line.project.check_ended_well(line.expected, *line.arguments)
    return kills


def test_killed_at_a_rename_and_at_what_comes_before(tmp_path: Path, strace: None) -> None:
    """Of every kind of system call that the commit of an output and the ledger's is made of, one in the middle."""
    line = Line(tmp_path, 3, "serial")
    last = dict(calls_below(line.project, *line.arguments))
    # How many there are differs by a few, with the moments at which the ledger is committed.
    chosen = [(call, max(1, last[call] * 2 // 3)) for call in ("rename", "write", "pwrite64")]
    assert killed_at_calls(line, chosen) == len(chosen)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("some", ["pwrite64", "openat, close, fchmod, fchown", "all others"])
@ENGINES
def test_killed_at_every_call(tmp_path: Path, strace: None, engine: str, some: str) -> None:
    """At each system call by which anything on disk is changed, whichever process makes it, the run is killed once."""
    line = Line(tmp_path, 3, engine)
    named = ["pwrite64", "openat", "close", "fchmod", "fchown"]
    found = list(calls_below(line.project, *line.arguments))
    chosen = [each for each in found if (each[0] in some.split(", ") if "all" not in some else each[0] not in named)]
    kills = killed_at_calls(line, chosen)
    print(f"{engine}: the run was killed at {kills} of {len(chosen)} calls of {some}")
    assert kills == len(chosen) or engine == "pool"
