"""The shared memory in which each worker reports what it is doing, read by the parent when the worker dies.

A slot is a row of 64-bit words that its worker writes, and that the parent may read at any time:

    state  since  batch  place  stage  stage_since  pid  ready_bytes

The word `pid` is the parent's: the process id of the worker that it has started. A process that finds another number
there is unknown to the parent, since the forkserver died before it could tell it, and takes part in nothing.

The state decides what a death costs. A worker that dies WORKING holds no lock of the pool, so only its batch is lost.
One that dies IDLE may have held a queue's lock or left half a message in a pipe: the pool must be rebuilt, and if its
last batch was not answered, the jobs of that batch are run alone. One that dies STARTING or LEAVING takes nothing with
it, and one that ends SPOILT was WORKING.
"""

from __future__ import annotations

import os
import queue
import time
from array import array
from contextlib import suppress
from enum import IntEnum
from multiprocessing.heap import Arena
from pathlib import Path
from typing import Any

from pipeline.files.set_aside import clear_scratch_folders
from pipeline.records import NamedTuple, dataclass


class State(IntEnum):
    """The state of a worker."""

    STARTING = 0
    """The state of a worker from its creation until its initializer has returned."""
    IDLE = 1
    """The state of a worker in the pool's own code, which waits for a batch, takes one, or sends results."""
    WORKING = 2
    """The state of a worker in a job, which the words batch, place and stage identify."""
    LEAVING = 3
    """The state of a worker that has processed its share of files; it holds no lock any more."""
    START_FAILED = 4
    """The state of a worker whose initializer raised. It stays alive, since the pool would replace it for ever."""
    SPOILT = 5
    """The state of a worker that ends since its job has closed descriptors that the worker needs."""


WIDTH = 8
_WORD_BYTES = 8
STATE, SINCE, BATCH, PLACE, STAGE, STAGE_SINCE, PID, READY_BYTES = range(WIDTH)
NO_STAGE = -1
# How often a worker that has just started looks whether the parent knows it.
ADMISSION_POLL_S = 0.001
# The word before all slots, by which the parent tells every worker to start no job.
DRAINING = 0


def first_word(number: int) -> int:
    """Return the index of the first word of slot `number`."""
    return 1 + number * WIDTH


class Snapshot(NamedTuple):
    """The words of a slot at one moment. Times are `time.monotonic_ns()`, which all processes of a machine share."""

    state: State
    since_ns: int
    batch: int
    place: int
    stage: int
    stage_since_ns: int


class SlotTable:
    """All the slots of an engine, and the word DRAINING."""

    def __init__(self, count: int, memory: Arena | None = None, first_seat: int = 0) -> None:
        self.count = count
        self.first_seat = first_seat
        """The number by which others know the first slot; the slots of all pools of a run have numbers in a row."""
        self._memory = memory or Arena((1 + count * WIDTH) * _WORD_BYTES)
        self.words = memoryview(self._memory.buffer).cast("q")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.count, self._memory, self.first_seat)

    def drain(self) -> None:
        """Tell every worker to start no further job."""
        self.words[DRAINING] = 1

    def reset(self, number: int) -> None:
        """Prepare a slot for a worker that is about to start."""
        at = first_word(number)
        self.words[at : at + WIDTH] = array("q", [State.STARTING, time.monotonic_ns(), -1, -1, NO_STAGE, 0, 0, 0])

    def admit(self, number: int, pid: int) -> None:
        """Let the process `pid`, and no other, be the worker of slot `number`."""
        self.words[first_word(number) + PID] = pid

    def ready_bytes(self) -> int:
        """Return the least memory that a worker held when it was ready for its first job; 0 before any is."""
        told = (self.words[first_word(number) + READY_BYTES] for number in range(self.count))
        return min(filter(None, told), default=0)

    def read(self, number: int) -> Snapshot:
        """Return the current words of slot `number`."""
        at = first_word(number)
        state, *rest = self.words[at : at + PID].tolist()
        return Snapshot(State(state), *rest)


@dataclass
class Slot:
    """The slot that a worker is given when it starts: its row of the table, its capture file, and its limits."""

    table: SlotTable
    number: int
    capture: Path
    close_fds: tuple[int, ...] = ()
    """Descriptors that a forked worker must close."""
    files_left: int | None = None
    """The number of files that the worker may still process; None for no limit."""
    max_memory_bytes: int | None = None
    pipes: tuple[int, ...] = ()
    """The worker's own ends of the pool's pipes, which the worker adds."""

    def enter_state(self, state: State) -> None:
        """Report the new state of this worker."""
        at = first_word(self.number)
        self.table.words[at + SINCE] = time.monotonic_ns()
        self.table.words[at + STATE] = state

    def wait_for_admission(self) -> None:
        """Wait until the parent knows this process as the worker of this slot.

        Any other could take a batch or a lock to its grave unseen. It stays here until the parent closes its pipe.
        """
        while self.table.words[first_word(self.number) + PID] != os.getpid():
            time.sleep(ADMISSION_POLL_S)

    @property
    def seat(self) -> int:
        """The number by which others know this slot, among those of all pools of a run."""
        return self.table.first_seat + self.number

    @property
    def is_leaving(self) -> bool:
        return bool(self.table.words[first_word(self.number) + STATE] == State.LEAVING)

    @property
    def is_used_up(self) -> bool:
        """Return whether the worker has processed its share of files."""
        return self.files_left is not None and self.files_left <= 0


class SlotAllocator:
    """Hands a free slot to each new worker, and takes it back when the worker is dead."""

    def __init__(
        self,
        table: SlotTable,
        folder: Path,
        close_fds: tuple[int, ...] = (),
        maxtasksperchild: int | None = None,
        max_memory_bytes: int | None = None,
        scratch: Path | None = None,
        set_aside: Path = Path(),
    ) -> None:
        self.table = table
        self._folder = folder
        self._limits = close_fds, maxtasksperchild, max_memory_bytes
        self._scratch, self._set_aside = scratch, set_aside
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(table.count):
            self._free.put(number)

    def allocate(self, timeout_s: float) -> Slot | None:
        """Return a free slot, or None when none becomes free within `timeout_s`."""
        try:
            number = self._free.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.table.reset(number)
        return Slot(self.table, number, self._capture(number), *self._limits)

    def release(self, slot: Slot, pid: int | None = None) -> None:
        """Make a dead worker's slot available again, and remove the scratch folder that it has left behind."""
        if self._scratch and pid:
            with suppress(OSError):  # the next run does it
                clear_scratch_folders(self._scratch, self._set_aside, f"{pid}-")
        self._free.put(slot.number)

    def remove_captures(self) -> None:
        """Delete the capture files, once no worker is left."""
        for number in range(self.table.count):
            with suppress(OSError):  # there is none, or a stage has put something else there
                self._capture(number).unlink()

    def _capture(self, number: int) -> Path:
        return self._folder / f"slot-{number}.txt"


_current: Slot | None = None


def occupy(slot: Slot) -> None:
    """Make `slot` the slot of this process."""
    global _current
    _current = slot


def current() -> Slot | None:
    """Return the slot of this process, or None in the parent."""
    return _current
