"""The members of each group: which committed outputs belong to it, and which are absent. Kept in temporary tables.

recorded outputs that are no orphans, and whose files exist --> members
planned or failed outputs, and recorded ones without a file --> absent: to be made, to be moved, or failed

A group is what the stage's `group` template makes of an output's source; its output is where the stage's own template
leads from there. Two members of one group that lead to two outputs make two rows of states, which then collide.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Literal

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files import hashlib
from pipeline.files.group_manifest import Member
from pipeline.files.template import Template
from pipeline.ledger.group_tables import GroupTables
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import kept_time, key_of, origin_of
from pipeline.messages import Group
from pipeline.planning.decisions import Decision
from pipeline.planning.file_state import digest_at
from pipeline.planning.plan_store import PlanStore
from pipeline.planning.recipe import OutputSpec
from pipeline.records import NamedTuple

How = Literal["to be made", "to be moved", "failed"]


class GroupState(NamedTuple):
    """A group with the members that are there, where its output goes, and how many members are absent."""

    group: Group
    output: bytes
    """Empty where the template leads nowhere."""
    to_be_made: int
    to_be_moved: int
    failed: int


class GroupMembers:
    """The members of the groups of one stage that gathers."""

    def __init__(self, config: Config, ledger: Ledger, tables: GroupTables, spec: OutputSpec) -> None:
        stage = spec.route[-1]
        assert stage.parent is not None
        made = config.stages[stage.parent]
        assert made.output is not None
        self.spec = spec
        self.accepts_failures = stage.partial
        """Whether a group is made of the members there are, where others failed."""
        self._tables = tables
        self._ledger = ledger
        self._folder = os.fsencode(config.folder)
        self._member_stage = made.name
        self._member_template: Template = made.output.template
        self._other_stages = [each.name for each in config.stages if each.name != made.name]
        self._name_template = stage.group
        fields = stage.group.fields if stage.group else frozenset()
        # Where several sources could have one path, the names of those that have it count, too.
        shown = self._member_template.fields
        self._counts_sources = not ("dir" in shown and ("name" in shown or {"stem", "suffix"} <= shown))
        self._needs_part, self._goes_by_folder = "part" in fields, fields <= {"dir"}
        self._last_folder: bytes | None = None
        self._last_place = b"", b""

    # -- filling -------------------------------------------------------------------------------------------------------

    def find_planned(self, store: PlanStore) -> None:
        """Fill the tables with the members that are there, and with what the plan says of the others."""
        for decision in store.decisions_of_stage(self._member_stage):
            if how := _how_absent(decision):
                self._add_absent(key_of(decision.origin), how)
        self._tables.insert_members(self._recorded())

    def find_made(self) -> None:
        """Fill the tables with the members that are there once all others are made, and with those that failed."""
        for source in self._ledger.failures.failed_sources(self._member_stage):
            self._add_absent(source, "failed")
        self._tables.insert_members(self._recorded())

    def _recorded(self) -> Iterator[tuple[object, ...]]:
        """Yield a row of members for each recorded output whose file exists; the others are added as failed."""
        # The stage may have had another name when they were made; the template tells whose they are.
        for source, target, part, *made, digest in self._tables.recorded_outputs(self._other_stages):
            path = self._path(source, part, target)
            if not path:
                continue
            try:
                found = os.stat(path)
            except OSError:
                self._add_absent(source, "failed")
                continue
            now = found.st_size, kept_time(found.st_mtime_ns)
            is_as_made = now == tuple(made) or (now[0] == made[0] and digest_at(path) == digest)
            contents = digest if is_as_made else None
            yield (self.spec.stage, *self._place(source, part), target, source, part, contents, *now)

    def _path(self, source: bytes, part: str | None, target: bytes) -> bytes:
        """Return the path of an output; empty where the template leads from the source to another target now."""
        try:
            path = self._member_template.fill(source, part or "")
        except FileFailure:
            return b""
        return path if self._member_template.key(path) == target else b""

    def _add_absent(self, source: bytes, how: How) -> None:
        # Of parts that were not made, nobody knows the groups: they may be absent from any.
        place = (b"", b"") if self._needs_part else self._place(source, "")
        self._tables.insert_absent(self.spec.stage, *place, source, how)

    def _place(self, source: bytes, part: str | None) -> tuple[bytes, bytes]:
        """Return the key of the group to which an output belongs, and the path of what is made of that."""
        if not self._goes_by_folder:
            return self._find_place(source, part)
        folder = source[: source.rfind(b"/") + 1]
        if folder != self._last_folder:  # sources come in byte order, so those of a folder come together
            self._last_folder, self._last_place = folder, self._find_place(source, part)
        return self._last_place

    def _find_place(self, source: bytes, part: str | None) -> tuple[bytes, bytes]:
        name = self._name_template.fill(source, part or "") if self._name_template else None
        key = key_of(Group(self.spec.stage, name))
        try:
            return key, self.spec.template.fill(source if self.spec.template.has_file else key, part or "")
        except FileFailure:
            return key, b""

    def may_lie_below(self, folder: bytes, group: Group) -> bool:
        """Return whether a source somewhere below a folder of the input root may have an output in a group."""
        return self._name_template is None or self._name_template.may_hold(group.name or b"", folder)

    # -- reading -------------------------------------------------------------------------------------------------------

    def states(self) -> Iterator[GroupState]:
        """Yield every group in the order of their keys; the tables may not change meanwhile."""
        from_any = self._tables.absent_from_all(self.spec.stage)
        for key, output, _, to_be_made, to_be_moved, failed in self._tables.groups(self.spec.stage):
            yield GroupState(
                self._group(key, output),
                output,
                to_be_made + from_any.get("to be made", 0),
                to_be_moved + from_any.get("to be moved", 0),
                failed + from_any.get("failed", 0),
            )

    def _group(self, key: bytes, output: bytes) -> Group:
        """Return a group with the digest of its members: of their paths in order, and their contents.

        For the contents of a member that somebody has edited, or that were never recorded, size and time stand.
        """
        group, digest, count = origin_of(key), hashlib.blake2b(digest_size=8), 0
        assert isinstance(group, Group)
        for target, contents, size, mtime_ns, source in self._tables.member_states(self.spec.stage, key, output):
            if self._counts_sources:
                digest.update(b"%b\0" % source)
            digest.update(b"%b\0%b\0" % (target, contents or b"%d %d" % (size, mtime_ns)))
            count += 1
        return group._replace(
            members=count, digest=int.from_bytes(digest.digest()) >> 2
        )  # SQLite's integers are signed

    def path_error(self, group: Group) -> str:
        """Return why the template leads to no output of a group; empty where it leads to one."""
        source, part = self._tables.member_without_output(self.spec.stage, key_of(group))
        try:
            self.spec.template.fill(source, part)
        except FileFailure as error:
            return str(error)
        return ""

    def list_members(self, group: Group, output: bytes) -> Iterator[Member]:
        """Yield the members of a group in byte order of their paths, as the worker reads them."""
        for found in self._tables.members(self.spec.stage, key_of(group), output):
            path = os.path.normpath(os.path.join(self._folder, found.target))
            yield Member(path, found.source, found.part, found.size, found.mtime_ns)


def _how_absent(decision: Decision) -> How | None:
    """Return how the member of a decision is absent; None where it is there, or is not waited for."""
    if decision.action == "make":
        return "to be made"
    if decision.action == "rename":
        return "to be moved"
    is_held = decision.action == "held" and decision.reason.code != "dismissed"
    return "failed" if decision.action == "refuse" or is_held else None
