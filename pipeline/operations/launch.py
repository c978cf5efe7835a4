"""Builds an engine's Spec from a Config: the workers' blueprint, and the settings of each pool."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from pipeline.config.model import Config, Pool, StageConfig
from pipeline.config.routes import fan_out_above
from pipeline.config.threads import thread_limits
from pipeline.engines import Engine, Peaks, Spec
from pipeline.files.state_dir import State
from pipeline.messages import StageInfo
from pipeline.operations.early_start import preload_of
from pipeline.records import NamedTuple
from pipeline.stage.code import NO_STATE, CodeState
from pipeline.worker import main as worker
from pipeline.worker.tree import StageSetup, WorkerSetup

# Jobs that may be on their way through several pools: enough to keep all workers busy, and few enough that the values
# passed from one pool to the other take little room on the disk.
MAX_IN_TRANSIT_PER_WORKER = 8


class PoolOfRun(NamedTuple):
    """One of the pools of a run."""

    name: str
    """The name of the stage that has it; empty for the shared one."""
    processes: int
    seats: range
    """The numbers that its workers may have."""


def open_engine(
    config: Config,
    state: State,
    unclean_runs: list[str],
    *,
    code: CodeState,
    may_import_here: bool,
    peaks: Peaks | None = None,
) -> Engine:
    """Open the engine that the pipeline asks for. Raises `WorkersFailed`, or has the first `poll` raise it."""
    # A forked worker that kept the lock's descriptor would hold the lock after the parent's death.
    spec = engine_spec(config, state, unclean_runs, code=code, may_import_here=may_import_here)
    return spec.open(state.slots, (state.lock_fd,), peaks)


def engine_spec(
    config: Config,
    state: State,
    unclean_runs: list[str],
    *,
    code: CodeState = NO_STATE,
    may_import_here: bool = True,
) -> Spec:
    """Describe the engine that the pipeline asks for.

    Where the stages may not be imported into this process, such as a user's notebook, `serial` is one worker.
    """
    blueprint = replace(worker_setup_of(config, state, unclean_runs), code=code)
    if config.engine == "serial" and not may_import_here:
        return _pool_spec(config, blueprint, replace(config.pool, context="spawn"), {0: 1})
    if config.engine == "serial":
        from pipeline.engines.serial import SerialSpec

        return SerialSpec(blueprint.pack(), config.retry.max, config.retry.backoff_s, _infos(config))
    pools, processes = _pools(config), _processes(config)
    if len(pools) == 1:
        return _pool_spec(config, replace(blueprint, initializers=_initializers(config.pool)), config.pool, processes)
    from pipeline.engines.chained import ChainedSpec

    specs = [
        _pool_spec(config, replace(blueprint, engine=number, initializers=_initializers(pool)), pool, processes)
        for number, pool in sorted(pools.items())
    ]
    return ChainedSpec(tuple(specs), _infos(config), MAX_IN_TRANSIT_PER_WORKER * sum(processes.values()))


def _pools(config: Config) -> dict[int, Pool]:
    return {0: config.pool} | {number: stage.pool for number, stage in own_pools(config.stages).items() if stage.pool}


def _processes(config: Config) -> dict[int, int]:
    from pipeline.engines.host import available_processes

    return {number: pool.processes or available_processes() for number, pool in _pools(config).items()}


def count_workers(config: Config) -> int:
    """Return the number of jobs that run at a time."""
    return 1 if config.engine == "serial" else sum(_processes(config).values())


def pools_of(config: Config) -> list[PoolOfRun]:
    """Return the pools of a run, the shared one first, which has the name of no stage; none where there are no workers.

    The numbers of their workers are those of `PoolSettings.first_seat` on.
    """
    if config.engine == "serial":
        return []
    from pipeline.engines.pool import count_slots

    own, processes, seats = own_pools(config.stages), _processes(config), 0
    found = []
    for number, workers in sorted(processes.items()):
        name = own[number].name if number in own else ""
        found.append(PoolOfRun(name, workers, range(seats, seats := seats + count_slots(workers))))
    return found


def _pool_spec(config: Config, blueprint: WorkerSetup, pool: Pool, processes: Mapping[int, int]) -> Spec:
    """Describe the engine of one pool; `processes` has the number of workers of every engine."""
    from pipeline.engines.host import available_processes, memory_share_bytes
    from pipeline.engines.pool import PoolSettings, PoolSpec, count_slots

    own, total = processes[blueprint.engine or 0], sum(processes.values())
    threads = thread_limits(available_processes(), total, os.environ)
    blueprint = replace(blueprint, environment=threads | pool.environment)
    settings = PoolSettings(
        processes=own,
        maxtasksperchild=pool.maxtasksperchild,
        context=pool.context,
        timeout_s=config.timeout_s,
        max_memory_bytes=pool.max_memory_bytes or memory_share_bytes(total),
        memory_alone_bytes=max(own * memory_share_bytes(total), pool.max_memory_bytes or 0),
        is_memory_shared=pool.max_memory_bytes is None,
        start_timeout_s=pool.start_timeout_s,
        retries=config.retry.max,
        backoff_s=config.retry.backoff_s,
        preload=preload_of(config),
        first_seat=sum(count_slots(processes[number]) for number in processes if number < (blueprint.engine or 0)),
    )
    scratch, set_aside = blueprint.scratch, blueprint.set_aside
    return PoolSpec(settings, _infos(config), worker.start, blueprint.pack(), worker.work, scratch, set_aside)


def _initializers(*pools: Pool | None) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return tuple((pool.initializer, pool.initargs) for pool in pools if pool and pool.initializer)


def _infos(config: Config) -> tuple[StageInfo, ...]:
    """Return the descriptions of the stages that an engine needs."""
    return tuple(
        # A job of groups begins with the stage that gathers them.
        StageInfo(stage.name, None if stage.stage.gathers else stage.parent, stage.timeout_s, engine)
        for stage, engine in zip(config.stages, engines_of(config.stages), strict=True)
    )


def own_pools(stages: Sequence[StageConfig]) -> dict[int, StageConfig]:
    """Return the stages with a pool of their own, by the number of its engine."""
    return dict(enumerate((stage for stage in stages if stage.pool), start=1))


def engines_of(stages: Sequence[StageConfig]) -> list[int]:
    """Return for each stage the number of its engine: its own, that of the fan-out above it, or 0, the shared one."""
    own = {stage.name: number for number, stage in own_pools(stages).items()}
    found: list[int] = []
    for stage in stages:
        fan_out = None if stage.stage.gathers else fan_out_above(stages, stage.parent)
        found.append(own.get(stage.name, 0 if fan_out is None else found[fan_out]))
    return found


def worker_setup_of(config: Config, state: State, unclean_runs: list[str]) -> WorkerSetup:
    """Return the workers' settings, as plain data."""
    pools = (config.pool, *(stage.pool for stage in own_pools(config.stages).values() if stage.pool))
    stages = tuple(
        StageSetup(
            name=stage.name,
            uses=stage.stage.uses,
            options=stage.packed_options,
            parent=stage.parent,
            save=stage.output.save if stage.output else {},
            mode=stage.output.mode if stage.output else None,
            decode_box=stage.decode_box,
            own_colors=stage.own_colors,
            leaves_no_file=stage.leaves_no_file,
            engine=engine,
        )
        for stage, engine in zip(config.stages, engines_of(config.stages), strict=True)
    )
    return WorkerSetup(
        folder=config.folder,
        root=os.fsencode(config.inputs.root),
        scratch=state.scratch,
        run=state.run,
        unclean_runs=tuple(unclean_runs),
        stages=stages,
        environment={name: value for pool in pools for name, value in pool.environment.items()},
        initializers=_initializers(*pools),
        limits=config.inputs.limits,
        hashes_sources=config.changed_by == "hash",
        set_aside=state.set_aside,
        output_folders=tuple(config.output_folders),
        is_traced=config.trace is not None,
    )
