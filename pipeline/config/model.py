"""The mappings of pipeline.yaml and the checked pipeline, as plain frozen data.

The fields of `PipelineEntry` and of all below it are the words of the YAML, and the text below each is what editors
show. `schema.py` has pydantic parse the file straight into them. `StageConfig` and `Config` are what `load_config`
returns: the same fields, with what only a look at the whole pipeline can tell. Nothing here imports pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pipeline.config.units import (
    TEXT,
    Bytes,
    Count,
    CountOrZero,
    Form,
    Function,
    Name,
    Never,
    Pixels,
    Seconds,
    Share,
    Text,
    YamlMapping,
)
from pipeline.files.template import GroupTemplate, Template
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.stage.code import NO_CODE, NO_STATE, Code, CodeState
from pipeline.stage.signature import Contract
from pipeline.types import FitBox


def _unresolved_template(text: str) -> Template:
    return Template(text, b"", b"", ())


def _unresolved_group(text: str) -> GroupTemplate:
    return GroupTemplate(text, ())


@dataclass(frozen=True)
class Inputs(YamlMapping):
    """Where the input files are and which of them count."""

    root: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)]
    """The folder of the input files, relative to this file's; short form `inputs: FOLDER`."""
    include: tuple[Text, ...] = ()
    """Only files that match one of these patterns, as in .gitignore, case ignored; default: every file."""
    exclude: tuple[Text, ...] = ()
    """Files and folders that are left out; hidden ones are anyway."""
    settle_s: Seconds | None = None
    """Leave files modified less than this ago, such as 5s, for the next run."""
    max_pixels: Pixels = DEFAULT_LIMITS.max_pixels
    """Larger pictures are refused from their header."""
    max_side: Count = DEFAULT_LIMITS.max_side
    """Pictures with a longer side, in pixels, are refused."""

    @property
    def limits(self) -> Limits:
        """The limits on the size of a picture among the inputs."""
        return Limits(self.max_pixels, self.max_side)


@dataclass(frozen=True)
class Output(YamlMapping):
    """The file that a stage's value is written to, and the options of its format."""

    template: Annotated[Template, Form(TEXT.pattern, TEXT.needed, _unresolved_template)]
    """The output's path, with the fields {dir}, {name}, {stem}, {suffix} and {part}; short form `output: PATH`;
    `none` for a stage that leaves no file.
    """
    save: dict[str, Any] = field(default_factory=dict)
    """The options of the picture's format, such as `quality`."""


@dataclass(frozen=True)
class Pool(YamlMapping):
    """The worker processes, in the words of `multiprocessing.Pool`."""

    processes: Count | None = None
    """The number of workers; default: the CPUs this process may use."""
    maxtasksperchild: Count | None = None
    """The number of files after which a worker is replaced; default: never."""
    context: Literal["fork", "forkserver", "spawn"] = "forkserver"
    """The start method of the workers; default: forkserver."""
    initializer: Function | None = None
    """A function beside this file, module:function, that runs once in each worker before the stages are built."""
    initargs: tuple[Any, ...] = ()
    """The arguments of the initializer."""
    max_memory_bytes: Bytes | None = None
    """The memory of each worker, such as 2GiB; default: an even share of 80 % of the machine's."""
    start_timeout_s: Seconds = 600.0
    """The seconds a worker may take to get ready; default: 600."""


@dataclass(frozen=True)
class Retry(YamlMapping):
    """Repeated attempts, in the same run, at a file that failed by an exception."""

    max: CountOrZero = 0
    """The number of repeated attempts; default: 0."""
    backoff_s: Seconds = 1.0
    """The seconds to wait before each; default: 1."""


@dataclass(frozen=True)
class Errors(YamlMapping):
    """The limits on files that fail, and on the failures of one file."""

    max: Share | Count | None = None
    """The number of files, or the share such as 5%, that may fail before the run is stopped; default: no limit."""
    hold_after: Count | Never = 3
    """The number of failed runs after which a file is held, or `never`; default: 3."""

    def allowance(self, planned: int) -> int | None:
        """Return how many of this many planned files may fail; None where any number may."""
        return self.max.of(planned) if isinstance(self.max, Share) else self.max


@dataclass(frozen=True)
class Prune(YamlMapping):
    """The limit on orphans that are removed at the end of a run."""

    max: Share
    """The share of the recorded outputs, such as 10%, up to which orphans are removed."""

    def allowance(self, recorded: int) -> int:
        """Return how many of this many recorded outputs may be removed."""
        return self.max.of(recorded)


