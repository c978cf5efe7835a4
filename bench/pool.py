"""The pool engine beside its peers: microseconds per job that does nothing, and milliseconds to the first
outcome.

    pip install -r bench/requirements.txt
    python bench/pool.py [--quick]

All in one run, in turns, since machines differ and are shared: read the ratios. What is not installed is
skipped by name. Each contender gets 100,000 relative paths; the engine gets jobs, gives outcomes, and
supervises and captures.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pool_work import same, start, work

from pipeline.engines.pool import PoolSettings, PoolSpec
from pipeline.messages import Job, Source, StageInfo, Target

PROCESSES = 2
STAGES = (StageInfo("web", None),)


def paths(count: int) -> list[bytes]:
    return [b"some/folder/of/the/input/with/a/name/picture-%08d.jpg" % n for n in range(count)]


def jobs(count: int) -> list[Job]:
    return [Job(Source(path, 1, 1), (Target("web", b"/output/" + path),)) for path in paths(count)]


def engine(items: Iterable[Job], **settings: object) -> int:
    """Play run.py: feed, poll, drop."""
    with tempfile.TemporaryDirectory() as folder:
        spec = PoolSpec(PoolSettings(PROCESSES, **settings), STAGES, start, b"", work)  # type: ignore[arg-type]
        made = spec.open(Path(folder))
        source = iter(items)
        job = next(source, None)
        count = 0
        while job or made.busy:
            while job and made.has_room:
                made.submit(job)
                job = next(source, None)
            count += len(made.poll(1))
        made.close()
    return count


def bare(items: list[bytes], chunk: int) -> int:
    with multiprocessing.get_context("fork").Pool(PROCESSES) as pool:
        return sum(1 for _ in pool.imap_unordered(same, items, chunk))


def executor(items: list[bytes], chunk: int) -> int:
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(PROCESSES, mp_context=context) as pool:
        return sum(1 for _ in pool.map(same, items, chunksize=chunk))


def pebble(items: list[bytes], chunk: int, timeout_s: float | None) -> int:
    module = importlib.import_module("pebble")
    with module.ProcessPool(PROCESSES) as pool:
        return sum(1 for _ in pool.map(same, items, chunksize=chunk, timeout=timeout_s).result())


def mpire(items: list[bytes], timeout_s: float | None) -> int:
    module = importlib.import_module("mpire")
    with module.WorkerPool(PROCESSES) as pool:
        return sum(1 for _ in pool.imap_unordered(same, items, task_timeout=timeout_s))


def joblib(items: list[bytes]) -> int:
    module = importlib.import_module("joblib")
    return len(module.Parallel(PROCESSES)(module.delayed(same)(item) for item in items))


Contender = tuple[str, Callable[[list], int], int]  # type: ignore[type-arg]


def contenders(count: int) -> list[Contender]:
    """A name, what to run, and how many jobs; the slow ones get fewer."""
    few = count // 10
    found: list[Contender] = [
        ("bare imap_unordered, chunk 1", lambda items: bare(items, 1), count),
        ("bare imap_unordered, chunk 64", lambda items: bare(items, 64), count),
    ]
    for method in ("fork", "forkserver", "spawn"):
        for limit in (None, 10_000, 1_000):
            name = f"filemill {method}, maxtasksperchild {limit or 'none'}"
            found.append((name, lambda items, m=method, x=limit: engine(items, context=m, maxtasksperchild=x), count))
    found.append(("filemill fork, timeout 60 s", lambda items: engine(items, context="fork", timeout_s=60), count))
    return [
        *found,
        ("ProcessPoolExecutor.map, chunk 1", lambda items: executor(items, 1), few),
        ("ProcessPoolExecutor.map, chunk 64", lambda items: executor(items, 64), count),
        ("pebble map, chunk 1, timeout 60 s", lambda items: pebble(items, 1, 60), few),
        ("pebble map, chunk 64, timeout 60 s", lambda items: pebble(items, 64, 60), count),
        ("mpire imap_unordered, timeout 60 s", lambda items: mpire(items, 60), few),
        ("mpire imap_unordered, no timeout", lambda items: mpire(items, None), few),
        ("joblib, list of results", lambda items: joblib(items), count),
    ]


def measure(count: int, rounds: int) -> None:
    """Print the best of some rounds for each contender, and its ratio to bare chunk 1 of the same rounds."""
    best: dict[str, float] = {}
    for _ in range(rounds):
        for name, run, jobs_count in contenders(count):
            seconds = timed(name, run, jobs_count)
            if seconds is not None:
                best[name] = min(best.get(name, seconds), seconds)
    yardstick = best["bare imap_unordered, chunk 1"]
    print(f"{'':44}us per job    of bare chunk 1")
    for name, seconds in best.items():
        print(f"{name:44}{seconds * 1e6:10.1f}{seconds / yardstick:14.2f}")


def timed(name: str, run: Callable[[list], int], count: int) -> float | None:  # type: ignore[type-arg]
    items = jobs(count) if name.startswith("filemill") else paths(count)
    try:
        began = time.perf_counter()
        done = run(items)
    except ImportError as error:
        print(f"{name}: skipped, {error}", file=sys.stderr)
        return None
    assert done == count, name
    return (time.perf_counter() - began) / count


def start_up() -> None:
    """Print the time from nothing to the first outcome, and once more with the start method warm."""
    print(f"\n{'start-up to the first outcome':44}first, ms   second, ms")
    for method in ("fork", "forkserver", "spawn"):
        took = []
        for _ in range(2):
            began = time.perf_counter()
            engine(jobs(1), context=method)
            took.append((time.perf_counter() - began) * 1e3)
        print(f"{method:44}{took[0]:9.0f}{took[1]:13.0f}")


def memory(counts: Iterable[int]) -> None:
    """Print the parent's memory after runs of growing length; each in a process of its own."""
    print(f"\n{'parent memory, largest resident set':44}MB")
    for count in counts:
        with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
            print(f"{count:,} jobs".ljust(44), round(pool.submit(peak_bytes, count).result() / 1e6, 1))


def peak_bytes(count: int) -> int:
    endless = (Job(Source(b"%d" % n, 1, 1), (Target("web", b"/output/%d" % n),)) for n in range(count))
    assert engine(endless, context="forkserver") == count
    status = Path("/proc/self/status").read_text()  # getrusage would tell what the process it came from had
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a tenth of the jobs, once")
    quick = parser.parse_args().quick
    print(f"Python {sys.version.split()[0]}, {os.cpu_count()} CPUs, {PROCESSES} workers\n")
    start_up()
    measure(10_000 if quick else 100_000, 1 if quick else 2)
    memory((10_000, 50_000) if quick else (10_000, 100_000, 1_000_000))


if __name__ == "__main__":
    main()
