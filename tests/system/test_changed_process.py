"""Calls that change their process, among hundreds of fast ones in one worker: each is named, and no other meets it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from support.program import Pipeline

YAML = """\
inputs: in
stages:
  - {name: change, uses: change, output: 'out/{name}'}
pool: {processes: 1}
"""
STAGE = """\
import ctypes
import gc
import locale
import os
import resource
import signal
import sys

LIBC = ctypes.CDLL(None)
TIMERS = signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF
LIMITS = resource.RLIMIT_NOFILE, resource.RLIMIT_FSIZE


def limit(which, soft):
    resource.setrlimit(which, (soft, resource.getrlimit(which)[1]))


CHANGES = {
    "sys.stdin": lambda: sys.stdin.close(),
    "sys.stdout": lambda: setattr(sys, "stdout", sys.stdin),
    "sys.stderr": lambda: setattr(sys, "stderr", None),
    "sys.stdout and sys.stderr": lambda: (sys.stdout.close(), sys.stderr.close()),
    "file descriptor 0": lambda: os.dup2(os.open("/", os.O_RDONLY), 0),
    "file descriptor 1": lambda: os.close(1),
    "file descriptor 2": lambda: LIBC.dup2(LIBC.open(b"/", os.O_RDONLY), 2),
    "the working folder": lambda: LIBC.chdir(b"/"),
    "the umask": lambda: LIBC.umask(0o123),
    "the locale": lambda: LIBC.setlocale(locale.LC_NUMERIC, b"C.UTF-8"),
    "the environment (NEW)": lambda: os.environ.update(NEW="1"),
    "the environment (HOME)": lambda: os.environ.pop("HOME"),
    "the handler of SIGALRM": lambda: signal.signal(signal.SIGALRM, print),
    "the handler of SIGRTMAX": lambda: signal.signal(signal.SIGRTMAX, signal.SIG_IGN),
    "which signals are blocked": lambda: LIBC.sighold(signal.SIGUSR1),
    "the recursion limit or the garbage collector": lambda: sys.setrecursionlimit(5000),
    "the recursion limit or the garbage collector ": lambda: gc.disable() if gc.isenabled() else gc.enable(),
    "a limit of resources": lambda: limit(resource.RLIMIT_NOFILE, 200),
    "a limit of resources ": lambda: limit(resource.RLIMIT_FSIZE, 1 << 30),
    "a timer": lambda: LIBC.alarm(1000),
    "a timer ": lambda: signal.setitimer(signal.ITIMER_VIRTUAL, 1000),
    "a timer  ": lambda: signal.setitimer(signal.ITIMER_PROF, 1000),
}
if os.geteuid() == 0:
    CHANGES |= {"the user": lambda: os.seteuid(65534), "the user ": lambda: os.setegid(65534)}


def change(text: str) -> str:
    umask = os.umask(0o77)
    os.umask(umask)
    seen = (
        os.getpid(),
        [(each.st_dev, each.st_ino) for each in map(os.fstat, range(3))],
        [each.closed for each in (sys.stdin, sys.stdout, sys.stderr)],
        [each.fileno() for each in (sys.stdout, sys.stderr)],  # stdin may be /dev/null by another number
        (os.getcwd(), umask, os.geteuid(), os.getegid(), sorted(os.environ.items()), locale.setlocale(locale.LC_ALL)),
        [str(signal.getsignal(each)) for each in signal.valid_signals()],
        signal.pthread_sigmask(signal.SIG_BLOCK, ()),
        [*map(signal.getitimer, TIMERS), *map(resource.getrlimit, LIMITS)],
        (sys.getrecursionlimit(), gc.isenabled()),
    )
    if text:
        CHANGES[text]()
    return repr(seen)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="some of the changes are those of Linux")
@pytest.mark.parametrize("engine", ["pool", "serial"])
def test_each_change_costs_the_file_whose_call_made_it(tmp_path: Path, pipeline: Pipeline, engine: str) -> None:
    """Of hundreds of fast calls in one process, the first as well as the hundredth, by Python as well as by C."""
    for folder in ("in", "stages"):
        (tmp_path / folder).mkdir()
    (tmp_path / "pipeline.yaml").write_text(YAML)
    (stage := tmp_path / "stages" / "change.py").write_text(STAGE)
    changes = [*runpy.run_path(str(stage))["CHANGES"]]
    # Some two after each other, the most among others; the first call of all is guilty, too.
    guilty = {
        f"{number:03}": what for number, what in zip([0, 1, *range(100, 500, 5)], changes + changes, strict=False)
    }
    for number in range(500):
        (tmp_path / "in" / (name := f"{number:03}")).write_text(guilty.get(name, ""))
    done = pipeline("--json", "--engine", engine)
    assert done.returncode == 1, done.stderr
    failures = [json.loads(line) for line in pipeline("failures", "--json").stdout.splitlines()]
    assert {each["source"]: each["error"].partition("; ")[0] for each in failures} == {
        name: f"stage 'change' left {what.strip()} changed for the next files" for name, what in guilty.items()
    }
    outputs = {path.name: path.read_text() for path in (tmp_path / "out").glob("[0-9]*")}
    assert len(outputs) == 500 - len(guilty)
    states = set(outputs.values())
    assert len(states) == len({state.partition(",")[0] for state in states}), "what a process sees does not change"
    # Only a change of the user costs the worker, too: it would not die with its parent any more.
    assert len(states) <= 1 + (engine == "pool") * sum(what.strip() == "the user" for what in guilty.values())
