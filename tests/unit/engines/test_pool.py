"""The pool engine keeps its promises, with each way of starting processes."""

from __future__ import annotations

import os
import re
import signal
import threading
import time
from collections import Counter
from contextlib import suppress
from multiprocessing import forkserver
from pathlib import Path
from typing import Any

import pytest
from support.pool_engines import Make, first_bytes, kinds, run, texts
from support.pool_jobs import STAGES, job, outside
from support.program import is_running, kill, pids_in, wait_until, wait_until_gone

from pipeline.engines import pool, pool_session
from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.pool import PoolEngine
from pipeline.engines.slots import State
from pipeline.engines.supervisor import WorkerDeath
from pipeline.engines.worker_process import start_lock
from pipeline.errors import EnvironmentFailure, WorkersFailed
from pipeline.planning.learnt import Learnt
from pipeline.text import format_bytes

pytestmark = [pytest.mark.processes, pytest.mark.timeout(120)]


def test_every_job_comes_back_once(make: Make, method: str) -> None:
    """Each outcome arrives exactly once."""
    found = run(make(method), (job(f"ok {n}") for n in range(3000)))
    assert Counter(o.source.path for o in found) == Counter(f"ok {n}".encode() for n in range(3000))
    assert {o.seat for o in found} <= {0, 1}


def test_the_seat_of_the_last_worker_is_told(make: Make) -> None:
    """Also of a file that needed more than one."""
    [found] = run(make(retries=1), [job("fail")])
    assert found.seat in (0, 1)


FAULTS = {
    "segv": ("crashed", "killed by SIGSEGV in stage 'web'"),
    "kill": ("crashed", "killed by SIGKILL in stage 'web', perhaps out of memory"),
    "_exit 3": ("crashed", "the worker ended by exit code 3 in stage 'web'"),
    "_exit 0": ("crashed", "the worker ended by exit code 0 in stage 'web'"),
    "exit": ("crashed", "SystemExit: enough was raised in stage 'web'"),
    "interrupt": ("crashed", "KeyboardInterrupt was raised in stage 'web'"),
    "memory": ("memory", "no room"),
    "fail": ("error", "bad file"),
    "sleep 100": ("timeout", "took longer than 1 s in stage 'web', the stage's own limit"),
    "spin": ("timeout", "took longer than 1 s in stage 'web', the stage's own limit"),
    "child 100": ("timeout", "took longer than 1 s in stage 'web', the stage's own limit"),
    "grow 600 100": ("memory", "more than 1.5 times pool.max_memory of {max_memory}"),
}


def test_each_fault_costs_its_file_only(make: Make, method: str) -> None:
    """All faults in one run of 200 files: each is named, with its stage, and the others are done."""
    names = [*FAULTS, *(f"ok {n}" for n in range(200 - len(FAULTS)))]
    names.sort(key=lambda name: hash(name) % 1000)
    # Growing takes its time on a busy machine, so it happens in a stage without a limit.
    stages = [stage._replace(timeout_s=1) if stage.name == "web" else stage for stage in STAGES]
    limit = first_bytes(method) + 150_000_000
    engine = make(method, stages=stages, max_memory_bytes=limit)
    found = run(engine, [job(name, "print" if name.startswith("grow") else "web") for name in names])
    assert len(found) == 200
    text, kind = texts(found), kinds(found)
    for name, (expected_kind, expected_text) in FAULTS.items():
        assert (name, kind[name]) == (name, expected_kind)
        assert expected_text.format(max_memory=format_bytes(limit)) in text[name]
    assert Counter(kind.values())["done"] == 200 - len(FAULTS)


def test_a_second_death_is_told_at_once(make: Make, method: str) -> None:
    """The guilty file is tried once more, alone, and fails at once when that kills its worker too."""
    engine = make(method)
    run(engine, [job("ok")])
    began = time.monotonic()
    found = run(engine, [job("kill")])
    assert kinds(found) == {"kill": "crashed"}
    assert time.monotonic() - began < 8, "sooner than anything that is waited for"


