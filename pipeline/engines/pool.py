"""The engine that runs jobs in a supervised `multiprocessing.Pool`: it never hangs, and it names the file.

    parent                                                           each worker
    ------                                                           -----------
    submit -> backlog -> batch --imap_unordered--> inqueue --------> inside.run_batch: job by job
       ^         |         |                                           |        |          |
    run.py    (alone,   in flight, by number                           |     its slot    its capture file
       |       later)      |                                           |    (slots.py)    (capture.py)
    poll <- outcomes <- Case.learn <-- replies, pickled <-- outqueue <-+        |          |
                           ^                                                    v          v
                        Case.fall <-------- Death <-------- Supervisor, a thread: limits, deaths, kills

Three things may happen to a worker, and its slot says which (slots.py): it dies at work, then its batch
comes back and the job in hand is blamed; it dies in the pool's own code, then the crew (a Pool and its
workers) is dismissed and another one opened, and all that is in flight comes back; it leaves or starts, then
nothing is lost.
"""

from __future__ import annotations

import atexit
import heapq
import itertools
import multiprocessing
import pickle
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.engines import wire_format
from pipeline.engines.attempts import Case, Fall, Next
from pipeline.engines.context import prepare_method
from pipeline.engines.pool_session import Crew
from pipeline.engines.slots import Seating, Slots, State
from pipeline.engines.supervisor import TICK_S, Death, Limits, Supervisor
from pipeline.engines.worker_loop import Work
from pipeline.errors import EnvironmentFailure, FilemillError, WorkersFailed
from pipeline.messages import AnyJob, Outcome, StageInfo

# A batch is to take so long: its handing over then costs next to nothing, and nobody waits for it.
BATCH_S = 0.02
# Past this size a larger batch saves nothing any more.
MOST_JOBS_IN_BATCH = 256
# Batches in flight: enough to keep a worker busy while the consumer writes to its ledger...
BATCHES_PER_WORKER = 3
# ...and of jobs so small that a full batch of them is over in less than BATCH_S.
SHORT_BATCHES_PER_WORKER = 12
# Jobs in memory: room for all batches in flight and for a backlog that shows when the end is near.
WINDOW_PER_WORKER = 2048
MOST_IN_WINDOW = 16384
# How much the latest batch counts in the running mean of a job's seconds.
LATEST_WEIGHT = 0.2
# Crews that break one after the other without a single reply until that is said instead of retried.
MOST_REBUILDS_IN_A_ROW = 10


@dataclass(frozen=True)
class PoolSettings:
    """What pipeline.yaml says under `pool:`, `timeout:` and `retry:`."""

    processes: int
    maxtasksperchild: int | None = None
    """Counted in files, whatever the batches' size."""
    context: str = "forkserver"
    timeout_s: float | None = None
    """The limit of a whole job."""
    max_memory_bytes: int | None = None
    """Per worker: replaced above it, killed above 1.5 times it."""
    start_timeout_s: float = 600.0
    retries: int = 0
    """How often what failed by an exception is tried again."""
    backoff_s: float = 1.0
    """The pause before the first retry; it doubles."""
    preload: tuple[str, ...] = ()
    """Modules that the forkserver imports once for all its workers."""


