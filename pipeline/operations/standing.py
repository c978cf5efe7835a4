"""How the runs of pipelines stand, told from their progress files alone, also to a user who may only read.

No ledger is opened and nothing is written. A pipeline that is as its last run read it is not read again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pipeline.config.evidence import MAX_BYTES, Asked, guess_state
from pipeline.errors import NOT_STOPPED, SIGNALLED, EnvironmentFailure, FilemillError
from pipeline.files.file_system import open_regular
from pipeline.records import dataclass
from pipeline.report.standing import (
    LIVE,
    NAME_COLUMNS,
    Standing,
    clock_time,
    describe_cut_off,
    describe_hang,
    describe_suspension,
    describe_work,
    last_success_of,
    name_of,
    progress_file,
    read_progress,
)
from pipeline.stage.counted import digest_of_bytes
from pipeline.text import counted, cut_inside, format_duration, local_time, one_line, shown

# How grave it is what a monitor is told of a pipeline.
_WELL, _NO_SUCCESS, _HAS_NEW_FAILURES, _ENDED_EARLY, _WAS_KILLED, _HANGS, _UNKNOWN = range(7)
# How many of the files that failed are named in a line.
_NAMED = 3


@dataclass(frozen=True)
class StatusOf:
    """What is known of the runs of one pipeline."""

    file: str
    """The pipeline's file, as it was named."""
    name: str
    """The name of the pipeline; the file where that cannot be read."""
    standing: Standing
    fields: dict[str, Any]
    """The fields of the progress file; none where there is none."""
    state: Path | None = None
    note: str = ""
    """What a person should know beside it."""
    error: FilemillError | None = None
    """Why nothing is known."""

    @property
    def problem(self) -> str:
        """Why nothing is known, in one line that does not name the file again."""
        return one_line(self.error.text.splitlines()[0].removeprefix(f"{self.file}: ")) if self.error else ""


@dataclass(frozen=True)
class Verdict:
    """Whether all is well with a pipeline, for a monitor."""

    gravity: int
    """One of those above, 0 where all is well; of several pipelines the one with the highest is the worst."""
    text: str


def statuses_of(files: Iterable[str]) -> list[StatusOf]:
    """Return how the runs of some pipelines stand, in their order; one that cannot be read hides no other."""
    found = []
    for file in files:
        try:
            found.append(status_of(file))
        except FilemillError as error:
            found.append(_unknown(file, error))
        except OSError as error:
            found.append(_unknown(file, EnvironmentFailure(f"cannot be looked at: {error}")))
    return found


def _unknown(file: str, error: FilemillError) -> StatusOf:
    return StatusOf(file, shown(os.fsencode(file)), "never", {}, error=error)


def status_of(file: str) -> StatusOf:
    """Return how the runs of a pipeline stand. Raises FilemillError where it, or its state, cannot be read."""
    path = Path(file)
    if known := _as_last_run_read_it(path):
        return known
    from pipeline.config.load import load_config

    config = load_config(path, reads_inputs=False)
    standing, fields = read_progress(config.state)
    if not fields:
        _refuse_unreadable(config.state)
    note = ""
    if (yaml := fields.get("yaml", config.file.name)) != config.file.name:
        state = shown(os.fsencode(os.path.relpath(config.state, config.folder)))
        whose = f"{shown(os.fsencode(yaml))}: what is said here is of that"
        note = f"the last run with the state {state} was one of {whose}"
    return StatusOf(file, config.name, standing, fields, config.state, note)


def _as_last_run_read_it(path: Path) -> StatusOf | None:
    """Return the status of a pipeline whose file has the very text that its last run had; None if that is not known."""
    with suppress(OSError, ValueError):
        with open_regular(path) as opened:
            text = opened.read(MAX_BYTES)
        state = guess_state(Asked(str(path), "", (), "", "", (), "", ""), text)
        standing, fields = read_progress(state)
        if not fields:
            _refuse_unreadable(state)
        elif (fields.get("yaml_digest"), fields.get("yaml")) == (digest_of_bytes(text), path.name):
            return StatusOf(str(path), str(fields["pipeline"]), standing, fields, state)
    return None