def test_one_death_is_forgiven(make: Make, method: str, tmp_path: Path) -> None:
    """A file whose worker was killed from outside, once, is done."""
    assert kinds(run(make(method), [job(f"once {tmp_path}/mark kill")])) == {f"once {tmp_path}/mark kill": "done"}


def test_siblings_of_a_deadly_stage_are_kept(make: Make, method: str) -> None:
    """Only the stage that kills the worker fails, with all below it; all comes back as one outcome."""
    [found] = run(make(method), [job("segv@web", "decode", "web", "thumb", "print")])
    assert {r.stage: r.kind or r.status for r in found.results} == {
        "decode": "done", "web": "crashed", "thumb": "crashed", "print": "done",
    }  # fmt: skip


def test_death_outside_of_a_stage_fails_all_targets(make: Make) -> None:
    """Where no stage is in hand, none can be kept."""
    [found] = run(make(work=outside), [job("ok", "web", "print")])
    assert [r.text for r in found.results] == ["killed by SIGKILL, perhaps out of memory"] * 2


def test_a_slow_death_says_what_the_worker_held(make: Make, tmp_path: Path) -> None:
    """The text of a SIGKILL carries the worker's memory, which tells the kernel's kill from an operator's."""
    engine, name = make(), f"grow_and_die {tmp_path}"

    def let_die() -> None:
        for worker in engine._session.workers if engine._session else ():
            if worker.held_bytes >= 100_000_000:
                (tmp_path / str(worker.process.pid)).touch()

    found = texts(run(engine, [job(name)], each=let_die))
    held = re.search(r"perhaps out of memory; the worker held (\d+)\.\d MB$", found[name])
    assert held and int(held[1]) >= 100


def test_a_stage_has_a_limit_of_its_own(make: Make, method: str) -> None:
    """A stage's timeout covers each call of it, and spares the others."""
    stages = [s._replace(timeout_s=0.4) if s.name == "print" else s for s in STAGES]
    engine = make(method, stages=stages)
    run(engine, [job("ok")])
    [found] = run(engine, [job("sleep 1", "web", "print")])
    assert {r.stage: r.text for r in found.results} == {
        "web": "", "print": "took longer than 0.4 s in stage 'print', the stage's own limit",
    }  # fmt: skip


def test_limits_hold_while_the_consumer_is_busy(make: Make, method: str, tmp_path: Path) -> None:
    """The supervisor kills a worker and the program it waits for, although nobody polls."""
    engine = make(method, timeout_s=0.5)
    run(engine, [job("ok")])
    engine.submit(job(f"child 100 {tmp_path}/pids"))
    engine.poll(0)
    wait_until_gone(pids_in(tmp_path / "pids", 2))
    assert [o.results[0].kind for o in run(engine, [])] == ["timeout"]


@pytest.mark.parametrize("name", ["sleep 100", "spin"])
def test_a_limit_tells_where_the_time_went(make: Make, name: str) -> None:
    """A worker writes its stacks before it is killed for being over its limit, even while C code runs."""
    [found] = run(make(timeout_s=0.3), [job(name)])
    assert found.results[0].text == "took longer than 0.3 s in stage 'web', the limit of a file"
    assert "pool_jobs.py" in found.output and "in work" in found.output


@pytest.mark.parametrize(("limit", "count"), [(1, 12), (7, 60)])
def test_maxtasksperchild_is_exact_in_files(make: Make, method: str, limit: int, count: int) -> None:
    """No worker does more files than it may, whatever the size of the batches."""
    pids = Counter(texts(run(make(method, maxtasksperchild=limit), [job(f"pid {n}") for n in range(count)])).values())
    assert max(pids.values()) <= limit
    assert len(pids) >= count / limit


def test_a_grown_worker_is_replaced(make: Make, method: str) -> None:
    """Above max_memory a worker is replaced after the file in hand, which is done."""
    engine = make(method, processes=1, max_memory_bytes=first_bytes(method) + 150_000_000)
    found = texts(run(engine, [job(f"grow 40 0 {n}") for n in range(12)]))
    assert len(found) == 12
    assert len(set(found.values())) >= 3


