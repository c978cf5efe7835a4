"""A pipeline, checked: what pipeline.yaml says, as plain frozen data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

from pipeline.files.template import Group, Template
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.stage.signature import Stage
from pipeline.types import FitBox


@dataclass(frozen=True)
class Inputs:
    """Where the input files are and which of them count."""

    root: Path
    written_root: str
    """The root as it is written, or relative to the YAML's folder if it lies there, whatever becomes of that."""
    include: tuple[str, ...]
    exclude: tuple[str, ...]
    limits: Limits = DEFAULT_LIMITS
    """How large a picture among them may be."""
    settle_s: float = 0.0
    """How long ago a file must have been modified to count as written."""


@dataclass(frozen=True)
class Output:
    """Where a stage's value is written and how."""

    template: Template
    save: dict[str, Any]
    """The save options after defaults; empty where no picture is saved."""


@dataclass(frozen=True)
class Pool:
    """How the workers are run, in the standard library's words."""

    processes: int | None
    maxtasksperchild: int | None
    context: str
    initializer: str | None
    initargs: tuple[Any, ...]
    max_memory_bytes: int | None
    """Per worker."""
    start_timeout_s: float


@dataclass(frozen=True)
class StageConfig:
    """One named step of the tree."""

    name: str
    stage: Stage
    options: dict[str, Any]
    """After defaults; Paths as written."""
    parent: int | None
    """The index of the stage it reads from; None for the source itself."""
    output: Output | None
    timeout_s: float | None
    """For each call of it."""
    box: FitBox | None = None
    """The box into which it fits pictures, if that is what it does."""
    least: FitBox | None = None
    """The largest box of those that decode the same picture, with which it is decoded once for all of them."""
    own_colors: bool = False
    """Whether its pictures stay in their own colours."""
    depends: tuple[str, ...] = ()
    """Other files whose contents count for it and all below; relative to the YAML's folder."""
    match: tuple[str, ...] = ()
    """Patterns of the sources that it reads; none for all."""
    leaves_no_file: bool = False
    """Whether it says `output: none`: what it does leaves no more than a row in the ledger."""
    pool: Pool | None = None
    """Its own, if it is not to run in the workers of all others."""
    group: Group | None = None
    """What the groups are called of which it gathers each; None for one group of all files."""
    partial: bool = False
    """Whether it gathers also where files of a group failed."""


@dataclass(frozen=True)
class Errors:
    """How many failures are put up with, and how often one and the same."""

    max: str | int | None = None
    """As written: a number of files, or a share such as 5%."""
    hold_after: int | None = 3
    """Failed attempts after which a file is held; None for never."""

    def allowance(self, planned: int) -> int | None:
        """How many of so many planned files may fail; None where any number may."""
        return _share(self.max, planned) if isinstance(self.max, str) else self.max


@dataclass(frozen=True)
class Prune:
    """How many orphans may be removed at the end of a run."""

    max: str
    """As written: a share of the recorded outputs, such as 10%."""

    def allowance(self, recorded: int) -> int:
        """How many of so many recorded outputs may be removed."""
        return _share(self.max, recorded)


def _share(percent: str, number: int) -> int:
    """So many percent of a number, rounded down; in fractions, since 0.29 * 100 is less than 29."""
    return int(Fraction(percent.removesuffix("%")) * number / 100)


@dataclass(frozen=True)
class Config:
    """A pipeline, checked."""

    file: Path
    name: str
    folder: Path
    inputs: Inputs
    stages: tuple[StageConfig, ...]
    pool: Pool
    engine: str
    state: Path
    timeout_s: float | None
    """For each file."""
    retries: int
    """How often what failed by an exception is tried again."""
    backoff_s: float
    errors: Errors = Errors()
    prune: Prune | None = None
    """None where orphans are removed by the verb only."""
    changed_by: str = "mtime"
    """What tells that a source changed: mtime, or hash, its contents."""
    depends: tuple[str, ...] = ()
    """Files whose contents count for every output; relative to the YAML's folder."""
    libraries: Mapping[str, str] = field(default_factory=dict)
    """The versions of the distributions that count for every output, by name."""
    other_folders: tuple[bytes, ...] = ()
    """More folders that are left out of the walk, beside those of the outputs and the state."""
    warnings: tuple[str, ...] = ()
    """What may be meant, but is unlikely to be; each with its line."""

    @property
    def leaves(self) -> Iterator[StageConfig]:
        """The stages that have an output file."""
        return (stage for stage in self.stages if stage.output is not None)

    @property
    def ends(self) -> Iterator[StageConfig]:
        """The stages that have an output, or none to show."""
        return (stage for stage in self.stages if stage.output is not None or stage.leaves_no_file)
