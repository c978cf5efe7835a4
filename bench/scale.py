"""Many small files: a run that makes them all, and a run that finds nothing to do, beside what else people use.

    python bench/scale.py --set-up               installs the peers: PyPI and, as root, Debian's packages
    python bench/scale.py                        1,000, 10,000 and 100,000 files; some minutes on two idle cores
    python bench/scale.py --counts 1000000       a million; half an hour
    python bench/scale.py --folder /var/tmp      on a disk; the default is memory (/dev/shm)
    python bench/scale.py --flat                 all of them in one folder
    python bench/scale.py --shapes               other shapes of outputs and ways to start workers, and 12 pictures
    python bench/scale.py --telling              what trace, metrics and notify cost, in the place of all that
    python bench/scale.py --telling --before ../before --rounds 9      and beside another checkout of filemill
    python bench/scale.py --quick                300 files, in seconds

Each text is read, put into capitals and written: `cold`. Then the same line again: `no-op`. The bare Pool script and
the walks know nothing of what was done before; they are what the work itself costs. Those that make files take turns in
each round; of the runs that find nothing to do the fastest counts. What is not installed is named and left out. After
that filemill finds one new file, and then one file in a hundred changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

from choices import add_choice
from resizing import meter
from scaling import telling
from scaling.contenders import (
    CHUNK_1,
    DEBIAN,
    FILEMILL,
    MAKERS,
    PYPI,
    PYTHON,
    QUICK,
    RSYNC,
    SHAPES,
    WALKED,
    WALKS,
    Contender,
)

REPOSITORY = Path(__file__).parent.parent
_IN_A_FOLDER = 1000
# Who cannot be asked to bear more files than this is measured in one round only.
_MOST_OF_THE_SLOW = 10_000
# Texts over which it is measured what it costs that a run tells of itself.
_TOLD_OF = 10_000


@dataclass
class Figures:
    """What one contender cost over some number of files."""

    cold: list[meter.Cost] = field(default_factory=list)
    no_op: list[meter.Cost] = field(default_factory=list)
    plan: list[meter.Cost] = field(default_factory=list)
    one_new: list[meter.Cost] = field(default_factory=list)
    changed: list[meter.Cost] = field(default_factory=list)
    """With one file in a hundred changed."""

    @property
    def cold_s(self) -> float:
        return statistics.median(cost.wall_s for cost in self.cold)

    @property
    def no_op_s(self) -> float:
        return min(cost.wall_s for cost in self.no_op)

    @property
    def largest_bytes(self) -> int:
        """The memory of the largest process of all runs."""
        return max(cost.largest_bytes for cost in self.cold + self.no_op + self.plan)


def main() -> int:
    options = _options()
    if options.set_up:
        _set_up()
        return 0
    meter.prove()
    if options.telling:
        _compare_telling(options)
        return 0
    for count in options.counts:
        _report(count, _measure(count, options), options)
    if options.shapes:
        _report_pictures(options)
    if options.quick:
        _compare_telling(options)
    return 0


def _options() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--set-up", action="store_true", help="install the peers")
    parser.add_argument("--quick", action="store_true", help="300 files")
    parser.add_argument("--counts", type=int, nargs="+", default=[1000, 10_000, 100_000], metavar="N")
    parser.add_argument("--folder", type=Path, default=Path("/dev/shm"), help="where the files are made")
    parser.add_argument("--flat", action="store_true", help="in one folder, not a thousand in each")
    parser.add_argument("--shapes", action="store_true", help="other shapes of outputs too")
    parser.add_argument("--telling", action="store_true", help="with all that has a run tell of itself, and without")
    parser.add_argument("--before", type=Path, metavar="FOLDER", help="another checkout to compare that with")
    add_choice(parser, "--only", [each.name for each in (*MAKERS, *SHAPES, *WALKS)])
    parser.add_argument("--rounds", type=int, default=3, help="cold runs of each, and no-op runs")
    options = parser.parse_args()
    if options.quick:
        options.counts, options.folder, options.rounds = [300], Path(tempfile.gettempdir()), 1
        options.only = QUICK
    return options


def _set_up() -> None:
    """Install the peers: into this Python, and into the system where this is root's to do."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", *PYPI], check=True)
    install = ["apt-get", "install", "-qy", "--no-install-recommends", *DEBIAN]
    if os.geteuid() == 0:
        subprocess.run(install, check=True)
    else:
        print("as root, for the others:", *install)


