"""The plan on disk: temporary tables beside the ledger that hold what is to be done, whatever its size.

SQLite finds the collisions: two sources that want one path are two rows with one target.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from typing import Any

from pipeline.files.digest import Reading
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import columns_of, is_group, kept_time, origin_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.plan_tables import MOVED
from pipeline.messages import Group, GroupJob, Job, Source, Target
from pipeline.planning.decisions import (
    PLACE,
    Action,
    Decision,
    Orphan,
    OrphanCode,
    Reason,
    Rename,
    without_particulars,
)

# Reasons for which something may lie in an output's place that we did not make.
_GUARDED = ("interrupted", "output_older", "part_older")
# Outputs that are inserted together.
_CHUNK = 500


class PlanStore:
    """What one plan holds; gone when the ledger is closed."""

    def __init__(self, ledger: Ledger, outputs_per_source: int) -> None:
        self._ledger = ledger
        self._tables = ledger.create_plan_tables()
        self._outputs_per_source = outputs_per_source
        self._waiting: list[tuple[object, ...]] = []
        self._has_late = False
        self._has_renames = False

    # -- filling -------------------------------------------------------------------------------------------------------

    def add(self, decision: Decision, *, leads: bool, late: bool = False) -> None:
        """Add the decision about one output.

        Args:
            decision: What is done about it.
            leads: Whether its source as a whole is counted under it.
            late: Whether it is made after all that is not late.
        """
        origin, stage, action, reason, path, target, rival, is_owned, moved_from = decision
        if late:
            self._has_late = True
        if action == "rename":
            self._has_renames = True
        self._waiting.append(
            (
                *columns_of(origin), stage, action,
                _written(reason), path, target, rival, is_owned, late, leads, moved_from,
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
        self._add_orphan(row, code)

    def _add_orphan(self, row: OutputRecord, code: str) -> None:
        # What stands for parts is no file, and forgotten as what was never made.
        status = "intended" if row.part == "" else row.status
        self._tables.insert_orphans([(row.target, row.source, row.stage, status, code, row.size, row.mtime_ns)])

    def add_moved(self, row: OutputRecord) -> None:
        """Add an output that is to be renamed."""
        self._add_orphan(row, MOVED)

    def add_orphans_of_groups(self, why: Callable[[bytes, str, bool], OrphanCode | None]) -> None:
        """Add what is recorded of groups and nothing makes any more; `why` tells the reason by the group's key, the
        stage, and whether the group is there, and None of what is to be left alone.
        """
        self._write()
        self._tables.delete_group_orphans()
        self._tables.insert_orphans(
            (target, source, stage, status, code, size, mtime_ns)
            for target, source, stage, status, group_is_there, size, mtime_ns in self._tables.unplanned_group_outputs()
            if (code := why(source, stage, bool(group_is_there)))
        )

    def add_skipped(self) -> None:
        """Add, after the run, what is left of sources that it left out."""
        self._tables.insert_skipped_orphans("skipped_now")

    def add_past_failure(self, failure: Failure) -> None:
        """Add a recorded failure that no longer says anything: its source or its output is otherwise by now."""
        self._tables.insert_past_failure(failure.source, failure.stage)

    def add_reading(self, row: OutputRecord, reading: Reading) -> None:
        """Add what a source was read to be, which is what its row has it to be."""
        times = kept_time(reading.mtime_ns), kept_time(reading.ctime_ns)
        self._tables.insert_reading(row.target, reading.digest, *times)

    def add_touched(self, row: OutputRecord, mtime_ns: int) -> None:
        """Add an output whose contents are as recorded and whose time is not."""
        self._tables.insert_touched(row.target, kept_time(mtime_ns))

    def keep_readings(self) -> None:
        """Write to the ledger what was read of sources that are unchanged."""
        self._tables.keep_readings()

    def settle(self, *, keep_orphans: bool) -> None:
        """End the filling: refuse what two sources want; the one that already has its output keeps it."""
        self._settle_rivals()
        self._tables.index_targets()
        self._settle_targets()
        if self._has_renames:
            self._tables.release_unmoved("path_changed")
        # An orphan whose path a current source takes over is none.
        if keep_orphans:
            self._tables.delete_overwritten_orphans()
        else:
            self._tables.delete_orphans()
        self._tables.commit()

    def settle_groups(self) -> None:
        """End the filling with what is made of groups, after that with all else."""
        self._settle_rivals()
        self._settle_targets(of_groups=True)
        self._tables.delete_overwritten_orphans(by_groups=True)

    def forget_groups(self) -> None:
        """Forget what is made of groups: it is to be planned anew."""
        self._tables.delete_group_outputs()

    def _settle_rivals(self) -> None:
        """Refuse what is recorded as another source's."""
        self._write()
        for seq, rival in self._tables.refuse_rivals("skipped_now"):
            self._refuse(seq, rival)

    def _settle_targets(self, *, of_groups: bool = False) -> None:
        """Refuse what several want."""
        for target in self._tables.contested_targets(of_groups=of_groups):
            self._settle_target(target)

    def make_instead(self, rename: Rename) -> None:
        """Make an output that could not be renamed: what lies at its old path is an orphan."""
        self._tables.make_instead(rename.seq, rename.moved_from, "path_changed")

    def _settle_target(self, target: bytes) -> None:
        """Refuse all that want a target but the one that has it; where none has, all, each naming another."""
        first, second = self._tables.first_claims(target)
        for seq in self._tables.refusable_claims(target):
            if seq != first[0]:
                self._refuse(seq, first[1])
            elif not first[2]:
                self._refuse(seq, second[1])

    def _refuse(self, seq: int, rival: bytes) -> None:
        source, target = self._tables.source_and_target(seq)
        detail = os.fsdecode(rival) if rival != source else "", os.fsdecode(target)
        self._tables.refuse(seq, _written(Reason("collision", detail)))
        if is_group(source):
            return
        of_source = self._tables.actions_near(seq, self._outputs_per_source, source)
        leader = min(of_source, key=lambda row: (PLACE[row[1]], row[0]))[0]
        self._tables.set_leader(leader, (each for each, _ in of_source))

    # -- reading -------------------------------------------------------------------------------------------------------

    def jobs(self) -> Iterator[Job]:
        """The jobs: for each source the outputs it is to make, in byte order, those that are late after the others."""
        yield from self._jobs(late=False)
        if self._has_late:
            yield from self._jobs(late=True)

    def jobs_of_groups(self) -> Iterator[GroupJob]:
        """The jobs of what is made of groups: one each."""
        for late in (False, True):
            for _, path, members, digest, *output in self._tables.outputs_to_make(late=late, of_groups=True):
                group = origin_of(path, members, digest)
                assert isinstance(group, Group)
                yield GroupJob(group, self._target(*output))

    def _jobs(self, *, late: bool) -> Iterator[Job]:
        source, targets = Source(b"", 0, 0), list[Target]()
        for _, path, size_bytes, mtime_ns, *output in self._tables.outputs_to_make(late=late):
            if path != source.path:
                if targets:
                    yield Job(source, tuple(targets))
                source, targets = Source(path, size_bytes, mtime_ns), []
            targets.append(self._target(*output))
        if targets:
            yield Job(source, tuple(targets))

    def _target(self, stage: str, path: bytes, target: bytes, reason: str) -> Target:
        if self._ledger.window is None and not any(code in reason for code in _GUARDED):
            return Target(stage, path)
        record = self._ledger.outputs.get(target)
        return Target(stage, path, digests=record.digests if record else ())

    def decisions(self, action: Action | None = None, *, of_groups: bool | None = None) -> Iterator[Decision]:
        """Yield the decisions in byte order: all, those with one action, and only those on groups or on files.

        They are read in chunks, so that the ledger can be written meanwhile.
        """
        return map(_decision, self._tables.decisions(action, of_groups))

    def decisions_of(self, source: bytes) -> list[Decision]:
        """What the plan holds of one source."""
        return list(map(_decision, self._tables.decisions_of_source(source)))

    def decisions_of_stage(self, stage: str) -> Iterator[Decision]:
        """What the plan holds of one stage."""
        self._write()
        return map(_decision, self._tables.decisions_of_stage(stage))

    def wanted_by(self, target: bytes) -> list[bytes]:
        """The sources of which a template leads to this output."""
        return self._tables.sources_of(target)

    def counts(self, *, of_groups: bool = False) -> Iterator[tuple[Action, Reason, int, int]]:
        """Yield how many outputs, and how many sources counted under them, have an action for a reason.

        A reason may come several times: once for each of the particulars with which it is given.
        """
        for action, reason, outputs, files in self._tables.counts(of_groups=of_groups):
            yield action, without_particulars(_reason(reason)), outputs, files

    def count_jobs(self) -> int:
        """How many sources have something to make."""
        return self._tables.count_sources_to_make()

    def unsettled_groups(self) -> set[tuple[bytes, str]]:
        """Source and stage of what is made of groups and not up to date."""
        return self._tables.unsettled_groups()

    def renames(self) -> Iterator[Rename]:
        """What is to be renamed, those of a source together."""
        return map(Rename._make, self._tables.renames())

    def orphans(self) -> Iterator[Orphan]:
        """Every orphan, in byte order of its path."""
        return map(Orphan._make, self._tables.orphans())

    def past_failures(self) -> list[tuple[bytes, str]]:
        """Source and stage of every failure that no longer says anything."""
        return self._tables.past_failures()


def _decision(row: tuple[Any, ...]) -> Decision:
    _, key, size, mtime_ns, stage, action, reason, *rest = row
    return Decision(origin_of(key, size, mtime_ns), stage, action, _reason(reason), *rest)


def _written(reason: Reason) -> str:
    """Return a reason as the table keeps it: the code alone, or a list in JSON of the code and its particulars."""
    code, detail = reason
    return json.dumps((code, *detail)) if detail else code


def _reason(written: Any) -> Reason:
    if not written.startswith("["):
        return Reason(written)
    code, *detail = json.loads(written)
    return Reason(code, tuple(detail))