class PoolEngine:
    """An `Engine` over processes. A worker can import `start` and `work` by their names."""

    def __init__(
        self,
        settings: PoolSettings,
        stages: Sequence[StageInfo],
        start: Callable[[bytes], None],
        blueprint: bytes,
        work: Work,
        folder: Path,
        close_fds: Sequence[int] = (),
    ) -> None:
        self._settings = settings
        self._stages = tuple(stages)
        if "__main__" in (start.__module__, work.__module__):
            raise ValueError("start and work must be importable by name: workers never import __main__")
        self._initargs = pickle.dumps((start, work)), blueprint
        self._folder = folder
        self._close_fds = tuple(close_fds)
        prepare_method(settings.context, [start.__module__, *settings.preload])
        self._crew: Crew | None = None
        self._supervisor: Supervisor | None = None
        self._failure: FilemillError | None = None
        self._rebuilds = 0
        self._mean_s: float | None = None

        self._window = min(WINDOW_PER_WORKER * settings.processes, MOST_IN_WINDOW)
        self._unfinished = 0
        self._backlog: deque[Case] = deque()
        self._alone: deque[Case] = deque()
        self._later: list[tuple[float, int, Case]] = []
        self._in_flight: dict[int, list[Case]] = {}
        self._numbers = itertools.count()
        self._outcomes: list[Outcome] = []
        self._is_draining = False

    @property
    def has_room(self) -> bool:
        return self._unfinished < self._window and not self._is_draining

    @property
    def busy(self) -> bool:
        return bool(self._unfinished or self._outcomes)

    def warm_up(self) -> None:
        with suppress(WorkersFailed):
            self._open_crew()

    def submit(self, job: AnyJob) -> None:
        self._unfinished += 1
        self._backlog.append(Case(job, self._settings.retries))

    def poll(self, timeout_s: float) -> list[Outcome]:
        """Give the outcomes that have arrived, waiting at most `timeout_s` for the first.

        Raises `WorkersFailed` when no worker can be started, and `EnvironmentFailure` when one cannot be
        killed.
        """
        deadline = time.monotonic() + timeout_s
        while True:
            self._hear_news()
            self._feed()
            self._collect(0 if self._outcomes else min(TICK_S, deadline - time.monotonic()))
            if self._outcomes or not self._unfinished or time.monotonic() >= deadline:
                break
        self._feed()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def drain(self) -> None:
        """Start nothing more: jobs in a worker's hands end and are polled, the others come back no more."""
        self._is_draining = True
        if self._supervisor:
            self._seating.slots.drain()
        waiting = [*self._backlog, *self._alone, *(case for _, _, case in self._later)]
        self._backlog.clear()
        self._alone.clear()
        self._later.clear()
        for case in waiting:
            self._let_go(case)

    def close(self) -> None:
        """End every worker, killing at once those that are at work; idle ones leave by themselves."""
        if self._supervisor is None:
            return
        supervisor, self._supervisor = self._supervisor, None
        atexit.unregister(self.close)
        supervisor.look_away()
        if self._crew:
            if not self._in_flight and not self._failure and supervisor.news.empty():
                self._crew.say_goodbye()
            self._crew.dismiss()
            self._crew = None
        supervisor.stop()
        self._seating.clear_away()

    # Feeding

    def _feed(self) -> None:
        if self._is_draining or self._failure:
            return
        while self._later and self._later[0][0] <= time.monotonic():
            self._alone.append(heapq.heappop(self._later)[2])
        while len(self._in_flight) < self._most_in_flight():
            batch = self._cut_batch()
            if not batch:
                break
            number = next(self._numbers)
            self._in_flight[number] = batch
            self._open_crew().feed(number, wire_format.pack_jobs([case.rest for case in batch]))

    def _cut_batch(self) -> list[Case]:
        if self._alone:
            return [self._alone.popleft()]
        size = min(self._batch_size(), len(self._backlog))
        return [self._backlog.popleft() for _ in range(size)]

    def _most_in_flight(self) -> int:
        are_short = self._mean_s is not None and self._mean_s * MOST_JOBS_IN_BATCH < BATCH_S
        return (SHORT_BATCHES_PER_WORKER if are_short else BATCHES_PER_WORKER) * self._settings.processes

    def _batch_size(self) -> int:
        """As many jobs as take BATCH_S, but near the end few enough that every worker has something."""
        in_time = int(BATCH_S / self._mean_s) if self._mean_s else 1
        fair = len(self._backlog) // (2 * self._settings.processes)
        per_worker = self._settings.maxtasksperchild or MOST_JOBS_IN_BATCH
        return max(1, min(in_time, fair, per_worker, MOST_JOBS_IN_BATCH))

    # Replies

    def _collect(self, timeout_s: float) -> None:
        """Take every reply that is there, waiting for the first."""
        if self._crew is None:
            time.sleep(max(0.0, timeout_s) if self._unfinished else 0.0)
            return
        reply = self._crew.reply(timeout_s)
        while reply:
            self._take(*reply)
            reply = self._crew.reply(0)

    def _take(self, number: int, packed: bytes, seconds: float) -> None:
        self._rebuilds = 0
        batch = self._in_flight.pop(number, None)
        if batch is None:
            return  # the crew was thought lost, and the batch is on its way again
        answers = wire_format.unpack_answers([case.rest for case in batch], packed)
        if answers:
            mean_s = seconds / len(answers)
            self._mean_s = mean_s if self._mean_s is None else self._mean_s + LATEST_WEIGHT * (mean_s - self._mean_s)
        for case, answer in zip(batch, answers, strict=False):
            self._settle(case, answer)
        self._give_back(batch[len(answers) :])

    def _settle(self, case: Case, answer: wire_format.Answer) -> None:
        if isinstance(answer, Fall):
            self._send_on(case, case.fall(answer, self._stages))
        elif case.is_settled_by(answer):
            self._unfinished -= 1
            self._outcomes.append(answer)
        else:
            self._send_on(case, case.learn(answer))

    def _send_on(self, case: Case, step: Next) -> None:
        if step is Next.DELIVER:
            self._deliver(case)
        elif self._is_draining:
            self._let_go(case)
        elif step is Next.RUN_ALONE:
            self._alone.append(case)
        else:
            due = time.monotonic() + self._settings.backoff_s * 2 ** (case.retries_taken - 1)
            heapq.heappush(self._later, (due, next(self._numbers), case))

    def _give_back(self, cases: list[Case]) -> None:
        """Put jobs that were not done before all others; while draining, forget them."""
        if self._is_draining:
            for case in cases:
                self._let_go(case)
        else:
            self._backlog.extendleft(reversed(cases))

    def _let_go(self, case: Case) -> None:
        if case.is_answered:
            self._deliver(case)
        else:
            self._unfinished -= 1

    def _deliver(self, case: Case) -> None:
        self._unfinished -= 1
        self._outcomes.append(case.outcome())

    # Deaths

    def _hear_news(self) -> None:
        """Take in what the supervisor saw; a worker that died in the pool's own code costs the crew."""
        if self._failure:
            raise self._failure
        if self._supervisor and self._hear_deaths():
            self._rebuild()

    def _hear_deaths(self) -> bool:
        """Settle the cases of those that died at work; tells whether the pool itself may be broken."""
        is_broken = False
        while self._supervisor and not self._supervisor.news.empty():
            news = self._supervisor.news.get()
            if isinstance(news, FilemillError):
                self._failure = news
                raise news
            if news.last.state == State.AT_WORK:
                self._blame(news)
            else:
                is_broken = True
        return is_broken

    def _blame(self, death: Death) -> None:
        batch = self._in_flight.pop(death.last.batch, [])
        if batch:
            guilty = batch.pop(death.last.place)
            self._send_on(guilty, guilty.fall(death.fall, self._stages))
            self._give_back(batch)

    def _rebuild(self) -> None:
        """Replace a crew whose queues may be locked or half written; all that is in flight comes back."""
        assert self._crew and self._supervisor
        self._rebuilds += 1
        self._supervisor.look_away()
        self._end_if_stuck(self._crew.kill())
        self._collect(0.02)
        self._hear_deaths()
        for number in sorted(self._in_flight, reverse=True):
            batch = self._in_flight.pop(number)
            self._give_back(batch)
        self._dismiss()
        if self._rebuilds >= MOST_REBUILDS_IN_A_ROW:
            self._failure = EnvironmentFailure(
                f"idle workers were killed {self._rebuilds} times in a row, and no file was done in between"
            )
            raise self._failure

    # Workers

    def _open_crew(self) -> Crew:
        """Give the crew, with its workers on their way; the first comes with the supervisor."""
        if self._supervisor is None:
            self._supervisor = self._open_supervisor()
            atexit.register(self.close)  # before Pool's own, which would wait for workers that never end
        if self._crew is None:
            try:
                self._crew = Crew(
                    self._settings.context,
                    self._settings.processes,
                    self._settings.maxtasksperchild,
                    self._initargs,
                    self._seating,
                    self._supervisor.fail,
                )
            except OSError as error:
                self._failure = WorkersFailed(f"the pool cannot be opened: {error}")
                raise self._failure from error
            self._supervisor.watch(self._crew)
        return self._crew

    def _open_supervisor(self) -> Supervisor:
        settings = self._settings
        # Twice as many seats as workers: a replacement may start before its predecessor is buried.
        table = Slots(multiprocessing.get_context(settings.context), 2 * settings.processes + 2)
        limit = settings.max_memory_bytes
        self._seating = Seating(table, self._folder, self._close_fds, settings.maxtasksperchild, limit)
        stage_s = tuple(stage.timeout_s for stage in self._stages)
        return Supervisor(self._seating, Limits(settings.timeout_s, stage_s, settings.start_timeout_s, limit))

    def _dismiss(self) -> None:
        assert self._crew
        crew, self._crew = self._crew, None
        stuck = crew.dismiss()
        for member in crew.members:
            self._seating.take_back(member.seat)
        self._end_if_stuck(stuck)

    def _end_if_stuck(self, stuck: list[str]) -> None:
        if stuck:
            self._failure = EnvironmentFailure("; ".join(stuck))
            raise self._failure
