"""The short way of a job: a small text, or bytes, through one stage after the other, to outputs of text or bytes.

So are nearly all jobs over very many files, and what JobRunner needs for all others would take longer than their work.
What turns out to be unusual is left to a JobRunner: before the first call the whole job; after a call what the stage
has made or raised, so that no stage is called twice.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import FilemillError, Interrupted
from pipeline.files.atomic import discard, give_name
from pipeline.files.digest import digest_of_data
from pipeline.files.naming import name_new
from pipeline.files.permissions import permissions_of
from pipeline.images import limited_to
from pipeline.messages import Job, Outcome, Result, Source, Target
from pipeline.notes import Notes, collected
from pipeline.stage.values import Kind, is_kind
from pipeline.worker.job import JobRunner, Taken
from pipeline.worker.scratch import peak_meter
from pipeline.worker.source import is_as_planned, read_as_planned
from pipeline.worker.stage_call import Enter, call_and_check, check_returned
from pipeline.worker.tree import BuiltStage, Route, Tree

Run = Callable[[Job, Enter], Outcome]
"""A function that makes the outputs of a job."""

# Does what `_make` of a named tuple does, in a third of its time.
_made: Any = tuple.__new__
# What a usual job has behind its targets, and the outcome of one around its digest and its peak.
_USUAL = tuple(Job(Source(b"", 0, 0), ()))[2:]
_plain: tuple[Any, ...] = tuple(Outcome(Source(b"", 0, 0), ()))
_peak = Outcome._fields.index("peak_bytes")
_NOTHING_SAID, _NOTHING_ELSE, _NO_SEAT = _plain[3:6], _plain[7:_peak], _plain[_peak + 1 :]
# What a result has around its record, where nothing was noted.
_done: tuple[Any, ...] = tuple(Result("", b"", "done"))
_DONE, _NO_PARTS = _done[2:6], _done[9:]


class Runs(dict[tuple[str, ...], Run]):
    """The function that runs a job, by the names of the stages whose outputs it makes."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, names: tuple[str, ...]) -> Run:
        route = self._tree.routes[names]
        chain = chain_of(self._tree, route)
        run = self[names] = ShortWay(self._tree, route, chain).run if chain else self._run_long
        return run

    def _run_long(self, job: Job, enter: Enter) -> Outcome:
        return JobRunner(self._tree, job, enter).run()


def chain_of(tree: Tree, route: Route) -> list[tuple[BuiltStage, Kind]]:
    """Return the stages of a route that a short way can take, each with the kind that it makes; empty if none can."""
    chain: list[tuple[BuiltStage, Kind]] = []
    if tree.setup.hashes_sources or tree.setup.unclean_runs or route.readers_elsewhere:
        return []
    readers, given = route.readers.get(None, []), None
    while readers:
        stage, kind = readers[0], readers[0].makes
        takes_it = stage.takes is given if chain else stage.takes is not None and stage.takes.decode is not None
        is_plain = stage.is_given_as_taken and not stage.fans_out and not stage.setup.leaves_no_file
        if len(readers) > 1 or not takes_it or not is_plain or not stage.is_passed_on_as_made:
            return []
        if kind is None or kind.encode is None:
            return []
        chain.append((stage, kind))
        readers, given = route.readers.get(stage.index, []), kind
    return chain


class ShortWay:
    """Runs the jobs of one route."""

    def __init__(self, tree: Tree, route: Route, chain: list[tuple[BuiltStage, Kind]]) -> None:
        self._tree = tree
        self._steps: list[tuple[BuiltStage, Kind, Any, int | None]] = [
            (stage, kind, kind.encode, route.targets.get(stage.index)) for stage, kind in chain
        ]
        places = [position for *_, position in self._steps if position is not None]
        self._is_in_order = places == sorted(places)
        """True if the outputs are made in the order of the job's targets, in which the results are told."""
        self._decode: Any = chain[0][0].takes and chain[0][0].takes.decode

    def run(self, job: Job, enter: Enter) -> Outcome:
        """Make the outputs of the job; any failure is in the outcome."""
        began_s = time.perf_counter()
        given = self._read(job) if job[2:] == _USUAL else None
        if given is None:
            return JobRunner(self._tree, job, enter).run()
        return self._pass_on(job, enter, began_s, *given)

    def _read(self, job: Job) -> tuple[os.stat_result, bytes, Any] | None:
        """Return the state, the contents and the value of the source; None for an unusual one."""
        source = job[0]
        read = read_as_planned(self._tree.root_bytes + source[0], source)
        try:
            return read and (*read, self._decode(read[1]))
        except FilemillError:
            return None

    def _pass_on(
        self, job: Job, enter: Enter, began_s: float, found: os.stat_result, data: bytes, value: Any
    ) -> Outcome:
        peak_meter.begin()
        digest, notes = digest_of_data(data), Notes()
        results: tuple[Any, ...] = ()
        with limited_to(self._tree.setup.limits):
            for stage, kind, encode, position in self._steps:
                is_made = False
                try:
                    with collected() as noted:
                        value = call_and_check(stage, value, enter)
                        if not is_kind(value, kind):
                            check_returned(stage, value)
                    notes = notes | noted if noted else notes
                    is_made = True
                    if position is not None:
                        results += (self._commit(job, job[1][position], stage, encode(value), found, notes),)
                except Interrupted:
                    raise
                except _Unusual:
                    taken = Taken(began_s, found, data, digest, results, stage, value, notes, None, None)
                    return JobRunner(self._tree, job, enter).run(taken)
                except BaseException as error:
                    raised = (None, error) if is_made else (error, None)
                    taken = Taken(began_s, found, data, digest, results, stage, value, notes, *raised)
                    return JobRunner(self._tree, job, enter).run(taken)
        if not self._is_in_order:
            paths = [target.path for target in job.targets]
            results = tuple(sorted(results, key=lambda result: paths.index(result.path)))
        seconds = time.perf_counter() - began_s
        head = job[0], results, seconds, *_NOTHING_SAID
        outcome: Outcome = _made(Outcome, (*head, digest, *_NOTHING_ELSE, peak_meter.take(), *_NO_SEAT))
        return outcome

    def _commit(
        self, job: Job, target: Target, stage: BuiltStage, data: bytes, found: os.stat_result, notes: Notes
    ) -> Result:
        """Commit an output. Raises _Unusual where it is to be written otherwise, or the source has moved."""
        source = job[0]
        path = self._tree.root_bytes + source[0]
        if target.digests is not None:
            raise _Unusual
        permissions = stage.permissions(permissions_of(path, found.st_mode, found.st_gid))
        temporary, committed = self._tree.committer.write_temporary(target.path, data, permissions)
        try:
            if not is_as_planned(path, source):
                raise _Unusual
            (name_new if target.is_new else give_name)(temporary, target.path)
        except BaseException:
            discard(temporary)
            raise
        said = _NO_PARTS if not notes else ((), tuple(notes.items()), *_NO_PARTS[2:])
        result: Result = _made(Result, (*target[:2], *_DONE, *committed, *said))
        return result


class _Unusual(Exception):
    """The short way ends here; of the output there is no trace."""
