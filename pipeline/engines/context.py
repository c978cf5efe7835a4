"""The context for `Pool(context=...)`, which makes Pool use our process and queue classes.

Pool asks its context for every process, including the replacements it starts by itself, and for every queue. The
engine needs no other hook into Pool.
"""

from __future__ import annotations

import multiprocessing
import os
import tempfile
import warnings
from collections.abc import Sequence
from contextlib import suppress
from multiprocessing import resource_tracker, util
from multiprocessing.context import BaseContext
from typing import Any

from pipeline.engines.os_process import LINUX, end_signals_blocked, our_import_path
from pipeline.engines.queues import BatchQueue
from pipeline.engines.worker_process import PROCESS_TYPES, ProcessOwner, WorkerProcess

# The longest path of a socket, and what multiprocessing adds to TMPDIR: /pymp-XXXXXXXX/listener-XXXXXXXX.
_MAX_SOCKET_BYTES = 107
_NAME_BYTES = 32
_SHORT_FOLDER = "/tmp"
# What every worker of a forkserver imports beside its stages; the first keeps the forkserver alive.
_PRELOAD = (
    "pipeline.engines.fork_guard", "pipeline.engines.worker_loop", "pipeline.engines.worker_process",
    "multiprocessing.pool", "multiprocessing.popen_forkserver", "multiprocessing.synchronize",
)  # fmt: skip


def pool_context(method: str, owner: ProcessOwner) -> BaseContext:
    """Return a context of start method `method` whose processes are created by `owner`."""

    def process(_: BaseContext, *args: Any, **kwargs: Any) -> WorkerProcess:
        return owner.create(PROCESS_TYPES[method], *args, **kwargs)

    def simple_queue(context: BaseContext) -> BatchQueue:
        return BatchQueue(ctx=context)

    original = type(multiprocessing.get_context(method))
    made = type("PoolContext", (original,), {"Process": process, "SimpleQueue": simple_queue})
    context: BaseContext = made()
    return context


def prepare_start_method(method: str, preload: Sequence[str]) -> None:
    """Make the settings that hold for the whole process.

    The forkserver imports `preload` once; the tracker of semaphores must survive a terminal that hangs up on our
    group; and forking while threads run is intended.
    """
    if LINUX and method != "fork":
        with end_signals_blocked(), our_import_path():
            resource_tracker.ensure_running()
    if method == "forkserver":
        _keep_sockets_short()
        multiprocessing.set_forkserver_preload([*_PRELOAD, *preload])
    if method == "fork":
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)


def _keep_sockets_short() -> None:
    """Have the forkserver make its socket in /tmp where TMPDIR is too long for the path of a socket."""
    if len(os.fsencode(tempfile.gettempdir())) + _NAME_BYTES <= _MAX_SOCKET_BYTES:
        return
    before, tempfile.tempdir = tempfile.tempdir, _SHORT_FOLDER
    try:
        with suppress(OSError):  # the first start of a worker says so
            util.get_temp_dir()  # makes a folder that multiprocessing keeps to from now on, and removes at exit
    finally:
        tempfile.tempdir = before
