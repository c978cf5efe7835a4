"""A stage that may run in one process only, beside a wide one: in one shared pool, and in a pool of its own.

    python bench/own_pool.py                     120 files, three rounds; a minute on two idle cores
    python bench/own_pool.py --quick             12 files, in seconds

The narrow stage holds a model of which memory allows one copy, so that a shared pool may have one process, and the wide
stage no more than that either. With a pool of its own the narrow one has its process, and the wide one all CPUs. Both
work the CPU. The outputs are compared.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from resizing import meter

REPOSITORY = Path(__file__).parent.parent
STAGES = '''
import hashlib, time

def wide(data: bytes, *, seconds: float) -> bytes:
    """Works the CPU."""
    end = time.process_time() + seconds
    while time.process_time() < end:
        data = hashlib.sha256(data).digest() * 1000
    return b"wide" * 10_000

class Narrow:
    """Has a model, and works the CPU less."""
    def __init__(self, *, seconds: float) -> None:
        self.seconds = seconds
        self.model = bytes(200_000_000)
    def __call__(self, data: bytes) -> bytes:
        end = time.process_time() + self.seconds
        while time.process_time() < end:
            hashlib.sha256(data).digest()
        return data[:100]
'''
SHARED, OWN = "one shared pool", "a pool of its own"
YAML = """
inputs: in
stages:
  - {{name: wide, uses: 'stages.work:wide', with: {{seconds: 0.04}}}}
  - {{name: narrow, uses: 'stages.work:Narrow', with: {{seconds: 0.01}}, output: 'out/{{name}}'{own}}}
pool: {{processes: {processes}}}
"""


def main() -> int:
    options = _options()
    costs: dict[str, list[meter.Cost]] = {SHARED: [], OWN: []}
    for _ in range(options.rounds):
        outputs = []
        for name, found in costs.items():
            with tempfile.TemporaryDirectory(prefix="own-pool-") as folder:
                _make_project(Path(folder), name, options.files)
                command = [sys.executable, "-m", "pipeline"]
                found.append(meter.measure(command, cwd=Path(folder), env={"PYTHONPATH": str(REPOSITORY)}))
                assert found[-1].exit_code == 0, found[-1].said
                outputs.append({path.name: path.read_bytes() for path in (Path(folder) / "out").iterdir()})
                outputs[-1].pop(".filemill")
        assert outputs[0] == outputs[1] and len(outputs[0]) == options.files
    _report(costs, options.files)
    return 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=120)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="12 files, once")
    options = parser.parse_args()
    if options.quick:
        options.files, options.rounds = 12, 1
    return options


def _make_project(folder: Path, name: str, files: int) -> None:
    own, processes = (", pool: {processes: 1}", os.cpu_count()) if name == OWN else ("", 1)
    (folder / "stages").mkdir()
    (folder / "stages" / "work.py").write_text(STAGES)
    (folder / "pipeline.yaml").write_text(YAML.format(own=own, processes=processes))
    (folder / "in").mkdir()
    for number in range(files):
        (folder / "in" / f"{number}.txt").write_text(f"file {number}")


def _report(costs: dict[str, list[meter.Cost]], files: int) -> None:
    commit = subprocess.run(
        ["git", "-C", REPOSITORY, "rev-parse", "--short", "HEAD"], capture_output=True, text=True
    ).stdout.strip()
    print(f"{files} files, {os.cpu_count()} CPUs, commit {commit}\n")
    print("|  | wall, s | CPU, s | peak of the tree, MB |")
    print("|---|--:|--:|--:|")
    for name, found in costs.items():
        cost = sorted(found, key=lambda each: each.wall_s)[len(found) // 2]
        print(f"| {name} | {cost.wall_s:.2f} | {cost.cpu_s:.2f} | {cost.peak_bytes / 1e6:.0f} |")
    ratios = [one.wall_s / other.wall_s for one, other in zip(costs[SHARED], costs[OWN], strict=True)]
    print(
        f"\n* speed-up: {statistics.median(ratios):.2f} (round by round {', '.join(f'{each:.2f}' for each in ratios)})"
    )


if __name__ == "__main__":
    sys.exit(main())
