"""What is done where another run holds the lock: it is said what that is at, passed over, or waited for."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from pipeline.errors import AlreadyRunning, FilemillError, RunHangs
from pipeline.files.state_dir import State, open_state, refuse_locked
from pipeline.report.standing import LIVE, describe_hang, describe_suspension, describe_work, read_progress, standing_of

# Seconds between two looks at a lock that is waited for.
_LOOK_EVERY_S = 0.2
# Seconds between two looks at whether the run that holds it hangs.
_JUDGE_EVERY_S = 5.0
_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def lock_state(folder: Path, pipeline: str) -> State:
    """Lock a state folder as `open_state` does; where another run has it, say what that is at.

    Raises:
        AlreadyRunning: Another run is running.
        EnvironmentFailure: The state cannot be used, or another run has it, and hangs.
        UsageError: The folder is no state.
    """
    try:
        return open_state(folder, pipeline)
    except AlreadyRunning as error:
        raise with_progress(error, folder) from None


def with_progress(error: AlreadyRunning, folder: Path) -> FilemillError:
    """Return the error with what the other run is at, by its progress file; another one if that run hangs."""
    _, fields = read_progress(folder)
    # The file is that of the run before until the one that holds the lock begins, and of a run only.
    if not fields or error.holder != (fields["pid"], fields["host"]):
        return error
    try:
        return _judge(error, fields)
    except (KeyError, TypeError, ValueError):  # somebody has written to the file
        return error


def _judge(error: AlreadyRunning, fields: dict[str, Any]) -> FilemillError:
    standing = standing_of(fields, holds_lock=True)
    if standing == "hung":
        return RunHangs(describe_hang(fields))
    if standing in LIVE:
        what = describe_suspension(fields) if standing == "suspended" else describe_work(fields)
        told = AlreadyRunning(f"{error.text}: {what}")
        told.holder = error.holder
        return told
    return error


def refuse_beside_another_run(folder: Path, pipeline: str) -> None:
    """Raise what `lock_state` does where another run is running, and lock nothing."""
    try:
        refuse_locked(folder, pipeline)
    except AlreadyRunning as error:
        raise with_progress(error, folder) from None


def wait_for_turn(folder: Path, pipeline: str, deadline: float | None) -> int:
    """Wait until nobody holds the lock of a state, or the time is up; return the signal that ended the wait, else 0.

    Nothing is locked meanwhile: whoever waits reads the pipeline anew, and is a run like any other then. SIGINT,
    SIGTERM and SIGHUP end the wait, unless they are ignored.

    Args:
        folder: The folder of the state.
        pipeline: The name of the pipeline.
        deadline: The end of the wait by time.monotonic(); None without one.

    Raises:
        RunHangs: The run that holds the lock hangs.
    """
    judge_at = time.monotonic() + _JUDGE_EVERY_S
    with _signals() as arrived:
        while (left_s := math.inf if deadline is None else deadline - time.monotonic()) > 0:
            # Also where the lock is free: another may hold the ledger's, or have its turn at this very moment.
            time.sleep(min(_LOOK_EVERY_S, left_s))
            if arrived:
                break
            try:
                refuse_locked(folder, pipeline)
                break
            except AlreadyRunning as error:
                if time.monotonic() >= judge_at:
                    judge_at += _JUDGE_EVERY_S
                    if isinstance(why := with_progress(error, folder), RunHangs):
                        raise why from None
    return next(iter(arrived), 0)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Give the signals that arrive meanwhile and are not ignored."""
    arrived: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        arrived.append(number)

    if threading.current_thread() is not threading.main_thread():
        yield arrived
        return
    before = {number: signal.getsignal(number) for number in _CAUGHT}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in caught:
            signal.signal(number, note)
        yield arrived
    finally:
        for number in caught:
            signal.signal(number, before[number])
