"""What a call leaves changed in its process is set back, and said."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import gc
import locale
import os
import resource
import signal
import sys
import threading
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.worker.process_state import ProcessState

NAME = "FILEMILL_TEST"


def in_a_child(file: Path, check: Callable[[ProcessState], object]) -> None:
    """Call `check` in a forked child, since it spoils its process; what it raises there fails the test."""
    pid = os.fork()
    if pid == 0:
        try:
            gc.collect()  # else files that earlier tests have left open would close in between
            os.environ[NAME] = "before"
            locale.setlocale(locale.LC_ALL, "C")
            for name, number in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
                os.dup2(os.open(os.devnull, os.O_RDWR), number)
                setattr(sys, name, open(number, "w" if number else "r", closefd=False))
            state = ProcessState()
            with state.kept():
                check(state)
        except BaseException:
            file.write_text(traceback.format_exc())
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0, file.read_text()


def limit_to(limit: int, soft: int) -> None:
    resource.setrlimit(limit, (soft, resource.getrlimit(limit)[1]))


LIBC = ctypes.CDLL(None)
LAST = max(signal.valid_signals())
INTERPRETER = "the recursion limit or the garbage collector"
CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "closes stdin": (lambda: sys.stdin.close(), "sys.stdin"),
    "closes stdout": (lambda: sys.stdout.close(), "sys.stdout"),
    "detaches stdout": (lambda: sys.stdout.detach(), "sys.stdout"),
    "unsets both": (lambda: (setattr(sys, "stdout", None), setattr(sys, "stderr", None)), "sys.stdout and sys.stderr"),
    "replaces stderr": (lambda: setattr(sys, "stderr", sys.stdout), "sys.stderr"),
    "closes 1": (lambda: os.close(1), "file descriptor 1"),
    "replaces 0": (lambda: os.dup2(os.open("/", os.O_RDONLY), 0), "file descriptor 0"),
    "replaces 2": (lambda: os.dup2(os.open("/", os.O_RDONLY), 2), "file descriptor 2"),
    "folder": (lambda: os.chdir("/"), "the working folder"),
    "umask": (lambda: os.umask(0o123), "the umask"),
    "locale": (lambda: locale.setlocale(locale.LC_ALL, "C.UTF-8"), "the locale"),
    "sets": (lambda: os.environ.update({NAME: "after"}), f"the environment ({NAME})"),
    "removes": (lambda: os.environ.pop(NAME), f"the environment ({NAME})"),
    "replaces": (lambda: setattr(os, "environ", dict(os.environ)), "the environment (os.environ)"),
    "handler": (lambda: signal.signal(signal.SIGALRM, print), "the handler of SIGALRM"),
    "blocks a signal": (
        lambda: signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM]),
        "which signals are blocked",
    ),
    "last handler": (lambda: signal.signal(LAST, print), f"the handler of {getattr(LAST, 'name', LAST)}"),
    "recursion": (lambda: sys.setrecursionlimit(5000), INTERPRETER),
    "collector": (lambda: gc.disable(), INTERPRETER),
    "limit": (lambda: limit_to(resource.RLIMIT_NOFILE, 200), "a limit of resources"),
    "limit of files": (lambda: limit_to(resource.RLIMIT_FSIZE, 1_000_000), "a limit of resources"),
    "timer": (lambda: signal.setitimer(signal.ITIMER_REAL, 1000), "a timer"),
    "timer of the process": (lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 1000), "a timer"),
    "timer of a profiler": (lambda: signal.setitimer(signal.ITIMER_PROF, 1000), "a timer"),
    "C closes 0": (lambda: LIBC.close(0), "file descriptor 0"),
    "C replaces 2": (lambda: LIBC.dup2(LIBC.open(b"/", os.O_RDONLY), 2), "file descriptor 2"),
    "C folder": (lambda: LIBC.chdir(b"/"), "the working folder"),
    "C umask": (lambda: LIBC.umask(0o123), "the umask"),
    "C locale": (lambda: LIBC.setlocale(locale.LC_NUMERIC, b"C.UTF-8"), "the locale"),
    "C timer": (lambda: LIBC.alarm(1000), "a timer"),
    "C blocks a signal": (lambda: LIBC.sighold(signal.SIGUSR1), "which signals are blocked"),
}
if os.geteuid() == 0:
    CHANGES |= {
        "user": (lambda: os.seteuid(65534), "the user"),
        "C group": (lambda: LIBC.setegid(65534), "the user"),
    }


@pytest.mark.parametrize("is_worker", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_said_once_and_set_back(tmp_path: Path, what: str, is_worker: bool) -> None:
    """It is said of the very call, the first or a late one; after it all is as before, for as many calls as follow."""
    change, text = CHANGES[what]

    def check(state: ProcessState) -> None:
        if is_worker:
            state.keep([os.open(tmp_path, os.O_RDONLY)])
        before = _seen()
        for number in range(130):
            assert _seen() == before
            if is_guilty := number in (0, 100, 101, 120):
                change()
            assert state.restore() == (text if is_guilty else "")
            # Of a change of the user there are traces that cannot be set back.
            assert state.is_spoilt == (text == "the user") and not state.may_leak
        assert _seen() == before
        for stream in (sys.stdout, sys.stderr):
            print("written", file=stream, flush=True)

    in_a_child(tmp_path / "raised", check)


def _seen() -> tuple[object, ...]:
    umask = os.umask(0)
    os.umask(umask)
    return (
        [(status.st_dev, status.st_ino) for status in map(os.fstat, range(3))],
        [(stream.fileno(), stream.closed) for stream in (sys.stdin, sys.stdout, sys.stderr)],
        (os.getcwd(), umask, os.geteuid(), os.getegid(), os.environ[NAME], locale.setlocale(locale.LC_ALL)),
        [signal.getsignal(number) for number in signal.valid_signals()],
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        [signal.getitimer(timer) for timer in (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)],
        [resource.getrlimit(limit) for limit in (resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE)],
        (sys.getrecursionlimit(), gc.isenabled()),
    )


def test_a_stream_under_two_names_stays_one(tmp_path: Path) -> None:
    """In the serial engine stdout is stderr for the time of each call: one file is named, not all that follow."""

    def check(state: ProcessState) -> None:
        for _ in range(3):
            with contextlib.redirect_stdout(sys.stderr):
                if not state.is_kept:
                    state.keep()
                sys.stdout.close()
                assert state.restore() == "sys.stdout and sys.stderr"
                assert sys.stdout is sys.stderr and sys.stderr.fileno() == 2
        for _ in range(3):
            with contextlib.redirect_stdout(sys.stderr):
                assert state.restore() == ""

    in_a_child(tmp_path / "raised", lambda state: (state.forget(), check(state)))


def test_what_an_import_adds_to_the_environment_stays(tmp_path: Path) -> None:
    """A library that a call is the first to import may set a variable; it may not change one that was there."""
    (tmp_path / "sets_variables.py").write_text(f"import os; os.environ.update(ADDED='1', {NAME}='2')")

    def check(state: ProcessState) -> None:
        sys.path.insert(0, str(tmp_path))
        __import__("sets_variables")
        assert state.restore() == f"the environment ({NAME})"
        assert (os.environ["ADDED"], os.environ[NAME]) == ("1", "before")

    in_a_child(tmp_path / "raised", check)


def test_the_loss_of_a_needed_descriptor_ends_the_process(tmp_path: Path) -> None:
    """Also where another file has taken its number."""

    def check(state: ProcessState) -> None:
        lost: list[int] = []
        needed = os.open(tmp_path, os.O_RDONLY)
        state.keep([needed], lambda: lost.append(needed))
        for _ in range(100):
            assert state.restore() == "" and not lost
        os.dup2(1, needed)
        assert state.restore() and lost and state.is_spoilt

    in_a_child(tmp_path / "raised", check)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has such marks")
def test_only_the_files_of_a_worker_are_marked(tmp_path: Path) -> None:
    """Those of a terminal are the shell's as well."""

    def check(state: ProcessState) -> None:
        assert [fcntl.fcntl(number, fcntl.F_GETSIG) for number in range(3)] == [0, 0, 0]
        state.keep([os.open(tmp_path, os.O_RDONLY)])
        assert 0 not in [fcntl.fcntl(number, fcntl.F_GETSIG) for number in range(3)]

    in_a_child(tmp_path / "raised", check)


