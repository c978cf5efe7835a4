"""The Process class of the workers: their start, their preparation before Pool's own code runs, and their end."""

from __future__ import annotations

import multiprocessing
import os
import sys
import threading
import time
import traceback
import types
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol

from pipeline.engines import os_process, output_capture, slots
from pipeline.engines.os_process import DUMP_SIGNAL, LINUX
from pipeline.engines.queues import open_queues
from pipeline.engines.slots import Slot

# Seconds to wait before a start that failed is tried again: a lack of processes or descriptors may pass.
START_PAUSES_S = (0.0, 0.1, 0.5, 2.0)
# How long Python lets a thread keep the interpreter that another waits for, while a worker is started. That takes some
# system calls, and after each of them the thread would wait for 5 ms if others work: longer than for all the rest.
PROMPT_S = 0.0001

# Starting is one at a time: a process forked by another thread would inherit half-made pipes.
start_lock = threading.Lock()
# Two threads that ask for one exit code at once would race for the pipe of a forkserver.
_exit_code_lock = threading.Lock()


class ProcessOwner(Protocol):
    """The creator of the processes for Pool, which is notified whether each could be started."""

    is_closing: bool
    """True if no further process may start."""

    def create(self, process_type: type[WorkerProcess], *args: Any, **kwargs: Any) -> WorkerProcess:
        """Create a process with its slot and its `owner`, not started yet."""
        ...

    def on_started(self, process: WorkerProcess) -> None:
        """Record that a process has started."""
        ...

    def on_start_failed(self, process: WorkerProcess, error: Exception | None) -> None:
        """Record that a process has not started: the owner is closing, or the system refused with `error`."""
        ...


class WorkerProcess(BaseProcess):
    """A worker process; mixed with the Process class of each start method below.

    An absent process was not started, because its owner is closing or the system refused: Pool takes it for a process
    that is never ready, and goes on.
    """

    slot: Slot | None = None
    owner: ProcessOwner
    """The creator of the process; removed when the process starts, since it does not cross to the worker."""
    is_absent = False
    is_given_up = False
    _pidfd: int | None = None
    """A descriptor that is ready once the process has ended, and only then; None where Linux lacks pidfds.

    The pipe that multiprocessing has for it stays open while a program that a stage left behind has inherited its other
    end, and closes too early when a forkserver is killed.
    """

    def start(self) -> None:
        """Start unless the owner is closing, trying again after each of START_PAUSES_S when the system refuses."""
        owner: ProcessOwner = self.__dict__.pop("owner")
        refusal: Exception | None = None
        for pause_s in START_PAUSES_S:
            if pause_s:
                time.sleep(pause_s)
            with start_lock:
                if owner.is_closing:
                    refusal = None
                    break
                try:
                    with os_process.end_signals_blocked(), os_process.our_import_path(), _main_hidden(), _prompt():
                        super().start()
                    self._open_pidfd()
                    return owner.on_started(self)
                except Exception as error:  # whatever it is, it must not end Pool's thread, and leave us to wait
                    refusal = error
                    traceback.clear_frames(error.__traceback__)  # closes the pipe of a worker that started all the same
        self.is_absent = True
        owner.on_start_failed(self, refusal)

    @property
    def exitcode(self) -> int | None:
        with _exit_code_lock:
            return None if self.is_absent else super().exitcode

    @property
    def sentinel(self) -> int:
        if self.is_absent:
            raise AttributeError("no process")
        if self._pidfd is None or self._is_of_forkserver:  # the pipe of a forkserver brings the exit code as well
            return super().sentinel
        return self._pidfd

    @property
    def is_dead(self) -> bool:
        return self.is_absent or (self._has_hung_up and not self.is_abandoned)

    @property
    def is_abandoned(self) -> bool:
        """Return whether the process is alive although its end was reported, since its forkserver was killed."""
        return self._pidfd is not None and self._has_hung_up and not wait([self._pidfd], 0)

    @property
    def _has_hung_up(self) -> bool:
        return bool(wait([self.sentinel], 0))

    @property
    def _is_of_forkserver(self) -> bool:
        return getattr(self, "_start_method", None) == "forkserver"

    def _open_pidfd(self) -> None:
        if hasattr(os, "pidfd_open"):
            with suppress(OSError):  # a forkserver has reaped it already, or the kernel is older than 5.3
                self._pidfd = os.pidfd_open(self.pid or 0)
                weakref.finalize(self, os.close, self._pidfd)

    def is_alive(self) -> bool:
        return not (self.is_absent or self.is_given_up) and super().is_alive()

    def join(self, timeout: float | None = None) -> None:
        if not (self.is_absent or self.is_given_up):
            super().join(timeout)

    def kill(self) -> None:
        """Kill the worker and every process it started: its group, and the descendants that have left the group."""
        if not self.is_dead and self.ident:
            os_process.kill_tree(self.ident)

    def terminate(self) -> None:
        """Kill the worker: a Pool that terminates must not wait for workers that ignore SIGTERM."""
        self.kill()

    def run(self) -> None:
        """Prepare this process, then run Pool's worker loop in it."""
        assert self.slot
        batches, replies = self._args[:2]  # type: ignore[attr-defined]
        self.slot.pipes = batches.receiving_fd, replies.sending_fd
        # Elsewhere than on Linux a worker learns from it that its parent is gone.
        if not LINUX and (parent := multiprocessing.parent_process()):
            self.slot.pipes += (parent.sentinel,)
        slots.occupy(self.slot)
        output_capture.redirect(self.slot.capture)
        output_capture.watch_for_faults(DUMP_SIGNAL)
        os_process.leave_end_signals_to_parent()
        if LINUX:
            os_process.die_with_parent()
            os_process.be_first_out_of_memory()
            os_process.adopt_orphans()
        else:
            threading.Thread(target=os_process.exit_after_parent, daemon=True).start()
        if getattr(self, "_start_method", None) == "fork":
            self._undo_inherited()
        self.slot.wait_for_admission()
        super().run()

    def _undo_inherited(self) -> None:
        """Undo what only a fork inherits: the run's lock, other engines' pipes, which would stay open, a setting."""
        for fd in self.slot.close_fds if self.slot else ():
            with suppress(OSError):
                os.close(fd)
        sys.setswitchinterval(_switch_interval_s)
        own = self._args[:2]  # type: ignore[attr-defined]
        for queue in list(open_queues):
            if not any(queue is mine for mine in own):
                queue.close_copy()


PROCESS_TYPES: dict[str, type[WorkerProcess]] = {}
for _method in multiprocessing.get_all_start_methods():
    _name = f"{_method.capitalize()}WorkerProcess"  # importable by this name: a spawned worker's object is pickled
    _process: Any = getattr(multiprocessing.get_context(_method), "Process")  # noqa: B009, typeshed lacks it
    PROCESS_TYPES[_method] = type(_name, (WorkerProcess, _process), {"__module__": __name__})
    globals()[_name] = PROCESS_TYPES[_method]


_switch_interval_s = sys.getswitchinterval()
"""How long Python lets a thread keep the interpreter while no worker is started."""


@contextmanager
def _prompt() -> Iterator[None]:
    """Have threads give way to each other after PROMPT_S; one process is started at a time."""
    global _switch_interval_s
    _switch_interval_s = sys.getswitchinterval()
    sys.setswitchinterval(PROMPT_S)
    try:
        yield
    finally:
        sys.setswitchinterval(_switch_interval_s)


@contextmanager
def _main_hidden() -> Iterator[None]:
    """Keep a spawned worker from importing the caller's script, which may have no `__main__` guard."""
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main
