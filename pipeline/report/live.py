"""The progress of a run in a small file, for `status` at another terminal, so that the ledger stays closed to it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.files.file_system import read_regular
from pipeline.files.permissions import current_umask
from pipeline.files.state_dir import State
from pipeline.files.sync import replace_file
from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.report.summary import Summary

# Seconds without an update after which a run on another machine is taken for dead, since its process cannot be seen.
_SILENT_S = 60.0

Standing = Literal["running", "ended", "killed", "never"]


def progress_file(state_folder: Path) -> Path:
    """Return the path of a pipeline's progress file."""
    return state_folder / "progress.json"


class LiveProgress(RunObserver):
    """Writes the counts of a run and the jobs in hand to its progress file, and its summary at the end."""

    def __init__(self, state: State, summary: Summary, yaml: str) -> None:
        self._file = progress_file(state.folder)
        self._summary = summary
        # Not the umask of the moment, which a stage may have changed in this process.
        self._mode = 0o666 & ~current_umask()
        self._planned_files = 0
        self._done_files = 0
        self._fields: dict[str, Any] = {
            "run": state.run,
            "pipeline": summary.pipeline,
            "yaml": yaml,
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "host": os.uname().nodename,
            "started": time.time(),
        }

    def on_start(self) -> None:
        self._update("planning")

    def on_planned(self, files: int) -> None:
        self._planned_files += files

    def on_outcome(self, outcome: Outcome) -> None:
        self._done_files += not outcome.goes_on

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._done_files += len(outcomes)

    def on_left(self, seconds: float) -> None:
        self._fields["left_s"] = round(seconds, 1)

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        self._fields["in_hand"] = [each.as_json() for each in jobs]
        self._update("running")

    def on_end(self) -> None:
        summary = self._summary
        fields = {"stage": "ended", "at": time.time(), "planned": self._planned_files, "through": self._done_files}
        fields |= {"stopped": summary.stopped, "in_hand": []} | summary.as_json()
        self._fields.pop("left_s", None)
        self._write(fields | {"said": summary.lines()[0]})

    def _update(self, phase: str) -> None:
        fields = {"stage": phase, "at": time.time(), "planned": self._planned_files, "through": self._done_files}
        summary = self._summary
        self._write(fields | {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed})

    def _write(self, fields: dict[str, Any]) -> None:
        self._fields |= fields
        # A full disk must not end a run over this; nor does it matter after a power cut, so nothing is synced.
        with suppress(OSError):
            replace_file(
                self._file, json.dumps(self._fields).encode() + b"\n", self._file.with_suffix(".new"), mode=self._mode
            )


def read_progress(state_folder: Path) -> tuple[Standing, dict[str, Any]]:
    """Return the standing of a pipeline's last run, and the fields of its progress file."""
    try:
        fields = json.loads(read_regular(progress_file(state_folder)))
        fields["at"], fields["stage"], fields["pid"], fields["host"], fields["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return "never", {}
    if fields["stage"] == "ended":
        return "ended", fields
    if fields["host"] == os.uname().nodename:
        is_alive = fields.get("process") == _process(fields["pid"])
    else:
        is_alive = time.time() - fields["at"] < _SILENT_S
    return ("running" if is_alive else "killed"), fields


def _process(pid: int) -> str:
    """Return the start time of a process in ticks, which with its pid identifies it; empty if it has ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
