"""The short way of a job: a small text, or bytes, through one stage after the other, to outputs of text or bytes.

So are nearly all jobs over very many files, and what JobRunner needs for all others would take longer than their work.
What turns out to be unusual is left to a JobRunner: before the first call the whole job; after a call what the stage
has made or raised, so that no stage is called twice.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable
from typing import Any

from pipeline.errors import FilemillError, Interrupted
from pipeline.files.atomic import Committed, discard, give_name
from pipeline.files.digest import digest_of_data
from pipeline.files.naming import name_new
from pipeline.files.permissions import Permissions, permissions_of
from pipeline.images import limited_to
from pipeline.messages import Job, Outcome, Result, Source, Target
from pipeline.notes import Notes, collected
from pipeline.stage.values import Kind, is_kind
from pipeline.worker.job import JobRunner, Taken
from pipeline.worker.scratch import peak_meter
from pipeline.worker.source import read_as_planned
from pipeline.worker.stage_call import Enter, call_and_check, check_returned
from pipeline.worker.tree import BuiltStage, Route, Tree

ShortWay = Callable[[Job, Enter], Outcome]

# Does what `_make` of a named tuple does, in a third of its time.
_made: Any = tuple.__new__
# What a usual job has behind its targets, and the outcome of one around its digest and its peak.
_USUAL = tuple(Job(Source(b"", 0, 0), ()))[2:]
_plain: tuple[Any, ...] = tuple(Outcome(Source(b"", 0, 0), ()))
_NOTHING_SAID, _NOTHING_ELSE, _NO_SEAT = _plain[3:6], _plain[7:13], _plain[14:]
# What a result has around its record, where nothing was noted.
_done: tuple[Any, ...] = tuple(Result("", b"", "done"))
_DONE, _NO_PARTS = _done[2:6], _done[9:]


def short_way(tree: Tree, route: Route) -> ShortWay | None:
    """Return the function that runs the jobs of a route; None if each of them needs a JobRunner."""
    chain = _chain(tree, route)
    if not chain:
        return None
    steps = [(stage, kind, kind.encode, route.targets.get(stage.index)) for stage, kind in chain]
    decode: Any = chain[0][0].takes and chain[0][0].takes.decode
    root, limits = tree.root_bytes, tree.setup.limits

    def run(job: Job, enter: Enter) -> Outcome:
        planned, targets = job[0], job[1]
        began_s = time.perf_counter()
        path = root + planned[0]
        read = read_as_planned(path, planned) if job[2:] == _USUAL else None
        try:
            value = None if read is None else decode(read[1])
        except FilemillError:
            read = None
        if read is None:
            return JobRunner(tree, job, enter).run()
        found, data = read
        peak_meter.begin()
        digest, notes = digest_of_data(data), Notes()
        results: tuple[Any, ...] = ()
        with limited_to(limits):
            for stage, kind, encode, position in steps:
                try:
                    with collected() as noted:
                        value = call_and_check(stage, value, enter)
                        if not is_kind(value, kind):
                            check_returned(stage, value)
                    if noted:
                        notes = notes | noted
                except Interrupted:
                    raise
                except BaseException as error:
                    taken = Taken(began_s, found, data, digest, results, stage, None, notes, error)
                    return JobRunner(tree, job, enter).run(taken)
                if position is None:
                    continue
                try:
                    most = permissions_of(path, found.st_mode, found.st_gid)
                    record = _commit(targets[position], encode(value), stage.permissions(most), path, planned)
                except Exception:  # it is written once more, where all that can go wrong is told apart
                    taken = Taken(began_s, found, data, digest, results, stage, value, notes, None)
                    return JobRunner(tree, job, enter).run(taken)
                said = _NO_PARTS if not notes else ((), tuple(notes.items()), *_NO_PARTS[2:])
                results += (_made(Result, targets[position][:2] + _DONE + record + said),)
        outcome: Outcome = _made(
            Outcome,
            (planned, results, time.perf_counter() - began_s, *_NOTHING_SAID, digest, *_NOTHING_ELSE, peak_meter.take())
            + _NO_SEAT,
        )
        return outcome

    def _commit(target: Target, data: bytes, permissions: Permissions, path: bytes, planned: Source) -> Committed:
        """Commit an output. Raises an exception where anything is unusual; there is no trace of the output then."""
        if target.digests is not None:
            raise _Unusual
        temporary, committed = tree.committer.write_temporary(target.path, data, permissions)
        try:
            found = os.stat(path)
            if found.st_size != planned[1] or found.st_mtime_ns != planned[2] or not stat.S_ISREG(found.st_mode):
                raise _Unusual
            (name_new if target.is_new else give_name)(temporary, target.path)
        except BaseException:
            discard(temporary)
            raise
        return committed

    return run


class Ways(dict[tuple[str, ...], ShortWay]):
    """The function that runs a job, by the names of the stages whose outputs it makes."""

    def __init__(self, tree: Tree) -> None:
        super().__init__()
        self._tree = tree

    def __missing__(self, names: tuple[str, ...]) -> ShortWay:
        way = self[names] = short_way(self._tree, self._tree.routes[names]) or self._long_way
        return way

    def _long_way(self, job: Job, enter: Enter) -> Outcome:
        return JobRunner(self._tree, job, enter).run()


class _Unusual(Exception):
    """The short way ends here."""


def _chain(tree: Tree, route: Route) -> list[tuple[BuiltStage, Kind]]:
    """Return the stages of a route that is a chain which the short way can take, each with the kind that it makes."""
    chain: list[tuple[BuiltStage, Kind]] = []
    setup = tree.setup
    if setup.hashes_sources or setup.unclean_runs or route.readers_elsewhere:
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
