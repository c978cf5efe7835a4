"""What it costs that an output called done has reached the disk, and what a power cut leaves of a run.

    python bench/durability.py             10,000 texts and 300 pictures, ext4 and xfs; some minutes, as root
    python bench/durability.py --quick     300 texts, one cut
    python bench/durability.py --folder /  where the disks' image files are made; on a real disk, not in memory

Each way is a cold run over a file system of its own, in an image file behind a loop device, where that can be mounted;
without, over the folder itself, and no power is cut. A power cut is the file system's own shutdown, which lets nothing
more reach the disk and throws away what had not; then the image is mounted again, and every output that the next plan
calls up to date is read. Of those, none may be other than it should be.

    rename only        nothing is synced, what was lost with the power is not looked for
    now and then       what filemill does: a sync of the whole file system every five seconds, and one at the end
    each commit        the same before each commit of the ledger
    each file          fsync of every output before it is renamed
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import random
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from resizing import meter

REPOSITORY = Path(__file__).parent.parent
# _IOR('X', 125, __u32), and that nothing is to be flushed before: how file systems' own tests cut the power.
_SHUTDOWN, _NO_FLUSH = 0x8004587D, struct.pack("I", 2)
_IN_A_FOLDER = 1000
_IMAGE_BYTES = 2 << 30

UPPER = "def upper(text: str) -> str:\n    return text.upper()\n"
TEXTS = "inputs: in\nstages:\n  - {name: up, uses: upper, output: 'out/{dir}/{name}'}\n"
PICTURES = (
    "inputs: in\nstages:\n  - {name: web, uses: resize, with: {width: 800, height: 800}, output: 'out/{dir}/{name}'}\n"
)
# Workers are forked, so that they see what is changed here.
POOL = "pool: {processes: 2, context: fork}\n"

RENAME_ONLY = """
from pipeline.ledger import checkpoint
checkpoint.sync_file_systems = lambda folders: None
checkpoint.SYNC_EVERY_S = 1e9
"""
NOW_AND_THEN = ""
EACH_COMMIT = """
from pipeline.files.sync import sync_file_systems
from pipeline.ledger import checkpoint, ledger
checkpoint.SYNC_EVERY_S = 1e9
commit = ledger.Ledger.commit
def sync_and_commit(self):
    if self._connection.in_transaction:
        sync_file_systems([b"out"])
    commit(self)
ledger.Ledger.commit = sync_and_commit
"""
EACH_FILE = (
    RENAME_ONLY
    + """
