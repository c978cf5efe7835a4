"""The progress of a run in a small file, for `status` at another terminal, so that the ledger stays closed to it.

The file is written once a second, also while a run plans or ends, and anybody who may read it can tell from it whether
the run is at work, stopped, hung, killed or over: `read_progress`. It remembers the last run, and the last that was a
success, for whoever asks while the next one is on.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from pipeline.errors import SUCCEEDED
from pipeline.files.clocks import boot_id
from pipeline.files.file_system import read_regular
from pipeline.files.permissions import current_umask
from pipeline.files.state_dir import State
from pipeline.files.sync import replace_file
from pipeline.messages import InHand, Outcome
from pipeline.observer import RunObserver
from pipeline.report.summary import Summary
from pipeline.text import counted, format_duration, format_pace, local_time, one_line

# Seconds without an update after which a run on another machine is taken for dead, since its process cannot be seen.
_SILENT_S = 60.0
# The same for one whose process is there: it writes once a second, unless its disk keeps it waiting for very long.
_SILENT_HERE_S = 120.0
# Seconds over which the pace is measured.
_PACE_S = 30.0
# From so many seconds on, what is left is told by the clock, too.
_LONG_S = 120.0
# A shorter time tells nothing of the pace.
_LEAST_PACE_S = 0.5
# How many failed outputs, and jobs in hand of a run that hangs, are named.
_NAMED_FAILURES, _NAMED_IN_HAND = 5, 3
# What the next run keeps of the one before.
_KEPT = ("run", "started", "at", "exit", "said", "stopped", "new_failed", "in_hand")
_NUMBER = (int, float)
# The kinds of the fields that every progress file has, and of those that are read of it.
_NEEDED: dict[str, Any] = {"at": _NUMBER, "started": _NUMBER, "pid": int, "host": str, "stage": str}
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("at_up_s", "moved", "moved_up_s", "moves_within_s", "left_s", "pace", "last_success"), _NUMBER),
    **dict.fromkeys(("planned", "through", "failed", "new_failed", "exit"), int),
    **dict.fromkeys(("in_hand", "failures"), list),
    **dict.fromkeys(("pipeline", "yaml", "said", "stopped", "run"), str),
    "last": dict,
}

Standing = Literal["running", "stopped", "hung", "ended", "killed", "never"]
"""Whether a run is at work, suspended by a signal, at work and without any progress, over, or cut off by its death."""
LIVE: tuple[Standing, ...] = ("running", "stopped", "hung")
"""The standings of a run whose process is there."""


def progress_file(state_folder: Path) -> Path:
    """Return the path of a pipeline's progress file."""
    return state_folder / "progress.json"


class LiveProgress(RunObserver):
    """Writes the counts of a run and the jobs in hand to its progress file, and its summary at the end."""

    def __init__(
        self, state: State, summary: Summary, yaml: str, *, text: str = "", moves_within_s: float | None = None
    ) -> None:
        """Begin with what the file says of earlier runs.

        Args:
            state: The locked state.
            summary: The counts, which others keep.
            yaml: The name of the pipeline's file.
            text: The digest of that file, by which `status` knows that it was loaded as it is.
            moves_within_s: The seconds within which a job in hand must end by the timeouts of the pipeline; None
                without such.
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
        self._in_hand: Sequence[InHand] | None = None
        """The jobs in hand, since the last update; None while nothing runs jobs."""
        self._phase = "planning"
        self._has_ended = False
        self._lock = threading.Lock()
        """The thread that calls `beat` is not the one that ends the run."""
        self._paces: deque[tuple[float, int]] = deque()
        self._fields: dict[str, Any] = {
            "run": state.run,
            "pipeline": summary.pipeline,
            "yaml": yaml,
            "text": text,
            "pid": os.getpid(),
            "process": _stat(os.getpid())[1],
            "processes_of": _process_namespace(),
            "host": os.uname().nodename,
            "boot": boot_id(),
            "started": time.time(),
            **_carried(state.folder),
        }

    def on_start(self) -> None:
        self.beat()

    def on_planned(self, files: int) -> None:
        self._planned_files += files

    def on_outcome(self, outcome: Outcome) -> None:
        self._outcomes += 1
        self._done_files += not outcome.goes_on

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
            if summary.exit in SUCCEEDED:
                fields["last_success"] = time.time()
            self._write(fields | {"said": summary.lines()[0]})

    def beat(self) -> None:
        """Write what there is to say now; called once a second for as long as the run is on, from any thread."""
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
        named = [
            origin.as_json() | {"stage": result.stage, "text": one_line(result.text, 200)}
            for origin, result in summary.failures[:_NAMED_FAILURES]
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
                os.utime(self._file)  # which takes no room, and tells that the run is at work


def _carried(state_folder: Path) -> dict[str, Any]:
    """Return what the file says of the last run, which is over since the state is ours, and of the last success."""
    fields = _read(state_folder)
    if not fields:
        return {}
    has_ended = fields["stage"] == "ended"
    last = {"standing": "ended" if has_ended else "killed"} | {key: fields[key] for key in _KEPT if key in fields}
    if "last_success" in fields:
        return {"last": last, "last_success": fields["last_success"]}
    # As a version had it that did not write of successes.
    return {"last": last} | ({"last_success": fields["at"]} if has_ended and fields.get("exit") == 0 else {})


# -- reading -----------------------------------------------------------------------------------------------------------


def read_progress(state_folder: Path) -> tuple[Standing, dict[str, Any]]:
    """Return the standing of a pipeline's last run, and the fields of its progress file."""
    fields = _read(state_folder)
    return (standing_of(fields), fields) if fields else ("never", {})


