"""The entry points of a worker process: `start()` once, `work()` for every job.

parent                                      worker
------                                      ------
WorkerSetup (pickled, dotted names) ------> start()   find the stages, load the resources, build the Tree
Job --------------------------------------> work()    JobRunner: the source and then each value goes
                                              |       to every stage that reads it
                                              |
             index of the stage in hand <---- | ----- StageCaller: convert the value, call the stage,
             (a shared-memory slot)           |       check what it returned
                                              |
                                              v
Outcome <------ a Result an output --------- commit   to a temporary, which is then renamed

A job of a group takes the same way, with a GroupJobRunner that reads its members one by one.
"""

from __future__ import annotations

import os
import pickle
from functools import lru_cache

from pipeline.messages import AnyJob, GroupJob, Outcome
from pipeline.stage.code_guard import guard
from pipeline.stage.resolve import set_stage_path
from pipeline.worker.group_job import GroupJobRunner
from pipeline.worker.short_way import Runs
from pipeline.worker.stage_call import Enter, announce_nothing
from pipeline.worker.tree import Tree
from pipeline.worker.usage_meter import usage_meter

_tree: Tree | None = None
_runs: Runs | None = None
_environment: dict[str, tuple[str, str | None]] = {}
"""The variables that `start` has set, each with its value and the one before."""


def start(packed: bytes) -> None:
    """Build the stages of this process, as the initializer of Pool. Raises any exception of theirs."""
    global _tree, _runs, _environment
    folder, code, environment, setup = pickle.loads(packed)
    _environment = {name: (value, os.environ.get(name)) for name, value in environment.items()}
    os.environ.update(environment)
    guard.start(code)
    set_stage_path(folder)
    _tree = Tree(pickle.loads(setup))
    usage_meter.is_on = _tree.setup.is_traced
    _runs = Runs(_tree)
    guard.check_tables()


def stop() -> None:
    """Lift the restrictions on imports, and restore the environment, of a process that was a worker only for a time."""
    guard.stop()
    while _environment:
        name, (value, before) = _environment.popitem()
        if os.environ.get(name) != value:
            continue  # somebody else has set it since: a run that its caller abandons may be closed long after
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def work(job: AnyJob, enter: Enter = announce_nothing) -> Outcome:
    """Make the outputs of one job; any failure is in its outcome. `enter` receives the index of each stage called."""
    assert _tree is not None and _runs is not None
    noted = _noted(enter)
    if isinstance(job, GroupJob):
        outcome = GroupJobRunner(_tree, job, noted).run()
    else:
        outcome = _runs[tuple([target.stage for target in job.targets])](job, noted)
    if late := guard.take_late():
        outcome = outcome._replace(late_code=late)
    return outcome._replace(changed_code=guard.changed) if guard.changed else outcome


@lru_cache(1)  # the engine of this process gives the same one with every job
def _noted(enter: Enter) -> Enter:
    """Return a function that announces a stage to the guard of this process's code, and then by `enter`."""

    def enter_noted(stage: int) -> None:
        guard.enter(stage)
        enter(stage)

    return enter_noted
