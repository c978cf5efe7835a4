"""Stores a plan on disk, in temporary tables beside the ledger, so that it may have any size.

SQLite finds the collisions: two sources that want one path are two rows with one target.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pipeline.files.digest import Reading
from pipeline.ledger.failures import Failure
from pipeline.ledger.input_folders import ROOT
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import columns_of, is_group, kept_time, key_of, origin_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.plan_tables import MOVED
from pipeline.messages import Group, GroupJob, Job, Source, Target
from pipeline.planning.decisions import (
    DOUBTFUL,
    GUARDED,
    PLACE,
    Action,
    Decision,
    Orphan,
    OrphanCode,
    Reason,
    Rename,
    without_particulars,
)
from pipeline.planning.estimate import Expected, expect
from pipeline.planning.learnt import Learnt
from pipeline.records import NamedTuple

# Outputs that are inserted together.
_CHUNK = 500
# Seconds: a job that takes less is not worth an order of its own, nor an estimate.
LONG_S = 0.05
# So many jobs are put in order at most. If there are more, what is left is done in less than a thousandth of the time
# that these take for each worker, whatever its order.
_MOST_LONG_JOBS = 4096
# What a job is taken to cost of which nothing is known, beside others of which it is...
_GUESSED_S_PER_BYTE = 5e-8
# ...and where nothing is known of any: files that take one block on a disk are alike.
_SMALL_BYTES = 4097


def size_beyond_a_block(job: Job) -> int:
    """Return by what jobs are put in order of which nothing is known: small files are alike."""
    return job.source.size_bytes if job.source.size_bytes >= _SMALL_BYTES else 0


class Count(NamedTuple):
    """The outputs with one action and reason, and the sources of which it is the foremost one."""

    action: Action
    reason: Reason
    outputs: int
    sources: int


class Move(NamedTuple):
    """A new source that has size and time of a source that is gone, and of no other."""

    source: bytes
    seq: int
    """The number of its first decision."""
    gone: bytes
    digest: bytes | None
    """The digest that is recorded of the one that is gone."""


class PlanStore:
    """The decisions, orphans and past failures of one plan, in temporary tables that vanish with the connection."""

    def __init__(self, ledger: Ledger, outputs_per_source: int) -> None:
        self._ledger = ledger
        self._tables = ledger.create_plan_tables()
        self.targets = self._tables.targets
        """The targets of the stored outputs."""
        self._outputs_per_source = outputs_per_source
        self._waiting: list[tuple[object, ...]] = []
        self._has_late = False
        self.has_renames = False
        """True if an output may have to be renamed."""
        self._has_gone = self._has_excluded = self._has_new = self._has_readings = False

    # -- filling -------------------------------------------------------------------------------------------------------

    def add(self, decision: Decision, *, leads: bool, late: bool = False) -> None:
        """Add the decision about one output.

        Args:
            decision: The decision to store.
            leads: Whether its source is counted under this decision.
            late: Whether it is made after all outputs that are not late.
        """
        origin, stage, action, (code, detail), path, target, rival, is_owned, moved_from, is_vacant = decision
        if late:
            self._has_late = True
        if action == "rename":
            self.has_renames = True
        if not is_owned:
            self._has_new = True
        source, size, mtime_ns = columns_of(origin)
        # For values of bytes and truth values the sqlite3 module looks for an adapter, and takes three times as long.
        self._waiting.append(
            (
                bytearray(source), size, mtime_ns, stage, action,
                _written(code, detail), bytearray(path), bytearray(target), rival, int(is_owned), int(late), int(leads),
                moved_from, int(is_vacant),
            )
        )  # fmt: skip
        if len(self._waiting) >= _CHUNK:
            self._write()

    def _write(self) -> None:
        if self._waiting:
            self._tables.insert_outputs(self._waiting)
        self._waiting.clear()

    def add_orphan(self, row: OutputRecord, code: OrphanCode) -> None:
        """Add a recorded output that no current source and template produces."""
        self._has_gone = self._has_gone or code == "source_gone"
        self._has_excluded = self._has_excluded or code == "excluded_now"
        self._add_orphan(row, code)

    def _add_orphan(self, row: OutputRecord, code: str) -> None:
        # What stands for parts is no file, and forgotten as what was never made.
        status = "intended" if row.part == "" else row.status
        self._tables.insert_orphans(
            [(row.target, row.source, row.stage, status, code, row.size, row.mtime_ns, row.joined_digests)]
        )

    def add_moved(self, row: OutputRecord) -> None:
        """Add the record of an output that will be renamed."""
        self._add_orphan(row, MOVED)

    def add_orphans_of_groups(self, why: Callable[[bytes, str, bool], OrphanCode | None]) -> None:
        """Add the orphans among the recorded outputs of groups.

        Args:
            why: Function from a group's key, a stage, and whether the group exists, to the reason why its output is an
                orphan; None for an output to leave alone.
        """
        self._write()
        self._tables.delete_group_orphans()
        self._tables.insert_orphans(
            (target, source, stage, status, code, *file)
            for target, source, stage, status, group_is_there, *file in self._tables.unplanned_group_outputs()
            if (code := why(source, stage, bool(group_is_there)))
        )

    def add_skipped(self) -> None:
        """Add, after the run, the files of outputs that it skipped."""
        self._tables.insert_skipped_orphans("skipped_now")

    def spare_old_outputs(self) -> None:
        """Spare, after the run, the orphans that are old outputs of what it refused or failed to make."""
        self._tables.spare_old_outputs()

    def add_past_failure(self, failure: Failure) -> None:
        """Add a recorded failure that no longer applies, since its source or its output has changed."""
        self._tables.insert_past_failure(failure.source, failure.stage)

    def add_reading(self, row: OutputRecord, mtime_ns: int, reading: Reading | None) -> None:
        """Add the digest and times of a source that was read and has its recorded contents."""
        read = (reading.digest, kept_time(reading.ctime_ns)) if reading else (None, None)
        self._has_readings = True
        self._tables.insert_reading(row.target, kept_time(mtime_ns), *read)

    def add_touched(self, row: OutputRecord, mtime_ns: int) -> None:
        """Add an output that has its recorded contents but another time."""
        self._has_readings = True
        self._tables.insert_touched(row.target, kept_time(mtime_ns))

    # -- sources that were moved ---------------------------------------------------------------------------------------

    def moves(self) -> Iterator[Move]:
        """Yield the new sources that were known under another path, by size and time."""
        self._write()
        if self._has_new and (self._has_gone or self._has_excluded) and self._tables.find_moves():
            yield from map(Move._make, self._tables.moves())

    def drop_move(self, move: Move) -> None:
        """Take a source for one that was never there before."""
        self._tables.drop_move(move.source)

    def decisions_about(self, move: Move) -> list[tuple[int, Decision]]:
        """Return the decisions about the outputs of a source that was moved, each with its number in the plan."""
        rows = self._tables.decisions_near(move.seq, self._outputs_per_source, move.source)
        return [(row[0], _decision(row)) for row in rows]

    def take_from(self, seq: int, decision: Decision, target: bytes) -> None:
        """Have an output be renamed from a target, and made anew then if that is the decision."""
        self.has_renames = True
        reason = _written(*decision.reason)
        self._tables.take_from(seq, decision.action, reason, target, is_owned=decision.is_owned)
        self._set_leader(seq, key_of(decision.origin))

    def leave_alone(self, rows: Iterable[OutputRecord]) -> None:
        """Have recorded outputs not be orphans."""
        self._tables.delete_orphans_at(row.target for row in rows)

    def end_moves(self) -> None:
        """Give what is left of the sources that were moved a reason of its own."""
        self._tables.end_moves()

    # -- folders that are gone -----------------------------------------------------------------------------------------

    def add_seen(self, folder: bytes, mount: bytes, files: int) -> None:
        """Add a folder in which the walk met files."""
        self._tables.insert_seen(folder, mount, files)

    def index_orphans(self) -> bool:
        """Prepare for the search for lost folders; return whether there may be any."""
        if self._has_gone or self._has_excluded:
            self._tables.index_orphans()
        return self._has_gone or self._has_excluded

    def folders_of_gone(self, least: int) -> list[bytes]:
        """Return the folders below the root that may be lost, since at least so many of their sources are gone."""
        return self._tables.folders_of_gone(least) if self._has_gone else []

    def count_gone(self, folder: bytes = ROOT) -> int:
        """Count the sources in a folder that are gone."""
        return self._tables.count_left_out(folder, "source_gone") if self._has_gone else 0

    def count_excluded(self, folder: bytes) -> int:
        """Count the sources in a folder that are excluded now."""
        return self._tables.count_left_out(folder, "excluded_now") if self._has_excluded else 0

    def others_known_in(self, folder: bytes) -> Iterator[bytes]:
        """Yield the known sources in a folder that are neither gone, nor excluded, nor moved."""
        return self._tables.others_known_in(folder)

    def count_elsewhere(self, folder: bytes, *, by_size: bool) -> int:
        """Count the sources in a folder that are gone, and of which a twin is there under another path."""
        return self._tables.count_elsewhere(folder, by_size=by_size)

    def keep(self, folder: bytes, code: OrphanCode) -> None:
        """Keep the outputs of the sources in a folder that the walk did not meet for a reason."""
        self._tables.keep(folder, code)

    def keep_readings(self) -> None:
        """Write the times of unchanged sources and outputs to the ledger, and the digests of what was read."""
        if self._has_readings:  # else SQLite would go through all outputs to find none
            self._tables.keep_readings()

    def settle(self, *, keep_orphans: bool) -> None:
        """End the filling, and refuse targets that two sources claim; a source that already has its output keeps it."""
        self._settle_rivals()
        self._tables.index_targets()
        self._settle_targets()
        if self.has_renames:
            self._tables.release_unmoved("path_changed")
        # A file at the path of a current output is no orphan.
        if keep_orphans:
            self._tables.delete_overwritten_orphans()
            self._tables.spare_old_outputs()
        else:
            self._tables.delete_orphans()
        self._ledger.commit()

    def settle_groups(self) -> None:
        """End the filling with the outputs of groups; call it after `settle`."""
        self._settle_rivals(of_groups=True)
        self._settle_targets(of_groups=True)
        self._tables.delete_overwritten_orphans(by_groups=True)
        self._tables.spare_old_outputs()

    def forget_groups(self) -> None:
        """Remove the outputs of groups, so that they can be planned again."""
        self._tables.delete_group_outputs()

    def _settle_rivals(self, *, of_groups: bool = False) -> None:
        """Refuse the outputs whose target is recorded for another source; only those of groups, if `of_groups`."""
        self._write()
        for seq, rival in self._tables.refuse_rivals("skipped_now", of_groups=of_groups):
            self._refuse(seq, rival)

    def _settle_targets(self, *, of_groups: bool = False) -> None:
        """Refuse the outputs whose target several sources claim."""
        for target in self._tables.contested_targets(of_groups=of_groups):
            self._settle_target(target)

    def make_instead(self, rename: Rename) -> None:
        """Make an output that could not be renamed; the file at its old path becomes an orphan."""
        reason = _written("path_changed", (os.fsdecode(rename.moved_from),))
        self._tables.make_instead(rename.seq, reason, rename.moved_from, "path_changed")

    def _settle_target(self, target: bytes) -> None:
        """Refuse all claims to a target but its owner's; without an owner refuse all, each naming a rival."""
        first, second = self._tables.first_claims(target)
        for seq in self._tables.refusable_claims(target):
            if seq != first[0]:
                self._refuse(seq, first[1])
            elif not first[2]:
                self._refuse(seq, second[1])

    def _refuse(self, seq: int, rival: bytes) -> None:
        source, target = self._tables.source_and_target(seq)
        detail = os.fsdecode(rival) if rival != source else "", os.fsdecode(target)
        self._tables.refuse(seq, json.dumps(("collision", *detail)))
        if is_group(source):
            return
        self._set_leader(seq, source)

    def _set_leader(self, seq: int, source: bytes) -> None:
        """Count a source under the foremost of its decisions, of which one has this number."""
        of_source = self._tables.actions_near(seq, self._outputs_per_source, source)
        leader = min(of_source, key=lambda row: (PLACE[row[1]], row[0]))[0]
        self._tables.set_leader(leader, (each for each, _ in of_source))

    # -- reading -------------------------------------------------------------------------------------------------------

    def jobs(self, learnt: Learnt | None = None) -> Iterator[Job]:
        """Yield a job for each source with outputs to make; sources that failed before come last.

        The longest come first, so that no worker is left alone with one at the end: by what was learnt, by the size of
        the source where nothing was. All others come in byte order, in which a file system serves them best.
        """
        if self._find_long_jobs(learnt or Learnt()):
            yield from self._jobs_of(self._tables.outputs_of_long_jobs(self._outputs_per_source))
        yield from self._jobs_of(self._tables.outputs_to_make(late=False))
        if self._has_late:
            yield from self._jobs_of(self._tables.outputs_to_make(late=True))

    def _find_long_jobs(self, learnt: Learnt) -> int:
        """Choose the jobs that come first; return their number."""
        stages = self._tables.stages_to_make()
        known = {stage: steps for stage in stages if (steps := learnt.steps(stage, LONG_S)) is not None}
        has_slow = learnt.slowest_s >= LONG_S
        if len(known) == len(stages) and not has_slow:
            return 0
        return self._tables.find_long_jobs(
            known,
            _GUESSED_S_PER_BYTE,
            least_s=LONG_S if known else _GUESSED_S_PER_BYTE * _SMALL_BYTES,
            most=_MOST_LONG_JOBS * self._outputs_per_source,
            as_last_time=has_slow,
        )

    def jobs_of_groups(self) -> Iterator[GroupJob]:
        """Yield a job for each output of a group to make."""
        for late in (False, True):
            for _, path, members, digest, *output in self._tables.outputs_to_make(late=late, of_groups=True):
                group = origin_of(path, members, digest)
                assert isinstance(group, Group)
                yield GroupJob(group, self._target(*output))

    def _jobs_of(self, outputs: Iterable[tuple[Any, ...]]) -> Iterator[Job]:
        """Yield a job for the outputs of each source, which come one after the other."""
        source, targets, is_digested = Source(b"", 0, 0), list[Target](), False
        for _, path, size_bytes, mtime_ns, *output in outputs:
            if path != source.path:
                if targets:
                    yield Job(source, tuple(targets), is_digested=is_digested)
                source, targets, is_digested = Source(path, size_bytes, mtime_ns), [], False
            targets.append(self._target(*output))
            is_digested = is_digested or output[-1] == _DOUBTFUL
        if targets:
            yield Job(source, tuple(targets), is_digested=is_digested)

    def _target(self, stage: str, path: bytes, is_vacant: int, target: bytes, reason: str) -> Target:
        code, detail = _reason(reason)
        if self._ledger.window is None and code not in GUARDED:
            return Target(stage, path, bool(is_vacant))
        # What lies at a path that has only changed its spelling is recorded under the former one.
        before = os.fsencode(str(detail[0])) if code == "path_changed" else target
        record = self._ledger.outputs.get(target) or self._ledger.outputs.get(before)
        return Target(stage, path, bool(is_vacant), digests=record.digests if record else ())

    def decisions(self, action: Action | None = None, *, of_groups: bool | None = None) -> Iterator[Decision]:
        """Yield the decisions in byte order: all, those with one action, and only those on groups or on files.

        The decisions are read in chunks, so that the ledger can be written at the same time.
        """
        return map(_decision, self._tables.decisions(action, of_groups))

    def decisions_of(self, source: bytes) -> list[Decision]:
        """Return the decisions about the outputs of one source or group."""
        return list(map(_decision, self._tables.decisions_of_source(source)))

    def decisions_of_stage(self, stage: str) -> Iterator[Decision]:
        """Yield the decisions about the outputs of one stage."""
        self._write()
        return map(_decision, self._tables.decisions_of_stage(stage))

    def paths_to_write(self) -> Iterator[bytes]:
        """Yield the paths of the outputs to make or rename."""
        return (path for _, path in self._tables.paths_to_write())

    def wanted_by(self, target: bytes) -> list[bytes]:
        """Return the sources whose templates lead to this output."""
        return self._tables.sources_of(target)

    def counts(self, *, of_groups: bool = False) -> Iterator[Count]:
        """Yield the counts of each action and reason; one may come several times, once for each set of particulars."""
        for action, reason, outputs, sources in self._tables.counts(of_groups=of_groups):
            yield Count(action, without_particulars(_reason(reason)), outputs, sources)

    def expect(self, learnt: Learnt, processes: int) -> Expected:
        """Return what the jobs of the plan are expected to take."""
        return expect(self._tables.sizes_to_make(), learnt, processes)

    def count_jobs(self) -> int:
        """Count the sources with an output to make."""
        return self._tables.count_sources_to_make()

    def unsettled_groups(self) -> set[tuple[bytes, str]]:
        """Return source and stage of the outputs of groups that are not up to date."""
        return self._tables.unsettled_groups()

    def renames(self) -> Iterator[Rename]:
        """Yield the renames, those of a source together."""
        return map(Rename._make, self._tables.renames())

    def orphans(self) -> Iterator[Orphan]:
        """Yield every orphan, in byte order of its path."""
        return map(Orphan._make, self._tables.orphans())

    def why_spared(self, target: bytes) -> OrphanCode | None:
        """Return why an output that is kept since the new one fails would be an orphan; None for any other output."""
        code: OrphanCode | None = self._tables.why_spared(target)
        return code

    def outputs_like_orphans(self, within_ns: int) -> list[bytes]:
        """Return the targets of outputs that are no orphans, and may be the same file as one."""
        return self._tables.outputs_like_orphans(within_ns)

    def past_failures(self) -> list[tuple[bytes, str]]:
        """Return source and stage of every failure that no longer applies."""
        return self._tables.past_failures()


def _decision(row: tuple[Any, ...]) -> Decision:
    _, key, size, mtime_ns, stage, action, reason, *rest = row
    return Decision(origin_of(key, size, mtime_ns), stage, action, _reason(reason), *rest)


def _written(code: str, detail: tuple[str | int | None, ...]) -> str:
    """Return the column of a reason: its code, or a list in JSON of the code and its particulars."""
    return json.dumps((code, *detail)) if detail else code


_DOUBTFUL = _written(*DOUBTFUL)


def _reason(written: Any) -> Reason:
    """Return a reason from its column: a code, or a list in JSON of the code and its particulars."""
    if not written.startswith("["):
        return Reason(written)
    code, *detail = json.loads(written)
    return Reason(code, tuple(detail))
