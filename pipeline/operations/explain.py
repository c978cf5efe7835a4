"""Explains one file: its route, the parts of its recipe, its records in the ledger, and the decision of a run.

The decision is taken from a plan over all files. The plan stores nothing about files that are up to date, so those are
judged anew by `Freshness`.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from pipeline.config.model import Config, StageConfig
from pipeline.config.routes import describe_stage
from pipeline.errors import UsageError
from pipeline.files.file_system import is_gone
from pipeline.files.template import NO_FILE_KEY
from pipeline.files.walk import deciding
from pipeline.ledger.days import Day
from pipeline.ledger.failures import Failure
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import is_group
from pipeline.ledger.outputs import OutputRecord
from pipeline.ledger.overrides import Override
from pipeline.ledger.runs import Making
from pipeline.messages import Group, Source
from pipeline.planning.decisions import Decision, Reason
from pipeline.planning.file_state import is_as_left
from pipeline.planning.freshness import Freshness
from pipeline.planning.late_code import LateCode
from pipeline.planning.orphans import Fate, fate_of
from pipeline.planning.plan import Plan, make_plan, walk_of
from pipeline.planning.recipe import OutputSpec, output_specs
from pipeline.planning.recipe_diff import as_written, contents_within, differences_from
from pipeline.planning.selection import Selection
from pipeline.records import dataclass
from pipeline.stage.code import Code
from pipeline.stage.recognition import can_be
from pipeline.text import counted, shown


@dataclass(frozen=True)
class Subject:
    """The file to explain: an input, or one output of it."""

    source: bytes
    target: bytes | None = None
    """The path of the output, as the ledger keeps it."""


def _files_of(code: Code) -> list[str]:
    return sorted(os.path.relpath(file) for file in code.files)


@dataclass(frozen=True)
class StageExplained:
    """One stage of the route."""

    name: str
    route: str
    options: dict[str, Any]
    """The options after defaults, as they were written."""
    code: list[str]
    """The files whose code counts."""
    recipe: int | None
    """The module's RECIPE, which stands for its code; None where there is none."""
    contents: list[str]
    """The files whose contents count."""


@dataclass(frozen=True)
class OutputExplained:
    """One output, of a template or only recorded."""

    stage: str
    path: bytes
    action: str
    reason: Reason
    save: dict[str, Any]
    differences: list[str]
    """Every difference between the recorded recipe and the current one."""
    found: os.stat_result | None
    """The stat of the file at the output's path; None where there is none."""
    row: OutputRecord | None
    override: Override | None
    failure: Failure | None
    printed: str
    """The last output of the stages before the failure."""
    making: Making | None
    """How the output on record was made; None if no run has made it."""
    day: Day | None
    """The day of the run that made it, if that has no row of its own any more."""
    fate: Fate | None = None
    """The check of whether an orphan's file may be removed; None for any other output."""
    moves_to: bytes = b""
    """The new path of an output to rename, as the ledger keeps it; empty for any other."""

    @property
    def is_as_left(self) -> bool:
        """True if the file at the output's path is the one that a run wrote."""
        row, found = self.row, self.found
        if found is None or row is None:
            return False
        return is_as_left(self.path, found, row.size, row.mtime_ns, row.digest)


@dataclass(frozen=True)
class Explanation:
    """Everything about one file."""

    source: bytes
    identity: Source | None
    """The identity of the input; None where it is not an input at present."""
    standing: str
    stages: list[StageExplained]
    outputs: list[OutputExplained]
    initializer: str
    code: list[str]
    """The files of the initializer's code, which counts for every output."""
    contents: list[str]
    """The files whose contents count for every output, those in the initializer's arguments and in `depends`."""
    libraries: dict[str, str]


