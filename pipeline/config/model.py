"""The mappings of pipeline.yaml, and the checked pipeline, as plain frozen data.

The fields of `PipelineEntry` and of the mappings in it are the words of the YAML, and editors show the text below each
field. `schema.py` lets pydantic parse the file into them. `load_config` returns a `Config` of `StageConfig`, with the
same fields and those that depend on the whole pipeline. Nothing here imports pydantic.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pipeline.config.units import (
    TEXT,
    Bytes,
    Count,
    CountOrZero,
    Form,
    Function,
    Mode,
    Name,
    Never,
    Ping,
    Pixels,
    Seconds,
    Share,
    Text,
    YamlMapping,
)
from pipeline.files.shard import Shard
from pipeline.files.template import GroupTemplate, Template
from pipeline.images import DEFAULT_LIMITS, Limits
from pipeline.records import dataclass
from pipeline.stage.code import NO_CODE, NO_STATE, Code, CodeState
from pipeline.stage.signature import Contract
from pipeline.types import FitBox

if TYPE_CHECKING:
    from pipeline.config.evidence import Evidence


def _unresolved_template(text: str) -> Template:
    return Template(text, b"", b"", ())


def _unresolved_group(text: str) -> GroupTemplate:
    return GroupTemplate(text, ())


@dataclass(frozen=True)
class Inputs(YamlMapping):
    """The folder of the input files, and the patterns and limits that select among them."""

    root: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)]
    """The folder of the input files, relative to that of pipeline.yaml; short form `inputs: FOLDER`."""
    include: tuple[Text, ...] = ()
    """Patterns as in .gitignore, ignoring case, of which an input file must match one. By default every file counts."""
    exclude: tuple[Text, ...] = ()
    """Patterns as in .gitignore, ignoring case, of files and folders to leave out. Hidden ones are always left out."""
    settle_s: Seconds | None = None
    """The time, such as 5s, within which a modified file is left for the next run. By default none is."""
    max_pixels: Pixels = DEFAULT_LIMITS.max_pixels
    """The largest area of a picture, in pixels or such as 200MP. Larger ones are refused. By default 100MP."""
    max_side: Count = DEFAULT_LIMITS.max_side
    """The longest side of a picture, in pixels. Pictures with a longer one are refused. By default 65500."""

    @property
    def limits(self) -> Limits:
        """The limits of the size of an input picture."""
        return Limits(self.max_pixels, self.max_side)


@dataclass(frozen=True)
class Output(YamlMapping):
    """The path of a stage's output, and the options for saving it."""

    template: Annotated[Template, Form(TEXT.pattern, TEXT.needed, _unresolved_template)]
    """The path of the output, with the fields {dir}, {name}, {stem}, {suffix} and {part}; short form `output: PATH`;
    `none` for a stage that leaves no file.
    """
    save: dict[str, Any] = field(default_factory=dict)
    """The options for saving a picture, those of its format. By default the format's own defaults apply."""
    mode: Mode | None = None
    """The permissions of the output, such as "0640". By default those that its folder gives, and no more than those of
    the file of which it is made.
    """

    @property
    def saving(self) -> dict[str, Any]:
        """The options and the permissions as the recipe has them."""
        return self.save if self.mode is None else {**self.save, "mode": f"{self.mode:04o}"}


@dataclass(frozen=True)
class Pool(YamlMapping):
    """The settings of worker processes, named as in the standard library."""

    processes: Count | None = None
    """The number of workers. By default that of the CPUs that filemill may use."""
    maxtasksperchild: Count | None = None
    """The number of files after which a worker is replaced. By default it never is."""
    context: Literal["fork", "forkserver", "spawn"] = "forkserver"
    """The method by which workers are started, as multiprocessing names it. By default forkserver."""
    initializer: Function | None = None
    """A function beside this file, as `module:function`, that runs once in each worker before the stages are built."""
    initargs: tuple[Any, ...] = ()
    """The arguments of the initializer. By default there are none."""
    env: dict[str, str | int] = field(default_factory=dict)
    """The variables of the environment of each worker, such as OMP_NUM_THREADS. By default those that limit the threads
    of libraries to the worker's share of the CPUs.
    """
    max_memory_bytes: Bytes | None = None
    """The memory that a worker may use, such as 2GiB. By default an even share of 80 % of the memory there is."""
    start_timeout_s: Seconds = 600.0
    """The time, such as 60s, that a worker may take to get ready. By default 10m."""

    @property
    def environment(self) -> dict[str, str]:
        """The variables of `env` with their values as texts."""
        return {name: str(value) for name, value in self.env.items()}


@dataclass(frozen=True)
class Retry(YamlMapping):
    """The retries, in the same run, of a file that failed by an exception."""

    max: CountOrZero = 0
    """The number of times that a file that failed by an exception is tried again in the same run. By default 0."""
    backoff_s: Seconds = 1.0
    """The time, such as 5s, to wait before a file is tried again. By default 1s."""


