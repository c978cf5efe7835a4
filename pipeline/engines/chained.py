"""Several engines as one: a stage with a pool of its own has one of these, joined to the others by values in files.

    submit -> [shared] -- outcome, handed: a value in a file --> waiting -> [its own] -- outcome --> poll
                  ^                                                             |
                  +------------ waiting <-- handed, where stages below share ---+

What is on its way to another pool is bounded: jobs that may leave a value are only begun while there is room for it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress

from pipeline.engines import Engine
from pipeline.messages import AnyJob, GroupJob, Handed, Job, Outcome, Source, StageInfo, Target


class LinkedEngine:
    """An `Engine` over the engines of a pipeline; the first is the shared one. Gives an outcome for every engine that a
    job went through, the last of them without `goes_on`.
    """

    def __init__(self, engines: Sequence[Engine], stages: Sequence[StageInfo], most_on_their_way: int) -> None:
        self._engines = engines
        self._stages = {stage.name: index for index, stage in enumerate(stages)}
        self._infos = stages
        self._most = most_on_their_way
        self._waiting: list[deque[AnyJob]] = [deque() for _ in engines]
        self._jobs: dict[bytes, _OnItsWay] = {}
        """What is known of the jobs that go through several engines, by their source."""
        self._is_draining = False
        self._crosses = {stage.name: self._leads_across(index) for index, stage in enumerate(stages)}

    @property
    def has_room(self) -> bool:
        return not self._is_draining and len(self._jobs) < self._most and self._engines[0].has_room

    @property
    def busy(self) -> bool:
        return any(engine.busy for engine in self._engines) or any(self._waiting)

    def warm_up(self) -> None:
        # The others may have much to load, and perhaps no work.
        self._engines[0].warm_up()

    def submit(self, job: AnyJob) -> None:
        """Hand over a job, to each of the engines in which one of its ways begins."""
        if isinstance(job, GroupJob):  # a way of one stage
            self._waiting[self._first_engine(job.target.stage)].append(job)
        else:
            self._submit_to_each(job)
        self._feed()

    def _submit_to_each(self, job: Job) -> None:
        by_engine: dict[int, list[Target]] = {}
        for target in job.targets:
            by_engine.setdefault(self._first_engine(target.stage), []).append(target)
        if len(by_engine) > 1 or any(self._crosses[target.stage] for target in job.targets):
            self._jobs[job.source.path] = _OnItsWay(job, len(by_engine))
        for number, targets in by_engine.items():
            self._waiting[number].append(job._replace(targets=tuple(targets)))

    def poll(self, timeout_s: float) -> list[Outcome]:
        self._feed()
        outcomes: list[Outcome] = []
        busy = [engine for engine in self._engines if engine.busy]
        for engine in busy:
            # Each is waited for in turn, but for no longer than a worker has batches in hand.
            wait_s = 0.0 if outcomes else timeout_s / len(busy)
            outcomes += [self._take(outcome) for outcome in engine.poll(wait_s)]
        self._feed()
        return outcomes

    def drain(self) -> None:
        self._is_draining = True
        for waiting in self._waiting:
            waiting.clear()
        for engine in self._engines:
            engine.drain()

    def close(self) -> None:
        for engine in self._engines:
            engine.close()

    def _feed(self) -> None:
        for engine, waiting in zip(self._engines, self._waiting, strict=True):
            while waiting and engine.has_room:
                engine.submit(waiting.popleft())

    def _take(self, outcome: Outcome) -> Outcome:
        """What became of a job in one engine; what it has left goes on in another."""
        source = outcome.source
        known = self._jobs.get(source.path) if source else None
        if source is None or known is None:
            return outcome
        known.ended(outcome)
        for handed in outcome.handed if not self._is_draining else ():
            self._waiting[handed.engine].append(known.follow(source, handed))
        if not known.open:
            known.forget_files()
            del self._jobs[source.path]
        return outcome._replace(handed=(), goes_on=bool(known.open))

    def _first_engine(self, stage: str) -> int:
        """The engine in which the way to an output begins."""
        return self._infos[self._way(self._stages[stage])[-1]].engine

    def _leads_across(self, index: int) -> bool:
        return len({self._infos[each].engine for each in self._way(index)}) > 1

    def _way(self, index: int | None) -> list[int]:
        """A stage and all above it, up to the one that reads the source."""
        way: list[int] = []
        while index is not None:
            way.append(index)
            index = self._infos[index].parent
        return way


class _OnItsWay:
    """A job that goes through several engines."""

    def __init__(self, job: Job, engines: int) -> None:
        self._targets = job.targets
        self._files: list[bytes] = []
        self.open = engines
        """In how many engines it is, or is to be."""

    def follow(self, source: Source, handed: Handed) -> Job:
        """The job by which another engine goes on."""
        if handed.begin.file:
            self._files.append(handed.begin.file)
        targets = tuple(target for target in self._targets if target.stage in handed.stages)
        return Job(source, targets, handed.begin)

    def ended(self, outcome: Outcome) -> None:
        """Take note that it has come through one engine."""
        self.open += len(outcome.handed) - 1

    def forget_files(self) -> None:
        """Remove the values by which it was handed on."""
        for file in self._files:
            with suppress(OSError):
                os.unlink(file)