def test_memory_error_replaces_the_worker(make: Make) -> None:
    """A heap that was full once is not trusted again; the file is tried once more."""
    engine = make(processes=1)
    before = set(texts(run(engine, [job("pid 1")])).values())
    assert kinds(run(engine, [job("memory")])) == {"memory": "memory"}
    assert before.isdisjoint(texts(run(engine, [job("pid 2")])).values())


START_FAULTS = {
    "fail": "ValueError: bad file",
    "exit": "SystemExit: enough",
    "_exit 3": "3 workers died while they started: the worker ended by exit code 3",
    "segv": "killed by SIGSEGV",
    "import no_such_module": "No module named 'no_such_module'",
    "sleep 100": "was not ready after 3 s (pool.start_timeout)",
    "grow 300": "a worker holds ",
}


@pytest.mark.parametrize("fault", START_FAULTS)
def test_a_start_that_fails_is_one_error(make: Make, method: str, fault: str, capfd: pytest.CaptureFixture) -> None:
    """An initializer that raises, exits, crashes, hangs or is too large ends the run once, and says why."""
    start_s = 3 if fault.startswith("sleep") else 30
    engine = make(method, blueprint=fault.encode(), start_timeout_s=start_s, max_memory_bytes=250_000_000)
    with pytest.raises(WorkersFailed) as caught:
        run(engine, [job("ok")])
    assert START_FAULTS[fault] in str(caught.value)
    if fault in ("fail", "segv", "sleep 100"):
        assert "pool_jobs.py" in str(caught.value)
    engine.close()
    assert capfd.readouterr() == ("", "")


def test_one_death_at_start_is_survived(make: Make, method: str, tmp_path: Path) -> None:
    """A worker that dies while it starts is replaced."""
    engine = make(method, blueprint=f"once {tmp_path}/mark".encode())
    assert len(run(engine, [job("ok")])) == 1


def test_idle_workers_may_be_killed(make: Make, method: str) -> None:
    """The one that held the queue's lock is among them: the pool is rebuilt and nothing is lost."""
    engine = make(method)
    for _ in range(3):
        run(engine, [job(f"ok {n}") for n in range(20)])
        for worker in list(engine._session.workers):
            kill(worker.process.pid)
        assert len(run(engine, [job(f"ok {n}") for n in range(100)])) == 100


def test_output_is_captured_by_file(make: Make, method: str, capfd: pytest.CaptureFixture) -> None:
    """What a stage and its programs print comes back with its file, and nothing reaches our stdout."""
    found = run(make(method), [job(f"say {n}") for n in range(20)])
    for outcome in found:
        name = outcome.results[0].text
        assert outcome.output.splitlines() == [f"said {name}", f"complained {name}", f"echoed {name}"]
    assert capfd.readouterr() == ("", "")


def test_last_words_are_kept(make: Make, method: str) -> None:
    """What was printed before a crash comes back, with the stack from faulthandler."""
    [found] = run(make(method), [job("die")])
    assert found.output.startswith("last words\nFatal Python error: Segmentation fault")
    assert "_say_and_die" in found.output


def test_floods_are_capped(make: Make, tmp_path: Path) -> None:
    """A file that prints without end keeps 64 kB of it, and little more than 1 MB on disk."""
    engine = make()
    sizes = []
    [found] = run(engine, [job("flood 20")], each=lambda: sizes.append(_folder_bytes(engine._folder)))
    assert found.output.startswith("the beginning") and found.output.endswith("the end\n")
    assert len(found.output) < 66_000
    assert max(sizes) < 6 << 20


def _folder_bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())


def test_leftovers_of_a_job_are_killed(make: Make, method: str) -> None:
    """A program left behind, even an orphan in its own session, cannot write into the next file's text."""
    engine = make(method, processes=1)
    found = run(engine, [job("leave"), job("sleep 0.8")])
    assert not is_running(int(texts(found)["leave"]))
    assert [o.output for o in found] == ["", ""]


