"""Reads how a run stands from the small file that it writes, judges it by its process, and says it in words.

Anybody who may read the file can tell from it whether the run is running, suspended, hung, killed or over.
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any, Literal

from pipeline.files.clocks import boot_id
from pipeline.files.file_system import read_regular
from pipeline.report.processes import process_namespace, stat_of
from pipeline.text import counted, cut_inside, format_duration, format_pace, local_time, one_line, shown

# Seconds without an update after which a run on another machine is taken for dead, since its process cannot be seen.
_SILENT_S = 60.0
# The same for one whose process is there: it writes once a second, unless its disk keeps it waiting for very long.
_SILENT_HERE_S = 120.0
# From so many seconds on, what is left is told by the clock, too.
_LONG_S = 120.0
# So far ahead may the clock of another machine be, by which a time was written.
_CLOCKS_APART_S = 300.0
# What a line for a monitor has of a name at most.
NAME_COLUMNS = 80
# How many jobs in hand of a run that hangs are named.
_NAMED_IN_HAND = 3
_NUMBER = (int, float)
# The kinds of the fields that every progress file has, and of those that are read of it.
_NEEDED: dict[str, Any] = {"at": _NUMBER, "started": _NUMBER, "pid": int, "host": str, "stage": str}
_KINDS: dict[str, Any] = {
    **dict.fromkeys(("at_up_s", "moved", "moved_up_s", "moves_within_s", "left_s", "pace", "last_success"), _NUMBER),
    **dict.fromkeys(("planned", "through", "failed", "new_failed", "exit"), int),
    **dict.fromkeys(("in_hand", "failures"), list),
    **dict.fromkeys(("pipeline", "yaml", "said", "stopped", "run"), str),
    **dict.fromkeys(("last", "whole"), dict),
    "is_part": bool,
}
# What is kept of an earlier run has these, and one that ended those below; then what the rows of the lists have.
_NEEDED_OF_EARLIER: dict[str, Any] = {"standing": str, "started": _NUMBER, "run": str}
_NEEDED_OF_ENDED: dict[str, Any] = {"at": _NUMBER, "exit": int}
_NEEDED_OF_ROWS: dict[str, dict[str, Any]] = {
    "in_hand": {"stage": str, "seconds": _NUMBER, "pid": int},
    "failures": {"stage": str, "text": str},
}

Standing = Literal["running", "suspended", "hung", "ended", "killed", "never"]
"""Whether a run is running, suspended (Ctrl-Z, SIGSTOP), running without progress, over, or cut off by its death."""
LIVE: tuple[Standing, ...] = ("running", "suspended", "hung")
"""The standings of a run whose process is there."""


def progress_file(state_folder: Path) -> Path:
    """Return the path of a pipeline's progress file."""
    return state_folder / "progress.json"


def read_progress(state_folder: Path) -> tuple[Standing, dict[str, Any]]:
    """Return the standing of a pipeline's last run, and the fields of its progress file."""
    fields = read_fields(state_folder)
    return (standing_of(fields), fields) if fields else ("never", {})


def read_fields(state_folder: Path) -> dict[str, Any]:
    """Return the fields of a progress file, with its age by the clock of its disk; none where none can be read.

    Whatever somebody has written to it, it keeps no run from its end.
    """
    file = progress_file(state_folder)
    try:
        fields: dict[str, Any] = json.loads(read_regular(file))
        fields["written"] = os.stat(file).st_mtime
        is_right = _has(fields, _NEEDED) and _is_right(fields, has_ended=fields["stage"] == "ended")
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return {}
    return fields if is_right else {}


def _is_right(fields: dict[str, Any], *, has_ended: bool) -> bool:
    """Return whether the fields that are read of a run, and of those before it, are what they must be."""
    return (
        all(isinstance(fields[key], kind) for key, kind in _KINDS.items() if fields.get(key) is not None)
        and (not has_ended or _has(fields, _NEEDED_OF_ENDED))
        and all(_has(row, needed) for key, needed in _NEEDED_OF_ROWS.items() for row in fields.get(key) or ())
        and all(
            _has(run, _NEEDED_OF_EARLIER) and _is_right(run, has_ended=run["standing"] == "ended")
            for run in (fields[key] for key in ("last", "whole") if key in fields)
        )
    )


def _has(fields: dict[str, Any], kinds: dict[str, Any]) -> bool:
    return all(isinstance(fields[key], kind) for key, kind in kinds.items())


