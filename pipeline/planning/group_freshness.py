"""Whether what is made of a group is fresh: the judge of files, for a group and its members in place of a source."""

from __future__ import annotations

from functools import cached_property

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.template import NoFile
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import GROUPS, key_of, origin_of
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Group
from pipeline.planning.decisions import Verdict
from pipeline.planning.freshness import Judge
from pipeline.planning.output_spec import Leaf, Selection
from pipeline.planning.source_state import ByTime


class GroupJudge(Judge):
    """Decides what is to be done about what is made of groups."""

    def __init__(self, config: Config, ledger: Ledger, leaves: tuple[Leaf, ...], selection: Selection) -> None:
        super().__init__(config, ledger, leaves, selection)
        self.sources = ByTime()

    def judge_group(self, group: Group, leaf: Leaf, path: bytes, failures: list[Failure]) -> Verdict:
        """The verdict on what is made of a group, going by its members as they are."""
        try:
            if leaf.stage in self._above_root:
                self._refuse_among_inputs(leaf, path)
        except FileFailure as error:
            return Verdict(leaf.stage, "refuse", str(error))
        row = self._row_of_group(group, leaf, path)
        verdict = self.judge_at(group, leaf, row, path)
        if row is not None and verdict.action == "up-to-date":
            verdict = verdict._replace(target=row.target)
        if failures and verdict.action == "make" and not self._force:
            return self._after_failure(group, leaf, verdict, failures)
        return verdict

    def _row_of_group(self, group: Group, leaf: Leaf, path: bytes) -> OutputRecord | None:
        """What is recorded of a group, also if its stage was called otherwise."""
        row = self._ledger.outputs.get(leaf.template.key(path))
        if row is not None:
            was = origin_of(row.source)
            if not isinstance(was, Group) or was.name != group.name:
                return None
            return row if was.stage == group.stage or row.stage not in self._stages else None
        for stage in () if leaf.has_file else self._former_gathers:
            row = self._ledger.outputs.get(NoFile(stage).fill(key_of(Group(stage, group.name))))
            if row is not None and row.recipe == leaf.number:
                return row
        return None

    @cached_property
    def _former_gathers(self) -> set[str]:
        """What stages were called that gathered, and are not now."""
        return {row.stage for row in self._ledger.outputs.all(*GROUPS)} - self._stages