def _read(state_folder: Path) -> dict[str, Any]:
    """Return the fields of a progress file, with its age by the clock of its disk; none where it says nothing."""
    file = progress_file(state_folder)
    try:
        fields: dict[str, Any] = json.loads(read_regular(file))
        fields["written"] = os.stat(file).st_mtime
        is_whole = all(isinstance(fields[key], kind) for key, kind in _NEEDED.items())
        are_right = all(isinstance(fields[key], kind) for key, kind in _KINDS.items() if fields.get(key) is not None)
    except (OSError, ValueError, TypeError, KeyError):
        return {}
    return fields if is_whole and are_right else {}


def standing_of(fields: dict[str, Any], *, holds_lock: bool = False) -> Standing:
    """Judge a run by the fields of its progress file, and by its process where that can be seen.

    It hangs if it has not written for so long that its process cannot be at work, or if no job has ended for longer
    than the timeouts of the pipeline let the jobs in hand take. A run on another machine that does not write is taken
    for dead, unless it is known to hold the lock of its state.
    """
    if fields["stage"] == "ended":
        return "ended"
    if _is_here(fields):
        state, started = _stat(fields["pid"])
        if fields.get("boot", "") not in ("", boot_id()) or not _is_process(fields, started):
            return "killed"
        if state in ("T", "t"):
            return "stopped"
        return "hung" if _age_s(fields, "at") > _SILENT_HERE_S or _is_late(fields) else "running"
    if _age_s(fields, "at") > _SILENT_S:
        return "hung" if holds_lock else "killed"
    return "hung" if _is_late(fields) else "running"


def _is_here(fields: dict[str, Any]) -> bool:
    """Return whether the process of a run can be seen from here: it may be in another container of this machine."""
    here = fields["host"] == os.uname().nodename
    return here and fields.get("processes_of", "") in ("", _process_namespace())


def _is_process(fields: dict[str, Any], started: str) -> bool:
    """Return whether the process with the number of the run is that of the run."""
    if started:
        return bool(fields.get("process") == started)
    try:
        os.kill(fields["pid"], 0)
    except PermissionError:  # it is there, and of another user, of whose processes we are told nothing
        return _age_s(fields, "at") < _SILENT_HERE_S
    except (OSError, OverflowError):
        return False
    return False


def _is_late(fields: dict[str, Any]) -> bool:
    within_s = fields.get("moves_within_s")
    return within_s is not None and "moved" in fields and _age_s(fields, "moved") > within_s


