"""Measures resizing side by side: this program, its peers, and the floors nobody can go below.

    python bench/resize.py --set-up            installs the peers: PyPI, npm and, as root, Debian's packages
    python bench/resize.py --rounds 3          writes its section of docs/benchmarks.md; a round is half an hour on
                                               two idle cores
    python bench/resize.py --work big-800 --only "filemill; sharp; pyvips, cascade" --rounds 3
    python bench/resize.py --from-json FILE    the section once more, from what --json FILE has kept
    python bench/resize.py --quality           how near everybody comes to Lanczos, beside what it costs: a section of
                                               its own, in a quarter of an hour
    python bench/resize.py --quick             a few generated pictures, nothing fetched, nothing written

What counts is CPU time of the whole process tree per picture, everything included, and the ratios within one run. A
contender that is not installed is named and left out. With rounds, the contenders take turns, and the median counts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from choices import add_choice
from resizing import meter
from resizing.contenders import QUICK, QUICK_NAMES, WORKS, Contender, Place, Work, contenders
from resizing.corpora import corpus
from resizing.report import Row, as_text, publish, write_section

HERE = Path(__file__).parent
DEBIAN = ("libjpeg-turbo-progs", "libvips-tools", "imagemagick")
# Pictures in a corpus, at least: so many that the start of a tool does not decide, and small ones are done sooner.
ENOUGH = {"big": 200, "web": 1000, "alpha": 200, "huge": 40, "quick": 6}


def main() -> int:
    options = _options()
    if options.set_up:
        set_up(options.cache)
        return 0
    if options.quality:
        from resizing import quality  # which needs numpy

        meter.prove()
        section = quality.as_markdown(quality.compare(_present(options), options.cache))
        print(section)
        write_section(section, options.docs)
        return 0
    rows = [Row(**row) for row in json.loads(options.from_json.read_text())] if options.from_json else run(options)
    if options.json:
        options.json.write_text(json.dumps([asdict(row) for row in rows], indent=1))
    print(as_text(rows))
    if not (options.quick or options.work or options.only):
        publish(rows, options.docs)
    return 1 if any(row.wrong for row in rows) else 0


def _options() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    parser.add_argument("--set-up", action="store_true", help="install the peers")
    parser.add_argument("--quick", action="store_true", help="a few generated pictures; seconds, not minutes")
    parser.add_argument("--quality", action="store_true", help="compare the pixels, and write that section")
    add_choice(parser, "--work", [each.name for each in WORKS])
    add_choice(parser, "--only", ["filemill", "sharp", "pyvips", "..."])
    parser.add_argument("--rounds", type=int, default=1, help="how often each contender is measured")
    parser.add_argument("--simd-python", type=_absolute, help="a Python with pillow-simd, measured as well")
    parser.add_argument("--cache", type=Path, default=caches / "filemill-bench", help="where pictures and peers are")
    parser.add_argument("--docs", type=Path, default=HERE.parent / "docs", help="where benchmarks.md is")
    parser.add_argument("--json", type=Path, help="where to write what was measured, for other programs")
    parser.add_argument("--from-json", type=Path, help="measure nothing, read what --json wrote")
    options = parser.parse_args()
    options.cache.mkdir(parents=True, exist_ok=True)
    return options


def _absolute(text: str) -> Path:
    return Path(text).absolute()  # not resolved: the Python of a venv is a link


def set_up(cache: Path) -> None:
    """Install the peers: into this Python, into the cache, and into the system where this is root's to do."""
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", "-r", HERE / "requirements.txt"], check=True)
    missing = [] if shutil.which("npm") else ["nodejs", "npm"]
    install = ["apt-get", "install", "-qy", "--no-install-recommends", *DEBIAN, *missing]
    if os.geteuid() == 0:
        subprocess.run(install, check=True)
    else:
        print("as root, for the others:", *install)
    if shutil.which("npm"):
        (cache / "npm").mkdir(exist_ok=True)
        shutil.copy(HERE / "package.json", cache / "npm")
        subprocess.run(["npm", "install", "--no-fund", "--no-audit"], cwd=cache / "npm", check=True)


def _present(options: argparse.Namespace) -> Iterator[Contender]:
    for contender in contenders(options.cache, options.simd_python):
        if contender.name not in (options.only or (QUICK_NAMES if options.quick else [contender.name])):
            continue
        if contender.version is None:
            print(f"not installed, left out: {contender.name}", file=sys.stderr)
        else:
            yield contender


def run(options: argparse.Namespace) -> list[Row]:
    """Everything that was asked for, measured."""
    meter.prove()
    works = [work for work in (QUICK if options.quick else WORKS) if not options.work or work.name in options.work]
    present = list(_present(options))
    return [row for work in works for row in measure(work, present, options.cache, options.rounds)]


def measure(work: Work, present: list[Contender], cache: Path, rounds: int) -> list[Row]:
    """Let all contenders do some work, in turns."""
    source = corpus(work.corpus, cache, ENOUGH[work.corpus])
    measured: dict[str, list[Row]] = {}
    for turn in range(rounds):
        # Another one begins each time: the machine may be busier at the beginning.
        first = turn * len(present) // rounds
        for contender in [*present[first:], *present[:first]]:
            row = _measure_one(work, contender, source, cache)
            if row:
                print(f"{work.name:12} {row.name:36} {row.cpu_ms:7.1f} ms {row.wrong}", file=sys.stderr)
                measured.setdefault(row.name, []).append(row)
    return [_middle(rows) for rows in measured.values()]


def _measure_one(work: Work, contender: Contender, source: Path, cache: Path) -> Row | None:
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache) as folder:
        home = Path(folder)
        place = Place(_fifth(source, home) if contender.slow else source, home / "out", home, cache)
        place.into.mkdir()
        command = contender.command(work, place)
        if command is None:
            return None
        cost = meter.measure(command, cwd=home, env=contender.env)
        made = [path.stat().st_size for path in place.into.rglob("*") if path.is_file() and path.name != ".filemill"]
        pictures = len(list(place.source.iterdir()))
    expected = pictures * (1 if contender.name.startswith("floor") else len(work.sizes))
    ended = f"exit code {cost.exit_code}, {len(made)} of {expected} made: {cost.said}"
    wrong = "" if len(made) == expected and not cost.exit_code else ended
    return Row(
        work.name, work.title, contender.name, contender.version or "", pictures,
        cpu_ms=1000 * cost.cpu_s / pictures, wall_ms=1000 * cost.wall_s / pictures,
        peak_mb=cost.peak_bytes / 1e6, made_kb=sum(made) / pictures / 1e3, wrong=wrong,
    )  # fmt: skip


def _fifth(source: Path, home: Path) -> Path:
    """Every fifth picture, by hard links."""
    folder = home / "fifth"
    folder.mkdir()
    for path in sorted(source.iterdir())[::5]:
        os.link(path, folder / path.name)
    return folder


def _middle(rows: list[Row]) -> Row:
    """The median of several rounds, and how far apart they were."""
    costs = [row.cpu_ms for row in rows]
    middle = sorted(rows, key=lambda row: row.cpu_ms)[(len(rows) - 1) // 2]
    return replace(
        middle,
        cpu_ms=statistics.median(costs),
        wall_ms=statistics.median(row.wall_ms for row in rows),
        peak_mb=max(row.peak_mb for row in rows),
        rounds=len(rows),
        spread=(max(costs) - min(costs)) / min(costs),
        wrong=next((row.wrong for row in rows if row.wrong), ""),
    )


if __name__ == "__main__":
    sys.exit(main())
