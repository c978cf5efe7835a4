"""Plans the outputs of groups of files: finds the groups, decides which outputs are stale, and gives their jobs.

before a run   files that exist, are planned or held             --> "3 members to be made", up to date, ...
in a run       files that exist or failed, once all are made     --> jobs, each with a file that lists its members

It is not used for a pipeline without stages that gather and without groups on record.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pipeline.config.model import Config
from pipeline.files import hashlib
from pipeline.files.file_system import WRITING, blame_machine
from pipeline.files.group_manifest import write_members
from pipeline.files.walk import Walk
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import GROUPS, key_of, origin_of
from pipeline.messages import Group, GroupJob, Outcome
from pipeline.planning.decisions import MEMBERS_CHANGED, MEMBERS_UNKNOWN, Decision, OrphanCode, Reason
from pipeline.planning.file_state import Touched
from pipeline.planning.group_freshness import GroupFreshness
from pipeline.planning.group_members import GroupMembers, GroupState
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.selection import Selection


class GroupPlanner:
    """Adds the decisions about all groups to the plan, and yields the jobs of stale ones."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        specs: Sequence[OutputSpec],
        selection: Selection,
        store: PlanStore,
        walk: Walk,
        touched: Touched | None,
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._walk = walk
        self._stages = {spec.stage for spec in specs}
        self._freshness = GroupFreshness(config, ledger, tuple(specs), selection, touched)
        self._tables = ledger.create_group_tables()
        self._members = {spec.stage: GroupMembers(config, ledger, self._tables, spec) for spec in specs if spec.gathers}

    # -- planning ------------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Add every group to a plan that is not settled, in its state after its members are made."""
        for members in self._members.values():
            members.find_planned(self._store)
        self._decide_all()

    def plan_again(self, *, is_made: bool) -> None:
        """Plan the groups of a settled plan again.

        Args:
            is_made: Whether all possible files were made, so that existing files count and not planned ones.
        """
        self._tables.clear()
        self._store.forget_groups()
        for members in self._members.values():
            if is_made:
                members.find_made()
            else:
                members.find_planned(self._store)
        self._decide_all()
        self._store.settle_groups()

    def _decide_all(self) -> None:
        for members in self._members.values():
            for state in members.states():
                failures = self._failures_of(state.group)
                self._store.add(self._decide(members, state, failures), leads=False, late=bool(failures))
        self._store.add_orphans_of_groups(self._why_orphaned)

    def _failures_of(self, group: Group) -> list[Failure]:
        return [each for each in self._ledger.failures.of_source(key_of(group)) if each.stage == group.stage]

    def _decide(self, members: GroupMembers, state: GroupState, failures: Sequence[Failure]) -> Decision:
        """Decide about the output of a group, by its existing members and then by the absent ones."""
        spec, group = members.spec, state.group
        if state.output and self._is_unknown(group):
            target = spec.template.key(state.output)
            return Decision(group, spec.stage, "settling", MEMBERS_UNKNOWN, state.output, target)
        if not state.output:
            return Decision(group, spec.stage, "refuse", Reason("bad_path", (members.path_error(group),)))
        decision = self._freshness.decide(group, spec, state.output, failures)
        return decision if decision.action == "refuse" else decide_absent(decision, state, members.accepts_failures)

    def _is_unknown(self, group: Group) -> bool:
        """Return whether a group may have members that the walk could not find."""
        members = self._members.get(group.stage)
        return members is not None and any(members.may_lie_below(folder, group) for folder, _ in self._walk.unlisted)

    def _why_orphaned(self, source: bytes, stage: str, group_exists: bool) -> OrphanCode | None:
        """Return why a recorded output of a group is an orphan; None where it is none, or that cannot be known."""
        group = origin_of(source)
        if stage not in self._stages:
            return "stage_gone"
        if isinstance(group, Group) and self._is_unknown(group):
            return None
        return "path_changed" if group_exists else "group_gone"

    # -- during a run --------------------------------------------------------------------------------------------------

    def forget_past_failures(self) -> None:
        """Delete the failures of groups that are now up to date, or do not exist any more."""
        open_ones = self._store.unsettled_groups()
        failures = [(each.source, each.stage) for each in self._ledger.failures.all(*GROUPS)]
        self._ledger.failures.forget([each for each in failures if each not in open_ones])

    def with_members(self, jobs: Iterator[GroupJob], folder: bytes) -> Iterator[GroupJob]:
        """Yield the jobs, each after its members are written to a file in `folder`. Raises EnvironmentFailure."""
        for job in jobs:
            file = _members_file(job.group, folder)
            try:
                write_members(file, self._members[job.group.stage].list_members(job.group, job.target.path))
            except OSError as error:
                raise blame_machine(error, file, WRITING) from error
            yield job._replace(members_file=file)

    @staticmethod
    def remove_members_file(outcome: Outcome, folder: bytes) -> None:
        """Remove the file of members of a job that has ended."""
        if isinstance(outcome.origin, Group) and os.path.exists(file := _members_file(outcome.origin, folder)):
            os.unlink(file)


def decide_absent(decision: Decision, state: GroupState, accepts_failures: bool) -> Decision:
    """Return the decision about a group some of whose members must still be made or moved, or have failed.

    Args:
        decision: The decision by the members that exist.
        state: The group, with how many members are absent.
        accepts_failures: Whether the group is made of the existing members where others failed.
    """
    is_enough = accepts_failures and (state.group.members or state.to_be_made)
    if state.failed and not is_enough:
        return decision._replace(action="refuse", reason=Reason("members_failed", (state.failed,)), rival=None)
    if state.to_be_made:
        return decision._replace(action="make", reason=Reason("members_to_be_made", (state.to_be_made,)))
    if state.to_be_moved and decision.action != "make":
        return decision._replace(action="make", reason=MEMBERS_CHANGED)
    return decision


def _members_file(group: Group, folder: bytes) -> bytes:
    """Return the path of the file that lists the members of a group."""
    name = hashlib.blake2b(b"%b %d" % (key_of(group), group.digest), digest_size=8).hexdigest()
    return os.path.join(folder, f"members-{name}".encode())
