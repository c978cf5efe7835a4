"""The queues of the Pool: they end workers after their share of files, and can be cut off when all are dead."""

from __future__ import annotations

import weakref
from contextlib import suppress
from multiprocessing.context import BaseContext
from multiprocessing.queues import SimpleQueue
from typing import Any

from pipeline.engines import slots
from pipeline.engines.slots import State

open_queues: weakref.WeakSet[BatchQueue] = weakref.WeakSet()


class BatchQueue(SimpleQueue[Any]):
    """A SimpleQueue that ends a worker after its share of files, and that can be cut off when all workers are dead."""

    _reader: Any
    _writer: Any
    _rlock: Any
    _wlock: Any

    def __init__(self, *, ctx: BaseContext) -> None:
        super().__init__(ctx=ctx)
        open_queues.add(self)

    def get(self) -> Any:
        """Return the next batch, or None to end the worker exactly after its share of files."""
        slot = slots.current()
        if slot is None:
            return super().get()
        batch = None if slot.is_leaving else super().get()
        if batch is None:
            slot.enter_state(State.LEAVING)
        return batch

    def put(self, obj: Any) -> None:
        super().put(obj)
        slot = slots.current()
        if slot is not None and slot.is_used_up:
            slot.enter_state(State.LEAVING)

    def silence_reader(self) -> None:
        """Keep Pool's thread that replaces dead workers from waking, and checking them all, at every reply.

        It waits for the end of the pipe that never becomes readable; the thread that collects replies has the other.
        """
        self._true_reader = self._reader
        self._reader = SilentReader(self._reader, self._writer)

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return getattr(self, "_true_reader", self._reader), *state[1:]

    @property
    def receiving_fd(self) -> int:
        """The descriptor from which a worker receives."""
        return int(self._reader.fileno())

    @property
    def sending_fd(self) -> int:
        """The descriptor to which a worker sends."""
        return int(self._writer.fileno())

    def close_copy(self) -> None:
        """Close both ends, in a forked worker that inherited the queue of another engine."""
        self._reader.close()
        self._writer.close()

    def stop_reading(self) -> None:
        """Make Pool's sending thread fail on a closed pipe instead of blocking on one that nobody reads."""
        reader, self._reader = self._reader, CutConnection()
        reader.close()
        self._free_locks()

    def stop_writing(self) -> None:
        """Make Pool's collecting thread reach the end of the pipe, even in the middle of a message."""
        self._writer = CutConnection(self._writer)
        self._free_locks()

    def _free_locks(self) -> None:
        for lock in (self._rlock, self._wlock):
            with suppress(ValueError, AttributeError):  # it is not held, or there is none
                lock.release()


class SilentReader:
    """The read end of a pipe, for a thread that must not be woken by arriving data."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader = reader
        self._quiet_fd = writer.fileno()

    def fileno(self) -> int:
        return int(self._quiet_fd)

    def poll(self) -> bool:
        return False

    def close(self) -> None:
        self._reader.close()


class CutConnection:
    """An end of a pipe that has been cut off, as Pool uses it while it terminates.

    Two of Pool's threads send a last message to the results: the pipe closes at the second, since Pool fails when its
    collecting thread ends too early.
    """

    def __init__(self, connection: Any = None) -> None:
        self._connection = connection
        self._last_messages = 0

    def poll(self) -> bool:
        return False

    def send_bytes(self, _: bytes) -> None:
        self._last_messages += 1
        if self._last_messages == 2:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
