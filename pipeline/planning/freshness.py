"""Whether an output is fresh, and why not: every rule of "Fresh or stale", for one source at a time."""

from __future__ import annotations

import os
import time

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.failures import Failure, RetryPolicy
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import is_group
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import Origin, Source
from pipeline.planning.decisions import Action, Verdict
from pipeline.planning.output_spec import Leaf, Selection, differences_from, take_intended, take_parts
from pipeline.planning.output_state import UP_TO_DATE, holds, judge_file, time_of
from pipeline.planning.source_state import ByContents, ByTime, Note, same_origin
from pipeline.text import NOT_OURS


class Judge:
    """Decides for each output of a source whether it is fresh, and says why not."""

    def __init__(
        self,
        config: Config,
        ledger: Ledger,
        leaves: tuple[Leaf, ...],
        selection: Selection,
        note: Note | None = None,
    ) -> None:
        self._ledger = ledger
        self._leaves = leaves
        self._stages = {leaf.stage for leaf in leaves}
        self._force = selection.force
        self._patience = RetryPolicy(config.errors.hold_after, selection.retry_failed)
        self._settle_ns = round((config.inputs.settle_s or 0) * 1e9)
        self._is_listed = selection.names is not None
        self._uncertain = ledger.facts.uncertain_period
        """The period of which the ledger does not know all that was made."""
        by_contents = config.changed_by == "hash" and not selection.force
        root = os.fsencode(config.inputs.root)
        self.sources = ByContents(root, note, fill=note is not None) if by_contents else ByTime()
        """Tells which sources are as they were."""
        self._folder: tuple[bytes, bool] = (b"", False)
        """The folder in which an output was looked for last, and whether it is there."""
        self._whys: dict[tuple[int, str], str] = {}
        self._root = os.path.join(os.path.realpath(os.fsencode(config.inputs.root)), b"")
        folders = {leaf.stage: os.path.realpath(leaf.template.folder) for leaf in leaves if leaf.has_file}
        self._above_root = {
            stage: folder for stage, folder in folders.items() if self._root.startswith(os.path.join(folder, b""))
        }
        """The output folders in which the input root lies: what is filled in may lead back into it."""

    def judge(self, source: Source, recorded: dict[bytes, OutputRecord], failures: list[Failure]) -> list[Verdict]:
        """One verdict for each output that the tree makes of a source; takes what it uses out of the records."""
        if self._settle_ns and 0 <= time.time_ns() - source.mtime_ns < self._settle_ns:
            return self._leave_alone(source, recorded)
        verdicts = []
        for leaf in self._leaves:
            if not leaf.is_plain:
                verdicts += self._judge_other(source, leaf, recorded, failures)
                continue
            try:
                path = leaf.template.fill(source.path)
                if leaf.stage in self._above_root:
                    self._refuse_among_inputs(leaf, path)
            except FileFailure as error:
                verdicts.append(Verdict(leaf.stage, "refuse", str(error)))
                continue
            target = leaf.template.key(path)
            row = recorded.pop(target, None)
            if row is None:
                verdict = self._unrecorded(leaf, path, target)
            else:
                action, why = self._recorded(source, leaf, row, path)
                verdict = Verdict(leaf.stage, action, why, path, target, None, row.status != "intended")
            if failures and verdict.action == "make" and not self._force:
                verdict = self._after_failure(source, leaf, verdict, failures)
            verdicts.append(verdict)
        return verdicts

    def _judge_other(
        self, source: Source, leaf: Leaf, recorded: dict[bytes, OutputRecord], failures: list[Failure]
    ) -> list[Verdict]:
        """The verdicts on what is not one file for every source; none where the source is not for this leaf."""
        if leaf.matches and not leaf.matches(source.path):
            return []
        try:
            path = leaf.fill(source.path)
            if leaf.stage in self._above_root:
                self._refuse_among_inputs(leaf, path)
        except FileFailure as error:
            return [Verdict(leaf.stage, "refuse", str(error))]
        row = recorded.pop(leaf.template.key(path), None) or self._renamed(leaf, recorded)
        verdict = self.judge_at(source, leaf, row, path)
        parts = take_parts(leaf, source.path, recorded) if leaf.has_parts else []
        take_intended(leaf, source.path, recorded)
        if verdict.action == "up-to-date" and parts:
            if row is not None and row.status == "skipped":
                recorded |= {part.target: part for part in parts}
                return [verdict]
            verdicts = [self._judge_part(leaf, source, part) for part in parts]
            stale = next((each for each in verdicts if each.action != "up-to-date"), None)
            if stale is None:
                return verdicts
            verdict = verdict._replace(action=stale.action, why=stale.why)
        if failures and verdict.action == "make" and not self._force:
            verdict = self._after_failure(source, leaf, verdict, failures)
        return [verdict]

    def judge_at(self, origin: Origin, leaf: Leaf, row: OutputRecord | None, path: bytes) -> Verdict:
        """The verdict on the output of one path."""
        target = leaf.template.key(path)
        if row is None:
            return self._unrecorded(leaf, path, target)
        action, why = self._recorded(origin, leaf, row, path)
        return Verdict(leaf.stage, action, why, path, target, None, row.status != "intended")

    def _judge_part(self, leaf: Leaf, source: Source, row: OutputRecord) -> Verdict:
        """The verdict on one part of an output that is as its recipe has it."""
        path = leaf.template.fill(source.path, row.part or "")
        action, why = judge_file(row, path) if leaf.has_file else UP_TO_DATE
        said = why if action == "up-to-date" else f"part {row.part}: {why}"
        return Verdict(leaf.stage, action, said, path, row.target, None, True)

    def _renamed(self, leaf: Leaf, recorded: dict[bytes, OutputRecord]) -> OutputRecord | None:
        """What is recorded of a leaf without a file whose stage had another name."""
        if leaf.has_file:
            return None
        for row in recorded.values():
            is_open = row.target.startswith(NO_FILE_KEY) and not row.part and row.stage not in self._stages
            if is_open and row.recipe == leaf.number:
                return recorded.pop(row.target)
        return None

    def _leave_alone(self, source: Source, recorded: dict[bytes, OutputRecord]) -> list[Verdict]:
        """The verdicts on a source that somebody may be writing to: nothing of it is judged, and nothing is gone."""
        owned = {row.target for row in recorded.values() if row.status != "intended"}
        recorded.clear()
        verdicts = []
        for leaf in self._leaves:
            if leaf.matches and not leaf.matches(source.path):
                continue
            try:
                path = leaf.fill(source.path)
            except FileFailure:  # to be said when it is settled
                verdicts.append(Verdict(leaf.stage, "settling", "settling"))
                continue
            target = leaf.template.key(path)
            verdicts.append(Verdict(leaf.stage, "settling", "settling", path, target, None, target in owned))
        return verdicts

    def _after_failure(self, origin: Origin, leaf: Leaf, verdict: Verdict, failures: list[Failure]) -> Verdict:
        """The verdict on an output to be made, if it is of a stage that failed before."""
        failure = next((each for each in failures if each.stage == leaf.stage), None)
        if failure is None or failure.recipe != leaf.number or not same_origin(origin, failure):
            return verdict
        action: Action = "held" if self._patience.is_over(failure) else "make"
        return verdict._replace(action=action, why=self._patience.describe(failure))

    def _refuse_among_inputs(self, leaf: Leaf, path: bytes) -> None:
        real = self._above_root[leaf.stage] + path[len(leaf.template.folder) :]
        if real.startswith(self._root):
            raise FileFailure(f"output {os.fsdecode(path)!r} would lie among the inputs")

    def _unrecorded(self, leaf: Leaf, path: bytes, target: bytes) -> Verdict:
        owner = self._ledger.outputs.owner(target)
        if owner is None:
            if leaf.has_file and not self._force and self._exists(path):
                if self._is_unsure(time_of(path)):
                    return Verdict(leaf.stage, "make", "interrupted", path, target)
                return Verdict(leaf.stage, "refuse", NOT_OURS, path, target)
            return Verdict(leaf.stage, "make", "new", path, target)
        if owner[1] == "intended":
            return Verdict(leaf.stage, "make", "interrupted" if self._exists(path) else "new", path, target)
        if owner[1] == "skipped" and not self._force and self._is_others(self._ledger.outputs.get(target), path):
            return Verdict(leaf.stage, "refuse", NOT_OURS, path, target)
        rival: bytes | None = owner[0]
        if self._is_listed and not is_group(owner[0]) and not os.path.lexists(self._root + owner[0]):
            rival = None  # a list does not come by the sources that are gone
        return Verdict(leaf.stage, "make", "new", path, target, rival)

    def _exists(self, path: bytes) -> bool:
        """Whether anything lies there; whether its folder does is asked once for all that are to lie in it."""
        folder = path[: path.rindex(b"/")]
        if folder != self._folder[0]:
            self._folder = folder, os.path.lexists(folder)
        return self._folder[1] and os.path.lexists(path)

    def _recorded(self, origin: Origin, leaf: Leaf, row: OutputRecord, path: bytes) -> tuple[Action, str]:
        if row.status == "intended":
            return "make", "interrupted" if os.path.lexists(path) else "new"
        if self._force:
            return "make", "forced"
        if not self.sources.is_same(origin, row):
            return self._redo(row, path, self.sources.describe(origin, row))
        if row.recipe != leaf.number:
            return self._redo(row, path, self._recipe_change(row.recipe, leaf))
        if row.in_flight:
            return "make", "interrupted"
        if row.status == "skipped":
            return "up-to-date", f"skipped: {row.reason}"
        if not leaf.has_file or leaf.has_parts:
            return UP_TO_DATE
        if self._uncertain and self._is_lost(row, path):
            return "make", "interrupted"
        return judge_file(row, path)

    def _redo(self, row: OutputRecord, path: bytes, why: str) -> tuple[Action, str]:
        """To be made for this reason, if it is ours to write."""
        return ("refuse", NOT_OURS) if self._is_others(row, path) else ("make", why)

    def _is_others(self, row: OutputRecord | None, path: bytes) -> bool:
        """Whether somebody's file is where we made none, since the source was left out."""
        made_none = row is not None and row.status == "skipped" and row.size is None and not row.in_flight
        return made_none and self._exists(path) and not self._is_unsure(time_of(path))

    def _is_lost(self, row: OutputRecord, path: bytes) -> bool:
        """Whether an output may be of a run that the ledger has forgotten, or have been lost after it was recorded."""
        mtime_ns = time_of(path)
        if self._uncertain and self._uncertain.lost_power and self._is_unsure(row.mtime_ns):
            return row.digest is None or not holds(path, row.digest)
        return mtime_ns != row.mtime_ns and self._is_unsure(mtime_ns)

    def _is_unsure(self, mtime_ns: int | None) -> bool:
        """Whether what was made then may be otherwise than the ledger has it."""
        period = self._uncertain
        return period is not None and mtime_ns is not None and period.since_ns <= mtime_ns < period.until_ns

    def _recipe_change(self, old: int, leaf: Leaf) -> str:
        if (old, leaf.stage) not in self._whys:
            self._whys[old, leaf.stage] = differences_from(self._ledger.recipe_parts(old), leaf)[0].text
        return self._whys[old, leaf.stage]