class Explainer:
    """Explains files: by the pipeline, the ledger, and a plan over all files."""

    def __init__(self, config: Config, ledger: Ledger) -> None:
        self._config = config
        self._ledger = ledger
        self._leaves = output_specs(config, ledger, record=False)
        self._of_files = tuple(leaf for leaf in self._leaves if not leaf.gathers)
        self._plan: Plan = make_plan(config, ledger, self._leaves, Selection(), every_group=True)
        self._root = os.path.join(os.fsencode(config.inputs.root), b"")

    # -- which file --------------------------------------------------------------------------------------------------

    def find(self, given: bytes) -> Subject:
        """Return the input or output of a path, relative to the working folder, root or YAML. Raises UsageError."""
        if not given:
            raise UsageError("'': an empty path; name a file")
        bases = (os.getcwdb(), self._root, os.fsencode(self._config.folder))
        for full in dict.fromkeys(os.path.normpath(os.path.join(base, given)) for base in bases):
            if subject := self._output_at(full) or self._input_at(full):
                return subject
        name, what = shown(given), "is neither an input nor an output"
        if any(os.path.isdir(os.path.join(base, given)) for base in bases):
            raise UsageError(f"{name}: a folder; name a file in it")
        where = f"; it lies outside the input root {self._config.inputs.root}" if os.path.lexists(given) else ""
        raise UsageError(f"{name}: {what} of {self._config.name}{where}")

    def _output_at(self, full: bytes) -> Subject | None:
        folders = [leaf.template for leaf in self._leaves if full.startswith(os.path.join(leaf.template.folder, b""))]
        relative = os.path.relpath(full, os.fsencode(self._config.folder))
        for target in dict.fromkeys([*(template.key(full) for template in folders), relative, full]):
            owner = self._ledger.outputs.owner(target)
            wanted_by = self._plan.store.wanted_by(target)
            if owner or wanted_by:
                return Subject(wanted_by[0] if wanted_by else owner[0], target)  # type: ignore[index]
        return None

    def _input_at(self, full: bytes) -> Subject | None:
        for root in (self._root, os.path.join(os.path.realpath(self._root), b"")):
            source = full[len(root) :] if full.startswith(root) else b""
            if source and (self._is_file(source) or self._rows(source) or self._failures(source)):
                return Subject(source)
        return None

    def _is_file(self, source: bytes) -> bool:
        return os.path.lexists(self._root + source) and not os.path.isdir(self._root + source)

    def _rows(self, source: bytes) -> list[OutputRecord]:
        return list(self._ledger.outputs.of_source(source))

    def _failures(self, source: bytes) -> list[Failure]:
        return list(self._ledger.failures.of_source(source))

    # -- what is known of it -----------------------------------------------------------------------------------------

    def explain(self, subject: Subject) -> Explanation:
        """Explain an input with its outputs, or one output with the stages before it."""
        if is_group(subject.source):
            return self._explain_group(subject.source)
        walk = walk_of(self._config)
        identity = walk.look_up(subject.source)
        leaves = [leaf for leaf in self._of_files if leaf.matches is None or leaf.matches(subject.source)]
        standing = "an input" if leaves else "an input that no stage reads"
        kinds, suffixes = [leaf.reads for leaf in leaves], self._config.picture_suffixes
        if leaves and not any(kind is None or can_be(kind, self._root, subject.source, suffixes) for kind in kinds):
            standing = "an input that no stage can take, by its suffix and first bytes"
        standing = standing if identity else self._why_no_input(subject.source, walk.left_out_names[-1][1])
        outputs = list(self._outputs(subject.source, identity))
        if subject.target is not None:
            path = self._path(subject.target)
            outputs = [each for each in outputs if each.path == path]
        named = {each.stage for each in outputs}
        leaves = [leaf for leaf in leaves if subject.target is None or leaf.stage in named]
        return self._with_surroundings(subject.source, identity, standing, leaves, outputs)

    def _explain_group(self, group: bytes) -> Explanation:
        """Explain the outputs of a group."""
        planned = self._plan.store.decisions_of(group)
        members = [counted(each.origin.members, "member") for each in planned if isinstance(each.origin, Group)]
        outputs = list(self._outputs(group, None))
        leaves = [leaf for leaf in self._leaves if leaf.stage in {each.stage for each in planned}]
        standing = f"a group of {members[0]}" if members else "a group that is gone"
        return self._with_surroundings(group, None, standing, leaves, outputs)

    def _with_surroundings(
        self,
        source: bytes,
        identity: Source | None,
        standing: str,
        leaves: list[OutputSpec],
        outputs: list[OutputExplained],
    ) -> Explanation:
        config, initializer = self._config, self._config.pool.initializer or ""
        given = self._leaves[0].recipe.parts.get("initializer", {}).get("initargs", [])
        return Explanation(
            source,
            identity,
            standing,
            list(self._stages(leaves)),
            outputs,
            initializer,
            _files_of(config.initializer_code),
            list(dict.fromkeys([*(path for path, _ in contents_within(given)), *config.depends])),
            dict(config.versions),
        )

    def _path(self, target: bytes) -> bytes:
        return os.path.normpath(os.path.join(os.fsencode(self._config.folder), target))

    def _why_no_input(self, source: bytes, reason: str) -> str:
        """Return why the walk leaves out a file."""
        if is_gone(self._root + source):
            return "an input that is gone"
        inputs, at = self._config.inputs, 0
        while reason == "not among the inputs" and (at := source.find(b"/", at) + 1 or len(source) + 1):
            path = source[:at]
            if pattern := deciding(inputs.exclude, path):
                return f"not an input: excluded by {pattern!r}"
            for leaf in self._leaves:
                if os.path.join(leaf.template.folder, b"") == self._root + path:
                    return f"not an input: it lies in the output folder of stage {leaf.stage!r}"
            if at > len(source):
                return f"not an input: no pattern of include matches it: {', '.join(inputs.include) or 'none'}"
        return f"not an input: {reason}"

    def _stages(self, leaves: list[OutputSpec]) -> Iterator[StageExplained]:
        """Yield the stages on the routes to these outputs, each once, in the order of the tree."""
        parts: dict[str, dict[str, Any]] = {}
        for leaf in leaves:
            parts |= {each.name: part for each, part in zip(leaf.route, leaf.recipe.parts["route"], strict=True)}
        for stage in self._config.stages:
            if stage.name in parts:
                yield self._stage(stage, parts[stage.name])

    def _stage(self, stage: StageConfig, part: dict[str, Any]) -> StageExplained:
        late = [
            os.path.relpath(self._config.folder / path) for path in LateCode(self._config, self._ledger).known(stage)
        ]
        files = sorted([*_files_of(stage.code), *late])
        own = part.get("initializer", {})
        if own and stage.pool and stage.pool.initializer:
            files += [each for each in _files_of(stage.initializer_code) if each not in files]
        contents = [path for path, _ in contents_within([part["options"], own.get("initargs", [])])]
        return StageExplained(
            stage.name,
            describe_stage(self._config, stage),
            as_written(part["options"]),
            files,
            stage.code.recipe,
            list(dict.fromkeys([*contents, *stage.depends])),
        )

    # -- its outputs -------------------------------------------------------------------------------------------------

    def _outputs(self, source: bytes, identity: Source | None) -> Iterator[OutputExplained]:
        """Yield the outputs of a source: those of the tree, then recorded ones that nothing produces any more."""
        rows = {row.target: row for row in self._rows(source)}
        failures = {failure.stage: failure for failure in self._failures(source)}
        leaves = {leaf.stage: leaf for leaf in self._leaves}
        decisions = self._plan.store.decisions_of(source) if is_group(source) else []
        decisions += self._decisions(identity, rows, list(failures.values())) if identity else []
        for each in decisions:
            row = rows.pop(each.target, None) or self._recorded_otherwise(each)
            failure = failures.get(each.stage)
            yield self._output(each.stage, each.path, each.action, each.reason, row, failure, leaves[each.stage])
        for row in rows.values():
            if row.part == "" and row.status == "done":  # it stands for parts, of which each has said its own
                continue
            path = self._path(row.target)
            output = self._output(row.stage, path, "keep", Reason("source_unknown"), row, None, None)
            if new := next((each.target for each in self._plan.store.renames() if each.moved_from == row.target), b""):
                output = replace(output, action="rename", reason=Reason("path_changed"), moves_to=new)
            elif orphan := next((each for each in self._plan.store.orphans() if each.target == row.target), None):
                fate = fate_of(orphan, path)
                output = replace(output, action=fate.action, reason=Reason(orphan.code), fate=fate)
            elif lost := next((each for each in self._plan.kept if each.holds(row.source)), None):
                output = replace(output, reason=Reason("folder_lost", (str(lost),)))
            elif code := self._plan.store.why_spared(row.target):
                output = replace(output, reason=Reason(code))
            yield output

    def _recorded_otherwise(self, decision: Decision) -> OutputRecord | None:
        """Return the record of a group whose stage had another name."""
        row = self._ledger.outputs.get(decision.target) if isinstance(decision.origin, Group) else None
        return row if row and is_group(row.source) else None

    def _decisions(self, source: Source, rows: dict[bytes, OutputRecord], failures: list[Failure]) -> list[Decision]:
        """Return what a run would decide about the outputs of an input, in the order of the tree."""
        planned = {(each.stage, each.target): each for each in self._plan.store.decisions_of(source.path)}
        freshness, decisions = Freshness(self._config, self._ledger, self._of_files, Selection()), []
        for met, recorded, failed in freshness.sources.read_ahead([(source, list(rows.values()), failures)]):
            for each in freshness.decide(met, {row.target: row for row in recorded}, failed):
                decisions.append(planned.get((each.stage, each.target), each))
        return decisions

    def _output(
        self, stage: str, path: bytes, action: str, reason: Reason, row: OutputRecord | None, failure: Failure | None,
        leaf: OutputSpec | None,
    ) -> OutputExplained:  # fmt: skip
        differences = []
        if row and leaf and row.status != "intended" and row.recipe != leaf.number:
            differences = [each.text for each in differences_from(self._ledger.recipe_parts(row.recipe), leaf)]
        override = self._ledger.overrides.get(row.override) if row and row.override else None
        making = self._ledger.runs.making_of(row.target) if row and row.status != "intended" else None
        return OutputExplained(
            stage,
            b"" if path.startswith(NO_FILE_KEY) else path,
            action,
            reason,
            {name: value for name, value in as_written(leaf.recipe.parts["save"]).items() if name != "format"}
            if leaf
            else {},
            differences,
            _stat(path),
            row,
            override,
            failure,
            self._ledger.failures.printed(failure) if failure else "",
            making,
            self._ledger.days.of(making.number) if making and making.run is None else None,
        )


def _stat(path: bytes) -> os.stat_result | None:
    try:
        return os.lstat(path) if path else None
    except OSError:
        return None
