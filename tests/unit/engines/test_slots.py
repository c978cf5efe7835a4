"""The shared memory in which workers report what they are doing."""

from __future__ import annotations

import multiprocessing
import time
from array import array
from pathlib import Path

import pytest
from support.program import wait_until

from pipeline.engines.slots import NO_STAGE, PID, WIDTH, SlotAllocator, SlotTable, State, first_word


def test_a_slot_is_its_own(tmp_path: Path) -> None:
    """What one worker reports changes neither another's slot nor the word before them all."""
    table = SlotTable(3)
    slots = [slot for _ in range(3) if (slot := SlotAllocator(table, tmp_path).allocate(0))]
    for number in range(3):
        table.reset(number)
    before = [table.read(0), table.read(2)]
    slots[1].number = 1
    slots[1].enter_state(State.IDLE)
    assert [table.read(0), table.read(2)] == before
    assert table.read(1).state == State.IDLE and table.words[0] == 0
    table.drain()
    assert table.words[0] == 1 and table.read(1).state == State.IDLE


def test_a_slot_that_is_given_again_says_nothing_of_the_last_worker(tmp_path: Path) -> None:
    """A new worker is starting, and has no job, whatever the one before died of."""
    table = SlotTable(1)
    allocator = SlotAllocator(table, tmp_path)
    slot = allocator.allocate(0)
    assert slot
    at = first_word(slot.number)
    table.words[at : at + WIDTH] = array("q", [State.WORKING, 1, 2, 3, 4, 5, 6, 7])
    assert table.read(0) == (State.WORKING, 1, 2, 3, 4, 5)
    allocator.release(slot)
    began = time.monotonic_ns()
    assert allocator.allocate(0)
    now = table.read(0)
    assert (now.state, now.batch, now.place, now.stage) == (State.STARTING, -1, -1, NO_STAGE)
    assert began <= now.since_ns <= time.monotonic_ns()
    assert table.words[at + PID] == 0


def test_no_slot_is_given_twice(tmp_path: Path) -> None:
    """There are as many as there are rows; who comes later waits for one that is given back."""
    allocator = SlotAllocator(SlotTable(4), tmp_path)
    given = [allocator.allocate(0) for _ in range(4)]
    assert sorted(slot.number for slot in given if slot) == [0, 1, 2, 3]
    assert len({slot.capture for slot in given if slot}) == 4
    assert allocator.allocate(0.01) is None
    assert given[2]
    allocator.release(given[2])
    again = allocator.allocate(0.01)
    assert again and again.number == given[2].number


def test_a_slot_carries_the_limits(tmp_path: Path) -> None:
    """Each worker counts down its own share of files."""
    allocator = SlotAllocator(SlotTable(2), tmp_path / "made", (7,), 2, 10**9)
    first, second = allocator.allocate(0), allocator.allocate(0)
    assert first and second and first.files_left == 2
    first.files_left = 0
    assert first.is_used_up and not second.is_used_up
    assert (second.close_fds, second.max_memory_bytes) == ((7,), 10**9)
    assert second.capture.parent == tmp_path / "made" and second.capture.parent.is_dir()


@pytest.mark.parametrize(("files_left", "is_used_up"), [(None, False), (2, False), (0, True), (-1, True)])
def test_a_share_of_files(tmp_path: Path, files_left: int | None, is_used_up: bool) -> None:
    """No share is no limit."""
    slot = SlotAllocator(SlotTable(1), tmp_path).allocate(0)
    assert slot
    slot.files_left = files_left
    assert slot.is_used_up is is_used_up


def test_captures_are_removed(tmp_path: Path) -> None:
    """Those that were never written are no error, and what is not ours stays."""
    allocator = SlotAllocator(SlotTable(2), tmp_path)
    slot = allocator.allocate(0)
    assert slot
    slot.capture.write_text("text")
    (tmp_path / "other").touch()
    allocator.remove_captures()
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


@pytest.mark.parametrize("method", ["fork", "forkserver", "spawn"])
def test_the_parent_reads_what_another_process_wrote(tmp_path: Path, method: str) -> None:
    """Also after that process is dead, which is when it matters."""
    context = multiprocessing.get_context(method)
    table = SlotTable(2)
    slot = SlotAllocator(table, tmp_path).allocate(0)
    assert slot
    process = context.Process(target=slot.enter_state, args=(State.LEAVING,))
    process.start()
    process.join(60)
    wait_until(lambda: table.read(slot.number).state == State.LEAVING)
    assert slot.is_leaving and table.read(1 - slot.number).state == State.STARTING


def test_the_scratch_of_a_dead_worker_is_removed(tmp_path: Path) -> None:
    """At once, since a run may take days; that of the others stays."""
    allocator = SlotAllocator(SlotTable(1), tmp_path / "slots", scratch=tmp_path)
    slot = allocator.allocate(0)
    assert slot
    for pid in ("12-1", "13-1"):
        (tmp_path / pid / "folder").mkdir(parents=True)
    allocator.release(slot, 12)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["13-1", "slots"]
