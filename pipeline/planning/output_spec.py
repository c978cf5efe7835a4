"""One output of the tree, and which rows of the ledger are its own; and which files are to be done at all."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipeline.config.model import StageConfig
from pipeline.files.template import ALL_PARTS, NoFile, Template
from pipeline.files.walk import Match
from pipeline.ledger.outputs import OutputRecord
from pipeline.planning.recipe import Recipe
from pipeline.planning.recipe_diff import Difference, differences


@dataclass(frozen=True)
class Selection:
    """Which of the files with work are done this time; it never says what exists."""

    only: tuple[str, ...] = ()
    """Gitignore-style patterns; a file that matches any of them is selected. Empty: every file."""
    limit: int | None = None
    force: bool = False
    retry_failed: bool = False
    names: Iterable[bytes] | None = None
    """The names of the files, where they are listed; each may be given once only."""

    @property
    def is_partial(self) -> bool:
        """Whether files may have been passed over, so that nothing can be called gone."""
        return bool(self.only) or self.limit is not None or self.names is not None


@dataclass(frozen=True)
class OutputSpec:
    """One output of the tree: its template, its recipe, and the recipe's number if the ledger knows it."""

    stage: str
    template: Template | NoFile
    recipe: Recipe
    number: int | None
    route: tuple[StageConfig, ...]
    """The stages from the root of the tree to this one; of one that gathers, itself alone."""
    matches: Match | None = None
    """Tells which sources it is made of; None for all."""

    @cached_property
    def has_file(self) -> bool:
        """Whether there is anything to look at when it is done."""
        return isinstance(self.template, Template)

    @cached_property
    def has_parts(self) -> bool:
        """Whether it is a number of outputs, of which only who makes them knows how many and what they are called."""
        return any(stage.stage.fans_out for stage in self.route)

    def fill(self, source: bytes) -> bytes:
        """The path of a source's output; of one in parts, what stands for all of them. Raises FileFailure."""
        return self.template.fill(source, ALL_PARTS if self.has_parts else "")

    @property
    def gathers(self) -> bool:
        """Whether it is made of groups of files, and of no source."""
        return self.route[-1].stage.gathers

    @cached_property
    def is_plain(self) -> bool:
        """Whether it is one file for every source."""
        return self.has_file and not self.has_parts and self.matches is None


def differences_from(old: dict[str, Any], leaf: OutputSpec) -> list[Difference]:
    """All that differs between the recipe of an output as it was recorded and as it is, in the order of telling."""
    names = [each.name for each in leaf.route]
    files = [os.path.relpath(each.stage.where.rpartition(":")[0]) for each in leaf.route]
    return differences(old, leaf.recipe.parts, names, files)


def take_parts(
    leaf: OutputSpec, source: bytes, recorded: dict[bytes, OutputRecord], *, left_out: bool = False
) -> list[OutputRecord]:
    """What is recorded of the parts of one output, taken out of the records of its source; also of those that were
    `left_out` at last, if it is asked.
    """
    template = leaf.template
    return [
        recorded.pop(row.target)
        for row in list(recorded.values())
        if row.part
        and (left_out or row.status != "skipped")
        and template.key(template.fill(source, row.part)) == row.target
    ]
