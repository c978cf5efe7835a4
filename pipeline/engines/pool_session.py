"""One Pool with its workers, from opening to closing; the engine opens another when one is broken."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing import TimeoutError as NothingYet
from multiprocessing.connection import wait
from multiprocessing.pool import TERMINATE, Pool
from typing import Any

from pipeline.engines import worker_loop
from pipeline.engines.context import pool_context
from pipeline.engines.os_process import describe_wait, kill_group
from pipeline.engines.queues import BatchQueue
from pipeline.engines.slots import Slot, SlotAllocator, State
from pipeline.engines.worker_process import WorkerProcess, start_lock
from pipeline.errors import WorkersFailed
from pipeline.files.process_limits import describe_refusal, is_start_refused, start_thread
from pipeline.messages import FailureKind
from pipeline.records import dataclass

# A worker that SIGKILL has not ended after this long is stuck in the kernel, for instance on a dead network disk.
STUCK_S = 10.0
# How long idle workers may take to leave by themselves, so that what their stages registered with atexit runs.
LEAVE_S = 5.0
# How often a worker is killed again that is still there.
KILL_AGAIN_S = 0.01
# When one of several workers has ended, others are waited for so long before they are looked at.
GATHER_ENDS_S = 0.001
# How long Pool's threads may take to end once all workers are dead; they are daemons, so they delay nothing.
TERMINATE_S = 5.0
# How often a process that waits for a free slot checks whether it is still wanted.
SLOT_POLL_S = 0.05


@dataclass(frozen=True)
class KillReason:
    """The reason for killing a worker, and the job that it was running."""

    kind: FailureKind
    text: str
    remark: str
    batch: int = -1
    place: int = -1
    stage_since_ns: int | None = None
    """The start of the stage's call, if the limit of that call is the reason; else None."""


@dataclass
class Worker:
    """The parent's record of a worker."""

    process: WorkerProcess
    slot: Slot
    held_bytes: int = 0
    """The resident memory of the worker when last read."""
    reason: KillReason | None = None
    condemned_at: float = 0.0
    is_dumping: bool = False
    """True if the worker has begun to write its stacks since it was condemned."""
    printed_bytes: int = 0
    """The size of the worker's capture file when last read since the worker was condemned."""
    killed_at: float | None = None
    was_abandoned: bool = False
    """True if the worker was killed because its forkserver died, which is no fault of its job."""
    has_ended: bool = False
    """True once `still_alive` has found the worker dead."""

    def kill(self) -> None:
        self.killed_at = self.killed_at or time.monotonic()
        self.process.kill()

    @property
    def is_stuck(self) -> bool:
        return self.killed_at is not None and time.monotonic() - self.killed_at > STUCK_S

    def give_up(self) -> str:
        """Stop waiting for the worker; return a sentence about the process and what it waits for."""
        self.process.is_given_up = True
        pid = self.process.pid or 0
        return f"worker {pid} has survived SIGKILL for {STUCK_S:g} s: {describe_wait(pid)}"


def still_alive(workers: list[Worker], timeout_s: float) -> list[Worker]:
    """Wait until a worker has ended, and maybe others with it, or for so long; return those that have not."""
    sentinels = {worker.process.sentinel: worker for worker in workers if not worker.has_ended}
    # A system call for each of many workers, whenever one ends, would take longer than to end them all.
    if timeout_s and wait(sentinels, timeout_s) and len(sentinels) > 1:
        time.sleep(GATHER_ENDS_S)
    hung_up = [sentinels[each] for each in wait(sentinels, 0)] if sentinels else []  # type: ignore[index]
    for worker in hung_up:
        worker.has_ended = worker.process.is_dead
    if timeout_s and not all(worker.has_ended for worker in hung_up):  # its forkserver was killed, and it is alive
        time.sleep(GATHER_ENDS_S)
    return [worker for worker in sentinels.values() if not worker.has_ended]