def _measure(count: int, options: argparse.Namespace) -> dict[str, Figures]:
    """Let all contenders do their work over so many files."""
    known = (*MAKERS, *(SHAPES if options.shapes or options.only else ()), *WALKS)
    chosen = [each for each in known if not options.only or each.name in options.only]
    for each in chosen:
        if each.version is None:
            print(f"not installed, left out: {each.name}", file=sys.stderr)
    present = [each for each in chosen if each.version is not None and count <= each.most]
    figures = {each.name: Figures() for each in present}
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        home = Path(folder)
        _make_files(home / "in", count, count if options.flat else _IN_A_FOLDER)
        for _ in range(options.rounds):
            for each in present:
                _measure_one(each, home, count, figures[each.name])
    return figures


def _compare_telling(options: argparse.Namespace) -> None:
    """Measure what it costs that a run tells of itself, over tiny texts and over pictures."""
    count = options.counts[0] if options.quick else _TOLD_OF
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        _make_files(Path(folder) / "in", count, _IN_A_FOLDER)
        (Path(folder) / "cache").mkdir()
        telling.compare(
            Path(folder) / "in",
            options.folder,
            Path(folder) / "cache",
            options.rounds,
            options.before,
            is_quick=options.quick,
        )


def _make_files(root: Path, count: int, in_a_folder: int) -> None:
    for number in range(count):
        folder = root / f"d{number // in_a_folder:04}"
        if number % in_a_folder == 0:
            folder.mkdir(parents=True)
        (folder / f"file-{number:07}.txt").write_text(f"the text of file {number}\n")


def _measure_one(contender: Contender, home: Path, count: int, figures: Figures) -> None:
    """A cold run and one that finds nothing to do, or a walk; all that it has made is gone before and after."""
    if contender in WALKS:
        (home / "out").mkdir(exist_ok=True)
        figures.no_op.append(_run(contender.command, home))
        return
    if figures.cold and contender.most <= _MOST_OF_THE_SLOW:
        return
    for path in home.iterdir():
        if path.name != "in":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    contender.prepare(home)
    figures.cold.append(_run(contender.command, home))
    made = sum(1 for path in (home / "out").rglob("*") if path.is_file() and path.name != ".filemill")
    assert made == count * contender.makes, f"{contender.name} made {made} of {count * contender.makes}"
    # The first run after one that made something may have more to look at than that of any other night.
    figures.no_op += [_run(contender.command, home) for _ in range(2 if contender.remembers else 0)]
    if contender.plan:
        figures.plan.append(_run(contender.plan, home))
    if contender.command[: len(FILEMILL)] == FILEMILL:
        _measure_changes(contender, home, figures)