def test_programs_of_the_initializer_stay(make: Make, method: str) -> None:
    """What a stage's constructor started belongs to the worker, and goes with it."""
    engine = make(method, processes=1, blueprint=b"kept")
    found = run(engine, [job("child 0.01"), job("loaded")])
    pid = int(texts(found)["loaded"].split()[-1])
    assert is_running(pid)
    engine.close()
    wait_until_gone([pid])


def test_workers_have_no_terminal(make: Make, method: str) -> None:
    """stdin is empty."""
    assert texts(run(make(method), [job("stdin")])) == {"stdin": "0"}


# Imported by a forkserver: the first one ends after it has forked, and before it has told the number of the child.
DYING_SERVER = """\
import os, time
from pathlib import Path
MARK, fork = Path(__file__).with_name("mark"), os.fork
def fork_and_die():
    pid = fork()
    if pid and not MARK.exists():
        MARK.write_text(str(pid))
        time.sleep(1)
        os.kill(os.getpid(), 9)
    return pid
os.fork = fork_and_die
"""


def test_a_worker_that_the_parent_does_not_know_takes_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its forkserver was killed right after the fork: it would hold the queue's lock, and take it to its grave."""
    (tmp_path / "dying_server.py").write_text(DYING_SERVER)
    monkeypatch.syspath_prepend(tmp_path)
    forkserver._forkserver._stop()
    engine = make("forkserver", preload=("dying_server",))
    try:
        assert len(run(engine, [job(f"ok {n}") for n in range(100)], most_s=30)) == 100
        wait_until_gone([int((tmp_path / "mark").read_text())])
    finally:
        engine.close()  # its workers keep the forkserver alive
        forkserver._forkserver._stop()
        make("forkserver")  # the next one is an ordinary one again


def test_the_other_workers_of_a_dead_forkserver_get_no_job(make: Make, tmp_path: Path) -> None:
    """The end of the first of them costs the session: a job that another was given would die twice, and fail."""
    engine = make("forkserver")
    engine.submit(job(f"hold {tmp_path}"))
    while not engine.in_hand():
        engine.poll(0.01)
    session = engine._session
    assert session and engine._supervisor
    read = engine._allocator.table.read
    [last] = [now for worker in session.workers if (now := read(worker.slot.number)).state == State.WORKING]
    failure = WorkerFailure("crashed", last.stage, "killed, as the forkserver had been", is_shared=True)
    engine._supervisor.events.put(WorkerDeath(last, failure))
    (tmp_path / "go").touch()
    assert set(kinds(run(engine, [])).values()) == {"done"}
    assert engine._session is not session


def test_errors_are_retried_after_a_pause(make: Make, tmp_path: Path) -> None:
    """A file that failed by an exception is tried again, while the others go on."""
    engine = make(retries=1, backoff_s=1)
    began = time.monotonic()
    names = [f"once {tmp_path}/mark fail", *(f"ok {n}" for n in range(50))]
    found = run(engine, [job(name) for name in names])
    assert set(kinds(found).values()) == {"done"}
    assert found[-1].source.path.startswith(b"once")
    assert time.monotonic() - began >= 1


def test_only_what_failed_is_retried(make: Make, tmp_path: Path) -> None:
    """The siblings of a failed stage are not made twice."""
    engine = make(retries=2, backoff_s=0.01)
    [found] = run(engine, [job(f"count {tmp_path}/runs@web", "web", "print")])
    assert len((tmp_path / "runs").read_text().split()) == 1
    [found] = run(engine, [job("fail@web", "web", "print")])
    assert {r.stage: r.kind or r.status for r in found.results} == {"web": "error", "print": "done"}


def test_the_window_is_bounded(make: Make) -> None:
    """An endless source is read no further than the window."""
    engine = make()
    handed_out = 0
    done = 0
    while done < 5000:
        while engine.has_room:
            engine.submit(job(f"ok {handed_out}"))
            handed_out += 1
        done += len(engine.poll(0.5))
    assert handed_out - done <= engine._window


