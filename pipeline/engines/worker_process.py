"""The worker process: how it starts, what it is before Pool's own code runs in it, and how it is killed."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
import types
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Protocol

from pipeline.engines import output_capture, slots
from pipeline.engines.queues import open_queues
from pipeline.engines.slots import Seat

LINUX = sys.platform == "linux"

# Signals that a terminal or an operator sends to end the run: the parent drains, so they are not for the
# workers.
END_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# Asks a worker to write the stacks of its threads before it is killed, even while C code holds the
# interpreter.
DUMP_SIGNAL: int = getattr(signal, "SIGUSR2", 0)

KILL_SIGNAL: int = getattr(signal, "SIGKILL", signal.SIGTERM)

# Workers are many: libraries that would each start a thread per CPU are told to use one.
ONE_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VIPS_CONCURRENCY")

# Seconds to wait before a start that failed is tried again: a lack of processes or descriptors may pass.
START_PAUSES_S = (0.0, 0.1, 0.5, 2.0)

# Of 1000: high enough that the kernel, out of memory, takes a worker and never the parent.
OOM_SCORE = 500

_F_SETSIG = 10  # fcntl has no name for it
_PR_SET_CHILD_SUBREAPER = 36

# Starting is one at a time: a process forked by another thread would inherit half-made pipes.
start_lock = threading.Lock()
# Two threads that ask for one exit code at once would race for the pipe of a forkserver.
_exit_code_lock = threading.Lock()


class Hirer(Protocol):
    """Who makes the workers: what a worker asks of it when it is to start."""

    is_dismissed: bool

    def hire(self, worker_type: type[Worker], *args: Any, **kwargs: Any) -> Worker:
        """Make a worker and give it its seat and its `crew`."""
        ...

    def welcome(self, worker: Worker) -> None:
        """Take note that it has started."""
        ...

    def miss(self, worker: Worker, error: Exception | None) -> None:
        """Take note that it has not started: it was not wanted any more, or no process could be had."""
        ...


class Worker(BaseProcess):
    """A worker process; mixed with the Process class of each start method below.

    An absent worker is one that was not started, because the crew is being dismissed or no process could be
    had: Pool believes in it and is content.
    """

    seat: Seat | None = None
    crew: Hirer
    """Only until it is started; does not cross."""
    is_absent = False
    is_given_up = False
    _handle: int | None = None
    """Stands for the process itself where Linux gives one, and not for its number, which may be given anew."""

    def start(self) -> None:
        """Start, if the crew still wants us; what the machine refuses is asked for a few times."""
        crew: Hirer = self.__dict__.pop("crew")
        refused: Exception | None = None
        for pause_s in START_PAUSES_S:
            time.sleep(pause_s)
            with start_lock:
                if crew.is_dismissed:
                    break
                try:
                    with end_signals_held_back(), _main_hidden():
                        super().start()
                    self._take_hold()
                    return crew.welcome(self)
                except (OSError, EOFError) as error:
                    refusal = error
        else:
            refused = refusal
        self.is_absent = True
        crew.miss(self, refused)

    @property
    def exitcode(self) -> int | None:
        with _exit_code_lock:
            return None if self.is_absent else super().exitcode

    @property
    def sentinel(self) -> int:
        if self.is_absent:
            raise AttributeError("no process")
        return super().sentinel

    @property
    def is_dead(self) -> bool:
        return self.is_absent or (self._has_hung_up and not self.is_abandoned)

    @property
    def is_abandoned(self) -> bool:
        """Whether it is alive although its end was told: its forkserver, which would tell of it, was killed."""
        if self._handle is None or not self._has_hung_up:
            return False
        if not wait([self._handle], 0):
            return True
        os.close(self._handle)
        self._handle = None
        return False

    @property
    def _has_hung_up(self) -> bool:
        return bool(wait([self.sentinel], 0))

    def _take_hold(self) -> None:
        """Only of a forkserver's child: the others' ends are told by themselves."""
        if hasattr(os, "pidfd_open") and getattr(self, "_start_method", None) == "forkserver":
            with suppress(OSError):  # it has ended already, or the kernel is older than 5.3
                self._handle = os.pidfd_open(self.pid or 0)

    def is_alive(self) -> bool:
        return not (self.is_absent or self.is_given_up) and super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        if not (self.is_absent or self.is_given_up):
            super().join(timeout)

    def kill(self) -> None:
        """Kill the worker and every process it started: those in its group, and below it those that left that."""
        if not self.is_dead:
            started = descendants(self.ident or 0) if LINUX else []
            kill_group(self.ident)
            for pid in (self.ident or 0, *started):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, KILL_SIGNAL)

    def terminate(self) -> None:
        """Kill: a Pool that terminates must not wait for workers that ignore SIGTERM."""
        self.kill()

    def run(self) -> None:
        assert self.seat
        slots.take(self.seat)
        output_capture.take_over(self.seat.capture)
        output_capture.watch_for_faults(DUMP_SIGNAL)
        _obey_only_the_parent()
        if LINUX:
            _join_the_parents_fate()
            _accept_being_shot_first()
            _adopt_orphans()
        else:
            threading.Thread(target=_leave_with_the_parent, daemon=True).start()
        if getattr(self, "_start_method", None) == "fork":
            self._close_what_is_not_ours()
        for name in ONE_THREAD_VARIABLES:
            os.environ.setdefault(name, "1")
        super().run()

    def _close_what_is_not_ours(self) -> None:
        """Close what only a fork inherits: the run's lock, and other engines' pipes, which would not end."""
        for fd in self.seat.close_fds if self.seat else ():
            with suppress(OSError):
                os.close(fd)
        own = self._args[:2]  # type: ignore[attr-defined]
        for queue in list(open_queues):
            if not any(queue is mine for mine in own):
                queue.close_copy()


WORKER_TYPES: dict[str, type[Worker]] = {}
for _method in multiprocessing.get_all_start_methods():
    _name = f"{_method.capitalize()}Worker"  # importable by this name: a spawned worker's object is pickled
    _process: Any = getattr(multiprocessing.get_context(_method), "Process")  # noqa: B009, typeshed lacks it
    WORKER_TYPES[_method] = type(_name, (Worker, _process), {"__module__": __name__})
    globals()[_name] = WORKER_TYPES[_method]


def children(pid: int | str = "self") -> set[int]:
    """Give the processes whose parent this one is, zombies included."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found


