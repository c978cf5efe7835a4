"""Finds the state of a pipeline, also of one that does not load: just then a person asks what its runs have done."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from pipeline.config.evidence import MAX_BYTES, Asked, guess_state
from pipeline.config.model import Config
from pipeline.errors import FilemillError
from pipeline.files.file_system import open_regular
from pipeline.records import dataclass
from pipeline.report.standing import read_progress
from pipeline.text import one_line, shown


class HasState(Protocol):
    """What records of runs are looked up by: a pipeline, or its state alone."""

    @property
    def state(self) -> Path:
        """The state folder."""


@dataclass(frozen=True)
class StateOfPipeline:
    """The state of a pipeline, and the pipeline itself if it loads."""

    file: Path
    name: str
    state: Path
    config: Config | None = None
    problem: str = ""
    """Why it does not load, in one line."""


def find_state(file: str) -> StateOfPipeline:
    """Return the state of a pipeline. Raises FilemillError for one that does not load and whose state is not there."""
    from pipeline.config.load import load_config

    path = Path(file)
    try:
        config = load_config(path, reads_inputs=False)
    except FilemillError as error:
        if found := _without_loading(path, error):
            return found
        raise
    return StateOfPipeline(config.file, config.name, config.state, config)


def _without_loading(path: Path, error: FilemillError) -> StateOfPipeline | None:
    """Return the state that the text of a pipeline names, unless there is none, or it is that of another file."""
    with suppress(OSError, ValueError):
        with open_regular(path) as opened:
            text = opened.read(MAX_BYTES)
        state = guess_state(Asked(str(path), "", (), "", "", (), "", ""), text)
        _, fields = read_progress(state)
        if (state / "ledger.sqlite").is_file() and fields.get("yaml", path.name) == path.name:
            place = shown(os.fsencode(os.path.abspath(state)))
            problem = f"{one_line(error.text.splitlines()[0])}; what is said here is from its state {place}"
            return StateOfPipeline(path, str(fields.get("pipeline", path.stem)), state, problem=problem)
    return None