def test_slow_jobs_are_shared_out(make: Make) -> None:
    """Jobs that turn out slow are not queued up behind one worker while the other idles."""
    engine = make()
    run(engine, [job(f"ok {n}") for n in range(500)])
    by_worker = Counter(texts(run(engine, [job(f"nap 0.2 {n}") for n in range(10)])).values())
    assert len(by_worker) == 2 and min(by_worker.values()) >= 3


def begin(engine: PoolEngine, folder: Path) -> None:
    """Have each of two workers hold a job in its hands, with many more to come."""
    run(engine, [job("ok 1"), job("ok 2")])
    for n in range(40):
        engine.submit(job(f"hold {folder} {n}"))
    wait_until(lambda: engine.poll(0) or len(list(folder.glob("held-*"))) == 2)


def test_drain_ends_what_is_in_hand(make: Make, method: str, tmp_path: Path) -> None:
    """After drain the files in hand are done and polled, and nothing else is begun."""
    engine = make(method)
    begin(engine, tmp_path)
    engine.drain()
    assert not engine.has_room
    (tmp_path / "go").touch()
    found = run(engine, [])
    assert [o.results[0].status for o in found] == ["done"] * 2
    assert len(list(tmp_path.glob("held-*"))) == 2


def test_drain_with_few_files_per_worker(make: Make, tmp_path: Path) -> None:
    """Batches handed back undone do not make a worker leave in a way that looks like a death."""
    engine = make(maxtasksperchild=2)
    begin(engine, tmp_path)
    engine.drain()
    (tmp_path / "go").touch()
    assert len(run(engine, [])) == 2
    assert engine._supervisor.events.empty()


def test_close_kills_what_is_at_work(make: Make, method: str, tmp_path: Path) -> None:
    """A second signal's way out: workers and their programs are gone at once."""
    engine = make(method)
    engine.submit(job(f"child 100 {tmp_path}/pids"))
    wait_until(lambda: engine.poll(0.05) or (tmp_path / "pids").exists())
    began = time.monotonic()
    engine.close()
    assert time.monotonic() - began < 8, "the job takes a hundred"
    wait_until_gone(pids_in(tmp_path / "pids", 2))
    assert not threading.enumerate()[1:] or not any("pool" in t.name for t in threading.enumerate())


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_nobody_waits_for_the_start_of_workers(make: Make, method: str) -> None:
    """While no worker can be started, the engine is opened, given jobs and polled; they are done once one can."""
    engine = make(method)
    with start_lock:
        engine.warm_up()
        engine.submit(job("ok"))
        assert engine.poll(0.05) == [] and engine.busy
    assert len(run(engine, [])) == 1


@pytest.mark.parametrize("method", ["forkserver", "spawn"])
def test_the_first_workers_work_while_others_start(make: Make, method: str) -> None:
    """The last of many may start as late as it likes."""
    engine = make(method, processes=4)
    engine.warm_up()
    assert engine._session is not None
    wait_until(lambda: engine._session.workers)
    with start_lock:
        started = len(engine._session.workers)
        assert len(run(engine, [job(f"ok {n}") for n in range(20)])) == 20
        assert len(engine._session.workers) == started
    wait_until(lambda: len(engine._session.workers) == 4)


def test_many_that_are_still_starting_are_gone_after_close(make: Make, method: str) -> None:
    """Those that had started are ended, and no other is started."""
    engine = make(method, processes=12)
    engine.warm_up()
    assert engine._session is not None
    session = engine._session
    engine.close()
    pids = [worker.process.pid for worker in session.workers]
    wait_until_gone([pid for pid in pids if pid])
    assert len(session.workers) == len(pids)
    assert not any("pool" in thread.name for thread in threading.enumerate())