@dataclass(frozen=True)
class Errors(YamlMapping):
    """The failures that are allowed, in a run and of one file."""

    max: Share | Count | None = None
    """The failed files, as a number or a share such as 5%, beyond which a run is stopped. By default any may fail."""
    hold_after: Count | Never = 3
    """The number of failed runs after which a file is held, or `never`. By default 3."""

    @property
    def is_share(self) -> bool:
        """True if the limit depends on the number of planned files."""
        return isinstance(self.max, Share)

    def allowance(self, planned: int) -> int | None:
        """Return the number of planned files that may fail; None for no limit."""
        return self.max.of(planned) if isinstance(self.max, Share) else self.max


@dataclass(frozen=True)
class Prune(YamlMapping):
    """The removal of orphans at the end of a run."""

    max: Share
    """The share of the recorded outputs, such as 10%, up to which orphans are removed; if there are more, none is."""

    def allowance(self, recorded: int) -> int:
        """Return the number of recorded outputs that may be removed."""
        return self.max.of(recorded)


@dataclass(frozen=True)
class Notify(YamlMapping):
    """One program to be started, or one address to be pinged, about the runs of the pipeline."""

    on: tuple[Literal["failure", "recovery", "success", "stuck"], ...] = ()
    """The events that start the program.

    failure: a run fails where the one before did not, in another way, or with new ones; with `always`, every one.
    recovery: a run is well where the one before failed.
    success: a run is well and the one before was not, or it is the first; with `always`, every run that is well.
    stuck: a file, or another run, takes far too long.
    """
    argv: tuple[Text, ...] = ()
    """The program and its arguments, started without a shell; ${NAME} stands for a variable of the environment."""
    ping: Ping | None = None
    """The address that each run pings at its start and its end, as healthchecks has it; ${NAME} stands for a variable
    of the environment.
    """
    always: bool = False
    """True to start the program at each failure and each success, also where nothing has changed. By default false."""


@dataclass(frozen=True)
class StageEntry(YamlMapping):
    """One stage as the YAML has it."""

    name: Name
    """The name of the stage in messages. Renaming a stage redoes nothing."""
    uses: Text
    """The code of the stage, such as `resize`, `package.module:Name` or `./folder/file.py:Name`."""
    options: dict[str, Any] = field(default_factory=dict)
    """The options of the stage, by name. Those left out have the defaults of its signature."""
    from_: str | None = None
    """The stage whose value this stage reads, or `inputs`. By default the stage before, if that has no output."""
    output: Output | None = None
    """The path of the stage's output, and the options for saving it. By default it has no output."""
    timeout_s: Seconds | None = None
    """The time that one call of the stage may take, such as 10s. By default there is no limit."""
    depends: tuple[Text, ...] = ()
    """Names and patterns of files whose contents count as part of the stage's recipe. By default none do."""
    match: tuple[Text, ...] = ()
    """Patterns as in .gitignore of the input files that the stage reads. By default it reads all."""
    gather: bool = False
    """True to call the stage once per group, with an iterator of the files of its `from:` stage. By default false."""
    group: Annotated[GroupTemplate, Form(TEXT.pattern, TEXT.needed, _unresolved_group)] | None = None
    """The part of their path that the files of a group share, such as {dir}. By default all files are one group."""
    partial: bool = False
    """True to make a group even if some of its files failed. By default false."""
    pool: Pool | None = None
    """The settings of a pool for this stage alone. By default it runs in the shared pool."""


@dataclass(frozen=True)
class PipelineEntry(YamlMapping):
    """The whole pipeline.yaml, parsed key by key."""

    inputs: Inputs
    """The folder of the input files, and the patterns and limits that select among them."""
    stages: tuple[StageEntry, ...]
    """The stages, each below the one that it reads from."""
    name: Name | None = None
    """The name of the pipeline. By default the name of this file without its suffix."""
    defaults: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)] | None = None
    """A file, such as ../site.yaml, with `pool`, `errors`, `timeout`, `notify` and `metrics` for many pipelines. What a
    pipeline says itself wins. By default there is none.
    """
    pool: Pool = Pool()
    """The settings of the shared worker processes, named as in the standard library."""
    timeout_s: Seconds | None = None
    """The time that one file may take, such as 60s. By default there is no limit."""
    retry: Retry = Retry()
    """The retries, in the same run, of a file that failed by an exception. By default there are none."""
    errors: Errors = Errors()
    """The failures after which a run is stopped, or a file is held."""
    changed_by: Literal["mtime", "hash"] = "mtime"
    """The sign of a changed input file, its size and time (mtime) or its contents (hash). By default mtime."""
    depends: tuple[Text, ...] = ()
    """Names and patterns of files whose contents count as part of every recipe. By default none do."""
    libraries: tuple[Text, ...] = ()
    """Names of distributions whose versions count as part of every recipe. By default none do."""
    prune: Prune | None = None
    """The removal of orphans at the end of every run, if they are few enough. By default none is removed."""
    engine: Literal["serial", "pool"] = "pool"
    """The engine that runs the jobs, one job after the other (serial) or in several workers (pool). By default pool."""
    state: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)] | None = None
    """The folder of the ledger, the lock and the logs. By default .pipeline/NAME."""
    trace: Text | None = None
    """The file that gets a line of JSON for each job of a run, with {run} in its path. By default none is written."""
    notify: tuple[Notify, ...] = ()
    """The programs and addresses that are told how runs end. By default nobody is told."""
    metrics: Annotated[Path, Form(TEXT.pattern, TEXT.needed, Path)] | None = None
    """The file that each run writes for Prometheus, such as photos.prom; {name} stands for the pipeline's name. By
    default none is written.
    """