class _Placeholder:
    """Stands in Pool's list for workers that are not started yet, as one that has ended."""

    exitcode = 0

    def join(self, timeout: float | None = None) -> None:
        """Return at once."""


class _Crew(Pool):
    """A Pool whose first workers are started by the thread that replaces dead ones, so that nobody waits for them.

    The first of many are at work while the others start. Forked ones are started at once all the same, since they are
    copies of whatever this process is doing.
    """

    _pool: list[Any]
    _worker_handler: Any
    _change_notifier: Any
    _inqueue: BatchQueue
    _outqueue: BatchQueue

    def __init__(self, session: PoolSession, method: str, *settings: Any) -> None:
        self._session, self._method = session, method
        super().__init__(*settings)

    def _repopulate_pool(self) -> None:
        """Start the workers, or have them started; Pool calls this once, before it starts its threads."""
        self._session.take_queues(self._inqueue, self._outqueue)
        if self._method == "fork":
            super()._repopulate_pool()  # type: ignore[misc]
        else:
            self._pool.append(_Placeholder())

    def stop_replacing(self) -> None:
        """End the thread that replaces workers, which would look at each of them whenever one ends.

        It waits for `_change_notifier` and ends by its own `_state`, as in Pool's `_handle_workers`. At its end it
        tells the sending thread to end, which then sends each worker the word to leave.
        """
        self._worker_handler._state = TERMINATE
        self._change_notifier.put(None)


