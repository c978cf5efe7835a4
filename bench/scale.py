"""Many small files: a run that makes them all, and a run that finds nothing to do, beside what else people use.

    python bench/scale.py                        1,000, 10,000 and 100,000 files; some minutes on two idle cores
    python bench/scale.py --counts 1000000       a million; half an hour
    python bench/scale.py --folder /var/tmp      on a disk; the default is memory (/dev/shm)
    python bench/scale.py --quick                300 files, in seconds

Each text is read, put into capitals and written: `cold`. Then the same line again: `no-op`. The bare Pool script and
the walks know nothing of what was done before; they are what the work itself costs. What is not installed is named and
left out; as root, `apt-get install rsync ninja-build make parallel` and `pip install doit` bring the peers.
"""

from __future__ import annotations

import argparse
import importlib.util
import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from resizing import meter

REPOSITORY = Path(__file__).parent.parent
_IN_A_FOLDER = 1000

UPPER = "def upper(text: str) -> str:\n    return text.upper()\n"
PIPELINE = "inputs: in\nstages:\n  - {name: up, uses: upper, output: 'out/{dir}/{name}'}\npool: {processes: 2}\n"
POOL = """
import multiprocessing, os, sys
def work(path):
    target = "out" + path[2:]
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(path, encoding="utf-8") as file: text = file.read()
    with open(target, "w", encoding="utf-8") as file: file.write(text.upper())
def paths():
    for folder, _, names in os.walk("in"):
        for name in names: yield os.path.join(folder, name)
if __name__ == "__main__":
    with multiprocessing.Pool(2) as pool:
        for _ in pool.imap_unordered(work, paths(), chunksize=int(sys.argv[1])): pass
"""
WALK = "import os\nfor d, _, names in os.walk('in'):\n    for n in names: os.stat(os.path.join(d, n))\n"
UP = 'mkdir -p "$(dirname "out${1#in}")" && tr a-z A-Z < "$1" > "out${1#in}"'
MAKE = """
sources := $(shell find in -type f)
all: $(sources:in/%=out/%)
out/%: in/% ; @mkdir -p $(@D) && tr a-z A-Z < $< > $@
"""
DOIT = """
import os
def task_up():
    for folder, _, names in os.walk("in"):
        for name in names:
            source = os.path.join(folder, name)
            target = "out" + source[2:]
            yield {"name": source, "file_dep": [source], "targets": [target],
                   "actions": [(up, [source, target])]}
def up(source, target):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    with open(source) as file: text = file.read()
    with open(target, "w") as file: file.write(text.upper())
"""


@dataclass(frozen=True)
class Contender:
    """Something to measure; `most` is the number of files that it can be asked to bear."""

    name: str
    needs: str
    """A program, or `py:` and a module."""
    command: list[str]
    most: int
    remembers: bool = False
    """Whether a second run of the same command finds nothing to do."""
    prepare: Callable[[Path], None] = lambda home: None


def _ninja(home: Path) -> None:
    with open(home / "build.ninja", "w") as file:
        file.write("rule up\n  command = mkdir -p $$(dirname $out) && tr a-z A-Z < $in > $out\n")
        for path in sorted((home / "in").rglob("*.txt")):
            name = path.relative_to(home / "in")
            file.write(f"build out/{name}: up in/{name}\n")


def _project(home: Path) -> None:
    (home / "stages").mkdir()
    (home / "stages" / "upper.py").write_text(UPPER)
    (home / "pipeline.yaml").write_text(PIPELINE)


def _write(name: str, text: str) -> Callable[[Path], None]:
    def prepare(home: Path) -> None:
        (home / name).write_text(text)

    return prepare


def _xargs(program: str, *options: str) -> list[str]:
    return ["sh", "-c", f"find in -type f -print0 | {program} {' '.join(options)} sh -c '{UP}' sh"]