# -- what is checked ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class StageConfig(StageEntry):
    """One stage of the pipeline, checked against the stage's signature and the rest of the tree.

    The options and the save options include defaults, as plain data with Paths as written; `depends` holds the files
    that its patterns match, relative to the folder of the YAML.
    """

    stage: Contract
    parent: int | None
    """The index of the stage that this stage reads from; None for the source."""
    leaves_no_file: bool = False
    """True for `output: none`, where a stage leaves nothing but a row in the ledger."""
    box: FitBox | None = None
    """The box into which the stage fits pictures; None if it does not."""
    decode_box: FitBox | None = None
    """The largest box of all stages that read the same picture, which is decoded once for all of them."""
    own_colors: bool = False
    """True if the stage's pictures keep their own colors."""
    code: Code = NO_CODE
    """The files that hold the stage's code."""
    initializer_code: Code = NO_CODE
    """The files that hold the code of the initializer of the stage's own pool."""
    packed_options: bytes = b""
    """The pickled options for the workers, Paths made absolute; they may be of classes of the stage's own module."""


@dataclass(frozen=True, kw_only=True)
class Config(PipelineEntry):
    """A checked pipeline; its paths are absolute except for the files of `depends`."""

    file: Path
    name: str = field()
    folder: Path
    """The folder of the YAML."""
    stages: tuple[StageConfig, ...] = field()
    state: Path = field()
    written_root: str
    """The input root as written, or relative to the YAML's folder if it lies there, so that both can be moved."""
    versions: Mapping[str, str] = field(default_factory=dict)
    """The versions of `libraries`, by name."""
    other_folders: tuple[bytes, ...] = ()
    """Folders that the walk leaves out besides those of the outputs and the state."""
    warnings: tuple[str, ...] = ()
    """The warnings about values that are probably mistakes, each with its line."""
    edits: tuple[str, ...] = ()
    """The `--set` edits that were applied to the file."""
    is_moved: bool = False
    """True if outputs and state are below another folder than pipeline.yaml has it, where no command looks."""
    initializer_code: Code = NO_CODE
    """The files that hold the code of the shared pool's initializer."""
    code_state: CodeState = NO_STATE
    """The state of all files of code when they were read."""
    seal: bytes = field(default=b"", repr=False, compare=False)
    """The seal of this reading, which the next run keeps in the state folder; empty if it is there already."""
    evidence: Evidence | None = field(default=None, repr=False, compare=False)
    """What the pipeline was read from; None where that cannot tell whether a reading would find the same."""
    unseen: tuple[str, ...] = ()
    """Lines of the stages' code that load or read files which do not count, since the code does not tell which."""
    picture_suffixes: frozenset[bytes] = frozenset()
    """The suffixes of pictures that plug-ins of the stages and initializers read, beside those of filemill."""
    shard: Shard | None = None
    """The shard to which a run is confined, whose state `state` is then; None for all files."""

    @property
    def shared_state(self) -> Path:
        """The folder of the pipeline's own state, below which those of its shards lie."""
        return self.state.parents[2] if self.shard else self.state

    def of_shard(self, shard: Shard) -> Config:
        """Return the pipeline confined to one shard, with that shard's own state."""
        return replace(self, shard=shard, state=shard.folder(self.shared_state))

    @property
    def is_told(self) -> bool:
        """True if somebody is told how runs end, or a file of metrics says it."""
        return bool(self.notify) or self.metrics is not None

    @cached_property
    def leaves(self) -> tuple[StageConfig, ...]:
        """The stages that have an output file."""
        return tuple(stage for stage in self.stages if stage.output is not None)

    @cached_property
    def ends(self) -> tuple[StageConfig, ...]:
        """The stages that have an output file, or say that they leave none."""
        return tuple(stage for stage in self.stages if stage.output is not None or stage.leaves_no_file)

    @cached_property
    def trace_folder(self) -> Path | None:
        """The folder of all traces; None without a trace."""
        return trace_folder(self.trace) if self.trace else None

    @cached_property
    def output_folders(self) -> dict[bytes, Template]:
        """The output folders, each with the template of an output in it."""
        return {stage.output.template.folder: stage.output.template for stage in self.stages if stage.output}


RUN_FIELD = "{run}"
"""The field for the id of the run in the path of a trace."""


def trace_folder(trace: str) -> Path:
    """Return the folder of all traces: that above the first part of their path which differs from run to run."""
    return Path(f"{trace.partition(RUN_FIELD)[0]}x").parent
