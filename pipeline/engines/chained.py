"""Several engines that act as one: each stage with a pool of its own has an engine; values pass through files.

    submit -> [shared] -- outcome, handed: a value in a file --> waiting -> [its own] -- outcome --> poll
                  ^                                                             |
                  +------------ waiting <-- handed, where stages below share ---+

The values in transit are bounded: a job that may leave one is only started while there is room for it.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from pipeline.engines import Engine, Peaks, Spec
from pipeline.engines.measuring import merged
from pipeline.messages import AnyJob, GroupJob, Handed, InHand, Job, Measures, Outcome, Source, StageInfo, Target
from pipeline.records import dataclass


@dataclass(frozen=True)
class ChainedSpec:
    """The `Spec` of a ChainedEngine."""

    specs: tuple[Spec, ...]
    """The spec of each engine; the first engine is shared by all stages without a pool of their own."""
    stages: tuple[StageInfo, ...]
    max_in_transit: int
    """The greatest number of jobs that pass between engines and are started but not finished."""

    def open(self, folder: Path, close_fds: Sequence[int] = (), peaks: Peaks | None = None) -> ChainedEngine:
        """Open all engines, each in a folder of its own below `folder`."""
        engines = [spec.open(folder / str(number), close_fds, peaks) for number, spec in enumerate(self.specs)]
        return ChainedEngine(engines, self.stages, self.max_in_transit)


class ChainedEngine:
    """An `Engine` over the engines of a pipeline, of which the first is the shared one.

    It gives an outcome for every engine that a job has passed through, the last of them without `goes_on`.
    """

    def __init__(self, engines: Sequence[Engine], stages: Sequence[StageInfo], max_in_transit: int) -> None:
        self._engines = engines
        self._stages = {stage.name: index for index, stage in enumerate(stages)}
        self._infos = stages
        self._max_in_transit = max_in_transit
        self._waiting: list[deque[AnyJob]] = [deque() for _ in engines]
        self._jobs: dict[bytes, _JobInTransit] = {}
        """The jobs that pass through several engines, by source."""
        self._is_draining = False
        self._crosses = {stage.name: self._crosses_engines(index) for index, stage in enumerate(stages)}

    @property
    def has_room(self) -> bool:
        return not self._is_draining and len(self._jobs) < self._max_in_transit and self._engines[0].has_room

    @property
    def busy(self) -> bool:
        return any(engine.busy for engine in self._engines) or any(self._waiting)

    def warm_up(self) -> None:
        # The others may have much to load, and nothing to run.
        self._engines[0].warm_up()

    def submit(self, job: AnyJob) -> None:
        if isinstance(job, GroupJob):  # its path is one stage
            self._waiting[self._first_engine(job.target.stage)].append(job)
        else:
            self._distribute(job)
        self._feed()

    def _distribute(self, job: Job) -> None:
        """Submit a job to each engine in which the path to one of its outputs begins."""
        by_engine: dict[int, list[Target]] = {}
        for target in job.targets:
            by_engine.setdefault(self._first_engine(target.stage), []).append(target)
        if len(by_engine) > 1 or any(self._crosses[target.stage] for target in job.targets):
            self._jobs[job.source.path] = _JobInTransit(job, len(by_engine))
        for number, targets in by_engine.items():
            self._waiting[number].append(job._replace(targets=tuple(targets)))

    def poll(self, timeout_s: float) -> list[Outcome]:
        self._feed()
        outcomes: list[Outcome] = []
        busy = [engine for engine in self._engines if engine.busy]
        for engine in busy:
            # Each is waited for in turn, for less time than it takes a worker to run out of batches.
            wait_s = 0.0 if outcomes else timeout_s / len(busy)
            outcomes += [self._take(outcome) for outcome in engine.poll(wait_s)]
        self._feed()
        return outcomes

    def in_hand(self) -> list[InHand]:
        return [each for engine in self._engines for each in engine.in_hand()]

    def measures(self) -> Measures:
        return merged(engine.measures() for engine in self._engines)

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
        """Return an outcome of one engine as an outcome of the chain, and queue its values for the other engines."""
        source = outcome.source
        known = self._jobs.get(source.path) if source else None
        if source is None or known is None:
            return outcome
        known.on_outcome(outcome)
        for handed in outcome.handed if not self._is_draining else ():
            self._waiting[handed.engine].append(known.follow(source, handed))
        if not known.engines_left:
            known.delete_files()
            del self._jobs[source.path]
        return outcome._replace(handed=(), goes_on=bool(known.engines_left), changed_code=known.changed_code)

    def _first_engine(self, stage: str) -> int:
        """Return the engine in which the path to an output begins."""
        return self._infos[self._path(self._stages[stage])[-1]].engine

    def _crosses_engines(self, index: int) -> bool:
        """Return whether the path from the source to a stage passes through several engines."""
        return len({self._infos[each].engine for each in self._path(index)}) > 1

    def _path(self, index: int | None) -> list[int]:
        """Return the indexes of a stage and all stages above it, up to the one that reads the source."""
        path: list[int] = []
        while index is not None:
            path.append(index)
            index = self._infos[index].parent
        return path


class _JobInTransit:
    """A job that passes through several engines."""

    def __init__(self, job: Job, engines: int) -> None:
        self._job = job
        self._files: list[bytes] = []
        self.engines_left = engines
        """The number of engines in which the job is running, or waiting to run."""
        self.changed_code = ""
        """The path of a changed file of code that a worker had loaded, so that nothing made of its values counts."""

    def follow(self, source: Source, handed: Handed) -> Job:
        """Return the job with which another engine continues."""
        if handed.begin.file:
            self._files.append(handed.begin.file)
        targets = tuple(target for target in self._job.targets if target.stage in handed.stages)
        return Job(source, targets, handed.begin, is_digested=self._job.is_digested)

    def on_outcome(self, outcome: Outcome) -> None:
        """Record that the job has ended in one engine, and begins in each engine to which it handed a value."""
        self.engines_left += len(outcome.handed) - 1
        self.changed_code = self.changed_code or outcome.changed_code

    def delete_files(self) -> None:
        """Delete the files in which the job's values were passed on."""
        for file in self._files:
            with suppress(OSError):
                os.unlink(file)