def test_a_worker_that_cannot_be_killed_is_given_up(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """Stuck in the kernel, it would be waited for without end; a signal that does nothing stands in."""
    engine = make(timeout_s=0.2)
    pids: set[int] = set()
    monkeypatch.setattr("pipeline.engines.os_process.KILL_SIGNAL", signal.SIGCONT)
    monkeypatch.setattr(pool_session, "STUCK_S", 0.5)
    try:
        with pytest.raises(EnvironmentFailure, match=r"worker \d+ has survived SIGKILL for 0.5 s: it is in state "):
            run(engine, [job("sleep 100")], each=lambda: pids.update(w.process.pid for w in engine._session.workers))
        pids.update(worker.process.pid for worker in engine._session.workers)
        pids.add(int(str(engine._failure).split()[1]))
        began = time.monotonic()
        engine.close()
        assert time.monotonic() - began < 40, "the job takes a hundred"
    finally:
        for pid in pids:
            kill(pid)


def test_two_engines_share_a_loop(make: Make, method: str) -> None:
    """A slow side and a fast side: neither delays the other, nor its limits."""
    slow, fast = make(method, timeout_s=1), make("fork")
    for engine in (slow, fast):
        run(engine, [job("ok")])
    deadline = time.monotonic() + 60
    slow.submit(job("sleep 100"))
    slow.poll(0)
    ended = []
    count = done = 0
    while time.monotonic() < deadline and not (ended and done > 500):
        while fast.has_room:
            fast.submit(job(f"ok {count}"))
            count += 1
        done += len(fast.poll(0.05))
        ended += slow.poll(0)
    assert [o.results[0].kind for o in ended] == ["timeout"]
    assert done > 500


def test_locks_are_not_inherited(make: Make, method: str, tmp_path: Path) -> None:
    """No worker has the descriptor of the run's lock, or of another engine's pipes."""
    lock = os.open(tmp_path / "lock", os.O_CREAT | os.O_RDWR)
    other = make("fork")
    run(other, [job("ok")])
    engine = make(method, close_fds=(lock,))
    [found] = run(engine, [job("fds")])
    assert str(tmp_path / "lock") not in found.results[0].text.split()
    os.close(lock)


def test_a_death_in_the_pools_own_code_costs_one_file(make: Make, method: str) -> None:
    """The files that the other workers had in hand are done; the guilty one fails at its second death."""
    names = [*(f"nap 0.2 {n}" for n in range(5)), "break_pool", *(f"nap 0.2 {n}" for n in range(5, 8))]
    found = run(make(method, processes=3), [job(name) for name in names])
    assert len(found) == len(names)
    assert [name for name, kind in kinds(found).items() if kind != "done"] == ["break_pool"]
    assert texts(found)["break_pool"] == "the worker ended by exit code 9, after the last call of a stage"


def test_answers_that_are_lost_in_the_pipe_are_not_waited_for(
    make: Make, method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All workers are idle, and their answers never come: the pool is replaced, and the files run again."""
    monkeypatch.setattr(pool, "STALL_S", 1.0)
    names = [*(f"ok {n}" for n in range(50)), f"garble {tmp_path}/mark", *(f"ok {n}" for n in range(50, 100))]
    found = run(make(method), [job(name) for name in names])
    assert len(found) == 101 and set(kinds(found).values()) == {"done"}


def test_closed_descriptors_cost_one_file(make: Make, method: str) -> None:
    """A worker that cannot answer any more says so in its slot, and is replaced."""
    found = run(make(method), [job("close_all"), *(job(f"ok {n}") for n in range(20))])
    assert {name for name, kind in kinds(found).items() if kind != "done"} == {"close_all"}
    assert texts(found)["close_all"] == "file descriptors that are not its own were closed or replaced"


def test_a_death_is_noticed_while_a_child_holds_the_pipes(make: Make, method: str, tmp_path: Path) -> None:
    """By the process itself, and not by a pipe of which a forked child has the other end."""
    name = f"segv_with_child {tmp_path}/child"
    found = run(make(method), [job(name), *(job(f"ok {n}") for n in range(20))])
    assert {each for each, kind in kinds(found).items() if kind != "done"} == {name}
    wait_until_gone(pids_in(tmp_path / "child", 1))


def test_an_error_of_the_supervisor_ends_the_engine(make: Make) -> None:
    """Nobody would notice a death after it, so the next poll raises it."""
    engine = make()
    with pytest.raises(IsADirectoryError):
        run(engine, [job(f"segv_without_text {engine._folder}"), job("sleep 100")])
    engine.close()
    assert not any("pool" in thread.name for thread in threading.enumerate())


def test_a_large_file_runs_once_with_the_memory_of_all(make: Make, method: str) -> None:
    """What was killed for its memory runs again while no other file does; then what is too large fails."""
    first = first_bytes(method)
    large = first // 2 + 250_000_000  # with this, a worker is above 1.5 times its part, but not above the whole
    limits = {"max_memory_bytes": first + 130_000_000, "memory_alone_bytes": first + large + 100_000_000}
    names = f"grow {large // 1_000_000} 1", f"grow {large // 1_000_000 + 300} 100"
    found = run(make(method, **limits), [*map(job, names), *(job(f"ok {n}") for n in range(20))])
    assert {name for name, kind in kinds(found).items() if kind != "done"} == {names[1]}
    whole = format_bytes(limits["memory_alone_bytes"])
    assert texts(found)[names[1]].endswith(f"more than the {whole} that all workers may have together")


def test_large_files_outlive_dead_workers_and_sessions(make: Make, method: str, tmp_path: Path) -> None:
    """What was granted to a job is free again when its worker or the whole pool has died; in the end it is done."""
    learnt = Learnt()
    learnt.add_peak(("web",), 0, first_bytes(method) + 200_000_000)
    whole = 2 * (first_bytes(method) + 300_000_000)
    limits = {"max_memory_bytes": whole // 2, "memory_alone_bytes": whole, "is_memory_shared": True}
    engine = make(method, peaks=learnt, **limits)
    jobs = [job(f"ok {n}") for n in range(10)]
    jobs += [job(f"once {tmp_path}/{how}{n} {how}") for n in range(3) for how in ("kill", "segv", "break_pool", "fail")]
    granted = []
    found = run(engine, jobs, each=lambda: granted.append(len(engine._grants)))
    assert {kind for name, kind in kinds(found).items() if "fail" not in name} == {"done"}
    assert len(found) == len(jobs) and max(granted) == 2
    assert engine.poll(0) == [] and not engine._grants


def test_a_drained_pool_drops_large_files_that_wait(make: Make, tmp_path: Path) -> None:
    """Those in hand end, all others are dropped, and nothing is promised any more once it is closed."""
    learnt = Learnt()
    learnt.add_peak(("web",), 0, 10**12)  # more than any machine has: one after the other
    engine = make(peaks=learnt, max_memory_bytes=10**9, memory_alone_bytes=2 * 10**9, is_memory_shared=True)
    for number in range(5):
        engine.submit(job(f"hold {tmp_path} {number}"))
    wait_until(lambda: engine.poll(0.05) or list(tmp_path.glob("held-*")))
    engine.drain()
    (tmp_path / "go").touch()
    found = []
    wait_until(lambda: found.extend(engine.poll(0.05)) or not engine.busy)
    assert [o.results[0].status for o in found] == ["done"]
    assert len(list(tmp_path.glob("held-*"))) == 1
    board = engine._grants.board
    engine.close()
    assert board and not board._file.exists()


def test_a_drained_pool_drops_what_was_to_be_retried(make: Make, tmp_path: Path) -> None:
    """Before it is drained, and where it fails only then: it has not failed for good, and the next run makes it."""
    engine = make(retries=1, backoff_s=3600)
    engine.submit(job(f"once {tmp_path}/mark fail"))
    engine.submit(job(f"hold {tmp_path}"))
    wait_until(lambda: engine.poll(0.05) or (list(tmp_path.glob("held-*")) and list(tmp_path.glob("mark*"))))
    engine.drain()
    (tmp_path / "go").touch()
    found = []
    wait_until(lambda: found.extend(engine.poll(0.05)) or not engine.busy)
    assert kinds(found) == {f"hold {tmp_path}": "done"}


def claiming(make: Make, **more: Any) -> PoolEngine:
    """An engine of two workers whose jobs may take 16 MB at least, and 250 at most, without a claim."""
    limits = {"max_memory_bytes": 10**9, "memory_alone_bytes": 2 * 10**9, "is_memory_shared": True}
    return make(peaks=Learnt(), **limits, **more)


@pytest.mark.parametrize(("megabytes", "begun"), [(16, 1), (400, 2), (5000, 2)])
def test_a_claim_is_granted_in_the_end(make: Make, tmp_path: Path, megabytes: int, begun: int) -> None:
    """At once if it is small, else once so much can be had, and alone where it never can; no worker is replaced."""
    file = tmp_path / "begun"
    found = run(claiming(make, processes=1), [job("pid"), job(f"claim {file} {megabytes}"), job("pid 2")])
    pids = file.read_text().split()
    assert kinds(found) == {"pid": "done", f"claim {file} {megabytes}": "done", "pid 2": "done"}
    assert len(pids) == begun + 1 and len(set(pids)) == 1


def test_only_what_was_not_made_for_want_of_memory_is_made_again(make: Make, tmp_path: Path) -> None:
    """The siblings of the stage that claimed are kept as they are."""
    claim = f"claim {tmp_path}/begun 400@web"
    [outcome] = run(claiming(make), [job(claim, "decode", "web", "print")])
    assert {result.stage: result.status for result in outcome.results} == dict.fromkeys(
        ("decode", "web", "print"), "done"
    )
    assert len((tmp_path / "begun").read_text().split()) == 3


def test_what_a_stage_made_in_spite_of_a_refused_claim_does_not_count(make: Make, tmp_path: Path) -> None:
    """An output does not depend on what else is running."""
    name = f"claim_unheard {tmp_path}/begun 400"
    assert texts(run(claiming(make), [job(name)])) == {name: "rich"}


def test_a_drained_pool_drops_what_waits_for_its_memory(make: Make, tmp_path: Path) -> None:
    """It has not failed, and the next run makes it."""
    engine = claiming(make, processes=1)
    engine.submit(job(f"claim {tmp_path}/begun 5000"))
    engine.submit(job(f"hold {tmp_path}"))
    wait_until(lambda: engine.poll(0.05) or list(tmp_path.glob("held-*")))
    engine.drain()
    (tmp_path / "go").touch()
    found = []
    wait_until(lambda: found.extend(engine.poll(0.05)) or not engine.busy)
    assert kinds(found) == {f"hold {tmp_path}": "done"}


def test_a_signal_while_it_closes_leaves_nothing(make: Make, method: str, tmp_path: Path) -> None:
    """Whatever a handler raises meanwhile, the workers are gone, and it is raised afterwards."""
    engine = make(method)
    engine.submit(job(f"child 100 {tmp_path}/pids"))
    wait_until(lambda: engine.poll(0.05) or (tmp_path / "pids").exists())

    def is_closing() -> bool:
        return engine._supervisor is None and any(thread.name == "pool-close" for thread in threading.enumerate())

    def interrupt(*_: object) -> None:
        if is_closing():
            raise KeyboardInterrupt

    is_closed = threading.Event()

    def send() -> None:
        while not is_closed.is_set():  # without a pause, since closing takes some milliseconds
            if is_closing():
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    before, sender = signal.signal(signal.SIGUSR1, interrupt), threading.Thread(target=send)
    sender.start()
    try:
        with suppress(KeyboardInterrupt):  # unless all had ended before it came
            engine.close()
    finally:
        is_closed.set()
        sender.join()
        signal.signal(signal.SIGUSR1, before)
    wait_until_gone(pids_in(tmp_path / "pids", 2))
    assert not any("pool" in thread.name for thread in threading.enumerate())
