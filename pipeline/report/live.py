"""Writes the progress of a run to a small file, for `status` at another terminal, to which the ledger stays closed.

The file is written once a second, also while a run plans or ends. It remembers the last run, and the last that was a
success, for whoever asks while the next one is running. A run over a part of the files is no success, and remembers the
last one over all, of which it ends no alarm. `standing` reads it.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

from pipeline.errors import SUCCEEDED
from pipeline.files.clocks import boot_id
from pipeline.files.permissions import current_umask
from pipeline.files.state_dir import State
from pipeline.files.sync import replace_file
from pipeline.messages import InHand, Origin, Outcome, Result
from pipeline.observer import RunObserver
from pipeline.report.processes import process_namespace, stat_of
from pipeline.report.standing import last_success_of, progress_file, read_fields
from pipeline.report.summary import Summary
from pipeline.text import one_line

# Seconds over which the pace is measured.
_PACE_S = 30.0
# A shorter time tells nothing of the pace.
_LEAST_PACE_S = 0.5
# How many failed outputs are named.
_NAMED_FAILURES = 5
# What the next run keeps of the one before.
_KEPT = ("run", "started", "at", "exit", "said", "stopped", "new_failed", "in_hand")
# And of the last one over all files, for which it may still be blamed after a run over a part of them.
_KEPT_OF_WHOLE = (*_KEPT, "failures")


class LiveProgress(RunObserver):
    """Writes the counts of a run and the jobs in hand to its progress file, and its summary at the end."""

    def __init__(
        self,
        state: State,
        summary: Summary,
        yaml: str,
        *,
        yaml_digest: str = "",
        moves_within_s: float | None = None,
        is_whole: bool = True,
    ) -> None:
        """Begin with what the file says of earlier runs.

        Args:
            state: The locked state.
            summary: The counts, which others keep.
            yaml: The name of the pipeline's file.
            yaml_digest: The digest of that file, by which `status` knows that it was loaded as it is.
            moves_within_s: The seconds within which a job in hand must end by the timeouts of the pipeline; None
                without such.
            is_whole: Whether the run is over all files.
        """
        self._file = progress_file(state.folder)
        self._summary = summary
        # Not the umask of the moment, which a stage may have changed in this process.
        self._mode = 0o666 & ~current_umask()
        self._planned_files = 0
        self._done_files = 0
        self._moves_within_s = moves_within_s
        self._moved: tuple[str, bool, int] = ("", False, 0)
        """The phase, whether anything was in hand, and the number of outcomes at the last update."""
        self._outcomes = 0
        self._new: dict[Origin, Result] = {}
        """The first files with a failure that no run had before, each with one of them; the summary has the old too."""
        self._in_hand: Sequence[InHand] | None = None
        """The jobs in hand, since the last update; None while nothing runs jobs."""
        self._phase = "planning"
        self._has_ended = False
        self._is_whole = is_whole
        self._lock = threading.Lock()
        """The thread that calls `beat` is not the one that ends the run."""
        self._paces: deque[tuple[float, int]] = deque()
        self._fields: dict[str, Any] = {
            "run": state.run,
            "pipeline": summary.pipeline,
            "yaml": yaml,
            "yaml_digest": yaml_digest,
            "pid": os.getpid(),
            "process": stat_of(os.getpid())[1],
            "processes_of": process_namespace(),
            "host": os.uname().nodename,
            "boot": boot_id(),
            "started": time.time(),
            **({} if is_whole else {"is_part": True}),
            **_carried(state.folder),
        }

    def on_start(self) -> None:
        self.beat()

    def on_planned(self, files: int) -> None:
        self._planned_files += files

    def on_outcome(self, outcome: Outcome) -> None:
        self._outcomes += 1
        self._done_files += not outcome.goes_on
        if len(self._new) < _NAMED_FAILURES and (new := next((each for each in outcome.results if each.is_new), None)):
            self._new.setdefault(outcome.origin, new)

    def on_outcomes(self, outcomes: Sequence[Outcome]) -> None:
        self._outcomes += len(outcomes)
        self._done_files += len(outcomes)

    def on_left(self, seconds: float) -> None:
        self._fields["left_s"] = round(seconds, 1)

    def on_in_hand(self, jobs: Sequence[InHand]) -> None:
        self._in_hand = jobs

    def on_end(self) -> None:
        summary = self._summary
        with self._lock:
            self._has_ended = True
            for key in ("left_s", "pace", "moved", "moved_up_s", "moves_within_s"):
                self._fields.pop(key, None)
            fields = {"stage": "ended", "stopped": summary.stopped, "in_hand": []} | self._counts() | summary.as_json()
            if self._is_whole:
                self._fields.pop("whole", None)
                if summary.exit in SUCCEEDED:
                    fields["last_success"] = time.time()
            self._write(fields | {"said": summary.lines()[0]})

    def beat(self) -> None:
        """Write what there is to say now; called once a second as long as the run is running, from any thread."""
        with self._lock:
            if self._has_ended:
                return
            in_hand, self._in_hand = self._in_hand, None
            if in_hand is not None:
                self._phase = "running"
            elif self._phase == "running":
                self._phase = "ending"
            fields = {"stage": self._phase, "in_hand": [each.as_json() for each in in_hand or ()]}
            self._write(fields | self._movement(bool(in_hand)) | self._pace() | self._counts())

    def _counts(self) -> dict[str, Any]:
        summary = self._summary
        of_all = sorted(summary.failures, key=lambda each: not each[1].is_new)
        # Those that only the plan refuses are in the summary alone.
        rows = {(origin, result.stage): result for origin, result in (*self._new.items(), *of_all)}
        named = [
            origin.as_json() | {"stage": stage, "text": one_line(result.text, 200), "is_new": result.is_new}
            for (origin, stage), result in islice(rows.items(), _NAMED_FAILURES)
        ]
        counts = {"done": summary.done, "skipped": summary.skipped, "failed": summary.failed}
        return counts | {"new_failed": summary.new_failed, "failures": named}

    def _movement(self, is_any_in_hand: bool) -> dict[str, Any]:
        """Return when a job ended last, or another phase began, and within which time that must be so again."""
        moved, self._moved = self._moved, (self._phase, is_any_in_hand, self._outcomes)
        fields = {"moves_within_s": self._moves_within_s if is_any_in_hand else None}
        return fields if moved == self._moved else fields | {"moved": time.time(), "moved_up_s": time.monotonic()}

    def _pace(self) -> dict[str, float]:
        """Return the files that ended in a second, over the last half minute."""
        now, paces = time.monotonic(), self._paces
        paces.append((now, self._done_files))
        while len(paces) > 2 and now - paces[0][0] > _PACE_S:
            paces.popleft()
        seconds, files = now - paces[0][0], self._done_files - paces[0][1]
        is_known = self._phase == "running" and seconds > _LEAST_PACE_S and files
        return {"pace": round(files / seconds, 3) if is_known else 0.0}

    def _write(self, fields: dict[str, Any]) -> None:
        self._fields |= fields
        self._fields |= {"planned": self._planned_files, "through": self._done_files}
        self._fields |= {"at": time.time(), "at_up_s": time.monotonic()}
        data = json.dumps(self._fields).encode() + b"\n"
        # A full disk must not end a run over this; nor does it matter after a power cut, so nothing is synced.
        try:
            replace_file(self._file, data, self._file.with_suffix(".new"), mode=self._mode)
        except OSError:
            with suppress(OSError):
                os.utime(self._file)  # which takes no room, and tells that the run is running


def _carried(state_folder: Path) -> dict[str, Any]:
    """Return what the file says of the last run, which is over since the state is ours, and of the last success."""
    fields = read_fields(state_folder)
    if not fields:
        return {}
    has_ended = fields["stage"] == "ended"
    standing = {"standing": "ended" if has_ended else "killed"}
    carried = {"last": standing | _of(fields, _KEPT)}
    if not fields.get("is_part"):
        carried["whole"] = standing | _of(fields, _KEPT_OF_WHOLE)
    elif "whole" in fields:
        carried["whole"] = _with_failures_of(fields["whole"], fields)
    if "last_success" in fields:
        success = last_success_of(fields)
        return carried | ({} if success is None else {"last_success": success})
    # As a version had it that did not write of successes.
    is_success = has_ended and fields.get("exit") == 0 and not fields.get("is_part")
    return carried | ({"last_success": fields["at"]} if is_success else {})


def _of(fields: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {key: fields[key] for key in keys if key in fields}


def _with_failures_of(whole: dict[str, Any], part: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of a run over all files with the new failures of one over a part of them."""
    if not (new := part.get("new_failed")):
        return whole
    named = [*part.get("failures", ()), *whole.get("failures", ())]
    return whole | {"new_failed": whole.get("new_failed", 0) + new, "failures": named[:_NAMED_FAILURES]}
