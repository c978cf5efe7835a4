"""What runs inside a pool process: `start()` once, `work()` for every job.

parent                                   worker
------                                   ------
Blueprint (pickled, dotted names) -----> start():  find the stages, load the resources, build the stages
Job ------------------------------------> work():   source -> stage -> stage ...   one pass over the tree,
                                                      |         |                   each value made once
                                                      v         v
Outcome <------ a Result an output ------------- commit     commit                 (temporary, then rename)
"""

from __future__ import annotations

import pickle
import time

from pipeline.messages import AnyJob, GroupJob, Outcome
from pipeline.stage.resolve import set_stage_path
from pipeline.worker.group_job import Gathering
from pipeline.worker.job import Enter, Pass
from pipeline.worker.tree import Tree

_tree: Tree | None = None


def start(packed: bytes) -> None:
    """Build the stages of this process; the Pool's initializer. Raises whatever they raise."""
    global _tree
    folder, blueprint = pickle.loads(packed)
    set_stage_path(folder)
    _tree = Tree(pickle.loads(blueprint))


def work(job: AnyJob, enter: Enter = lambda index: None) -> Outcome:
    """Make the outputs of one job; what goes wrong is in its outcome."""
    assert _tree is not None
    began = time.perf_counter()
    if isinstance(job, GroupJob):
        return _gather(_tree, job, enter, began)
    whole = Pass(_tree, job, enter)
    try:
        whole.go()
    finally:
        whole.scratch.clean_up()
    results = tuple([whole.results[target.path] for target in job.targets if target.path in whole.results])
    outcome = Outcome(whole.reading.source, results, time.perf_counter() - began, whole.environment)
    if whole.handed:
        outcome = outcome._replace(handed=tuple(whole.handed))
    if (read := whole.reading.contents) is not None:
        ctime_ns = read.ctime_ns if read.was_at_rest else None
        outcome = outcome._replace(source_digest=read.digest, source_ctime_ns=ctime_ns)
    return outcome


def _gather(tree: Tree, job: GroupJob, enter: Enter, began: float) -> Outcome:
    """Make the output of a group."""
    gathering = Gathering(tree, job, enter)
    try:
        gathering.go()
    finally:
        gathering.scratch.clean_up()
    return Outcome(job.group, (gathering.result,), time.perf_counter() - began, gathering.environment)
