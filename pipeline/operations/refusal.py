"""Notes for `status` that a run ended before it began: its pipeline does not load, or the machine does not let it."""

from __future__ import annotations

import os
from contextlib import closing, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.config.evidence import MAX_BYTES, Asked, guess_state
from pipeline.errors import FilemillError
from pipeline.files.file_system import open_regular
from pipeline.files.state_dir import is_ours, reopen_state
from pipeline.report.live import LiveProgress
from pipeline.report.standing import read_fields
from pipeline.report.summary import Summary

if TYPE_CHECKING:
    from pipeline.config.model import Config


def note_refused(file: Path, config: Config | None, error: FilemillError, *, is_whole: bool) -> None:
    """Write to the progress file of a pipeline that has run before how its last run ended, as far as that is possible.

    Nothing is written where the run itself has done so, another run is running, or it is not sure whose state it is.

    Args:
        file: The pipeline's file.
        config: The pipeline; None where it does not load.
        error: Why nothing was run.
        is_whole: Whether the run was to be over all files.
    """
    state_folder = config.state if config else _likely_state(file)
    with suppress(OSError):
        if not is_ours(state_folder) or not (state := reopen_state(state_folder)):
            return
        with closing(state):
            fields = read_fields(state_folder)
            if not fields or fields.get("yaml") != file.name or _is_told(fields, error):
                return
            name = str(fields.get("pipeline", file.stem))
            summary = Summary(run=state.run, pipeline=name, exit=error.exit_code, stopped=error.text)
            # By the digest of then `status` knows a pipeline.yaml that has changed since, and reads it.
            digest = str(fields.get("yaml_digest", ""))
            LiveProgress(state, summary, file.name, yaml_digest=digest, is_whole=is_whole).on_end()


def _is_told(fields: dict[str, Any], error: FilemillError) -> bool:
    """Return whether the run that was refused has said so itself: it had begun."""
    return fields["pid"] == os.getpid() and fields.get("stopped") == error.text


def _likely_state(file: Path) -> Path:
    """Return where the state of a pipeline that does not load is likely to be."""
    text = b""
    with suppress(OSError), open_regular(file) as opened:
        text = opened.read(MAX_BYTES)
    return guess_state(Asked(str(file), "", (), "", "", (), "", ""), text)
