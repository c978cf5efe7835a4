"""Config -> the engine that runs it: the workers' blueprint, and the pool's settings."""

from __future__ import annotations

import os

from pipeline import worker
from pipeline.config import Config
from pipeline.engines import Engine
from pipeline.messages import StageInfo
from pipeline.options import absolute
from pipeline.state import State
from pipeline.tree import Blueprint, Node
from pipeline.values import IMAGE, PICTURE


def open_engine(config: Config, state: State, unclean_runs: list[str]) -> Engine:
    """Give the engine that the pipeline asks for. Raises `WorkersFailed`, or its first `poll` does."""
    blueprint = _blueprint(config, state, unclean_runs).pack()
    if config.engine == "serial":
        from pipeline.engines.serial import SerialEngine

        return SerialEngine(blueprint, config.retries, config.backoff_s)
    from pipeline.engines.machine import available_processes, memory_share_bytes
    from pipeline.engines.pool import PoolEngine, PoolSettings

    pool = config.pool
    processes = pool.processes or available_processes()
    settings = PoolSettings(
        processes=processes,
        maxtasksperchild=pool.maxtasksperchild,
        context=pool.context,
        timeout_s=config.timeout_s,
        max_memory_bytes=pool.max_memory_bytes or memory_share_bytes(processes),
        start_timeout_s=pool.start_timeout_s,
        retries=config.retries,
        backoff_s=config.backoff_s,
        preload=_modules_for_pictures(config),
    )
    stages = [StageInfo(stage.name, stage.parent, stage.timeout_s) for stage in config.stages]
    # A forked worker that kept the lock's descriptor would hold the lock after the parent's death.
    close_fds = (state.lock_fd,)
    return PoolEngine(settings, stages, worker.start, blueprint, worker.work, state.slots, close_fds)


def _modules_for_pictures(config: Config) -> tuple[str, ...]:
    """What every worker of a pipeline over pictures would import by itself."""
    has_pictures = any({each.stage.takes, each.stage.makes} & {IMAGE, PICTURE} for each in config.stages)
    return ("pipeline.pictures", "pipeline.formats") if has_pictures else ()


def _blueprint(config: Config, state: State, unclean_runs: list[str]) -> Blueprint:
    """What the workers need to know of the pipeline, as plain data."""
    nodes = tuple(
        Node(
            name=stage.name,
            uses=stage.stage.uses,
            options=absolute(stage.options, config.folder),
            parent=stage.parent,
            save=stage.output.save if stage.output else {},
            least=stage.least,
            own_colours=stage.own_colours,
            leaves_no_file=stage.leaves_no_file,
        )
        for stage in config.stages
    )
    return Blueprint(
        folder=config.folder,
        root=os.fsencode(config.inputs.root),
        scratch=state.scratch,
        run=state.run,
        unclean_runs=tuple(unclean_runs),
        nodes=nodes,
        initializer=config.pool.initializer,
        initargs=config.pool.initargs,
        limits=config.inputs.limits,
        hashes_sources=config.changed_by == "hash",
        parts=state.parts,
        output_folders=tuple({leaf.output.template.folder for leaf in config.leaves if leaf.output}),
    )
