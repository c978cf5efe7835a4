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
        AlreadyRunning: Another run is at work.
        EnvironmentFailure: The state cannot be used, or another run has it, and hangs.
        UsageError: The folder is no state.
    """
    try:
        return open_state(folder, pipeline)
    except AlreadyRunning as error:
        raise explain(error, folder) from None


def explain(error: AlreadyRunning, folder: Path) -> FilemillError:
    """Return the error with what the other run is at, by its progress file; another one if that run hangs."""
    _, fields = read_progress(folder)
    # The file is that of the run before until the one that holds the lock begins, and of a run only.
    if not fields or error.holder != (fields["pid"], fields["host"]):
        return error
    try:
        return _explain(error, fields)
    except (KeyError, TypeError, ValueError):  # somebody has written to the file
        return error


def _explain(error: AlreadyRunning, fields: dict[str, Any]) -> FilemillError:
    standing = standing_of(fields, holds_lock=True)
    if standing == "hung":
        return RunHangs(describe_hang(fields))
    if standing in LIVE:
        what = describe_suspension(fields) if standing == "suspended" else describe_work(fields)
        explained = AlreadyRunning(f"{error.text}: {what}")
        explained.holder = error.holder
        return explained
    return error


class Signalled(BaseException):
    """A signal has ended the wait for a lock."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def refuse_where_locked(folder: Path, pipeline: str) -> None:
    """Raise what `lock_state` does where another run is at work, and lock nothing."""
    try:
        refuse_locked(folder, pipeline)
    except AlreadyRunning as error:
        raise explain(error, folder) from None


def wait_for_turn(folder: Path, pipeline: str, deadline: float | None) -> None:
    """Wait until nobody holds the lock of a state, or the time is up.

    Nothing is locked meanwhile: whoever waits reads the pipeline anew, and is a run like any other then.

    Args:
        folder: The folder of the state.
        pipeline: The name of the pipeline.
        deadline: The end of the wait by time.monotonic(); None without one.

    Raises:
        RunHangs: The run that holds the lock does not go on.
        Signalled: By SIGINT, SIGTERM or SIGHUP, unless it is ignored.
    """
    judge_at = time.monotonic() + _JUDGE_EVERY_S
    with _ended_by_signals():
        while (left_s := math.inf if deadline is None else deadline - time.monotonic()) > 0:
            # Also where the lock is free: another may hold the ledger's, or have its turn at this very moment.
            time.sleep(min(_LOOK_EVERY_S, left_s))
            try:
                refuse_locked(folder, pipeline)
                return
            except AlreadyRunning as error:
                if time.monotonic() >= judge_at:
                    judge_at += _JUDGE_EVERY_S
                    if isinstance(why := explain(error, folder), RunHangs):
                        raise why from None


@contextmanager
def _ended_by_signals() -> Iterator[None]:
    """Raise Signalled where a signal arrives that is not ignored."""

    def end(number: int, frame: FrameType | None) -> None:
        raise Signalled(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.getsignal(number) for number in _CAUGHT}
    caught = [number for number, handler in before.items() if handler is not signal.SIG_IGN]
    try:
        for number in caught:
            signal.signal(number, end)
        yield
    finally:
        for number in caught:
            signal.signal(number, before[number])