class PoolSession:
    """A Pool that receives numbered batches, and its workers; the `ProcessOwner` of their processes."""

    def __init__(
        self,
        method: str,
        processes: int,
        maxtasksperchild: int | None,
        initargs: tuple[bytes, bytes],
        allocator: SlotAllocator,
        fail: Callable[[Exception], None],
    ) -> None:
        self.workers: list[Worker] = []
        self.is_closing = False
        self._allocator = allocator
        self._fail = fail
        self._queues: tuple[BatchQueue, ...] = ()
        self._batches: queue.SimpleQueue[tuple[int, bytes, int | None] | None] = queue.SimpleQueue()
        context = pool_context(method, self)
        before = set(threading.enumerate())
        try:
            self._pool = _Crew(self, method, processes, worker_loop.start, initargs, maxtasksperchild, context)
        except (OSError, RuntimeError):  # or there was no room for one of its threads
            self.kill()
            raise
        self._threads = [thread for thread in set(threading.enumerate()) - before if "(_handle_" in thread.name]
        self._replies = self._pool.imap_unordered(worker_loop.run_batch, iter(self._batches.get, None))

    def take_queues(self, batches: BatchQueue, replies: BatchQueue) -> None:
        """Take the queues that Pool has made for its workers."""
        self._queues = batches, replies
        replies.silence_reader()

    @property
    def is_sound(self) -> bool:
        """Return whether Pool's own threads are running, without which nothing is sent, received or replaced."""
        return all(thread.is_alive() for thread in self._threads)

    def send(self, number: int, jobs: bytes, allowed_bytes: int | None) -> None:
        """Send a batch to the worker that is free first, with the memory that each of its jobs may take."""
        self._batches.put((number, jobs, allowed_bytes))

    def receive(self, timeout_s: float) -> worker_loop.Reply | None:
        """Return the next result of `worker_loop.run_batch`, or None when none arrives within `timeout_s`."""
        with suppress(NothingYet):
            return self._replies.next(max(0.0, timeout_s))
        return None

    def kill(self) -> list[str]:
        """Kill every worker and start no other; return a sentence for each that does not die."""
        workers = self._stop_starting()
        alive = still_alive(workers, 0)
        while alive:
            if any(worker.is_stuck for worker in alive):
                return [worker.give_up() for worker in alive]
            for worker in alive:
                worker.kill()
            alive = still_alive(alive, KILL_AGAIN_S)
        for worker in workers:
            kill_group(worker.process.pid)
        return []

    def let_idle_workers_leave(self) -> None:
        """Wait until idle workers have left by themselves, unless that takes too long or one died holding the lock."""
        workers = alive = self._stop_starting()
        self._pool.stop_replacing()
        for worker in workers:
            if self._allocator.table.read(worker.slot.number).state == State.STARTING:
                worker.kill()  # it may load for minutes, and has registered nothing with atexit yet
            self._queues[0].put(None)
        deadline = time.monotonic() + LEAVE_S
        while alive and (left_s := deadline - time.monotonic()) > 0:
            before, alive = alive, still_alive(alive, left_s)
            if any(each.has_ended and each.process.exitcode and not each.killed_at for each in before):
                break

    def close(self) -> list[str]:
        """Kill the remaining workers and end Pool's threads; return a sentence for each worker that does not die."""
        stuck = self.kill()
        if self._queues:
            self._queues[0].stop_reading()
            self._queues[1].stop_writing()
        self._batches.put(None)  # after which the thread that sent them may write to the queues that are cut now
        ending = threading.Thread(target=self._end_pool, daemon=True, name="pool-terminate")
        try:
            start_thread(ending)
            ending.join(TERMINATE_S)
        except WorkersFailed:  # Pool's threads are daemons, too; it must not write to its cut pipes when it is deleted
            self._pool._state = TERMINATE  # type: ignore[attr-defined]
        return stuck

    def _stop_starting(self) -> list[Worker]:
        """Stop starting workers, and return all that were started."""
        self.is_closing = True
        with start_lock:
            return list(self.workers)

    def _end_pool(self) -> None:
        self._pool.terminate()
        self._pool.join()

    # -- the methods of a ProcessOwner ---------------------------------------------------------------------------------

    def create(self, process_type: type[WorkerProcess], *args: Any, **kwargs: Any) -> WorkerProcess:
        """Create a process for Pool, after waiting for a free slot, which holds back a storm of replacements."""
        process = process_type(*args, **kwargs)
        process.owner = self
        while not self.is_closing:
            if slot := self._allocator.allocate(SLOT_POLL_S):
                process.slot = slot
                break
        return process

    def on_started(self, process: WorkerProcess) -> None:
        assert process.slot and process.pid
        self.workers.append(Worker(process, process.slot))
        self._allocator.table.admit(process.slot.number, process.pid)

    def on_start_failed(self, process: WorkerProcess, error: Exception | None) -> None:
        if process.slot:
            self._allocator.release(process.slot)
        if error:
            self.is_closing = True  # each of many workers would try for seconds, one after the other
            # A forkserver cannot say more than that it has closed the connection.
            is_refused = isinstance(error, (EOFError, ConnectionError)) or is_start_refused(error)
            self._fail(WorkersFailed(f"no worker can be started: {describe_refusal() if is_refused else error}"))


class Closer:
    """A thread that waits to close a pool, since no exception of a signal's handler can cut its work short.

    Python raises such an exception in the main thread only, where the pool would stay closed by half. The thread is
    started beforehand: starting one, or `join`, is not safe from signals either.
    """

    def __init__(self, close: Callable[[], None]) -> None:
        self._close = close
        self._wishes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._endings: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._has_ended = False
        self._raised: list[BaseException] = []
        start_thread(threading.Thread(target=self._run, daemon=True, name="pool-close"))

    def close(self) -> None:
        """Close the pool; an exception that a signal's handler raises meanwhile is raised afterwards."""
        while not self._has_ended:
            try:
                self._wishes.put(None)
                self._endings.get()
            except BaseException as error:
                self._raised.append(error)
        raised, self._raised = self._raised, []
        if raised:
            raise raised[0]

    def _run(self) -> None:
        self._wishes.get()
        try:
            self._close()
        except BaseException as error:
            self._raised.append(error)
        self._has_ended = True
        self._endings.put(None)