def test_open_files_are_a_leak_from_half_the_limit_on(tmp_path: Path) -> None:
    """Below that a stage may keep them; above it the process is spoilt, since nobody can tell which to close."""

    def check(state: ProcessState) -> None:
        limit_to(resource.RLIMIT_NOFILE, 600)
        os.dup2(0, 299)
        state.keep()
        os.dup2(0, 298)  # a high number is no leak
        while (last := os.open("/", os.O_RDONLY)) < 297:
            assert state.restore() == "" and not state.may_leak and state.leaked() == 0
        assert last == 297, "300 files are open"
        assert state.restore() == "" and state.may_leak
        assert state.leaked() == 300 and state.is_spoilt

    in_a_child(tmp_path / "raised", check)


def test_a_limit_of_open_files_under_which_nothing_can_be_opened_is_set_back(tmp_path: Path) -> None:
    """While threads of the stage run, the umask is read from a file."""

    def check(state: ProcessState) -> None:
        state.keep()
        end = threading.Event()
        thread = threading.Thread(target=end.wait)
        thread.start()
        before = resource.getrlimit(resource.RLIMIT_NOFILE)
        limit_to(resource.RLIMIT_NOFILE, 3)
        assert state.restore() == "a limit of resources" and not state.is_spoilt
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == before and state.restore() == ""
        end.set()
        thread.join()

    in_a_child(tmp_path / "raised", check)


def test_files_that_only_a_cycle_holds_are_no_leak(tmp_path: Path) -> None:
    """They are closed when the garbage collector finds them."""

    def check(state: ProcessState) -> None:
        limit_to(resource.RLIMIT_NOFILE, 600)
        gc.set_threshold(0)
        state.keep()
        cycle: list[object] = [open("/dev/null") for _ in range(300)]
        cycle.append(cycle)
        del cycle
        assert state.restore() == "" and state.may_leak
        assert state.leaked() == 0 and not state.is_spoilt
        assert state.restore() == "" and not state.may_leak

    in_a_child(tmp_path / "raised", check)


def test_a_forked_child_that_comes_back_is_ended(tmp_path: Path) -> None:
    """It may not go on with the files of its parent."""

    def check(state: ProcessState) -> None:
        for _ in range(100):
            assert state.restore() == ""
        if not (pid := os.fork()):
            state.restore()
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 1
        assert state.restore() == ""

    in_a_child(tmp_path / "raised", check)
