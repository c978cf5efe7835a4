"""Whether what is made of a group is fresh: the judge of files, for a group and its members in place of a source."""

from __future__ import annotations

from functools import cached_property

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.template import NoFile
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Source
from pipeline.planning.decisions import Verdict
from pipeline.planning.freshness import Judge
from pipeline.planning.output_spec import Leaf, Selection
from pipeline.planning.source_state import ByTime
from pipeline.text import GROUPS, group_in, is_group, source_of

MEMBERS_CHANGED = "members changed"


class _ByMembers(ByTime):
    """Groups are the same if their members are."""

    def is_same(self, source: Source, row: OutputRecord) -> bool:
        """Whether a group is as a row has it."""
        return (source.size_bytes, source.mtime_ns) == (row.source_size, row.source_mtime_ns)

    def describe(self, source: Source, row: OutputRecord) -> str:
        """How it changed."""
        return MEMBERS_CHANGED


class GroupJudge(Judge):
    """Decides what is to be done about what is made of groups."""

    def __init__(self, config: Config, ledger: Ledger, leaves: tuple[Leaf, ...], selection: Selection) -> None:
        super().__init__(config, ledger, leaves, selection)
        self.sources = _ByMembers()

    def judge_group(self, group: Source, leaf: Leaf, path: bytes, failures: list[Failure]) -> Verdict:
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

    def _row_of_group(self, group: Source, leaf: Leaf, path: bytes) -> OutputRecord | None:
        """What is recorded of a group, also if its stage was called otherwise."""
        row = self._ledger.outputs.get(leaf.template.key(path))
        if row is not None:
            was_its = is_group(row.source) and group_in(row.source) == group_in(group.path)
            return row if row.source == group.path or (was_its and row.stage not in self._stages) else None
        for stage in () if leaf.has_file else self._former_gathers:
            row = self._ledger.outputs.get(NoFile(stage).fill(source_of(stage, group_in(group.path))))
            if row is not None and row.recipe == leaf.number:
                return row
        return None

    @cached_property
    def _former_gathers(self) -> set[str]:
        """What stages were called that gathered, and are not now."""
        return {row.stage for row in self._ledger.outputs.all(*GROUPS)} - self._stages