def _refuse_unreadable(state: Path) -> None:
    """Raise EnvironmentFailure for a progress file that there is, or may be, and that this user may not read."""
    try:
        with open_regular(progress_file(state)):
            pass
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        raise EnvironmentFailure(f"{progress_file(state)} cannot be read: {error.strerror}") from error


# -- for monitors ------------------------------------------------------------------------------------------------------


def verdict_on(status: StatusOf, max_age_s: float | None = None) -> Verdict:
    """Judge a pipeline: by the way its last run ended, by its new failures, and by the age of its last success.

    Args:
        status: What is known of its runs.
        max_age_s: The age in seconds above which the last success is too old; None for any.
    """
    try:
        return _verdict_on(status, max_age_s)
    except (TypeError, ValueError, KeyError, AttributeError) as error:  # somebody has written to the file
        return Verdict(_UNKNOWN, f"the progress file is damaged: {type(error).__name__}: {one_line(str(error))}")


def _verdict_on(status: StatusOf, max_age_s: float | None) -> Verdict:
    fields, standing = status.fields, status.standing
    if status.error:
        return Verdict(_UNKNOWN, status.problem)
    if standing == "never":
        if status.state and os.path.lexists(file := progress_file(status.state)):
            where = shown(os.fsencode(file))
            return Verdict(_UNKNOWN, f"{where} is damaged, so nothing is known; the next run writes it anew")
        return Verdict(_NO_SUCCESS, "has not run yet")
    if standing == "hung":
        return Verdict(_HANGS, describe_hang(fields))
    # A run over a part of the files says nothing of the others: for these the last one over all counts.
    whole = fields.get("whole", fields.get("last", {})) if standing in LIVE or fields.get("is_part") else {}
    for run, ended in ((fields, standing), (whole, "" if standing in LIVE else whole.get("standing", ""))):
        if ended == "killed":
            return Verdict(_WAS_KILLED, describe_cut_off(run))
        if ended == "ended" and run["exit"] not in NOT_STOPPED and run["exit"] < SIGNALLED:
            why = f", stopped: {first_line(run['stopped'])}" if run.get("stopped") else ""
            return Verdict(_ENDED_EARLY, f"the last run ended {local_time(run['at'])} with exit {run['exit']}{why}")
    for run in (fields, whole):
        if new := run.get("new_failed", 0):
            text = f"{counted(new, 'new failure')} in the run of {clock_time(run['started'])}{_some(run)}"
            return Verdict(_HAS_NEW_FAILURES, text)
    return _verdict_on_age(status, max_age_s)


def _verdict_on_age(status: StatusOf, max_age_s: float | None) -> Verdict:
    success = last_success_of(status.fields)
    if success is None and "last_success" in status.fields:
        at = local_time(status.fields["last_success"])
        return Verdict(_NO_SUCCESS, f"the last success is said to be of {at}, which is yet to come: a clock is wrong")
    if success is None:
        return Verdict(_NO_SUCCESS, "no run was a success yet")
    age_s = max(0.0, time.time() - success)
    text = f"last success {format_duration(age_s)} ago, at {local_time(success)}"
    if max_age_s is not None and age_s > max_age_s:
        return Verdict(_NO_SUCCESS, f"{text}: more than {format_duration(max_age_s)}")
    now = {"running": describe_work, "suspended": describe_suspension}.get(status.standing)
    return Verdict(_WELL, f"OK, {text}{f'; now {now(status.fields)}' if now else ''}")


def first_line(text: str) -> str:
    """Return the first line of why a run stopped; the others show the place in pipeline.yaml."""
    return one_line(text.strip().partition("\n")[0])


def _some(run: dict[str, Any]) -> str:
    """Name some of the files that failed anew in a run; a version before did not tell them from the others."""
    rows = run.get("failures", ())
    names = dict.fromkeys(cut_inside(name_of(each), NAME_COLUMNS) for each in rows if each.get("is_new", True))
    return f": {', '.join(list(names)[:_NAMED])}{', ...' if len(names) > _NAMED else ''}" if names else ""
