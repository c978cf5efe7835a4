"""How near each contender comes to Lanczos over every pixel, beside what that costs: the table of `--quality`."""

from __future__ import annotations

import statistics
import sys
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from . import meter
from .contenders import Contender, Place, Work
from .corpora import KINDS_WIDTH, corpus
from .lanczos import exact_lanczos, psnr_db
from .report import machine

# Whole steps of decoders and averages, what is a little above and below, and both ends.
RATIOS = (1.01, 1.5, 2, 2.5, 3, 4, 5, 6, 8, 9, 10, 12, 16, 24, 40)
NAMES = ("filemill", "filemill, fast", "sharp", "pyvips")
# Pictures of a run whose cost is measured: a few of them ten times, so that the start of a program does not decide.
_ENOUGH = 60


@dataclass(frozen=True)
class Score:
    """One contender at one ratio."""

    name: str
    ratio: float
    near_db: dict[str, list[float]]
    """By the kind of the picture: how near each comes to Lanczos over every pixel."""
    cpu_ms: tuple[float, float]
    """Per picture: a JPEG made of a JPEG, and a PNG made of a PNG with alpha."""
    made_kb: tuple[float, float]

    @property
    def all_db(self) -> list[float]:
        return [db for kind in self.near_db.values() for db in kind]


def compare(present: Iterable[Contender], cache: Path, ratios: Iterable[float] = RATIOS) -> list[Score]:
    """Let each contender make every picture at every ratio, and look at the pixels and at the bill."""
    contenders = [each for each in present if each.name in NAMES]
    return [_score(contender, ratio, cache) for ratio in ratios for contender in contenders]


def _score(contender: Contender, ratio: float, cache: Path) -> Score:
    size, near_db = round(KINDS_WIDTH / ratio), {}
    costs = []
    for name, suffix in (("kinds-jpeg", ".jpg"), ("kinds-png", ".png")):
        with _run(contender, Work(name, "", name, (size,), ".png"), corpus(name, cache, 1), cache) as (_, made):
            for path in made:
                kind = path.stem.split("-")[2]
                source = next((cache / name).glob(f"{kind}-{path.stem.split('-')[3]}.*"))
                near_db.setdefault(f"{kind}{', alpha' if suffix == '.png' else ''}", []).append(_near_db(path, source))
        repeated = corpus(name, cache, _ENOUGH)
        with _run(contender, Work(name, "", name, (size,), suffix), repeated, cache) as (cost, made):
            size_bytes = statistics.mean(path.stat().st_size for path in made)
            costs.append((1000 * cost.cpu_s / len(made), size_bytes / 1e3))
    (jpeg_ms, jpeg_kb), (png_ms, png_kb) = costs
    score = Score(contender.name, ratio, near_db, (jpeg_ms, png_ms), (jpeg_kb, png_kb))
    print(_line(score), file=sys.stderr)
    return score


@contextmanager
def _run(contender: Contender, work: Work, source: Path, cache: Path) -> Iterator[tuple[meter.Cost, list[Path]]]:
    """Let a contender do its work; what it made is there until the end."""
    with tempfile.TemporaryDirectory(prefix="run-", dir=cache) as folder:
        home = Path(folder)
        (home / "out").mkdir()
        command = contender.command(work, Place(source, home / "out", home, cache))
        assert command is not None
        cost = meter.measure(command, cwd=home, env=contender.env)
        made = sorted(path for path in (home / "out").iterdir() if path.suffix == work.suffix)
        if cost.exit_code or len(made) != len(list(source.iterdir())):
            raise RuntimeError(
                f"{contender.name} made {len(made)} pictures and ended with {cost.exit_code}: {cost.said}"
            )
        yield cost, made


def _near_db(made: Path, source: Path) -> float:
    with Image.open(source) as image, Image.open(made) as small:
        exact = exact_lanczos(image, small.size, (0, 0, *image.size))
        return psnr_db(small.convert(image.mode), exact)


# -- the table ---------------------------------------------------------------------------------------------------------

HEADING = "## Likeness of resized pictures"
_ABOUT = f"""\
Made by `python bench/resize.py --quality`. Photographs, scans, drawings and a zone plate, {KINDS_WIDTH} pixels wide, as
JPEG and as PNG with alpha, made smaller by each ratio. The decibels (PSNR) say how near the pixels are to Lanczos over
every pixel of the whole decode, in floating point; above 50 it is a matter of rounding. JPEGs were written as PNGs for
that. CPU and KB are per picture, for a JPEG of quality 82 made of a JPEG, and for a PNG made of a PNG; everything a run
does is in it."""
_HEAD = ("ratio", "", "mean dB", "worst dB", "JPEG: CPU ms", "KB", "PNG: CPU ms", "KB")


def as_markdown(scores: list[Score]) -> str:
    """The section of docs/benchmarks.md."""
    lines = [
        HEADING,
        "",
        _ABOUT,
        "",
        f"{machine()}.",
        "",
        f"| {' | '.join(_HEAD)} |",
        "|--:|---|--:|--:|--:|--:|--:|--:|",
    ]
    lines += [_line(score) for score in scores]
    names = list(dict.fromkeys(score.name for score in scores))
    lines += ["", f"| mean dB / worst dB over all ratios | {' | '.join(names)} |", f"|---|{'--:|' * len(names)}"]
    for kind in sorted({kind for score in scores for kind in score.near_db}):
        found = [[db for score in scores if score.name == name for db in score.near_db[kind]] for name in names]
        lines.append(f"| {kind} | {' | '.join(f'{statistics.mean(each):.1f} / {min(each):.1f}' for each in found)} |")
    return "\n".join([*lines, ""])


def _line(score: Score) -> str:
    near = f"{statistics.mean(score.all_db):.1f} | {min(score.all_db):.1f}"
    costs = (f"{ms:.1f} | {kb:.1f}" for ms, kb in zip(score.cpu_ms, score.made_kb, strict=True))
    return f"| {score.ratio:g} | {score.name} | {near} | {' | '.join(costs)} |"
