"""How far a run has come, for whoever asks from another terminal: a small file, so that the ledger stays closed."""

from __future__ import annotations

import json
import os
import socket
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.files.state_dir import State
from pipeline.report.progress import Summary

# Seconds between two beats.
BEAT_EVERY_S = 1.0
# Seconds without a beat after which a run on another machine is taken for dead; where nothing else can be told.
_SILENT_S = 60.0

Standing = Literal["running", "ended", "killed", "never"]


def progress_file(state_folder: Path) -> Path:
    """Where a pipeline's progress is kept."""
    return state_folder / "progress.json"


class Heartbeat:
    """Writes the progress of a run, about once a second."""

    def __init__(self, state: State, pipeline: str, yaml: str) -> None:
        self._file = progress_file(state.folder)
        self._next = 0.0
        self._said: dict[str, Any] = {
            "run": state.run,
            "pipeline": pipeline,
            "yaml": yaml,
            "pid": os.getpid(),
            "process": _process(os.getpid()),
            "host": socket.gethostname(),
            "started": time.time(),
        }
        self.planned = 0
        """How many files the run is to do."""
        self.through = 0
        """How many of them it has done, whatever became of them."""

    def beat(self, summary: Summary, *, stage: str) -> None:
        """Say how far the run has come, if it was not said just now; `stage` is that of the journey."""
        if time.monotonic() >= self._next or stage != self._said.get("stage"):
            self._next = time.monotonic() + BEAT_EVERY_S
            self._said |= {"stage": stage, "at": time.time(), "planned": self.planned, "through": self.through}
            self._said |= {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed}
            self._write()

    def end(self, summary: Summary) -> None:
        """Say how the run ended."""
        self._said |= {"stage": "ended", "at": time.time(), "stopped": summary.stopped} | summary.as_json()
        self._said["said"] = summary.lines()[0]
        self._write()

    def _write(self) -> None:
        # A full disk must not end a run over this; nor does it matter after a power cut, so nothing is synced.
        with suppress(OSError):
            new = self._file.with_suffix(".new")
            new.write_text(json.dumps(self._said) + "\n")
            new.replace(self._file)


def read_progress(state_folder: Path) -> tuple[Standing, dict[str, Any]]:
    """What the last run said of itself last, and whether it is still at work."""
    try:
        said = json.loads(progress_file(state_folder).read_bytes())
        said["at"], said["stage"], said["pid"], said["host"], said["started"]
    except (OSError, ValueError, TypeError, KeyError):
        return "never", {}
    if said["stage"] == "ended":
        return "ended", said
    if said["host"] == socket.gethostname():
        is_alive = said.get("process") == _process(said["pid"])
    else:
        is_alive = time.time() - said["at"] < _SILENT_S
    return ("running" if is_alive else "killed"), said


def _process(pid: int) -> str:
    """What tells a process from a later one of the same number: the ticks at which it began; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""
