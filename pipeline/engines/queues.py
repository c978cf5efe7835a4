"""The queues that Pool gets: workers leave by them when their files are done, and dead crews let them go."""

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
    """A SimpleQueue by which workers leave when their files are done, and that is cut when all are dead."""

    _reader: Any
    _writer: Any
    _rlock: Any
    _wlock: Any

    def __init__(self, *, ctx: BaseContext) -> None:
        super().__init__(ctx=ctx)
        open_queues.add(self)

    def get(self) -> Any:
        """Give the next batch, or None, at which Pool's worker ends: exact, whatever the batches' size."""
        seat = slots.mine()
        if seat is None:
            return super().get()
        batch = None if seat.is_leaving else super().get()
        if batch is None:
            seat.enter_state(State.LEAVING)
        return batch

    def put(self, obj: Any) -> None:
        super().put(obj)
        seat = slots.mine()
        if seat is not None and seat.is_spent:
            seat.enter_state(State.LEAVING)

    def keep_quiet(self) -> None:
        """Keep Pool's keeper of the workers asleep while replies arrive: it would look for deaths at each of
        them.

        Its sentinels get the end of the pipe that never has anything to read; the collecting thread has the
        other.
        """
        self._true_reader = self._reader
        self._reader = Muted(self._reader, self._writer)

    def __getstate__(self) -> Any:
        state: Any = super().__getstate__()
        return getattr(self, "_true_reader", self._reader), *state[1:]

    def close_copy(self) -> None:
        """Close both ends; for a forked worker that inherited the queue of another engine."""
        self._reader.close()
        self._writer.close()

    def stop_reading(self) -> None:
        """Let Pool's feeding thread run against a closed pipe instead of one that nobody empties."""
        reader, self._reader = self._reader, Severed()
        reader.close()
        self._free_locks()

    def stop_writing(self) -> None:
        """Let Pool's collecting thread find the end of the pipe, even in the middle of a message."""
        self._writer = Severed(self._writer)
        self._free_locks()

    def _free_locks(self) -> None:
        for lock in (self._rlock, self._wlock):
            with suppress(ValueError, AttributeError):  # nobody held it; there is none
                lock.release()


class Muted:
    """The end of a pipe that replies come from, for one who is not to be woken by them."""

    def __init__(self, reader: Any, writer: Any) -> None:
        self._reader = reader
        self._quiet_fd = writer.fileno()

    def fileno(self) -> int:
        return int(self._quiet_fd)

    def poll(self) -> bool:
        return False

    def close(self) -> None:
        self._reader.close()


class Severed:
    """The end of a pipe that has been cut, as Pool uses it while it terminates.

    Two of Pool's threads put a farewell into the results: the pipe closes at the second, since Pool takes it
    amiss when its collecting thread is gone too early.
    """

    def __init__(self, connection: Any = None) -> None:
        self._connection = connection
        self._farewells = 0

    def poll(self) -> bool:
        return False

    def send_bytes(self, _: bytes) -> None:
        self._farewells += 1
        if self._farewells == 2:
            self.close()

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
