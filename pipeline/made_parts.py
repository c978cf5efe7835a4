"""What the ledger has of the parts of fan-outs: given to the jobs that make them anew, and brought up to date after."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pipeline.judge import Leaf, is_as_left, take_parts
from pipeline.ledger import Ledger, Row
from pipeline.messages import KILLED, Job, Outcome, Result, Target
from pipeline.outputs import NO_FILE_KEY
from pipeline.parts import PartList


class MadeParts:
    """The parts of all the outputs that are in parts."""

    def __init__(self, ledger: Ledger, leaves: Sequence[Leaf], noted: PartList, folder: bytes, *, force: bool) -> None:
        self._ledger = ledger
        self._leaves = {leaf.stage: leaf for leaf in leaves if leaf.has_parts}
        self._noted = noted
        self._folder = folder
        self._force = force

    def told(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """The same jobs, told where their parts go and which were made before."""
        return map(self._tell, jobs) if self._leaves else jobs

    def _tell(self, job: Job) -> Job:
        return job._replace(targets=tuple(self._tell_of(job.source.path, each) for each in job.targets))

    def _tell_of(self, source: bytes, target: Target) -> Target:
        leaf = self._leaves.get(target.stage)
        if leaf is None:
            return target
        owned = tuple(self._path(row) for row in self._rows(leaf, source, left_out=True))
        return target._replace(around=leaf.template.around_part(source), owned=owned, is_forced=self._force)

    def record(self, outcome: Outcome) -> None:
        """Bring what was made before up to date with what became of a job, before that is recorded."""
        for result in outcome.results:
            if leaf := self._leaves.get(result.stage):
                self._record(leaf, outcome.source.path, result)

    def _record(self, leaf: Leaf, source: bytes, result: Result) -> None:
        if result.kind in KILLED:  # nobody has cleared up after it
            self._noted.remove_temporaries(source, result.path, [self._ledger.run])
        if result.status == "failed":
            return
        paths = {part.path for part in result.parts}
        gone = [row for row in self._rows(leaf, source) if self._path(row) not in paths]
        for row in gone:
            if result.status == "done" and self._remove(row):
                self._ledger.forget(targets=[row.target])
            else:
                self._ledger.files.leave_out(row.target)

    def _rows(self, leaf: Leaf, source: bytes, *, left_out: bool = False) -> list[Row]:
        recorded = {row.target: row for row in self._ledger.rows(source, source + b"\0")}
        return take_parts(leaf, source, recorded, left_out=left_out)

    def _path(self, row: Row) -> bytes:
        if row.target.startswith(NO_FILE_KEY):
            return row.target
        return os.path.normpath(os.path.join(self._folder, row.target))

    def _remove(self, row: Row) -> bool:
        """Remove a part that is not made any more, if it is as we left it; tells whether there is no file now."""
        if row.size is None:
            return True
        path = self._path(row)
        try:
            if not is_as_left(os.lstat(path), row.size, row.mtime_ns):
                return False
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return True
