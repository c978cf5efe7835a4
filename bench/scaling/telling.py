"""What it costs that a run tells of itself: filemill with every such word in pipeline.yaml, beside itself without.

Both take turns in each round, over tiny texts and over pictures; with another checkout, such as that of the commit
before, that one takes its turn too, and every word is compared with what was there without them.
"""

from __future__ import annotations

import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from resizing import meter
from resizing.corpora import corpus

from scaling.contenders import FILEMILL, UPPER

REPOSITORY = Path(__file__).parents[2]
# The words that have a run tell of itself. One that a checkout does not know is named and left out.
WORDS = (
    'notify: [{on: [failure], argv: ["true"]}]',
    "metrics: m.prom",
    "trace: 'runs/{run}.ndjson'",
)
# Pictures that are so many that the start of the program does not decide.
_PICTURES, _QUICK_PICTURES = 1000, 6
_POOL = "pool: {processes: 2}\n"


@dataclass(frozen=True)
class Work:
    """Files, and the pipeline that is run over them."""

    name: str
    yaml: str


@dataclass(frozen=True)
class Teller:
    """A checkout of filemill, and the lines that pipeline.yaml gets for it."""

    name: str
    checkout: Path
    lines: Sequence[str] = ()


def compare(texts: Path, folder: Path, cache: Path, rounds: int, before: Path | None, *, is_quick: bool) -> None:
    """Measure, and print the costs and their ratios.

    Args:
        texts: Tiny texts, in folders.
        folder: Where outputs are made.
        cache: Where pictures are generated, once.
        rounds: How often each takes its turn.
        before: Another checkout to compare with.
        is_quick: Whether few pictures are enough.
    """
    pictures = corpus("quick", cache, _QUICK_PICTURES if is_quick else _PICTURES)
    for work in (
        Work("tiny texts", f"inputs: {texts}\nstages: [{{name: up, uses: upper, output: 'out/{{dir}}/{{name}}'}}]\n"),
        Work("pictures", f"inputs: {pictures}\nstages: [{{name: web, uses: resize, with: {{width: 800}}, {_WEB}}}]\n"),
    ):
        with tempfile.TemporaryDirectory(prefix="telling-", dir=folder) as home:
            _compare(work, Path(home), rounds, before)


_WEB = "output: 'out/{stem}.jpg'"


def _compare(work: Work, home: Path, rounds: int, before: Path | None) -> None:
    (home / "stages").mkdir()
    (home / "stages" / "upper.py").write_text(UPPER)
    everything = Teller("everything on", REPOSITORY, _known(work, home))
    tellers = [Teller("nothing on", REPOSITORY), everything]
    tellers += [Teller("before", before.absolute())] if before else []
    costs: dict[str, list[meter.Cost]] = {each.name: [] for each in tellers}
    for _ in range(rounds):
        for teller in tellers:
            costs[teller.name].append(_run(work, teller, home))
    print(f"\n{work.name}: everything on is {'; '.join(everything.lines)}\n")
    print("|  | wall, s | CPU, s |\n|---|--:|--:|")
    for name, its in costs.items():
        middle = [statistics.median(each) for each in ([cost.wall_s for cost in its], [cost.cpu_s for cost in its])]
        print(f"| {name} | {middle[0]:.2f} | {middle[1]:.2f} |")
    print()
    for other in [each.name for each in tellers if each is not everything]:
        print(f"* everything on, to {other}: {_ratios(costs[everything.name], costs[other])}", flush=True)


def _ratios(ours: list[meter.Cost], others: list[meter.Cost]) -> str:
    """Return the ratios round by round, after their median."""
    shown = []
    for what in ("wall_s", "cpu_s"):
        each = [getattr(mine, what) / getattr(other, what) for mine, other in zip(ours, others, strict=True)]
        word = "wall" if what == "wall_s" else "CPU"
        shown.append(f"{word} {statistics.median(each):.3f} ({', '.join(f'{ratio:.3f}' for ratio in each)})")
    return ", ".join(shown)


def _known(work: Work, home: Path) -> list[str]:
    """Return the words that this checkout knows."""
    known = []
    for word in WORDS:
        (home / "pipeline.yaml").write_text(f"{work.yaml}{word}\n")
        checked = subprocess.run([*FILEMILL, "check"], cwd=home, env=_environment(REPOSITORY), capture_output=True)
        if checked.returncode:
            print(f"not known here, left out: {word}", file=sys.stderr)
        else:
            known.append(word)
    return known


def _run(work: Work, teller: Teller, home: Path) -> meter.Cost:
    """A first run; all that one before has made is gone."""
    for path in home.iterdir():
        if path.name != "stages":
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    (home / "pipeline.yaml").write_text(work.yaml + _POOL + "".join(f"{line}\n" for line in teller.lines))
    cost = meter.measure(
        [*FILEMILL, "pipeline.yaml"], cwd=home, env={"PYTHONPATH": str(teller.checkout)}, samples_memory=False
    )
    assert cost.exit_code == 0, f"{teller.name}: {cost.said}"
    return cost


def _environment(checkout: Path) -> dict[str, str]:
    return {**meter.environment(), "PYTHONPATH": str(checkout)}
