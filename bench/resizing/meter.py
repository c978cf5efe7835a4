"""Runs a command and tells what its whole process tree cost: CPU seconds, wall seconds, peak memory.

A child that somebody waits for adds its CPU time to its parent's account; one that outlives its parent would be lost,
and so would a forkserver's workers. So the command runs below a meter of its own, to which Linux hands every orphan of
the tree (PR_SET_CHILD_SUBREAPER), and the meter waits until it has no child left:

    bench -> meter.py -> the command -> workers, a forkserver, the forkserver's workers, ...

Peak memory is the tree's proportional set size, sampled: shared pages count once.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h

# Seconds between two looks at the memory: a picture takes longer, and looking costs the command next to nothing.
_SAMPLE_EVERY_S = 0.1
# The meter's own option, before the command.
_UNSAMPLED = "--no-memory"


@dataclass(frozen=True)
class Cost:
    """What a command cost, with its exit code and the end of what it said on stderr."""

    cpu_s: float
    wall_s: float
    peak_bytes: int
    """Of the whole tree."""
    largest_bytes: int
    """The peak of its largest process, shared pages and all."""
    exit_code: int
    said: str


def measure(command: list[str], *, cwd: Path, env: dict[str, str] | None = None, samples_memory: bool = True) -> Cost:
    """Run a command to its end, and its descendants to theirs. Its stdout is thrown away.

    Sampling the memory of many processes takes a good part of a core; `peak_bytes` is 0 without it.
    """
    meter = [sys.executable, "-S", "-E", __file__, *([] if samples_memory else [_UNSAMPLED]), *command]
    with (cwd / "said.txt").open("w+b") as said:
        run = subprocess.run(
            meter, cwd=cwd, env={**environment(), **(env or {})}, stdout=subprocess.PIPE, stderr=said, check=True
        )
        said.seek(0)
        text = said.read()[-500:].decode(errors="replace")
    return Cost(**json.loads(run.stdout), said=text.strip())


def environment() -> dict[str, str]:
    """This environment, with Python's caching of bytecode, without which every process compiles all it imports."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}


def prove() -> None:
    """Raise RuntimeError unless the CPU time of an orphaned grandchild is counted."""
    burn_s = 0.3
    burn = f"import time\nwhile time.process_time() < {burn_s}: pass"
    orphan = f"import subprocess, sys\nsubprocess.Popen([sys.executable, '-c', {burn!r}], start_new_session=True)"
    cost = measure([sys.executable, "-c", orphan], cwd=Path(os.environ.get("TMPDIR", "/tmp")))
    if cost.cpu_s < burn_s:
        raise RuntimeError(f"the meter misses orphans: {cost.cpu_s:.2f} of {burn_s} CPU seconds counted")


# -- the meter's own process -------------------------------------------------------------------------------------------


def _main(command: list[str]) -> None:
    samples_memory = command[0] != _UNSAMPLED
    command = command[not samples_memory :]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise OSError(ctypes.get_errno(), "prctl(PR_SET_CHILD_SUBREAPER)")
    ended = threading.Event()
    peaks = [0]
    sampler = threading.Thread(target=_sample, args=(ended, peaks))
    began_s = time.monotonic()
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    if samples_memory:
        sampler.start()
    code = child.wait()
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()
    wall_s = time.monotonic() - began_s
    ended.set()
    if samples_memory:
        sampler.join()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cost = {"cpu_s": used.ru_utime + used.ru_stime, "wall_s": wall_s, "peak_bytes": peaks[0], "exit_code": code}
    print(json.dumps(cost | {"largest_bytes": used.ru_maxrss * 1024}))


def _sample(ended: threading.Event, peaks: list[int]) -> None:
    while not ended.wait(_SAMPLE_EVERY_S):
        peaks[0] = max(peaks[0], sum(_pss_bytes(pid) for pid in _descendants(os.getpid())))


def _descendants(ancestor: int) -> Iterator[int]:
    """Every process below this one, from what /proc says of each one's parent."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:
                parent = int(stat.read().rpartition(b")")[2].split()[1])  # the name before it may hold anything
                children.setdefault(parent, []).append(int(entry))
    below = [ancestor]
    while below:
        found = children.get(below.pop(), [])
        below += found
        yield from found


def _pss_bytes(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup", "rb") as rollup:
        for line in rollup:
            if line.startswith(b"Pss:"):
                return int(line.split()[1]) * 1024
    return 0


if __name__ == "__main__":
    _main(sys.argv[1:])
