"""pipeline.yaml -> Config, read in a process of its own, so that this one imports no stage."""

from __future__ import annotations

import io
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from pipeline.config.evidence import MAX_BYTES, question
from pipeline.config.model import Config
from pipeline.config.seal import seal_reading, sealed_reading
from pipeline.errors import ConfigError, EnvironmentFailure
from pipeline.files.file_system import open_regular
from pipeline.records import dataclass
from pipeline.stage import isolation
from pipeline.stage.counted import Stamp
from pipeline.text import program

# How often code is read again that somebody writes to meanwhile, before the workers are left to find that out.
_MAX_READINGS = 3

_READ = "pipeline.config.read:read_pipeline"


@dataclass(frozen=True)
class Reading:
    """A pipeline as it was read."""

    config: Config | None
    """The pipeline as far as it is right; None where it does not fit the vocabulary."""
    complaints: ConfigError | None
    """All that is wrong with it."""
    is_only_root_missing: bool
    """Whether nothing is wrong but that there is no input root."""
    has_moved: bool
    """Whether a file of its code was written to meanwhile."""
    stamps: Mapping[str, Stamp | None]
    """The stamps of all files that its reading has opened, but for those of Python, of libraries and of filemill."""
    folders: tuple[str, ...]
    """The folders in which its imports may look for modules."""
    listed: tuple[str, ...]
    """The folders in which its code looks, or may look, for any file."""
    written: tuple[str, ...]
    """The files that were opened to be written meanwhile."""
    places: Mapping[str, str]
    """Where the paths lead, links resolved, by which the stages and their code were found."""
    patterns: tuple[str, ...]
    """The patterns of all `depends`."""
    digests: Mapping[str, str]
    """The digest of the file of defaults, as it was read."""


class Loading:
    """A pipeline that is being loaded: whoever makes one may import what he needs while a process reads the file."""

    def __init__(self, file: Path, edits: Sequence[str] = ()) -> None:
        self.refused: Config | None = None
        """The pipeline, where nothing is wrong with it but that there is no input root."""
        self._file = file
        self._edits = tuple(edits)
        self._text = _read(file)
        self._asked = question(file, self._edits, self._text)
        self._sealed = sealed_reading(self._asked, self._text)
        if self._sealed is None:
            self._read_ns = time.time_ns()
            isolation.prepare(_READ, file, self._text, self._edits, {})

    @property
    def is_sealed(self) -> bool:
        """Return whether the pipeline is known from an earlier reading, so that no process reads it."""
        return self._sealed is not None

    def config(self, *, reads_inputs: bool = True) -> Config:
        """Return the pipeline; see `load_config`."""
        if self._sealed is not None:
            return self._sealed
        reading = _read_pipeline(self._file, self._text, self._edits)
        config = reading.config
        if config and reading.is_only_root_missing and os.path.exists(config.state / "ledger.sqlite"):
            if not reads_inputs:
                return config
            self.refused = config
            text = f"the input root {config.inputs.root} does not exist, and this pipeline has run before"
            ways = "is its disk mounted, and its name right? if this is meant, make the folder, and 'run --rebuild'"
            raise EnvironmentFailure(f"{text}; {ways} goes on")
        if reading.complaints:
            raise reading.complaints
        assert config is not None  # a file that does not fit has complaints
        if reading.has_moved:
            return config
        return seal_reading(
            self._asked, self._read_ns, config, reading.stamps, reading.folders, reading.listed,
            reading.written, reading.places, reading.patterns, reading.digests,
        )  # fmt: skip


def load_config(file: Path, edits: Sequence[str] = (), *, reads_inputs: bool = True) -> Config:
    """Read and check a pipeline, with `--set` edits laid over it.

    Args:
        file: The path of the pipeline file.
        edits: The values of `--set`, such as `stages.web.with.width=800`.
        reads_inputs: Whether the caller needs the input files; if not, the input root of a pipeline that has run
            before may be missing.

    Raises:
        ConfigError: The pipeline is wrong; the text has every complaint.
        EnvironmentFailure: Only the input root is missing, and the pipeline has run before.
    """
    return Loading(file, edits).config(reads_inputs=reads_inputs)


def _read(file: Path) -> bytes:
    try:
        with io.BufferedReader(open_regular(file)) as opened:
            return opened.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"{file}: {reason}", hint=f"name the pipeline: {program()} FILE.yaml") from None


def _read_pipeline(file: Path, text: bytes, edits: tuple[str, ...]) -> Reading:
    """Have a process of its own read a pipeline; what ends it is a complaint like any other."""
    for _ in range(_MAX_READINGS):
        reading: Reading = isolation.call_despite_deaths(_READ, file, text, edits)
        if not reading.has_moved:
            break
    return reading