PYTHON = sys.executable
COLD = (
    Contender("filemill", "py:pipeline", [PYTHON, "-m", "pipeline", "pipeline.yaml"], 10**7, True, _project),
    Contender("bare Pool script, chunk 1", "py:os", [PYTHON, "pool.py", "1"], 10**7, False, _write("pool.py", POOL)),
    Contender("bare Pool script, chunk 64", "py:os", [PYTHON, "pool.py", "64"], 10**7, False, _write("pool.py", POOL)),
    Contender("doit", "py:doit", [PYTHON, "-m", "doit", "-v0", "-n2"], 10_000, True, _write("dodo.py", DOIT)),
    Contender("make -j2", "make", ["make", "-j2"], 10_000, True, _write("Makefile", MAKE)),
    Contender("ninja -j2", "ninja", ["ninja", "-j2"], 10_000, True, _ninja),
    Contender("xargs -P2", "xargs", _xargs("xargs", "-0", "-n1", "-P2"), 10_000),
    Contender("GNU parallel -j2", "parallel", _xargs("parallel", "-0", "-j2"), 1000),
)
WALKS = (
    Contender("find -printf", "find", ["find", "in", "-printf", r"%p %s %T@\n"], 10**7),
    Contender("Python walk with stat", "py:os", [PYTHON, "-c", WALK], 10**7),
    Contender("rsync -a --dry-run", "rsync", ["rsync", "-a", "--dry-run", "in/", "out/"], 10**7),
)


def main() -> int:
    options = _options()
    meter.prove()
    for count in options.counts:
        _measure(count, options)
    return 0


def _options() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="300 files")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where the files are made")
    parser.add_argument("--only", help="contenders, separated by ';'")
    parser.add_argument("--repeat", type=int, default=3, help="no-op runs, of which the fastest counts")
    options = parser.parse_args()
    if options.quick:
        options.counts, options.folder, options.repeat = [300], Path(tempfile.gettempdir()), 1
        options.only = "filemill;bare Pool script, chunk 1;Python walk with stat"
    return options


def _measure(count: int, options: argparse.Namespace) -> None:
    print(f"\n{count:,} files in {options.folder}")
    print(
        f"  {'':28}{'cold: s':>10}{'us/file':>10}{'CPU us':>10}{'no-op: s':>10}{'us/file':>10}{'CPU us':>10}{'MB':>7}"
    )
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        home = Path(folder)
        _make_files(home / "in", count)
        for contender in COLD + WALKS:
            if options.only and contender.name not in options.only.split(";"):
                continue
            if not _is_there(contender.needs):
                print(f"  {contender.name:28} not installed")
            elif count <= contender.most:
                print(f"  {contender.name:28}{_row(contender, home, count, options.repeat)}", flush=True)


def _make_files(root: Path, count: int) -> None:
    for number in range(count):
        folder = root / f"d{number // _IN_A_FOLDER:04}"
        if number % _IN_A_FOLDER == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number:07}.txt").write_text(f"the text of file {number}\n")


def _is_there(needs: str) -> bool:
    if needs.startswith("py:"):
        return importlib.util.find_spec(needs[3:]) is not None
    return shutil.which(needs) is not None


def _row(contender: Contender, home: Path, count: int, repeat: int) -> str:
    """The figures of one contender, which starts with no output where it makes them."""
    walks = contender in WALKS
    if not walks:
        shutil.rmtree(home / "out", ignore_errors=True)
        contender.prepare(home)
    costs = [_run(contender, home)] if not walks else []
    if not walks:
        made = sum(1 for path in (home / "out").rglob("*") if path.is_file() and path.name != ".filemill")
        assert made == count, f"{contender.name} made {made} of {count}"
    again = [_run(contender, home) for _ in range(repeat if walks or contender.remembers else 0)]
    cells = _cells(costs[0], count) if costs else f"{'':30}"
    best = min(again, key=lambda cost: cost.wall_s, default=None)
    cells += _cells(best, count) if best else f"{'':30}"
    return cells + f"{max(cost.peak_bytes for cost in costs + again) / 1e6:7.0f}"


def _run(contender: Contender, home: Path) -> meter.Cost:
    cost = meter.measure(contender.command, cwd=home, env={"PYTHONPATH": str(REPOSITORY)})
    assert cost.exit_code == 0, f"{contender.name}: {cost.said}"
    return cost


def _cells(cost: meter.Cost, count: int) -> str:
    return f"{cost.wall_s:10.2f}{1e6 * cost.wall_s / count:10.1f}{1e6 * cost.cpu_s / count:10.1f}"


if __name__ == "__main__":
    sys.exit(main())
