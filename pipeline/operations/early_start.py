"""Starts what a run needs anyway, and what takes a while to get ready, before anything is opened."""

from __future__ import annotations

from pipeline.config.model import Config
from pipeline.engines.forkserver import start_early
from pipeline.stage.values import IMAGE, PICTURE

# The module of the functions that a worker runs, and the one that is to be imported after all others.
_WORKER, _LAST = "pipeline.worker.main", "pipeline.worker.fork_template"


def start_forkserver(config: Config) -> None:
    """Start the forkserver, if workers of the pipeline are to be forked from one."""
    pools = (config.pool, *(stage.pool for stage in config.stages if stage.pool))
    if config.engine == "pool" and any(pool.context == "forkserver" for pool in pools):
        import pipeline.engines.pool  # noqa: F401, which the forkserver would import as well

        start_early(preload_of(config))


def preload_of(config: Config) -> tuple[str, ...]:
    """Return the modules that every worker of a pipeline imports, among them those for pictures if it has any."""
    has_pictures = any({each.stage.takes, each.stage.makes} & {IMAGE, PICTURE} for each in config.stages)
    return (_WORKER, *(("pipeline.images.decode", "pipeline.images.encode") if has_pictures else ()), _LAST)
