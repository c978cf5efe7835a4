"""The engine that runs jobs in a supervised `multiprocessing.Pool`: it never hangs, and it names the guilty file.

    parent                                                              each worker
    ------                                                              -----------
    submit -> Backlog -> batch --- PoolSession, imap_unordered -------> worker_loop.run_batch: job after job
                 ^         |                                              |        |           |
       run alone |     in flight, by number                               |    its slot    its capture file
       or later  |         |                                              |   (slots.py)  (output_capture.py)
    poll <-- Attempt <- add_outcome <---- answers (wire_format.py) <------+        |           |
                 ^                                                                 v           v
                 +---- add_failure <----- WorkerDeath <----- Supervisor, a thread: limits, deaths, kills

Three things may happen to a worker, and its slot says which (slots.py). It dies while it works: its batch comes back,
and the job that it was running is blamed. It dies in the pool's own code: the session (a Pool and its workers) is
replaced by another, and every batch in flight comes back; the jobs that it had run and not answered are run alone, and
blamed if that happens again. It dies while it leaves or starts: nothing is lost. And where every worker idles while
batches are in flight, whatever the reason, the session is replaced as well.
"""

from __future__ import annotations

import atexit
import errno
import itertools
import pickle
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.engines import Peaks, wire_format
from pipeline.engines.admission import Admission, Capacity
from pipeline.engines.attempts import Attempt, NextStep, WorkerFailure
from pipeline.engines.batching import Backlog, BatchSizer
from pipeline.engines.context import prepare_start_method
from pipeline.engines.grants import Grants
from pipeline.engines.made_jobs import MadeJobs
from pipeline.engines.measuring import measures_of
from pipeline.engines.os_process import memory_bytes
from pipeline.engines.pool_session import Closer, PoolSession
from pipeline.engines.slots import SlotAllocator, SlotTable, State
from pipeline.engines.supervisor import TICK_S, Limits, Supervisor, WorkerDeath
from pipeline.engines.worker_loop import Work
from pipeline.errors import EnvironmentFailure, WorkersFailed
from pipeline.files.process_limits import describe_refusal, is_start_refused
from pipeline.messages import AnyJob, InHand, Measures, Outcome, StageInfo
from pipeline.records import dataclass
from pipeline.worker.call_times import CallTable, merge

# Jobs in memory: room for all batches in flight and for a backlog that shows when the end is near.
WINDOW_PER_WORKER = 2048
MAX_WINDOW = 16384
# Replies are gathered for so long where workers have enough to go on with: to take each by itself, a thousand times a
# second, costs the parent more than the rest of its work.
GATHER_S = 0.003
# When every worker has been idle for this long although batches are in flight, these were lost in the pool's pipes.
STALL_S = 10.0
# After so many sessions in a row that broke without a reply or a job to blame, the engine fails, and opens no other.
MAX_REBUILDS_IN_A_ROW = 10


@dataclass(frozen=True)
class PoolSettings:
    """The settings under `pool:`, `timeout:` and `retry:` in pipeline.yaml."""

    processes: int
    maxtasksperchild: int | None = None
    """The number of files after which a worker is replaced; None for no limit."""
    context: str = "forkserver"
    timeout_s: float | None = None
    """Seconds that a whole job may take; None for no limit."""
    max_memory_bytes: int | None = None
    """The memory above which a worker is replaced, and killed above 1.5 times as much; None for no limit."""
    memory_alone_bytes: int | None = None
    """The memory that a job may have which was killed for it, and runs again while no other does.

    None for the same limit as before.
    """
    is_memory_shared: bool = False
    """True if a job that is known to need more than `max_memory_bytes` may have that beside fewer other jobs."""
    start_timeout_s: float = 600.0
    retries: int = 0
    """The number of times that a job is tried again after an exception."""
    backoff_s: float = 1.0
    """Seconds before the first retry; doubled for each further one."""
    preload: tuple[str, ...] = ()
    """Modules that the forkserver imports once for all its workers."""
    first_seat: int = 0
    """The number of slots of the pools before this one."""


