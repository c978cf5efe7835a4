"""Libraries that start threads of their own: numpy in several workers, with the limits that filemill sets and without.

    python bench/threads.py           200 arrays in as many workers as there are CPUs; numpy must be installed
    python bench/threads.py --quick   12 arrays

BLAS starts a thread for each CPU in every worker. `pool.env` puts back here what it does by itself. They take turns in
each round; every round is shown.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import random
import shutil
import struct
import sys
import tempfile
from pathlib import Path

from resizing import meter

REPOSITORY = Path(__file__).parent.parent
_SIDE = 256
_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_LIMITED, _UNLIMITED = "with the limits", "without"

STAGE = f"""
import numpy
def svd(data: bytes) -> bytes:
    array = numpy.frombuffer(data, dtype="<f8").reshape({_SIDE}, {_SIDE})
    return numpy.linalg.svd(array, compute_uv=False).tobytes()
"""


def main() -> int:
    options = _options()
    if importlib.util.find_spec("numpy") is None:
        print("numpy is not installed: nothing is measured", file=sys.stderr)
        return 0
    meter.prove()
    workers = len(os.sched_getaffinity(0))
    found: dict[str, list[meter.Cost]] = {_LIMITED: [], _UNLIMITED: []}
    with tempfile.TemporaryDirectory(prefix="threads-") as folder:
        home = Path(folder)
        _make_arrays(home / "in", options.count)
        for _ in range(options.rounds):
            for name, costs in found.items():
                costs.append(_measure(home, options.count, workers, is_limited=name == _LIMITED))
    print(f"\n{options.count} arrays of {_SIDE} x {_SIDE} in {workers} workers\n")
    print("|  | s, round by round | CPU s |")
    print("|---|--:|--:|")
    for name, costs in found.items():
        walls, cpus = (", ".join(f"{each:.2f}" for each in column) for column in zip(
            *((cost.wall_s, cost.cpu_s) for cost in costs), strict=True
        ))  # fmt: skip
        print(f"| {name} | {walls} | {cpus} |")
    return 0


def _options() -> argparse.Namespace:
    about, _, examples = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        description=about, epilog=examples, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="few arrays")
    options = parser.parse_args()
    options.count, options.rounds = (12, 1) if options.quick else (200, 3)
    return options


def _make_arrays(root: Path, count: int) -> None:
    root.mkdir()
    chance = random.Random(1)
    for number in range(count):
        values = [chance.random() for _ in range(_SIDE * _SIDE)]
        (root / f"{number:03}.array").write_bytes(struct.pack(f"<{len(values)}d", *values))


def _measure(home: Path, count: int, workers: int, *, is_limited: bool) -> meter.Cost:
    for path in home.iterdir():
        if path.name != "in":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (home / "stages").mkdir()
    (home / "stages" / "svd.py").write_text(STAGE)
    env = {} if is_limited else dict.fromkeys(_VARIABLES, workers)
    pool = json.dumps({"processes": workers, "env": env})
    stage = "{name: svd, uses: svd, output: 'out/{dir}/{name}'}"
    (home / "pipeline.yaml").write_text(f"inputs: in\nstages: [{stage}]\npool: {pool}\n")
    command = [sys.executable, "-m", "pipeline", "pipeline.yaml"]
    cost = meter.measure(command, cwd=home, env={"PYTHONPATH": str(REPOSITORY)})
    assert cost.exit_code == 0, cost.said
    made = [path for path in (home / "out").iterdir() if path.suffix == ".array"]
    assert len(made) == count, f"{len(made)} of {count} were made"
    return cost


if __name__ == "__main__":
    sys.exit(main())
