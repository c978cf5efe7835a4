"""Starts the forkserver, and the tracker of semaphores, as copies of this process where that is only the program.

A new interpreter would import again what the program has imported already. A copy is made while nothing is open and one
thread runs, and closes all descriptors but its own; anywhere else multiprocessing starts both in its own way.
"""

from __future__ import annotations

import gc
import os
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from multiprocessing import forkserver, resource_tracker, util
from typing import Any, NoReturn

import pipeline
from pipeline.engines.context import prepare_start_method
from pipeline.engines.os_process import LINUX, end_signals_blocked


def start_early(preload: Sequence[str]) -> None:
    """Start the forkserver before the workers are needed, so that it gets ready while this process goes on.

    Where that is not possible it is started with the first worker, which reports why it cannot be.
    """
    if not (LINUX and pipeline.is_program and threading.active_count() == 1):
        return
    with suppress(OSError), _copies_for_interpreters():
        prepare_start_method("forkserver", preload)
        with end_signals_blocked():
            forkserver.ensure_running()


@contextmanager
def _copies_for_interpreters() -> Iterator[None]:
    """Have multiprocessing start copies of this process in place of new interpreters."""
    start = util.spawnv_passfds
    util.spawnv_passfds = _start_copy  # type: ignore[assignment]
    try:
        yield
    finally:
        util.spawnv_passfds = start


def _start_copy(_: Any, arguments: Sequence[Any], descriptors: Sequence[int]) -> int:
    """Run the code that an interpreter would be given, which is the last argument, in a copy of this process."""
    code = os.fsdecode(arguments[-1])
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # what is in their buffers is ours to write
            stream.flush()
    pid = os.fork()
    if pid == 0:
        _be_copy(lambda: exec(code, {"__name__": "__main__"}), descriptors)
    return pid


def _be_copy(run: Callable[[], object], descriptors: Sequence[int]) -> NoReturn:
    """Make this process as a new interpreter would be, as far as it matters to workers; run the code, and end."""
    code = 1
    try:
        _close_all_but({0, 1, 2, *descriptors})
        # Their locks are held while they start a process; what they know is of the process that we were.
        forkserver._forkserver.__init__()  # type: ignore[misc]
        resource_tracker._resource_tracker.__init__()  # type: ignore[misc]
        pipeline.is_program = False
        sys.modules["__main__"] = types.ModuleType("__main__")
        gc.enable()
        gc.freeze()  # so that no worker copies the memory that it shares with us
        run()
        code = 0
    except SystemExit as ended:
        code = ended.code if isinstance(ended.code, int) else int(ended.code is not None)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        os._exit(code)


def _close_all_but(kept: set[int]) -> None:
    ends = [*sorted(kept), os.sysconf("SC_OPEN_MAX")]
    for below, above in pairwise(ends):
        os.closerange(below + 1, above)
