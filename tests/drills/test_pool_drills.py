"""Minutes of killing: workers, the lock's holder, whole sessions, the parent; and signals to processes."""

from __future__ import annotations

import fcntl
import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support.pool_engines import Make, run
from support.pool_jobs import job
from support.program import ROOT, is_running, kill, wait_until, wait_until_gone

from pipeline.engines.os_process import describe_wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]

# .ci/run takes few rounds, with one way of starting processes; FULL=1 takes all.
FEW, MANY = pytest.param(10, id="few"), pytest.param(60, id="many")
DRILL = ROOT / "tests" / "support" / "pool_drill.py"


class Killer(threading.Thread):
    """Kills a random worker now and then, starting ones included."""

    def __init__(self, engine, kills: int, pause_s: float) -> None:
        super().__init__(daemon=True)
        self.engine, self.kills, self.pause_s = engine, kills, pause_s
        self.is_over = threading.Event()

    def run(self) -> None:
        while self.kills and not self.is_over.wait(random.uniform(0, self.pause_s)):
            session = self.engine._session
            workers = [w for w in list(session.workers) if not w.process.is_dead] if session else []
            if workers:
                kill(random.choice(workers).process.pid)
                self.kills -= 1


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_random_kills_lose_nothing(make: Make, method: str, kills: int) -> None:
    """Workers are killed during 20,000 small jobs: none is lost, none doubled, and it does not hang."""
    engine = make(method)
    killer = Killer(engine, kills, 0.2 if method == "fork" else 0.4)
    killer.start()
    count = 0

    def source() -> Iterator:
        nonlocal count
        while count < 20_000 or killer.kills:
            yield job(f"ok {count}" if count % 10 else f"sleep 0.002 {count}")
            count += 1

    try:
        found = run(engine, source(), most_s=200)
    finally:
        killer.is_over.set()
    assert killer.kills == 0
    assert Counter(o.source.path for o in found).most_common(1)[0][1] == 1
    assert len(found) == count
    assert Counter(o.results[0].kind for o in found)[None] > 0.999 * count


def test_the_holder_of_the_lock_is_killed(make: Make, method: str) -> None:
    """The worker that waits for a batch holds the queue's lock, and takes it to its grave; ten times."""
    engine = make(method)
    for _ in range(10):
        run(engine, [job("ok 1"), job("ok 2")])
        time.sleep(0.1)
        workers = list(engine._session.workers)
        holders = [w for w in workers if "pipe" in describe_wait(w.process.pid)] or workers
        os.kill(holders[0].process.pid, signal.SIGKILL)
        assert len(run(engine, [job(f"ok {n}") for n in range(100)], most_s=20)) == 100


@pytest.mark.parametrize("rounds", [FEW, MANY])
def test_rebuilds_leave_nothing_behind(make: Make, method: str, rounds: int) -> None:
    """Forced rebuilds: no thread, process or file descriptor more than after the first."""
    engine = make(method)
    counts = []
    for round_ in range(rounds):
        run(engine, [job("ok 1"), job("ok 2")], most_s=20)
        if round_ < 4 or round_ >= rounds - 4:
            time.sleep(0.2)
            gc.collect()
            counts.append((threading.active_count(), len(os.listdir("/proc/self/fd")), len(_children())))
        for worker in list(engine._session.workers):
            os.kill(worker.process.pid, signal.SIGKILL)
    for early, late in zip(zip(*counts[:4], strict=True), zip(*counts[4:], strict=True), strict=True):
        assert max(late) <= max(early)


def _children() -> list[str]:
    return Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()


def test_a_killed_forkserver_costs_nothing(make: Make) -> None:
    """The server that forks the workers dies, and they with it; another takes its place."""
    from multiprocessing import forkserver

    engine = make("forkserver")
    run(engine, [job("ok")])
    os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
    assert len(run(engine, [job(f"ok {n}") for n in range(300)])) == 300


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_the_forkserver_is_killed_while_its_workers_start(make: Make, kills: int) -> None:
    """Workers that are not yet the leaders of a group outlive it: they are found, and take no batch away."""
    from multiprocessing import forkserver

    def kill_the_forkserver() -> None:
        """Kill the one that runs; where the last one was killed and its successor is not yet there, wait for it."""
        for _ in range(20_000):
            with suppress(ProcessLookupError, TypeError):
                return os.kill(forkserver._forkserver._forkserver_pid, signal.SIGKILL)
            time.sleep(0.001)
        raise AssertionError("no forkserver in 20 s")

    for number in range(kills):
        engine = make("forkserver")
        killer = threading.Timer(number * 0.6 / kills, kill_the_forkserver)
        engine.warm_up()
        killer.start()
        assert len(run(engine, [job(f"sleep 0.002 {n}") for n in range(50)], most_s=20)) == 50
        killer.join()
        engine.close()


class Drill:
    """The process of pool_drill.py, once both its workers are at work."""

    def __init__(self, method: str, folder: Path, seconds: float) -> None:
        command = [sys.executable, "-W", "error", str(DRILL), method, str(folder), str(seconds)]
        here = f"{ROOT}{os.pathsep}{ROOT / 'tests'}"
        self.folder = folder
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, process_group=0,
            env={**os.environ, "PYTHONPATH": here},
        )  # fmt: skip
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line.startswith("READY"), line + self.process.communicate()[1]

    def pids(self) -> list[int]:
        """All workers and the programs they started."""
        return [int(pid) for file in self.folder.glob("pids*") for pid in file.read_text().split()]


@pytest.mark.parametrize("kills", [FEW, MANY])
def test_nobody_outlives_the_parent(method: str, tmp_path: Path, kills: int) -> None:
    """The parent is killed, again and again: its processes are gone, and the lock is free."""
    for n in range(kills):
        folder = tmp_path / str(n)
        folder.mkdir()
        drill = Drill(method, folder, 100)
        pids = drill.pids()
        assert len(pids) == 4 and all(map(is_running, pids))
        drill.process.kill()
        drill.process.wait()
        with open(folder / "lock") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        wait_until_gone(pids, most_s=10)
        drill.process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
@pytest.mark.parametrize("to_group", [False, True])
def test_a_signal_drains(method: str, tmp_path: Path, number: int, to_group: bool) -> None:
    """A signal to the parent, or to its group as a terminal sends it: what is in hand is done, no more."""
    drill = Drill(method, tmp_path, 0.5)
    (os.killpg if to_group else os.kill)(drill.process.pid, number)
    out, err = drill.process.communicate(timeout=60)
    lines = out.split("\n")
    assert (lines.count("OUTCOME done"), lines[-2], err) == (2, f"END {int(number)}", "")
    wait_until_gone(drill.pids())


def test_a_second_signal_stops_at_once(method: str, tmp_path: Path) -> None:
    """No waiting for what is in hand."""
    drill = Drill(method, tmp_path, 100)
    heard = tmp_path / "heard"
    for count in (1, 2):
        os.killpg(drill.process.pid, signal.SIGINT)
        wait_until(lambda count=count: heard.exists() and heard.stat().st_size == count)
    out, err = drill.process.communicate(timeout=60)
    assert (out.split("\n")[-2], err) == ("END 2 2", "")
    wait_until_gone(drill.pids())
