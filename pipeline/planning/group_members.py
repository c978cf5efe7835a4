"""Which committed outputs belong to which group, in temporary tables beside the ledger, whatever their number.

ledger, less what is orphaned now --> members    done, and the file is there
plan, or what failed by now       --> absent     to be made yet, to be moved, or failed
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from typing import Literal, NamedTuple

from pipeline.config.model import Config
from pipeline.errors import FileFailure
from pipeline.files.group_manifest import Member
from pipeline.files.template import Template
from pipeline.ledger.group_tables import GroupTables
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.origins import kept_time, key_of, origin_of
from pipeline.messages import Group
from pipeline.planning.file_state import is_as_left
from pipeline.planning.output_spec import OutputSpec
from pipeline.planning.plan_store import PlanStore

How = Literal["to be made", "to be moved", "failed"]


class Gathered(NamedTuple):
    """A group, and what there is of it."""

    source: bytes
    """What stands for it in place of one."""
    output: bytes
    """Where what is made of it goes; empty where it can go nowhere."""
    members: int
    to_be_made: int
    to_be_moved: int
    failed: int


class Members:
    """The members of the groups of one stage that gathers."""

    def __init__(self, config: Config, ledger: Ledger, tables: GroupTables, leaf: OutputSpec) -> None:
        gather = leaf.route[-1]
        assert gather.parent is not None
        made = config.stages[gather.parent]
        assert made.output is not None
        self._tables = tables
        self._ledger = ledger
        self._folder = os.fsencode(config.folder)
        self._stages = [stage.name for stage in config.stages if stage.name != made.name]
        self._leaf = leaf
        self._group = gather.group
        self._of = made.name
        self._template: Template = made.output.template
        fields = self._group.fields if self._group else frozenset()
        self._needs_part, self._goes_by_folder = "part" in fields, fields <= {"dir"}
        self._folder_before: bytes | None = None
        self._place_before = b"", b""

    # -- filling -------------------------------------------------------------------------------------------------------

    def take_planned(self, store: PlanStore) -> None:
        """Take what there will be: what is there, and what the plan says of the rest."""
        for each in store.decisions_of_stage(self._of):
            if each.action == "make":
                self._add_absent(key_of(each.origin), "to be made")
            elif each.action == "rename":
                self._add_absent(key_of(each.origin), "to be moved")
            elif each.action == "refuse" or (each.action == "held" and each.reason.code != "dismissed"):
                self._add_absent(key_of(each.origin), "failed")
        self._take_recorded()

    def take_made(self) -> None:
        """Take what there is after all has been made that could be."""
        for source in self._ledger.failures.failed_sources(self._of):
            self._add_absent(source, "failed")
        self._take_recorded()

    def _take_recorded(self) -> None:
        self._tables.insert_members(self._recorded())

    def _recorded(self) -> Iterator[tuple[object, ...]]:
        # A stage may have been called otherwise when they were made; the template tells whose they are.
        for source, target, part, size, mtime_ns in self._tables.recorded_outputs(self._stages):
            path = self._path(source, part, target)
            if not path:
                continue
            try:
                there = os.stat(path)
            except OSError:
                self._add_absent(source, "failed")
                continue
            now = there.st_size, kept_time(there.st_mtime_ns)
            was = (size, mtime_ns) if now == (size, mtime_ns) or is_as_left(there, size, mtime_ns) else now
            yield (self._leaf.stage, *self._place(source, part), target, source, part, *was, *now)

    def _path(self, source: bytes, part: str | None, target: bytes) -> bytes:
        """Where an output lies; nothing where the stage does not lead there from the source any more."""
        try:
            path = self._template.fill(source, part or "")
        except FileFailure:
            return b""
        return path if self._template.key(path) == target else b""

    def _add_absent(self, source: bytes, how: How) -> None:
        # Of what makes parts, nobody knows the groups to which they would have belonged: it is one of each.
        place = (b"", b"") if self._needs_part else self._place(source, "")
        self._tables.insert_absent(self._leaf.stage, *place, source, how)

    def _place(self, source: bytes, part: str | None) -> tuple[bytes, bytes]:
        """The group of an output, and where that goes."""
        if not self._goes_by_folder:
            return self._find_place(source, part)
        folder = source[: source.rfind(b"/") + 1]
        if folder != self._folder_before:  # they come in the order of their sources
            self._folder_before, self._place_before = folder, self._find_place(source, part)
        return self._place_before

    def _find_place(self, source: bytes, part: str | None) -> tuple[bytes, bytes]:
        name = self._group.fill(source, part or "") if self._group else None
        stands = key_of(Group(self._leaf.stage, name))
        try:
            of_group = self._leaf.template.fill(source if self._leaf.has_file else stands, part or "")
        except FileFailure:
            return stands, b""
        return stands, of_group

    # -- reading -------------------------------------------------------------------------------------------------------

    def groups(self) -> Iterator[Gathered]:
        """The groups in their order; the tables may not change meanwhile."""
        of_each = self._tables.absent_from_all(self._leaf.stage)
        for row in self._tables.groups(self._leaf.stage):
            found = Gathered._make(row)
            yield found._replace(
                to_be_made=found.to_be_made + of_each.get("to be made", 0),
                to_be_moved=found.to_be_moved + of_each.get("to be moved", 0),
                failed=found.failed + of_each.get("failed", 0),
            )

    def identity(self, group: Gathered) -> Group:
        """What tells a group from what it was: its members in order, each with its path, size and time."""
        digest, count = hashlib.blake2b(digest_size=8), 0
        key = origin_of(group.source)
        assert isinstance(key, Group)
        for target, size, mtime_ns in self._tables.member_states(self._leaf.stage, group.source, group.output):
            digest.update(b"%b\0%d %d\0" % (target, size, mtime_ns))
            count += 1
        return Group(key.stage, key.name, count, int.from_bytes(digest.digest()) >> 2)  # SQLite's integers have a sign

    def why_nowhere(self, group: Gathered) -> str:
        """Why what is made of a group can go nowhere."""
        source, part = self._tables.member_without_output(self._leaf.stage, group.source)
        try:
            self._leaf.template.fill(source, part)
        except FileFailure as error:
            return str(error)
        return ""

    def listed(self, group: Group, output: bytes) -> Iterator[Member]:
        """The members of a group in the order of their paths, for the worker."""
        for target, of, part, size, mtime_ns in self._tables.members(self._leaf.stage, key_of(group), output):
            yield Member(os.path.normpath(os.path.join(self._folder, target)), of, part, size, mtime_ns)
