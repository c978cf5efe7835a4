"""Decides whether a group's output is fresh, by the rules for files, with its members in place of a source."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.template import NoFile
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import GROUPS, key_of, origin_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Group
from pipeline.planning.decisions import MEMBERS_CHANGED, Decision, Reason
from pipeline.planning.file_state import Touched, same_origin
from pipeline.planning.freshness import Freshness, bad_path
from pipeline.planning.recipe import OutputSpec
from pipeline.planning.selection import Selection


def members_change(group: Group, record: OutputRecord) -> Reason | None:
    """Return the difference between the members of a group and the recorded ones; None if there is none."""
    return None if same_origin(group, record) else MEMBERS_CHANGED


class GroupFreshness:
    """Decides about every output of a group."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        specs: Sequence[OutputSpec],
        selection: Selection,
        touched: Touched | None,
    ) -> None:
        self._ledger = ledger
        self._stages = {spec.stage for spec in specs}
        self._rules = Freshness(config, ledger, specs, selection, touched=touched)

    def decide(self, group: Group, spec: OutputSpec, path: bytes, failures: Sequence[Failure]) -> Decision:
        """Return the decision about the output of a group, by its existing members."""
        try:
            self._rules.refuse_among_inputs(spec, path)
        except FileFailure as error:
            return bad_path(group, spec, error)
        record, change = self._record_of(group, spec, path), None
        if record is not None:
            change = members_change(group, record) or self._rules.recipe_change(spec, record)
        decision = self._rules.decide_at(group, spec, record, path, spec.template.key(path), change)
        if record is not None and decision.action == "up-to-date":
            decision = decision._replace(target=record.target)
        return self._rules.after_failure(decision, spec, failures)

    def _record_of(self, group: Group, spec: OutputSpec, path: bytes) -> OutputRecord | None:
        """Return the record of a group's output, even if its stage had another name."""
        record = self._ledger.outputs.get(spec.template.key(path))
        if record is not None:
            was = origin_of(record.source)
            if not isinstance(was, Group) or was.name != group.name:
                return None
            return record if was.stage == group.stage or record.stage not in self._stages else None
        for stage in () if spec.template.has_file else self._former_stages:
            record = self._ledger.outputs.get(NoFile(stage).fill(key_of(Group(stage, group.name))))
            if record is not None and record.recipe == spec.number:
                return record
        return None

    @cached_property
    def _former_stages(self) -> set[str]:
        """The recorded names of gathering stages that no stage has any more."""
        return {record.stage for record in self._ledger.outputs.all(*GROUPS)} - self._stages