def count_slots(processes: int) -> int:
    """Return the number of slots: twice as many as workers, since a new one may start before another is reaped."""
    return 2 * processes + 2


@dataclass(frozen=True)
class PoolSpec:
    """The `Spec` of a PoolEngine; `start` and `work` cross to other processes by their dotted names."""

    settings: PoolSettings
    stages: tuple[StageInfo, ...]
    start: Callable[[bytes], None]
    """The function that each worker calls once, with `blueprint`."""
    blueprint: bytes
    work: Work
    """The function that a worker calls for each job."""
    scratch: Path | None = None
    """The folder in which each worker has its scratch, in a folder that is named by its process id."""
    set_aside: Path = Path()
    """The folder for what a dead worker has made of a source that is gone."""

    def __post_init__(self) -> None:
        if "__main__" in (self.start.__module__, self.work.__module__):
            raise ValueError("start and work must be importable by name: workers never import __main__")

    def open(self, folder: Path, close_fds: Sequence[int] = (), peaks: Peaks | None = None) -> PoolEngine:
        """Open the engine; its workers start with the first job, or at `warm_up`."""
        return PoolEngine(self, folder, tuple(close_fds), peaks)


class PoolEngine:
    """An `Engine` over the processes of a Pool."""

    def __init__(
        self, spec: PoolSpec, folder: Path, close_fds: tuple[int, ...] = (), peaks: Peaks | None = None
    ) -> None:
        self._settings = settings = spec.settings
        self._stages = spec.stages
        self._initargs = pickle.dumps((spec.start, spec.work)), spec.blueprint
        self._folder, self._scratch, self._set_aside = folder, spec.scratch, spec.set_aside
        self._close_fds = close_fds
        try:
            prepare_start_method(settings.context, [spec.start.__module__, *settings.preload])
        except OSError as error:
            raise WorkersFailed(_refusal(error)) from error
        self._session: PoolSession | None = None
        self._supervisor: Supervisor | None = None
        self._closer: Closer | None = None
        self._failure: Exception | None = None
        self._rebuilds = 0
        self._stalled_since: float | None = None

        self._window = min(WINDOW_PER_WORKER * settings.processes, MAX_WINDOW)
        self._unfinished = 0
        self._sizer = BatchSizer(settings.processes, settings.maxtasksperchild)
        self._backlog = Backlog(self._sizer)
        self._grants = Grants()
        limits = settings.max_memory_bytes, settings.memory_alone_bytes
        capacity = Capacity(settings.processes, *limits, settings.is_memory_shared)
        self._admission = Admission(self._backlog, capacity, self._grants, peaks, self._ready_bytes, self._held_bytes)
        self._in_flight: dict[int, list[Attempt]] = {}
        self._numbers = itertools.count()
        self._outcomes: list[Outcome] = []
        self._made: list[MadeJobs] = []
        self._is_draining = False
        self._calls: CallTable = {}
        self._restarts: Counter[int] = Counter()

    @property
    def has_room(self) -> bool:
        return self._unfinished < self._window and not self._is_draining

    @property
    def busy(self) -> bool:
        return bool(self._unfinished or self._has_outcomes)

    def warm_up(self) -> None:
        with suppress(WorkersFailed):
            self._open_session()

    def submit(self, job: AnyJob) -> None:
        self._unfinished += 1
        self._backlog.add(Attempt(job, self._settings.retries))

    def poll(self, timeout_s: float) -> Sequence[Outcome]:
        """Return the outcomes that have arrived, waiting at most `timeout_s` for the first.

        Raises:
            WorkersFailed: no worker can be started.
            EnvironmentFailure: a worker cannot be killed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._handle_events()
            self._send_batches()
            self._receive(0 if self._has_outcomes else min(TICK_S, deadline - time.monotonic()))
            if self._has_outcomes and timeout_s and self._sizer.spare_s(len(self._in_flight)) > 4 * GATHER_S:
                time.sleep(GATHER_S)
                self._receive(0)
            if self._session and self._is_stalled(self._session):
                self._rebuild([])
            if self._has_outcomes or not self._unfinished or time.monotonic() >= deadline:
                break
        self._send_batches()
        return self._take_outcomes()

    @property
    def _has_outcomes(self) -> bool:
        return bool(self._outcomes or self._made)

    def _take_outcomes(self) -> Sequence[Outcome]:
        outcomes, self._outcomes = self._outcomes, []
        made, self._made = self._made, []
        if outcomes or not made:
            return [*itertools.chain.from_iterable(made), *outcomes]
        return MadeJobs(batch for each in made for batch in each.batches)

    def in_hand(self) -> list[InHand]:
        session, now, found = self._session, time.monotonic_ns(), []
        for worker in list(session.workers) if session else ():
            last = self._allocator.table.read(worker.slot.number)
            batch = self._in_flight.get(last.batch, [])
            if last.state == State.WORKING and last.place < len(batch):
                stage = self._stages[last.stage].name if 0 <= last.stage < len(self._stages) else ""
                seconds, pid = (now - last.since_ns) / 1e9, worker.process.pid or 0
                found.append(InHand(batch[last.place].remaining, stage, max(0.0, seconds), pid))
        return found

    def measures(self) -> Measures:
        return measures_of(self._stages, self._calls, self._restarts)

    def drain(self) -> None:
        self._is_draining = True
        if self._supervisor:
            self._allocator.table.drain()
        self._drop(self._admission.clear())

    def close(self) -> None:
        """End every worker, killing at once those that are running a job; idle ones leave by themselves.

        A signal that arrives meanwhile is raised once all have ended: a pool that is closed by half would never end.
        """
        if self._closer:
            self._closer.close()

    def _close(self) -> None:
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._supervisor, None
        atexit.unregister(self.close)
        supervisor.unwatch()
        if self._session:
            if not self._in_flight and not self._failure and supervisor.events.empty():
                self._session.let_idle_workers_leave()
            self._session.close()
            self._session = None
        supervisor.stop()
        self._grants.close()
        self._allocator.remove_captures()

    # -- jobs to the workers -------------------------------------------------------------------------------------------

    def _send_batches(self) -> None:
        """Send batches until enough are in flight, or no more jobs may run now."""
        if self._is_draining or self._failure:
            return
        most = self._sizer.max_in_flight
        while batch := self._admission.next_batch(number := next(self._numbers), self._in_flight, most):
            self._in_flight[number] = batch
            jobs = wire_format.pack_jobs([attempt.remaining for attempt in batch])
            self._open_session().send(number, jobs, self._admission.allowed_bytes(number))

    def _ready_bytes(self) -> int:
        """Return the memory that a worker holds before its first job; 0 before any is ready."""
        return self._allocator.table.ready_bytes() if self._session else 0

    def _held_bytes(self) -> int:
        """Return the memory that all workers hold at this moment."""
        return sum(memory_bytes(worker.process.pid) for worker in list(self._session.workers)) if self._session else 0

    # -- answers from the workers --------------------------------------------------------------------------------------

    def _receive(self, timeout_s: float) -> None:
        """Take every reply that has arrived, waiting at most `timeout_s` for the first."""
        if self._session is None:
            time.sleep(max(0.0, timeout_s) if self._unfinished else 0.0)
            return
        reply = self._session.receive(timeout_s)
        while reply:
            self._on_reply(*reply)
            reply = self._session.receive(0)

    def _on_reply(self, number: int, packed: bytes, seconds: float, calls: CallTable) -> None:
        merge(self._calls, calls)
        self._rebuilds = 0
        self._stalled_since = None
        batch = self._in_flight.pop(number, None)
        if batch is None:
            return  # its session was thought lost, and the batch has been sent again
        answers = wire_format.unpack_answers([attempt.remaining for attempt in batch], packed)
        if answers:
            self._sizer.add_timing(len(answers), seconds)
        if isinstance(answers, MadeJobs) and not any(attempt.tries for attempt in batch):
            self._made.append(answers)
            self._unfinished -= len(answers)
        else:
            self._settle(batch, answers)
        self._put_back(batch[len(answers) :])

    def _settle(self, batch: list[Attempt], answers: Sequence[wire_format.Answer]) -> None:
        settled = []
        for attempt, answer in zip(batch, answers, strict=False):
            if not isinstance(answer, WorkerFailure) and attempt.is_settled_by(answer):
                settled.append(answer)
            else:
                self._on_answer(attempt, answer)
        self._outcomes += settled
        self._unfinished -= len(settled)

    def _on_answer(self, attempt: Attempt, answer: wire_format.Answer) -> None:
        if isinstance(answer, WorkerFailure):
            self._advance(attempt, attempt.add_failure(answer, self._stages))
        else:
            self._advance(attempt, attempt.add_outcome(answer))

    def _advance(self, attempt: Attempt, step: NextStep) -> None:
        if step is NextStep.DELIVER:
            self._deliver(attempt)
        elif self._is_draining:
            self._drop([attempt])
        elif step is NextStep.RUN_ALONE:
            self._backlog.add_alone(attempt)
        elif step is NextStep.RUN_LARGE:
            self._admission.add_large(attempt)
        elif step is NextStep.RUN_LAST:
            self._admission.add_alone(attempt)
        else:
            self._backlog.add_delayed(attempt, self._settings.backoff_s * 2 ** (attempt.retries_taken - 1))

    def _put_back(self, attempts: list[Attempt]) -> None:
        """Queue jobs that were sent and not run before all others; while draining, drop them."""
        if not attempts:
            return
        if self._is_draining:
            self._drop(attempts)
            return
        self._backlog.put_back([attempt for attempt in attempts if not attempt.has_failed_once])
        for attempt in attempts:
            if attempt.has_failed_once:  # its next death would else be blamed on others in its batch, or theirs on it
                self._advance(attempt, attempt.next_try)

    def _put_back_interrupted(self, attempts: list[Attempt]) -> None:
        """Queue jobs again that a dead worker may have run."""
        for attempt in attempts:
            attempt.mark_again()
        self._put_back(attempts)

    def _drop(self, attempts: Iterable[Attempt]) -> None:
        """Forget jobs, also those that were to be tried again: none has failed for good, and the next run has them."""
        self._unfinished -= sum(1 for _ in attempts)

    def _deliver(self, attempt: Attempt) -> None:
        self._unfinished -= 1
        self._outcomes.append(attempt.outcome())

    # -- deaths of workers ---------------------------------------------------------------------------------------------

    def _handle_events(self) -> None:
        """Handle what the supervisor reports; a worker that died in the pool's own code costs the session."""
        if self._failure:
            raise self._failure
        if self._supervisor and (deaths := self._handle_deaths()):
            self._rebuild(deaths)
        elif self._session and not self._session.is_sound:
            self._rebuild([])

    def _is_stalled(self, session: PoolSession) -> bool:
        """Return whether all workers have been idle for STALL_S, and nothing came of the batches in flight.

        Asked once all that has arrived is taken: who polls may have had other things to do for longer than that.
        """
        table, workers = self._allocator.table, list(session.workers)
        are_idle = all(table.read(worker.slot.number).state == State.IDLE for worker in workers)
        if not (self._in_flight and workers and are_idle):
            self._stalled_since = None
        elif self._stalled_since is None:
            self._stalled_since = time.monotonic()
        return self._stalled_since is not None and time.monotonic() - self._stalled_since > STALL_S

    def _handle_deaths(self) -> list[WorkerDeath]:
        """Blame the jobs of workers that died while working; return the deaths that may have broken the pool itself."""
        others: list[WorkerDeath] = []
        while self._supervisor and not self._supervisor.events.empty():
            event = self._supervisor.events.get()
            if isinstance(event, Exception):
                self._failure = event
                raise event
            is_at_work = event.last.state in (State.WORKING, State.SPOILT)
            if is_at_work:
                self._blame(event)
            # The forkserver of one is that of all: no other of this session is to be given a job, and die with it.
            if not is_at_work or event.failure.is_shared:
                others.append(event)
        return others

    def _blame(self, death: WorkerDeath) -> None:
        batch = self._in_flight.pop(death.last.batch, [])
        if batch:
            guilty = batch.pop(death.last.place)
            if death.failure.kind == "memory":
                self._admission.on_killed(guilty, death.last.batch, death.held_bytes)
            self._advance(guilty, guilty.add_failure(death.failure, self._stages))
            self._put_back_interrupted(batch)

    def _suspect(self, death: WorkerDeath) -> None:
        """Run the jobs alone that a worker had run, and not answered, when it died in the pool's own code."""
        batch = self._in_flight.pop(death.last.batch, [])
        run = batch[: death.last.place + 1]
        for attempt in run:
            self._rebuilds = 0  # it ends, since no job is suspected without end
            self._advance(attempt, attempt.add_failure(death.failure, self._stages))
        self._put_back_interrupted(batch[len(run) :])

    def _rebuild(self, deaths: list[WorkerDeath]) -> None:
        """Replace a session whose queues may be locked or half written; every batch in flight comes back."""
        assert self._session and self._supervisor
        self._rebuilds += 1
        self._stalled_since = None
        self._supervisor.unwatch()
        self._fail_if_stuck(self._session.kill())
        self._receive(0.02)
        for death in (*deaths, *self._handle_deaths()):
            self._suspect(death)
        for number in sorted(self._in_flight, reverse=True):
            self._put_back_interrupted(self._in_flight.pop(number))
        for worker in self._session.workers:
            self._restarts[worker.slot.seat] += 1
        self._close_session()
        if self._rebuilds >= MAX_REBUILDS_IN_A_ROW:
            self._failure = EnvironmentFailure(
                f"the pool broke down {self._rebuilds} times in a row, and no file was done in between"
            )
            raise self._failure

    # -- sessions ------------------------------------------------------------------------------------------------------

    def _open_session(self) -> PoolSession:
        """Return the session, opening it if there is none; the first opens the supervisor too."""
        if self._supervisor is None:
            with self._keeping_failure():
                self._closer = self._closer or Closer(self._close)
                self._supervisor = self._open_supervisor()
            atexit.register(self.close)  # before Pool's own, which would wait for workers that never end
        if self._session is None:
            with self._keeping_failure():
                self._session = PoolSession(
                    self._settings.context,
                    self._settings.processes,
                    self._settings.maxtasksperchild,
                    self._initargs,
                    self._allocator,
                    self._supervisor.fail,
                )
            self._supervisor.watch(self._session)
        return self._session

    @contextmanager
    def _keeping_failure(self) -> Iterator[None]:
        """Raise WorkersFailed where the machine refuses what the pool needs, now and at every later call."""
        try:
            yield
        except (OSError, RuntimeError, WorkersFailed) as error:
            if isinstance(error, RuntimeError) and not is_start_refused(error):
                raise
            self._failure = error if isinstance(error, WorkersFailed) else WorkersFailed(_refusal(error))
            raise self._failure from error

    def _open_supervisor(self) -> Supervisor:
        settings = self._settings
        table = SlotTable(count_slots(settings.processes), first_seat=settings.first_seat)
        limit = settings.max_memory_bytes
        self._allocator = SlotAllocator(
            table, self._folder, self._close_fds, settings.maxtasksperchild, limit, self._scratch, self._set_aside
        )
        stage_s = tuple(stage.timeout_s for stage in self._stages)
        limits = Limits(settings.timeout_s, stage_s, settings.start_timeout_s, limit)
        return Supervisor(self._allocator, limits, self._grants, self._restarts)

    def _close_session(self) -> None:
        assert self._session
        session, self._session = self._session, None
        stuck = session.close()
        for worker in session.workers:
            self._allocator.release(worker.slot, worker.process.pid)
        self._fail_if_stuck(stuck)

    def _fail_if_stuck(self, stuck: list[str]) -> None:
        if stuck:
            self._failure = EnvironmentFailure("; ".join(stuck))
            raise self._failure


def _refusal(error: OSError | RuntimeError) -> str:
    """Describe why the pool cannot be opened, and what to do."""
    text = f"the pool cannot be opened: {describe_refusal() if is_start_refused(error) else error}"
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        return f"{text}; its semaphores are files in /dev/shm, make room there"
    return text
