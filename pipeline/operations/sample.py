"""Runs a random sample of the inputs into another folder, without touching the pipeline's own state and outputs."""

from __future__ import annotations

import os
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

from pipeline.config import relocate
from pipeline.config.model import Config
from pipeline.config.routes import reads, route_of
from pipeline.errors import UsageError
from pipeline.files.walk import matcher
from pipeline.observer import RunObserver
from pipeline.operations.guards import Confirmations
from pipeline.operations.run import run
from pipeline.planning.plan import walk_of
from pipeline.planning.selection import Selection
from pipeline.records import dataclass
from pipeline.report.summary import Summary
from pipeline.stage.recognition import can_be, reading_kind
from pipeline.text import counted

# The state folder of the samples in a folder, which marks the folder as one for samples.
_STATE = ".filemill-sample"


@dataclass(frozen=True)
class Sample:
    """The number of files to run, the way they are chosen, and the folder of their outputs."""

    size: int
    folder: Path
    seed: int
    """The seed of the choice; the same seed over the same inputs chooses the same files."""
    only: tuple[str, ...] = ()
    """Gitignore-style patterns of which a file has to match one; none for every file."""


def new_seed() -> int:
    """Return a seed that is easily typed."""
    return random.randrange(1_000_000)


def run_sample(config: Config, sample: Sample, observers: Iterable[RunObserver], grace_s: float) -> Summary:
    """Run a sample; every output lands below its folder. Raises FilemillError where nothing was run."""
    folder = Path(os.path.abspath(os.path.expanduser(sample.folder)))
    relocate.refuse_overlap(config, folder)
    _refuse_others(folder)
    names, total = _draw(config, sample)
    confirmed = Confirmations(rebuild=True, take_over=True)  # the last sample in this folder may be of another pipeline
    moved = relocate.below(config, folder, folder / _STATE)
    selection = Selection(force=True, names=names)
    summary = run(moved, selection, observers, grace_s=grace_s, confirmations=confirmed)
    summary.notes += [f"stage {name!r} {why}, and was not run" for name, why in relocate.not_run(config).items()]
    summary.notes.append(f"a sample of {len(names):,} of {counted(total, 'file')}, seed {sample.seed}: {folder}")
    return summary


def _refuse_others(folder: Path) -> None:
    """Raise UsageError for a folder that holds something other than an earlier sample."""
    if not os.path.lexists(folder) or (folder / _STATE).is_dir():
        return
    if not folder.is_dir():
        raise UsageError(f"--output-root {folder}: is no folder")
    if any(folder.iterdir()):
        raise UsageError(f"--output-root {folder}: is not empty, and of no earlier sample; name a new folder")


def _draw(config: Config, sample: Sample) -> tuple[list[bytes], int]:
    """Draw the sample, each input as likely as any other, and count all of them (Vitter's algorithm R)."""
    chance, drawn, total = random.Random(sample.seed), list[bytes](), 0
    for path in _inputs(config, sample.only):
        total += 1
        if len(drawn) < sample.size:
            drawn.append(path)
        elif (place := chance.randrange(total)) < sample.size:
            drawn[place] = path
    if not drawn:
        raise UsageError("there is no file to take a sample of")
    return drawn, total


def _inputs(config: Config, only: tuple[str, ...]) -> Iterator[bytes]:
    """Yield the inputs that match and that a stage with an output reads."""
    selected = matcher(only) if only else lambda path: True
    root = os.path.join(os.fsencode(config.inputs.root), b"")
    leaves = [(leaf, reading_kind([each.stage for each in route_of(config, leaf)])) for leaf in config.leaves]
    for source in walk_of(config):
        if selected(source.path) and any(
            reads(config, leaf, source.path)
            and (kind is None or can_be(kind, root, source.path, config.picture_suffixes))
            for leaf, kind in leaves
        ):
            yield source.path
