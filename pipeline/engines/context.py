"""The context given to `Pool(context=...)`: the processes and queues that Pool makes are of our kind.

Pool asks its context for every process, also for the replacements it starts by itself, and for every queue.
That is all the hold on Pool that the engine needs.
"""

from __future__ import annotations

import multiprocessing
import warnings
from collections.abc import Sequence
from multiprocessing import resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

from pipeline.engines.queues import BatchQueue
from pipeline.engines.worker_process import LINUX, WORKER_TYPES, Hirer, Worker, end_signals_held_back


def pool_context(method: str, crew: Hirer) -> BaseContext:
    """Make the context of start method `method` whose processes are hired by `crew`."""

    def process(_: BaseContext, *args: Any, **kwargs: Any) -> Worker:
        return crew.hire(WORKER_TYPES[method], *args, **kwargs)

    def simple_queue(context: BaseContext) -> BatchQueue:
        return BatchQueue(ctx=context)

    original = type(multiprocessing.get_context(method))
    made = type("PoolContext", (original,), {"Process": process, "SimpleQueue": simple_queue})
    context: BaseContext = made()
    return context


def prepare_method(method: str, preload: Sequence[str]) -> None:
    """Set what holds for the whole process.

    The forkserver loads `preload` once; the tracker of semaphores must outlive a terminal that hangs up on
    our group; and forking with threads is meant.
    """
    if LINUX and method != "fork":
        with end_signals_held_back():
            resource_tracker.ensure_running()
    if method == "forkserver":
        multiprocessing.set_forkserver_preload(list(preload))
    if method == "fork":
        warnings.filterwarnings("ignore", ".*multi-threaded, use of fork", DeprecationWarning)