def descendants(pid: int) -> list[int]:
    """Give the processes that this one has started, and those that these have."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def kill_group(pid: int | None) -> None:
    """Kill the process group that the worker `pid` leads, if there is still one."""
    if hasattr(os, "killpg") and pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, KILL_SIGNAL)


@contextmanager
def end_signals_held_back() -> Iterator[None]:
    """Let a starting worker inherit a mask that keeps these signals off until it ignores them itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a spawned worker from importing the caller's script, which may have no `__main__` guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _obey_only_the_parent() -> None:
    """Lead a process group of our own, and take no notice of the signals that end a run.

    A handler that does nothing, and not SIG_IGN: programs started by a stage would inherit that, and could
    then not be ended by `Popen.terminate()`.
    """
    for number in END_SIGNALS:
        signal.signal(number, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def _join_the_parents_fate() -> None:
    """Have the kernel kill our whole process group when the parent is gone, also by SIGKILL.

    Each worker holds the read end of a pipe whose other end only the parent has. When that closes, the
    kernel sends the signal asked for here: to the programs that a stage started too, and while C code holds
    the interpreter. PR_SET_PDEATHSIG would do neither, and with a forkserver it would watch the wrong
    process.
    """
    import fcntl

    parent = multiprocessing.parent_process()
    if parent is None:
        return
    pipe = parent.sentinel
    fcntl.fcntl(pipe, fcntl.F_SETOWN, -os.getpgrp())
    fcntl.fcntl(pipe, _F_SETSIG, signal.SIGKILL)
    fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([pipe], 0):  # it was gone before we asked
        os._exit(1)


def _accept_being_shot_first() -> None:
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(OOM_SCORE))


def _adopt_orphans() -> None:
    """Become the parent of what our children leave behind, so that it can be found after the job."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _leave_with_the_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)