@dataclass(frozen=True)
class StageEntry(YamlMapping):
    """One stage of the YAML."""

    name: Name
    """The stage's name in messages; renaming a stage redoes nothing."""
    uses: Text
    """The stage: a name such as resize, package.module:Name or ./folder/file.py:Name."""
    options: dict[str, Any] = field(default_factory=dict)
    """The stage's options."""
    from_: str | None = None
    """The stage whose value it reads, or `inputs`; default: the stage before, if that has no output."""
    output: Output | None = None
    """The file that the stage's value is written to; without it the value only feeds other stages."""
    timeout_s: Seconds | None = None
    """The limit on each call of the stage, such as 10s; default: none."""
    depends: tuple[Text, ...] = ()
    """Files whose contents count as part of its recipe; names and patterns."""
    match: tuple[Text, ...] = ()
    """The patterns of the sources that the stage reads, as in .gitignore; default: all."""
    gather: bool = False
    """Whether the stage is called once for a group of files, with an iterator of those that its `from:` stage made."""
    group: Annotated[GroupTemplate, Form(TEXT.pattern, TEXT.needed, _unresolved_group)] | None = None
    """The part of the path that the files of one group share, such as {dir}; default: all are one group."""
    partial: bool = False
    """Whether a group is made where some of its files failed."""
    pool: Pool | None = None
    """A pool of its own, with the keys of the shared one."""


@dataclass(frozen=True)
class PipelineEntry(YamlMapping):
    """The YAML, key by key."""

    inputs: Inputs
    """Where the input files are and which of them count."""
    stages: tuple[StageEntry, ...]
    """The stages, each after the one that it reads from."""
    name: Name | None = None
    """The pipeline's name; default: this file's stem."""
    pool: Pool = Pool()
    """The worker processes, in the words of `multiprocessing.Pool`."""
    timeout_s: Seconds | None = None
    """The limit on each file, such as 60s; default: none."""
    retry: Retry = Retry()
    """Repeated attempts at a file that failed by an exception; default: none in the same run."""
    errors: Errors = Errors()
    """When a run is stopped, and when a file is held."""
    changed_by: Literal["mtime", "hash"] = "mtime"
    """The sign that a source changed, its size and time or its contents; default: mtime."""
    depends: tuple[Text, ...] = ()
    """Files whose contents count as part of every recipe; names and patterns."""
    libraries: tuple[Text, ...] = ()
    """Distributions whose versions count as part of every recipe."""
    prune: Prune | None = None
    """Remove orphans at the end of every run, if they are not too many; default: never."""
    engine: Literal["serial", "pool"] = "pool"
    """The engine that runs the jobs, a pool of processes or this process; default: pool."""
    state: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)] | None = None
    """The folder of the ledger, the lock and the logs; default: .pipeline/NAME."""


# -- what is checked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageConfig(StageEntry):
    """One stage of the pipeline, checked against the stage's signature and the rest of the tree.

    The options and the save options are those after defaults, as plain data, Paths as written; the files of
    `depends` are those that its patterns match, relative to the YAML's folder.
    """

    stage: Contract
    parent: int | None
    """The index of the stage it reads from; None for the source itself."""
    leaves_no_file: bool = False
    """Whether it says `output: none`: what it does leaves no more than a row in the ledger."""
    box: FitBox | None = None
    """The box into which it fits pictures, if that is what it does."""
    decode_box: FitBox | None = None
    """The largest box of all stages that decode the same picture, which is decoded once, for all of them."""
    own_colors: bool = False
    """Whether its pictures stay in their own colors."""
    code: Code = NO_CODE
    """The files in which its code is."""
    initializer_code: Code = NO_CODE
    """The files in which the code of its own pool's initializer is."""
    packed_options: bytes = b""
    """The pickled options, with absolute Paths; their classes may be of the stage's own module."""


@dataclass(frozen=True, kw_only=True)
class Config(PipelineEntry):
    """A pipeline, checked; its paths are absolute but for the files of `depends`."""

    file: Path
    name: str = field()
    folder: Path
    """The YAML's."""
    stages: tuple[StageConfig, ...] = field()
    state: Path = field()
    written_root: str
    """The input root as it is written, or relative to the YAML's folder if it lies there: it stays when that moves."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of `libraries`, by name."""
    other_folders: tuple[bytes, ...] = ()
    """More folders that are left out of the walk, beside those of the outputs and the state."""
    warnings: tuple[str, ...] = ()
    """Complaints that do not stop the pipeline, each with its line."""
    edits: tuple[str, ...] = ()
    """The `--set` edits that were laid over the file."""
    initializer_code: Code = NO_CODE
    """The files in which the code of the shared pool's initializer is."""
    code_state: CodeState = NO_STATE
    """The state of all files of that code when they were read."""
    seal: bytes = field(default=b"", repr=False, compare=False)
    """The seal of its reading, which the next run keeps in the state folder; empty where that has it already."""
    unseen: tuple[str, ...] = ()
    """Lines of the stages that load or read what does not count, since nobody can tell it from the code."""

    @cached_property
    def leaves(self) -> tuple[StageConfig, ...]:
        """The stages that have an output file."""
        return tuple(stage for stage in self.stages if stage.output is not None)

    @cached_property
    def ends(self) -> tuple[StageConfig, ...]:
        """The stages that have an output file, or say that they leave none."""
        return tuple(stage for stage in self.stages if stage.output is not None or stage.leaves_no_file)

    @cached_property
    def output_folders(self) -> dict[bytes, Template]:
        """The output folders, each with the template of an output in it."""
        return {stage.output.template.folder: stage.output.template for stage in self.stages if stage.output}
