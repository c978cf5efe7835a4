"""What a call leaves changed in its process is set back, and said."""

from __future__ import annotations

import fcntl
import gc
import locale
import os
import resource
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline.worker.process_state import ProcessState

NAME = "FILEMILL_TEST"


def in_a_child(file: Path, check: Callable[[ProcessState], None]) -> None:
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


CHANGES: dict[str, tuple[Callable[[], object], str]] = {
    "closes stdout": (lambda: sys.stdout.close(), "sys.stdout"),
    "detaches stdout": (lambda: sys.stdout.detach(), "sys.stdout"),
    "unsets both": (lambda: (setattr(sys, "stdout", None), setattr(sys, "stderr", None)), "sys.stdout and sys.stderr"),
    "closes 1": (lambda: os.close(1), "file descriptor 1"),
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
    "recursion": (lambda: sys.setrecursionlimit(5000), "the recursion limit or the garbage collector"),
    "limit": (
        lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (200, resource.getrlimit(resource.RLIMIT_NOFILE)[1])),
        "a limit of resources",
    ),
    "timer": (lambda: signal.setitimer(signal.ITIMER_REAL, 1000), "a timer"),
}


@pytest.mark.parametrize("is_worker", [False, True])
@pytest.mark.parametrize("what", CHANGES)
def test_a_change_is_said_once_and_set_back(tmp_path: Path, what: str, is_worker: bool) -> None:
    """After it all is as before, so that nothing is said of the next call."""
    change, text = CHANGES[what]

    def check(state: ProcessState) -> None:
        if is_worker:
            state.keep([os.open(tmp_path, os.O_RDONLY)])
        before = _seen()
        change()
        assert state.restore() == text
        assert state.restore() == "" and not state.is_spoilt
        assert _seen() == before
        for stream in (sys.stdout, sys.stderr):
            print("written", file=stream, flush=True)

    in_a_child(tmp_path / "raised", check)


def _seen() -> tuple[object, ...]:
    umask = os.umask(0)
    os.umask(umask)
    handler, timer = signal.getsignal(signal.SIGALRM), signal.getitimer(signal.ITIMER_REAL)
    return os.getcwd(), umask, os.environ[NAME], handler, timer, locale.setlocale(locale.LC_ALL)


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
        for _ in range(300):
            os.open("/", os.O_RDONLY)
        resource.setrlimit(resource.RLIMIT_NOFILE, (2048, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        assert state.leaked() == 0 and not state.is_spoilt
        resource.setrlimit(resource.RLIMIT_NOFILE, (512, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
        assert state.leaked() >= 300 and state.is_spoilt

    in_a_child(tmp_path / "raised", check)
