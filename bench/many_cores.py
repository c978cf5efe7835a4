"""Sleeping jobs stand for cores: 64 workers on any machine, beside a bare `Pool.imap_unordered` and the ideal.

    python bench/many_cores.py                   20,000 files of 20 ms and 100,000 of 5 ms; two minutes
    python bench/many_cores.py --quick           16 workers, 640 files of 20 ms; some seconds
    python bench/many_cores.py --only filemill   one of them

What limits a machine of many cores is the process that hands out the files: its start, what it does for each file, and
its end. The work is nothing but waiting, so that two cores can show it. The ideal is the files' seconds shared by all
workers, and nothing else. "All at work" is when the last of the workers began its first file, after the start of the
program. They take turns in each round; the median counts.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from choices import add_choice
from resizing import meter

REPOSITORY = Path(__file__).parent.parent
_IN_A_FOLDER = 1000
_FILEMILL, _POOL = "filemill", "bare Pool script"

STAGE = """
import os, time
_began = []
def wait(text: str, *, seconds: float, marks: str) -> str:
    if not _began:
        _began.append(1)
        with open(f"{marks}/{os.getpid()}", "w") as mark: mark.write(str(time.time()))
    time.sleep(seconds)
    return text.upper()
"""
PIPELINE = """
inputs: in
stages:
  - {{name: wait, uses: wait, with: {{seconds: {seconds}, marks: {marks}}}, output: 'out/{{dir}}/{{name}}'}}
pool: {{processes: {processes}}}
"""
SCRIPT = """
import multiprocessing, os, sys, time
_began = []
def work(path):
    if not _began:
        _began.append(1)
        with open("marks/" + str(os.getpid()), "w") as mark: mark.write(str(time.time()))
    target = "out" + path[2:]
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(path, encoding="utf-8") as file: text = file.read()
    time.sleep(float(sys.argv[2]))
    with open(target, "w", encoding="utf-8") as file: file.write(text.upper())
def paths():
    for folder, _, names in os.walk("in"):
        for name in names: yield os.path.join(folder, name)
if __name__ == "__main__":
    with multiprocessing.Pool(int(sys.argv[1])) as pool:
        for _ in pool.imap_unordered(work, paths()): pass
"""


@dataclass(frozen=True)
class Load:
    """So many workers, and files that each take so many seconds."""

    processes: int
    files: int
    seconds: float

    @property
    def ideal_s(self) -> float:
        return self.files * self.seconds / self.processes

    def __str__(self) -> str:
        return f"{self.processes} workers, {self.files:,} files of {1000 * self.seconds:g} ms"


@dataclass(frozen=True)
class Round:
    """What one contender took in one round."""

    cost: meter.Cost
    all_at_work_s: float


LOADS = (Load(64, 20_000, 0.02), Load(64, 100_000, 0.005))
QUICK = (Load(16, 640, 0.02),)


def main() -> int:
    options = _options()
    meter.prove()
    for load in options.loads:
        with tempfile.TemporaryDirectory(prefix="many-", dir=options.folder) as folder:
            home = Path(folder)
            _make_files(home / "in", load.files)
            found: dict[str, list[Round]] = {name: [] for name in (_FILEMILL, _POOL) if name in options.only}
            for _ in range(options.rounds):
                for name, rounds in found.items():
                    rounds.append(_measure(name, home, load))
        _report(load, found)
    return 0


def _options() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few workers and files")
    parser.add_argument("--load", nargs=3, action="append", metavar=("WORKERS", "FILES", "MS"), help="another load")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where the files are made")
    parser.add_argument("--rounds", type=int, default=3)
    add_choice(parser, "--only", [_FILEMILL, _POOL])
    options = parser.parse_args()
    options.loads = LOADS
    if options.quick:
        options.loads, options.rounds, options.folder = QUICK, 1, Path(tempfile.gettempdir())
    if options.load:
        options.loads = [Load(int(workers), int(files), float(ms) / 1000) for workers, files, ms in options.load]
    options.only = options.only or [_FILEMILL, _POOL]
    return options


def _make_files(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"d{number // _IN_A_FOLDER:04}"
        if number % _IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number:07}.txt").write_text(f"the text of file {number}\n")


def _measure(name: str, home: Path, load: Load) -> Round:
    """Run one contender with nothing made before."""
    for path in home.iterdir():
        if path.name != "in":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (home / "marks").mkdir()
    if name == _FILEMILL:
        (home / "stages").mkdir()
        (home / "stages" / "wait.py").write_text(STAGE)
        text = PIPELINE.format(seconds=load.seconds, marks=home / "marks", processes=load.processes)
        (home / "pipeline.yaml").write_text(text)
        command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    else:
        (home / "script.py").write_text(SCRIPT)
        command = [sys.executable, "script.py", str(load.processes), str(load.seconds)]
    began = time.time()
    cost = meter.measure(command, cwd=home, env={"PYTHONPATH": str(REPOSITORY)}, samples_memory=False)
    assert cost.exit_code == 0, f"{command}: {cost.said}"
    made = sum(1 for path in (home / "out").rglob("*") if path.is_file() and path.name != ".filemill")
    assert made == load.files, f"{name} made {made} of {load.files}"
    first = sorted(float(mark.read_text()) - began for mark in (home / "marks").iterdir())
    return Round(cost, first[load.processes - 1] if len(first) >= load.processes else float("inf"))


def _report(load: Load, found: dict[str, list[Round]]) -> None:
    print(f"\n{load}: ideal {load.ideal_s:.2f} s\n")
    print("|  | s | to the ideal | all at work after, s | CPU us a file |")
    print("|---|--:|--:|--:|--:|")
    for name, rounds in found.items():
        wall_s = statistics.median(each.cost.wall_s for each in rounds)
        at_work_s = statistics.median(each.all_at_work_s for each in rounds)
        cpu_us = statistics.median(1e6 * each.cost.cpu_s / load.files for each in rounds)
        print(f"| {name} | {wall_s:.2f} | {wall_s / load.ideal_s:.2f} | {at_work_s:.2f} | {cpu_us:.0f} |", flush=True)
    if len(found) == 2:
        pairs = zip(found[_FILEMILL], found[_POOL], strict=True)
        ratios = [ours.cost.wall_s / its.cost.wall_s for ours, its in pairs]
        print(f"\n* to the {_POOL}: {', '.join(f'{ratio:.2f}' for ratio in ratios)}")


if __name__ == "__main__":
    sys.exit(main())