import os
rename = os.rename
def sync_and_rename(old, new, **more):
    if isinstance(old, bytes) and b"/.filemill-" in old:
        fd = os.open(old, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    rename(old, new, **more)
os.rename = sync_and_rename
"""
)
RUN = "import sys\nfrom pipeline.cli import main\nif __name__ == '__main__':\n    sys.exit(main(sys.argv[1:]))\n"
# What a start of the machine changes: its number, and the time since when it runs.
ANEW = """
import time
from pipeline.ledger import recovery
recovery.boot_id = lambda: "another"
recovery.boot_time_ns = time.time_ns
"""
WAYS = {"rename only": RENAME_ONLY, "now and then": NOW_AND_THEN, "each commit": EACH_COMMIT, "each file": EACH_FILE}


@dataclass(frozen=True)
class Load:
    """What a run is to do."""

    name: str
    count: int
    pipeline: str


def main() -> int:
    options = _options()
    meter.prove()
    for kind in options.file_systems:
        if not _can_mount(kind, options.folder):
            print(f"\n{kind}: cannot be mounted here; measured in {options.folder} itself")
            kind = ""
        for load in options.loads:
            _measure(kind, load, options)
        if kind:
            _cut_power(kind, options)
        else:
            break
    return 0


def _options() -> argparse.Namespace:
    about, _, more = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=more, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="300 texts on one file system, one cut")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where the image files are made")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each way, in turn, of which the fastest counts")
    parser.add_argument("--cuts", type=int, default=5, help="power cuts of each way")
    parser.add_argument("--texts", type=int, default=10_000, help="texts of a cold run")
    options = parser.parse_args()
    options.file_systems = ["ext4", "xfs"]
    pictures = Load("pictures", 300, PICTURES + POOL)
    options.loads = [Load("texts", options.texts, TEXTS + POOL), pictures]
    if options.quick:
        options.file_systems, options.repeat, options.cuts, options.texts = ["ext4"], 1, 1, 300
        options.loads = [Load("texts", 300, TEXTS + POOL)]
    return options


def _measure(kind: str, load: Load, options: argparse.Namespace) -> None:
    print(f"\ncold run, {load.count:,} {load.name}{f', {kind}' if kind else ''}")
    print(f"  {'':16}{'s':>8}{'CPU s':>8}{'ratio':>8}")
    best: dict[str, meter.Cost] = {}
    for _ in range(options.repeat):
        for way in WAYS:
            with _disk(kind, options.folder) as home:
                _project(home, load, WAYS[way])
                os.sync()
                cost = meter.measure([sys.executable, "run.py"], cwd=home, env={"PYTHONPATH": str(REPOSITORY)})
                assert cost.exit_code == 0, cost.said
                if way not in best or cost.wall_s < best[way].wall_s:
                    best[way] = cost
    for way, cost in best.items():
        print(
            f"  {way:16}{cost.wall_s:8.2f}{cost.cpu_s:8.2f}{cost.wall_s / best['rename only'].wall_s:8.2f}", flush=True
        )


def _project(home: Path, load: Load, way: str) -> None:
    (home / "stages").mkdir()
    (home / "stages" / "upper.py").write_text(UPPER)
    (home / "pipeline.yaml").write_text(load.pipeline)
    (home / "run.py").write_text(way + RUN)
    (home / "anew.py").write_text(ANEW + RUN)
    picture = next((REPOSITORY / "data" / "input").glob("*.jpg")).read_bytes()
    for number in range(load.count):
        folder = home / "in" / f"d{number // _IN_A_FOLDER:04}"
        folder.mkdir(parents=True, exist_ok=True)
        if load.name == "texts":
            (folder / f"{number:07}.txt").write_text(f"the text of file {number}\n" * 20)
        else:
            (folder / f"{number:07}.jpg").write_bytes(picture)


# -- power cuts --------------------------------------------------------------------------------------------------------


def _cut_power(kind: str, options: argparse.Namespace) -> None:
    print(f"\npower cuts, {options.texts:,} texts, {kind}: outputs, each over {options.cuts} cuts")
    print(f"  {'':16}{'on disk':>10}{'not whole':>11}{'up to date':>12}{'of them wrong':>15}{'no plan':>9}")
    chance = random.Random(4)
    for way in WAYS:
        totals = [0, 0, 0, 0, 0]
        for _ in range(options.cuts):
            totals = [
                a + b for a, b in zip(totals, _cut_once(kind, way, chance.uniform(0.0, 1.0), options), strict=True)
            ]
        print(f"  {way:16}{totals[0]:10,}{totals[1]:11,}{totals[2]:12,}{totals[3]:15,}{totals[4]:9,}", flush=True)


def _cut_once(kind: str, way: str, share: float, options: argparse.Namespace) -> list[int]:
    """One run whose power is cut when so large a share of the outputs is there; gives what was found after it."""
    load = Load("texts", options.texts, TEXTS + POOL)
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    with _image(kind, options.folder) as (image, home):
        # Every second, rather than every five, what the journal holds may reach the disk before the files' contents do.
        with _mounted(image, home, "loop,commit=1" if kind == "ext4" else "loop"):
            _project(home, load, WAYS[way])
            os.sync()
            run = subprocess.Popen(
                [sys.executable, "run.py"], cwd=home, env=environment, stderr=subprocess.DEVNULL, start_new_session=True
            )
            while run.poll() is None and _count(home / "out") <= share * load.count:
                time.sleep(0.02)
            fd = os.open(home, os.O_RDONLY)
            fcntl.ioctl(fd, _SHUTDOWN, _NO_FLUSH)
            os.close(fd)
            if run.poll() is None:
                os.killpg(run.pid, signal.SIGKILL)
            run.wait()
        with _mounted(image, home):
            # The other ways do not look for what was lost.
            script = "anew.py" if way == "now and then" else "run.py"
            found = _compare(home, environment, script)
            if way == "now and then":
                again = subprocess.run(
                    [sys.executable, script], cwd=home, env=environment, capture_output=True, text=True
                )
                assert again.returncode == 0, again.stderr
                assert not found[3], f"{found[3]} outputs are called up to date and are not whole"
                assert all(_is_right(home, path) for path in (home / "in").rglob("*.txt"))
            return found


def _count(folder: Path) -> int:
    return sum(len(files) for _, _, files in os.walk(folder))


def _compare(home: Path, environment: dict[str, str], script: str) -> list[int]:
    """Count the outputs: all, those not whole, those called up to date, those wrongly so; and plans that fail."""
    outputs = [path for path in (home / "out").rglob("*.txt")]
    torn = [path for path in outputs if not _is_right(home, home / "in" / path.relative_to(home / "out"))]
    command = [sys.executable, script, "plan", "--json"]
    said = subprocess.run(command, cwd=home, env=environment, capture_output=True, text=True)
    if said.returncode:
        return [len(outputs), len(torn), 0, 0, 1]
    decisions = [json.loads(line) for line in said.stdout.splitlines()]
    fresh = [home / "in" / each["source"] for each in decisions if each["action"] == "up-to-date"]
    return [len(outputs), len(torn), len(fresh), sum(not _is_right(home, path) for path in fresh), 0]


def _is_right(home: Path, source: Path) -> bool:
    try:
        return (home / "out" / source.relative_to(home / "in")).read_text() == source.read_text().upper()
    except (OSError, ValueError):
        return False


# -- disks -------------------------------------------------------------------------------------------------------------


@contextmanager
def _disk(kind: str, folder: Path) -> Iterator[Path]:
    """A folder of its own; on a file system of its own, of this kind, if one is named."""
    if not kind:
        with tempfile.TemporaryDirectory(prefix="durability-", dir=folder) as place:
            yield Path(place)
        return
    with _image(kind, folder) as (image, home), _mounted(image, home):
        yield home


@contextmanager
def _image(kind: str, folder: Path) -> Iterator[tuple[Path, Path]]:
    with tempfile.TemporaryDirectory(prefix="durability-", dir=folder) as place:
        image, home = Path(place) / "image", Path(place) / "disk"
        home.mkdir()
        with open(image, "wb") as file:
            file.truncate(_IMAGE_BYTES)
        subprocess.run([f"mkfs.{kind}", "-q", str(image)], check=True, stdout=subprocess.DEVNULL)
        yield image, home


@contextmanager
def _mounted(image: Path, home: Path, how: str = "loop") -> Iterator[None]:
    subprocess.run(["mount", "-o", how, str(image), str(home)], check=True)
    try:
        yield
    finally:
        until = time.monotonic() + 10
        while subprocess.run(["umount", str(home)], capture_output=True).returncode and time.monotonic() < until:
            time.sleep(0.1)  # a worker is still dying


def _can_mount(kind: str, folder: Path) -> bool:
    if os.geteuid() or not shutil.which(f"mkfs.{kind}"):
        return False
    try:
        with _disk(kind, folder):
            return True
    except (OSError, subprocess.CalledProcessError):
        return False


if __name__ == "__main__":
    sys.exit(main())
