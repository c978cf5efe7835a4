"""One worker over tiny texts, without a pool around it: microseconds of CPU per file.

    python bench/worker.py [--files 20000] [--folder /dev/shm]

Compare only runs that were made in turns: even CPU time grows where others use the caches. A batch has as many files
as the largest that the engine sends, whatever time it takes.
"""

from __future__ import annotations

import argparse
import gc
import os
import pickle
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from pipeline.engines import output_capture, slots, wire_format, worker_loop
from pipeline.engines.batching import MAX_JOBS_IN_BATCH
from pipeline.engines.slots import Slot, SlotTable
from pipeline.files.template import OWNER_FILE
from pipeline.messages import Job, Source, Target
from pipeline.worker import main as worker
from pipeline.worker.tree import StageSetup, WorkerSetup

STAGE = "def upper(text: str) -> str:\n    return text.upper()\n"
FILES_IN_FOLDER = 1000


def make_jobs(base: Path, count: int) -> list[Job]:
    """Write the sources, and return a job for each."""
    root, out, jobs = base / "in", base / "out", []
    out.mkdir()
    (out / OWNER_FILE).touch()
    for number in range(count):
        name = f"d{number // FILES_IN_FOLDER:04}/text-{number:07}.txt"
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"the text of file {number}")
        os.utime(file, ns=(1_700_000_000_000_000_001 + number,) * 2)
        found = file.stat()
        target = Target("upper", bytes(out / name), is_new=True)
        jobs.append(Job(Source(name.encode(), found.st_size, found.st_mtime_ns), (target,)))
    return jobs


def start(base: Path) -> None:
    """Make this process a worker."""
    (base / "stages").mkdir()
    (base / "stages" / "mine.py").write_text(STAGE)
    stages = (StageSetup("upper", "./stages/mine.py:upper", pickle.dumps({}), None, {}),)
    setup = WorkerSetup(
        base, bytes(base / "in"), base / "scratch", "20260101T000000-abcdef", (), stages,
        output_folders=(bytes(base / "out"),), set_aside=base / "aside",
    )  # fmt: skip
    slot = Slot(SlotTable(1), 0, base / "slot.txt", max_memory_bytes=8 << 30)
    slot.pipes = (*os.pipe(), os.pipe()[0])
    slots.occupy(slot)
    output_capture.redirect(slot.capture)
    worker_loop.LONG_BATCH_NS = 10**15
    worker_loop.start(pickle.dumps((worker.start, worker.work)), setup.pack())


def timed(run: Callable[[int], object], count: int) -> float:
    """Return the microseconds of CPU that a call with a number below `count` takes: the fastest tenth on average."""
    taken_ns = []
    for number in range(count):
        began_ns = time.process_time_ns()
        run(number)
        taken_ns.append(time.process_time_ns() - began_ns)
    fastest = sorted(taken_ns)[: max(1, count // 10)]
    return statistics.fmean(fastest) / 1e3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=20_000)
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        base = Path(folder)
        jobs = make_jobs(base, given.files)
        batches = [jobs[at : at + MAX_JOBS_IN_BATCH] for at in range(0, len(jobs), MAX_JOBS_IN_BATCH)]
        terminal = os.fdopen(os.dup(1), "w")
        start(base)
        gc.collect()
        gc.freeze()  # a worker has no such number of jobs to look through
        packed = dict[int, bytes]()
        replies = dict[int, bytes]()
        steps: dict[str, Callable[[int], object]] = {
            "parent, packing jobs": lambda n: packed.__setitem__(n, wire_format.pack_jobs(batches[n])),
            "worker": lambda n: replies.__setitem__(n, worker_loop.run_batch((n, packed[n], None))[1]),
            "parent, unpacking answers": lambda n: wire_format.unpack_answers(batches[n], replies[n]),
        }
        for name, run in steps.items():
            mean_us = timed(run, len(batches)) * len(batches) / len(jobs)
            print(f"{name:28}{mean_us:8.1f} us", file=terminal)
        for name, messages in (("job", packed), ("answer", replies)):
            print(f"{name:28}{sum(map(len, messages.values())) / len(jobs):8.1f} bytes", file=terminal)
        terminal.close()
        assert sum(len(files) for _, _, files in os.walk(base / "out")) == len(jobs) + 1


if __name__ == "__main__":
    main()
