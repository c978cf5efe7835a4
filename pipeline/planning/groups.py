"""What is to be made of groups of files: planned with all else, and anew when the files have been made.

plan   --> what is there, what is to be made, what is held   --> "3 members to be made", up to date ...
run    --> all files are made, or failed                     --> jobs, each with a list of its members
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence

from pipeline.config.model import Config
from pipeline.files.file_system import WRITING, blame_machine
from pipeline.files.group_manifest import write_members
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import GROUPS, key_of
from pipeline.messages import Group, GroupJob, Outcome
from pipeline.planning.decisions import MEMBERS_CHANGED, Decision, OrphanCode, Reason
from pipeline.planning.group_freshness import GroupFreshness
from pipeline.planning.group_members import Gathered, Members
from pipeline.planning.output_spec import OutputSpec, Selection
from pipeline.planning.plan_store import PlanStore


class Gathers:
    """All that one plan makes of groups."""

    def __init__(
        self, config: Config, ledger: Ledger, leaves: Sequence[OutputSpec], selection: Selection, store: PlanStore
    ) -> None:
        self._ledger = ledger
        self._store = store
        self._leaves = [leaf for leaf in leaves if leaf.gathers]
        self._stages = {leaf.stage for leaf in leaves}
        self._judge = GroupFreshness(config, ledger, tuple(leaves), selection)
        self._tables = ledger.create_group_tables()
        self._members = {leaf.stage: Members(config, ledger, self._tables, leaf) for leaf in self._leaves}

    # -- planning ------------------------------------------------------------------------------------------------------

    def plan(self) -> None:
        """Put every group into the plan, as it will be when its members are made."""
        for members in self._members.values():
            members.take_planned(self._store)
        self._judge_all()

    def plan_anew(self, *, is_made: bool) -> None:
        """The same for a plan that is settled; or by what was made of it, if that `is_made`."""
        self._tables.clear()
        self._store.forget_groups()
        for members in self._members.values():
            if is_made:
                members.take_made()
            else:
                members.take_planned(self._store)
        self._judge_all()
        self._store.settle_groups()

    def _judge_all(self) -> None:
        for leaf in self._leaves:
            members = self._members[leaf.stage]
            for group in members.groups():
                identity = members.identity(group)
                failures = list(self._ledger.failures.of_source(group.source))
                failures = [each for each in failures if each.stage == leaf.stage]
                decision = self._decide(leaf, members, group, identity, failures)
                self._store.add(decision, leads=False, late=bool(failures))
        self._store.add_orphans_of_groups(self._why_gone)

    def _decide(
        self, leaf: OutputSpec, members: Members, group: Gathered, identity: Group, failures: list[Failure]
    ) -> Decision:
        """What is to be done about a group."""
        if not group.output:
            return Decision(identity, leaf.stage, "refuse", Reason("bad_path", (members.why_nowhere(group),)))
        decision = self._judge.decide(identity, leaf, group.output, failures)
        if decision.action == "refuse":
            return decision
        is_enough = leaf.route[-1].partial and (group.members or group.to_be_made)
        if group.failed and not is_enough:
            return decision._replace(action="refuse", reason=Reason("members_failed", (group.failed,)), rival=None)
        if group.to_be_made:
            return decision._replace(action="make", reason=Reason("members_to_be_made", (group.to_be_made,)))
        if group.to_be_moved and decision.action != "make":
            return decision._replace(action="make", reason=MEMBERS_CHANGED)
        return decision

    def _why_gone(self, stage: str, group_is_there: bool) -> OrphanCode:
        """Why nothing makes any more what is recorded of a group."""
        if stage not in self._stages:
            return "stage_gone"
        return "path_changed" if group_is_there else "group_gone"

    # -- during a run --------------------------------------------------------------------------------------------------

    def forget_past_failures(self) -> None:
        """Forget the failures of groups that say nothing any more: up to date, or gone."""
        failures = self._ledger.failures.all(*GROUPS)
        open_ones = self._store.unsettled_groups()
        past = [(each.source, each.stage) for each in failures if (each.source, each.stage) not in open_ones]
        self._ledger.failures.forget(past)

    def told(self, jobs: Iterator[GroupJob], folder: bytes) -> Iterator[GroupJob]:
        """The same jobs, each with a list of its members in this folder."""
        for job in jobs:
            target, file = job.target, _list_of(job.group, folder)
            members = self._members[target.stage].listed(job.group, target.path)
            try:
                write_members(file, members)
            except OSError as error:
                raise blame_machine(error, file, WRITING) from error
            yield job._replace(members_file=file)

    @staticmethod
    def forget_list(outcome: Outcome, folder: bytes) -> None:
        """Remove the list of a job that has ended."""
        if isinstance(outcome.origin, Group) and os.path.exists(file := _list_of(outcome.origin, folder)):
            os.unlink(file)


def _list_of(group: Group, folder: bytes) -> bytes:
    """Where the members of a group are listed."""
    name = hashlib.blake2b(b"%b %d" % (key_of(group), group.digest), digest_size=8).hexdigest()
    return os.path.join(folder, f"members-{name}".encode())
