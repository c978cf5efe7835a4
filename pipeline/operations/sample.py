"""A random sample of the inputs, run into a folder of its own: what the pipeline keeps and made is not touched."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import relocate as elsewhere
from pipeline.config.model import Config
from pipeline.config.routes import reads
from pipeline.errors import UsageError
from pipeline.files.walk import matcher
from pipeline.operations.guards import Meant
from pipeline.operations.run import run
from pipeline.planning.output_spec import Selection
from pipeline.planning.plan import walk_of
from pipeline.report.progress import Progress, Summary
from pipeline.text import counted

# The state of the samples in a folder, by which it is known that the folder is one for samples.
_STATE = ".filemill-sample"


@dataclass(frozen=True)
class Sample:
    """Which files are run, and where their outputs go."""

    size: int
    folder: Path
    seed: int
    """The same one takes the same files, as long as these are the inputs."""
    only: tuple[str, ...] = ()
    """Gitignore-style patterns, of which a file has to match one."""


def new_seed() -> int:
    """A seed that is easily typed."""
    return random.randrange(1_000_000)


def run_sample(config: Config, sample: Sample, progress: Progress, grace_s: float) -> Summary:
    """Run a sample; every output lands below its folder. Raises FilemillError where nothing was run."""
    folder = Path(os.path.abspath(os.path.expanduser(sample.folder)))
    elsewhere.refuse_overlap(config, folder)
    _refuse_others(folder)
    names, total = _draw(config, sample)
    meant = Meant(rebuild=True, take_over=True)  # the last sample there may have been of anything
    moved = elsewhere.below(config, folder, folder / _STATE)
    summary = run(moved, Selection(force=True, names=names), progress, grace_s, meant)
    summary.notes += [f"stage {name!r} {why}, and was not run" for name, why in elsewhere.not_run(config).items()]
    summary.notes.append(f"a sample of {len(names):,} of {counted(total, 'file')}, seed {sample.seed}: {folder}")
    return summary


def _refuse_others(folder: Path) -> None:
    """Raise UsageError for a folder in which something else is than an earlier sample."""
    if not os.path.lexists(folder) or (folder / _STATE).is_dir():
        return
    if not folder.is_dir():
        raise UsageError(f"--output-root {folder}: is no folder")
    if any(folder.iterdir()):
        raise UsageError(f"--output-root {folder}: is not empty, and of no earlier sample; name a new folder")


def _draw(config: Config, sample: Sample) -> tuple[list[bytes], int]:
    """So many of the inputs, each as likely as any other, and how many there are (Vitter's algorithm R)."""
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
    """The inputs of which an output would be made."""
    selected = matcher(only) if only else lambda path: True
    leaves = list(config.leaves)
    for source in walk_of(config):
        if selected(source.path) and any(reads(config, leaf, source.path) for leaf in leaves):
            yield source.path
