"""Operating-system calls about processes: groups, signals, memory, and dying with the parent.

What Linux alone offers (`/proc`, O_ASYNC, sub-reapers, the score of the out-of-memory killer) is used where `LINUX`
is true; elsewhere a thread watches the parent instead.
"""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import util
from multiprocessing.connection import wait
from pathlib import Path

import pipeline

LINUX = sys.platform == "linux"

# Signals that a terminal or an operator sends to end the run: the parent drains, and workers ignore them.
END_SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

# Asks a worker to write the stacks of its threads before it is killed, even while C code holds the interpreter.
DUMP_SIGNAL: int = getattr(signal, "SIGUSR2", 0)

KILL_SIGNAL: int = getattr(signal, "SIGKILL", signal.SIGTERM)

# Of 1000: high enough that the kernel, out of memory, kills a worker and never the parent.
OOM_SCORE = 500

_F_SETSIG = 10  # fcntl has no name for it
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
_PR_SET_CHILD_SUBREAPER = 36


# -- looking at processes ----------------------------------------------------------------------------------------------


def children(pid: int | str = "self") -> set[int]:
    """Return the processes whose parent is `pid`, zombies included."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(OSError):
                found.update(map(int, (thread / "children").read_text().split()))
    return found


def descendants(pid: int) -> list[int]:
    """Return the children of `pid`, their children, and so on."""
    found: list[int] = []
    for child in children(pid):
        found += [child, *descendants(child)]
    return found


def memory_bytes(pid: int | None = None) -> int:
    """Return the resident set size of a process, this one by default; 0 if it is unknown."""
    try:
        # Three system calls; a file object makes nine, after every job of a worker.
        fd = os.open(f"/proc/{pid or 'self'}/statm", os.O_RDONLY | os.O_CLOEXEC)
        try:
            return int(os.read(fd, 256).split()[1]) * _PAGE_BYTES
        finally:
            os.close(fd)
    except (OSError, IndexError):
        return 0


def describe_exit(code: int) -> str:
    """Describe the exit code of a worker, such as "killed by SIGSEGV"."""
    if code >= 0:
        return f"the worker ended by exit code {code}"
    try:
        return f"killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"killed by signal {-code}"


def describe_wait(pid: int) -> str:
    """Describe the state of a process and what it waits for in the kernel."""
    where, state = "", "unknown"
    with suppress(OSError):
        where = Path(f"/proc/{pid}/wchan").read_text().strip("0\n")
    with suppress(OSError, IndexError):
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    return f"it is in state {state}" + (f" and waits in {where}" if where else "")


# -- killing -----------------------------------------------------------------------------------------------------------


def kill_group(pid: int | None) -> None:
    """Kill the process group that `pid` leads, if it still exists."""
    if hasattr(os, "killpg") and pid:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, KILL_SIGNAL)


def kill_tree(pid: int) -> None:
    """Kill a process, its group, and its descendants that have left the group."""
    started = descendants(pid) if LINUX else []
    kill_group(pid)
    for each in (pid, *started):
        with suppress(ProcessLookupError, PermissionError):
            os.kill(each, KILL_SIGNAL)


# -- in the parent, around the start of a worker -----------------------------------------------------------------------


@contextmanager
def end_signals_blocked() -> Iterator[None]:
    """Block END_SIGNALS, so that a starting worker inherits the mask and keeps it until it ignores them itself."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, END_SIGNALS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


# Runs the code that multiprocessing has given an interpreter after this, which multiprocessing would run by itself.
_START = "import sys; sys.path[:] = {!r}; import pipeline; del sys.path[0], sys.argv[1]; exec(sys.argv.pop(1))"


@contextmanager
def our_import_path() -> Iterator[None]:
    """Have the interpreters that multiprocessing starts meanwhile import this package, and all else, as we do.

    They would search the working folder first, where a user's `random.py` would take the place of Python's.
    """
    place = os.path.dirname(os.path.dirname(os.path.abspath(pipeline.__file__)))
    start = _START.format([place, *(each for each in sys.path if each)])
    flags = util._args_from_interpreter_flags  # type: ignore[attr-defined]
    util._args_from_interpreter_flags = lambda: [*flags(), "-c", start]  # type: ignore[attr-defined]
    try:
        yield
    finally:
        util._args_from_interpreter_flags = flags  # type: ignore[attr-defined]


# -- in a worker, when it starts ---------------------------------------------------------------------------------------


def leave_end_signals_to_parent() -> None:
    """Ignore END_SIGNALS, and lead a process group of our own, which a terminal does not signal.

    The handler does nothing and is not SIG_IGN: programs that a stage starts would inherit that, and
    `Popen.terminate()` could not end them.
    """
    for number in END_SIGNALS:
        signal.signal(number, lambda *_: None)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, END_SIGNALS)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)


def die_with_parent() -> None:
    """Have the kernel kill our whole process group when the parent dies, even by SIGKILL (Linux only).

    Each worker holds the read end of a pipe whose other end only the parent has. When that closes, the kernel sends
    the signal requested here: also to the programs that a stage started, and also while C code holds the interpreter.
    PR_SET_PDEATHSIG would do neither, and with a forkserver it would watch the wrong process.
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


def exit_after_parent() -> None:
    """Wait for the parent to end, then end this process; run in a thread on systems other than Linux."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def be_first_out_of_memory() -> None:
    """Have the kernel kill this process before the parent when memory runs out."""
    with suppress(OSError), open("/proc/self/oom_score_adj", "w") as score:
        score.write(str(OOM_SCORE))


def adopt_orphans() -> None:
    """Become the parent of processes that our children leave behind, so that they can be found after the job."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
