"""The shared memory in which each worker says what it is at, and what its slot at death tells.

A slot is a row of 64-bit words that only its worker writes, and that the parent reads at any time:

    state  since  batch  place  stage  stage_since

The state decides what a death costs. A worker that dies AT_WORK holds no lock of the pool, so only its batch
is lost. One that dies IDLE may have held a queue's lock or left half a message in a pipe: the pool must be
rebuilt. One that dies STARTING or LEAVING has taken nothing with it.
"""

from __future__ import annotations

import os
import queue
import time
from dataclasses import dataclass
from enum import IntEnum
from multiprocessing.context import BaseContext
from pathlib import Path
from typing import Any


class State(IntEnum):
    """What a worker is at."""

    STARTING = 0
    """From its creation until its initializer has returned."""
    IDLE = 1
    """In the pool's own code: it waits for a batch, takes one, or sends results."""
    AT_WORK = 2
    """In a job; the words batch, place and stage say where."""
    LEAVING = 3
    """Done with its share of files; it holds nothing any more."""
    START_FAILED = 4
    """Its initializer has raised. It stays, since the pool would start another in its place for ever."""


WIDTH = 6
STATE, SINCE, BATCH, PLACE, STAGE, STAGE_SINCE = range(WIDTH)
NO_STAGE = -1
# The word before all slots, by which the parent tells every worker to start no job.
DRAINING = 0


def first_word(number: int) -> int:
    """Where slot `number` begins."""
    return 1 + number * WIDTH


@dataclass(frozen=True)
class Reading:
    """A slot as it was at one moment. Times are `time.monotonic_ns()`, which all processes share."""

    state: State
    since: int
    batch: int
    place: int
    stage: int
    stage_since: int


class Slots:
    """All the slots of an engine, and the word DRAINING."""

    def __init__(self, context: BaseContext, count: int) -> None:
        self.count = count
        self.words: Any = context.RawArray("q", 1 + count * WIDTH)

    def drain(self) -> None:
        self.words[DRAINING] = 1

    def clear(self, number: int) -> None:
        """Make the slot ready for a worker that is about to start."""
        at = first_word(number)
        self.words[at : at + WIDTH] = [State.STARTING, time.monotonic_ns(), -1, -1, NO_STAGE, 0]

    def read(self, number: int) -> Reading:
        at = first_word(number)
        state, *rest = self.words[at : at + WIDTH]
        return Reading(State(state), *rest)


@dataclass
class Seat:
    """What a worker is given when it starts: its slot, its capture file, and when it is to leave."""

    slots: Slots
    number: int
    capture: Path
    close_fds: tuple[int, ...] = ()
    files_left: int | None = None
    """How many files it may still do; None for no limit."""
    max_memory_bytes: int | None = None

    def enter_state(self, state: State) -> None:
        at = first_word(self.number)
        self.slots.words[at + SINCE] = time.monotonic_ns()
        self.slots.words[at + STATE] = state

    @property
    def is_leaving(self) -> bool:
        return bool(self.slots.words[first_word(self.number) + STATE] == State.LEAVING)

    @property
    def is_spent(self) -> bool:
        """Whether the worker has done its share of files."""
        return self.files_left is not None and self.files_left <= 0


class Seating:
    """The seats of an engine: each worker gets a free one, and it is free again when the worker is buried."""

    def __init__(
        self,
        slots: Slots,
        folder: Path,
        close_fds: tuple[int, ...],
        files: int | None,
        max_memory_bytes: int | None,
    ) -> None:
        self.slots = slots
        self._folder = folder
        self._rest = close_fds, files, max_memory_bytes
        self._free: queue.SimpleQueue[int] = queue.SimpleQueue()
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(slots.count):
            self._free.put(number)

    def give(self, timeout_s: float) -> Seat | None:
        """Give a free seat; None when there is none within the time."""
        try:
            number = self._free.get(timeout=timeout_s)
        except queue.Empty:
            return None
        self.slots.clear(number)
        return Seat(self.slots, number, self._capture(number), *self._rest)

    def take_back(self, seat: Seat) -> None:
        self._free.put(seat.number)

    def clear_away(self) -> None:
        """Remove the capture files, once no worker is left."""
        for number in range(self.slots.count):
            self._capture(number).unlink(missing_ok=True)

    def _capture(self, number: int) -> Path:
        return self._folder / f"slot-{number}.txt"


_mine: Seat | None = None


def take(seat: Seat) -> None:
    """Make `seat` this process's own."""
    global _mine
    _mine = seat


def mine() -> Seat | None:
    """The seat of this process; None in the parent."""
    return _mine


def memory_bytes(pid: int | None = None) -> int:
    """How much memory a process holds (its resident set); 0 where that cannot be known."""
    try:
        with open(f"/proc/{pid or 'self'}/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, IndexError):
        return 0


def in_words(size_bytes: int) -> str:
    """Say an amount of memory the way people do, such as "2.1 GB"."""
    for unit, factor in (("GB", 10**9), ("MB", 10**6)):
        if size_bytes >= factor:
            return f"{size_bytes / factor:.1f} {unit}"
    return f"{size_bytes:,} bytes"
