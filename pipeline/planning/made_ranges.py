"""Digests ranges of sources while a first run makes their outputs, so that their records need not be read again.

    plan     --> a range, once all its sources are handed out ----+
                                                                  +--> all are made: the digest of the range
    recorder --> what each job has made, as it is recorded -------+

Where anything else became of a source, or one takes long, nothing is told of its range: it is found by its records.
"""

from __future__ import annotations

from collections.abc import Sequence

from pipeline.ledger.ledger import UnchangedRange
from pipeline.ledger.outputs import MadeRow
from pipeline.messages import Job, Source
from pipeline.planning.ranges import RangeFiles
from pipeline.planning.unchanged import ComparedRange, RangeDigests
from pipeline.records import dataclass

# So many sources, and what was made of as many, are kept in mind at most: where the plan is far ahead of the jobs, the
# records are read after all. It is more than are at work, and wait for that, at a time.
_MOST = 1 << 15
# So many jobs end between two looks at the ranges that are open.
_LOOK_EVERY = 512


@dataclass
class _OpenRange:
    """A range of which not all outputs are made."""

    compared: ComparedRange
    taken: list[Source]
    """The sources that a stage takes."""
    ended: int = 0
    """How many of them, from the first on, are known to have ended."""


class MadeRanges:
    """The ranges of a run that began with an empty ledger."""

    def __init__(self, digests: RangeDigests) -> None:
        self._digests = digests
        self._stages = tuple(spec.stage for spec in digests.specs)
        # Where every source has one file of each output, its records are known by what was made.
        self._tells = all(spec.is_plain for spec in digests.specs)
        self._open: list[_OpenRange] = []
        """The ranges of which not all outputs are made."""
        self._made: dict[bytes, MadeRow] = {}
        self._found: dict[bytes, UnchangedRange] = {}
        self._not_looked_at = 0
        """How many jobs have ended since the ranges were looked at."""

    @property
    def found(self) -> dict[bytes, UnchangedRange]:
        """The ranges of which all outputs were made, by their first source."""
        self._look()
        return self._found

    def expect(self, compared: ComparedRange, sources: Sequence[Source]) -> None:
        """Follow a range, of which some outputs may have been made by now."""
        if self._tells and compared.first:
            taken = RangeFiles.of(list(sources), compared.others).taken
            self._open.append(_OpenRange(compared, taken))
            if sum(len(each.taken) for each in self._open) > _MOST:
                self._forget()

    def add(self, stages: tuple[str, ...], jobs: Sequence[Job], rows: Sequence[MadeRow]) -> None:
        """Take in what jobs have made, each of them an output of each of these stages; it must be recorded by now."""
        if not self._tells or stages != self._stages:
            return
        self._made.update(zip([job.source.path for job in jobs], rows, strict=True))
        self._not_looked_at += len(rows)
        if self._not_looked_at >= _LOOK_EVERY:
            self._look()
        if len(self._made) > _MOST:
            self._forget()

    def _look(self) -> None:
        self._not_looked_at = 0
        self._open = [each for each in self._open if not self._has_ended(each)]

    def _forget(self) -> None:
        self._made.clear()
        self._open.clear()

    def _has_ended(self, each: _OpenRange) -> bool:
        """Find the digest of a range, and forget its sources, if all of its outputs are made."""
        made, taken, at = self._made, each.taken, each.ended
        while at < len(taken) and taken[at].path in made:
            at += 1
        each.ended = at
        if at < len(taken):
            return False
        rows = [made.pop(path) for path, _, _ in taken]
        if found := self._digests.made(each.compared, taken, rows):
            self._found[each.compared.first] = found
        return True