def _age_s(fields: dict[str, Any], key: str) -> float:
    """Return how long ago something was; since the same start of the machine no change of the clock matters.

    While the machine sleeps, nothing ages.
    """
    is_same_boot = fields["host"] == os.uname().nodename and fields.get("boot", "") == boot_id() != ""
    if is_same_boot and f"{key}_up_s" in fields:
        age_s = time.monotonic() - float(fields[f"{key}_up_s"])
        written_s = time.time() - float(fields.get("written", 0.0))
        if key == "at" and 0 <= written_s < age_s:  # a file whose disk is full has its time alone changed
            age_s = written_s
    else:
        age_s = time.time() - float(fields[key])
    return max(0.0, age_s)


# -- telling -----------------------------------------------------------------------------------------------------------


def describe_work(fields: dict[str, Any]) -> str:
    """Return what a live run is at, such as `1,200 of 5,000 files, 3 in hand, 4 min left`."""
    if fields["stage"] != "running":
        return str(fields["stage"])
    of_all = f" of {fields['planned']:,}" if fields["planned"] else ""  # a first run that still lists its files
    parts = [f"{fields['through']:,}{of_all} files"]
    if in_hand := len(fields.get("in_hand", ())):
        parts.append(f"{in_hand:,} in hand")
    if fields.get("pace"):
        parts.append(format_pace(fields["pace"]))
    if "left_s" in fields:
        until = f", until {clock_time(fields['at'] + fields['left_s'])}" if fields["left_s"] >= _LONG_S else ""
        parts.append(f"{format_duration(fields['left_s'])} left{until}")
    return ", ".join(parts)


def describe_hang(fields: dict[str, Any]) -> str:
    """Say of a run that hangs since when, which files it has in hand, and what to do about it."""
    since = fields["moved"] if _is_late(fields) else fields["at"]
    jobs = [describe_in_hand(each, fields) for each in fields.get("in_hand", ())]
    more = f" and {counted(len(jobs) - _NAMED_IN_HAND, 'other')}" if len(jobs) > _NAMED_IN_HAND else ""
    held = f"; files in hand: {', '.join(jobs[:_NAMED_IN_HAND])}{more}" if jobs else ""
    where = "" if fields["host"] == os.uname().nodename else f" on {fields['host']}"
    cure = f"`kill {fields['pid']}`{where}, or `kill -9 {fields['pid']}` if it stays, ends it; the same line resumes"
    return f"the run of {clock_time(fields['started'])} has not moved since {clock_time(since)}{held}; {cure}"


def describe_stop(fields: dict[str, Any]) -> str:
    """Say of a run that was suspended how it goes on."""
    return f"stopped by a signal since {clock_time(fields['at'])}; `kill -CONT {fields['pid']}` lets it go on"


def describe_in_hand(each: dict[str, Any], fields: dict[str, Any]) -> str:
    """Describe a job in hand in a few words, such as `a.jpg (stage 'web', 11 min)`."""
    where = f"stage {each['stage']!r}, " if each["stage"] else ""
    return f"{name_of(each)} ({where}{format_duration(held_s(each, fields))})"


def describe_cut_off(fields: dict[str, Any]) -> str:
    """Say of a run that was killed when it began, and what is to be done."""
    return f"the run that began {local_time(fields['started'])} was cut off; the same line again resumes"


def held_s(each: dict[str, Any], fields: dict[str, Any]) -> float:
    """Return the seconds for which a job of a live run has been in hand by now."""
    return float(each["seconds"]) + _age_s(fields, "at")


def name_of(each: dict[str, Any]) -> str:
    """Return the name of a file or group in a row of the progress file."""
    return str(each.get("source") or ("all files" if each.get("group") is None else f"group {each['group']!r}"))


def clock_time(at: float) -> str:
    """Return a time in seconds since 1970 as `02:41`, with its date if that is another day's."""
    text = local_time(at)
    day, _, clock = text.partition(" ")
    return clock[:5] if day == time.strftime("%F") else text[:16]


# -- processes ---------------------------------------------------------------------------------------------------------


def _stat(pid: int) -> tuple[str, str]:
    """Return the state of a process, and its start in ticks, which with its pid identifies it; empty if it has ended.

    A process that has ended and is not waited for is none.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return ("", "") if fields[0] in "ZX" else (fields[0], fields[19])
    except (OSError, IndexError):
        return "", ""


def _process_namespace() -> str:
    """Return what tells whether two processes see each other; empty where the kernel does not tell."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