def _measure_changes(contender: Contender, home: Path, figures: Figures) -> None:
    """A run with one new file, and one with a file in a hundred changed; all sources are as before afterwards."""
    some = sorted((home / "in").rglob("*.txt"))[::100]
    new = some[len(some) // 2].with_name("new.txt")
    new.write_text("new\n")
    figures.one_new.append(_run(contender.command, home))
    texts = [path.read_text() for path in some]
    for path, text in zip(some, texts, strict=True):
        path.write_text(f"{text}and more\n")
    figures.changed.append(_run(contender.command, home))
    new.unlink()
    for path, text in zip(some, texts, strict=True):
        path.write_text(text)


def _report_pictures(options: argparse.Namespace) -> None:
    """Print what a run over twelve pictures costs that finds nothing to do, beside Python's start."""
    with tempfile.TemporaryDirectory(prefix="scale-", dir=options.folder) as folder:
        home = Path(folder)
        (home / "in").mkdir()
        subprocess.run([PYTHON, "-c", _DRAW], cwd=home, check=True)
        (home / "pipeline.yaml").write_text(_PICTURES)
        command = [*FILEMILL, "pipeline.yaml"]
        _run(command, home)
        ours, starts = [], []
        for _ in range(5 * options.rounds):
            starts.append(_run([PYTHON, "-c", "pass"], home))
            ours.append(_run(command, home))
    ours_s, start_s = (min(cost.wall_s for cost in costs) for costs in (ours, starts))
    print(f"\n12 pictures, two outputs, no-op: {ours_s:.3f} s, {ours_s / start_s:.1f} times `python -c pass`")


_DRAW = """
from PIL import Image
for number in range(12):
    Image.new("RGB", (64, 64), (number, 0, 0)).save(f"in/{number}.png")
"""
_PICTURES = """
inputs: in
stages:
  - {name: web, uses: resize, with: {width: 32}, output: 'out/web/{name}'}
  - {name: thumb, from: web, uses: resize, with: {width: 8}, output: 'out/thumb/{name}'}
pool: {processes: 2}
"""


def _run(command: list[str], home: Path) -> meter.Cost:
    cost = meter.measure(command, cwd=home, env={"PYTHONPATH": str(REPOSITORY)})
    assert cost.exit_code == 0, f"{command}: {cost.said}"
    return cost


# -- the table ---------------------------------------------------------------------------------------------------------


def _report(count: int, figures: dict[str, Figures], options: argparse.Namespace) -> None:
    where = "one folder" if options.flat else "folders of a thousand"
    print(f"\n{count:,} files in {where}, in {options.folder}\n")
    print("|  | cold, s | us a file | CPU us | no-op, s | us a file | CPU us | largest process, MB | version |")
    print("|---|--:|--:|--:|--:|--:|--:|--:|---|")
    versions = {each.name: each.version for each in (*MAKERS, *SHAPES, *WALKS)}
    for name, its in figures.items():
        cells = _cells(sorted(its.cold, key=lambda cost: cost.wall_s)[len(its.cold) // 2 :][:1], count)
        cells += _cells(sorted(its.no_op, key=lambda cost: cost.wall_s)[:1], count)
        print(f"| {name} | {' | '.join(cells)} | {its.largest_bytes / 1e6:.0f} | {versions[name]} |", flush=True)
    print()
    for name, its in figures.items():
        if its.one_new:
            new_s, changed_s = (min(cost.wall_s for cost in costs) for costs in (its.one_new, its.changed))
            print(f"* {name}: no-op {its.no_op_s:.2f} s, one new file {new_s:.2f} s, 1 % changed {changed_s:.2f} s")
    for line in _ratios(figures):
        print(line)


def _cells(costs: list[meter.Cost], count: int) -> list[str]:
    if not costs:
        return ["", "", ""]
    cost = costs[0]
    return [f"{cost.wall_s:.2f}", f"{1e6 * cost.wall_s / count:.1f}", f"{1e6 * cost.cpu_s / count:.1f}"]


def _ratios(figures: dict[str, Figures]) -> list[str]:
    ours = figures.get("filemill")
    if ours is None:
        return []
    lines = []
    if its := figures.get(CHUNK_1):
        each = [mine.wall_s / other.wall_s for mine, other in zip(ours.cold, its.cold, strict=True)]
        shown = ", ".join(f"{ratio:.2f}" for ratio in each)
        lines.append(f"* cold, to the {CHUNK_1}: {ours.cold_s / its.cold_s:.2f} (round by round {shown})")
    for name in (WALKED, RSYNC):
        if its := figures.get(name):
            lines.append(f"* no-op, to {name}: {ours.no_op_s / its.no_op_s:.2f}")
    plan_s = min(cost.wall_s for cost in ours.plan)
    lines.append(f"* plan, to the no-op run: {plan_s / ours.no_op_s:.2f} ({plan_s:.2f} s)")
    return lines


if __name__ == "__main__":
    sys.exit(main())