def last_success_of(fields: dict[str, Any]) -> float | None:
    """Return when the last success was, in seconds since 1970; None without one, or where no clock can be right.

    One that lies in the future was written while the clock was wrong, and would be young for as long.
    """
    success = fields.get("last_success")
    return None if success is None or success > time.time() + _CLOCKS_APART_S else float(success)


def standing_of(fields: dict[str, Any], *, holds_lock: bool = False) -> Standing:
    """Judge a run by the fields of its progress file, and by its process where that can be seen.

    It hangs if it has not written for so long that its process cannot be at work, or if no job has ended for longer
    than the timeouts of the pipeline let the jobs in hand take. A run on another machine that does not write is taken
    for dead, unless it is known to hold the lock of its state.
    """
    if fields["stage"] == "ended":
        return "ended"
    if _is_here(fields):
        state, started = stat_of(fields["pid"])
        if fields.get("boot", "") not in ("", boot_id()) or not _is_process(fields, started):
            return "killed"
        if state in ("T", "t"):
            return "suspended"
        return "hung" if _age_s(fields, "at") > _SILENT_HERE_S or _is_late(fields) else "running"
    if _age_s(fields, "at") > _SILENT_S:
        return "hung" if holds_lock else "killed"
    return "hung" if _is_late(fields) else "running"


def _is_here(fields: dict[str, Any]) -> bool:
    """Return whether the process of a run can be seen from here: it may be in another container of this machine."""
    here = fields["host"] == os.uname().nodename
    return here and fields.get("processes_of", "") in ("", process_namespace())


def _is_process(fields: dict[str, Any], started: str) -> bool:
    """Return whether the process with the number of the run is that of the run."""
    if started:
        return bool(fields.get("process") == started)
    try:
        os.kill(fields["pid"], 0)
    except PermissionError:  # it is there, and of another user, of whose processes we are told nothing
        return _age_s(fields, "at") < _SILENT_HERE_S
    except (OSError, OverflowError):
        pass  # there is none
    return False  # one that may be signalled, and shows no start, has ended and is not waited for yet


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
    """Return what a run that is running is at, such as `1,200 of 5,000 files, 4.0 min left, until 02:44, 3 in hand`."""
    if fields["stage"] != "running":
        return str(fields["stage"])
    of_all = f" of {fields['planned']:,}" if fields["planned"] else ""  # a first run that still lists its files
    parts = [f"{fields['through']:,}{of_all} files"]
    if fields.get("pace"):
        parts.append(format_pace(fields["pace"]))
    if "left_s" in fields:
        until = f", until {clock_time(fields['at'] + fields['left_s'])}" if fields["left_s"] >= _LONG_S else ""
        parts.append(f"{format_duration(fields['left_s'])} left{until}")
    if in_hand := len(fields.get("in_hand", ())):
        parts.append(f"{in_hand:,} in hand")
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


def describe_suspension(fields: dict[str, Any]) -> str:
    """Say of a run that was suspended how it goes on."""
    return f"suspended since {clock_time(fields['at'])}; `kill -CONT {fields['pid']}` lets it go on"


def describe_in_hand(each: dict[str, Any], fields: dict[str, Any]) -> str:
    """Describe a job in hand in a few words, such as `a.jpg (stage 'web', 11 min)`, with a long name cut."""
    where = f"stage {one_line(each['stage'], NAME_COLUMNS)!r}, " if each["stage"] else ""
    return f"{cut_inside(name_of(each), NAME_COLUMNS)} ({where}{format_duration(held_s(each, fields))})"


def describe_cut_off(fields: dict[str, Any]) -> str:
    """Say of a run that was killed when it began, and what is to be done."""
    return f"the run that began {local_time(fields['started'])} was cut off; the same line again resumes"


def held_s(each: dict[str, Any], fields: dict[str, Any]) -> float:
    """Return the seconds for which a job has been in hand by now."""
    return float(each["seconds"]) + _age_s(fields, "at")


def name_of(each: dict[str, Any]) -> str:
    """Return the name of a file or group in a row of the progress file, printable and in one line."""
    group = "all files" if each.get("group") is None else f"group {_shown(each['group']) or repr('')}"
    return _shown(each.get("source") or "") or group


def _shown(name: object) -> str:
    return shown(str(name).encode("utf-8", "backslashreplace"))


def clock_time(at: float) -> str:
    """Return a time in seconds since 1970 as `02:41`, with its date if that is another day's."""
    text = local_time(at)
    day, _, clock = text.partition(" ")
    return clock[:5] if day == time.strftime("%F") else text[:16]
