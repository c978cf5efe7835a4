"""The parts of fan-outs in the ledger: told to the jobs that make them again, and updated by their outcomes."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from pipeline.files.atomic import remove_temporaries, run_apart
from pipeline.files.parts import Noted, PartList
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import KILLED, Job, Outcome, Result, Target
from pipeline.planning.file_state import is_as_left
from pipeline.planning.recipe import OutputSpec, take_parts


class RecordedParts:
    """The records of all outputs that are in parts. A run has one only where the tree fans out, or a run was killed."""

    def __init__(
        self, ledger: Ledger, leaves: Sequence[OutputSpec], noted: PartList, folder: bytes, *, force: bool
    ) -> None:
        self._ledger = ledger
        self._leaves = {leaf.stage: leaf for leaf in leaves if leaf.has_parts}
        self._noted = noted
        self._folder = folder
        self._force = force

    def recover(self, unclean_runs: Sequence[str]) -> None:
        """Record the parts that killed runs made but did not record, and remove the temporaries they left."""
        heads: dict[tuple[bytes, bytes], OutputRecord | None] = {}
        for part in self._noted.noted():
            key = part.source, part.target
            if key not in heads:
                heads[key] = self._head(*key)
            if (head := heads[key]) is not None:
                remove_temporaries(part.path, [run_apart(run, part.source) for run in unclean_runs])
                self._record_noted(part, head)

    def _head(self, source: bytes, path: bytes) -> OutputRecord | None:
        """Return the record that stands for all parts of an output that a killed run had in hand."""
        rows = self._ledger.outputs.of_source(source)
        return next((row for row in rows if row.in_flight and self._path(row) == path), None)

    def _record_noted(self, part: Noted, head: OutputRecord) -> None:
        try:
            found = os.lstat(part.path)
        except OSError:
            return
        if (found.st_size, found.st_mtime_ns) == (part.size_bytes, part.mtime_ns):
            key = part.path if os.path.isabs(head.target) else os.path.relpath(part.path, self._folder)
            self._ledger.outputs.add_part(key, head.source, head.stage, found.st_size, found.st_mtime_ns, part.name)

    def with_parts(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Yield the jobs with the paths of their parts: where new ones go, and which were made before."""
        return map(self._job_with_parts, jobs) if self._leaves else jobs

    def _job_with_parts(self, job: Job) -> Job:
        return job._replace(targets=tuple(self._target_with_parts(job.source.path, each) for each in job.targets))

    def _target_with_parts(self, source: bytes, target: Target) -> Target:
        leaf = self._leaves.get(target.stage)
        if leaf is None:
            return target
        owned = take_parts(leaf, source, self._recorded(source), left_out=True)
        return target._replace(
            around=leaf.template.around_part(source), owned=tuple(map(self._path, owned)), is_forced=self._force
        )

    def update(self, outcome: Outcome) -> None:
        """Delete or keep the records of parts made before, by the outcome of a job that is about to be recorded."""
        if (source := outcome.source) is None:
            return
        for result in outcome.results:
            if leaf := self._leaves.get(result.stage):
                self._update(leaf, source.path, result)

    def _update(self, leaf: OutputSpec, source: bytes, result: Result) -> None:
        if result.kind in KILLED:  # nobody has cleared up after it
            for part in self._noted.noted(self._ledger.run):
                if (part.source, part.target) == (source, result.path):
                    remove_temporaries(part.path, [run_apart(self._ledger.run, source)])
        if result.status == "failed":
            return
        paths = {part.path for part in result.parts}
        gone = [row for row in take_parts(leaf, source, self._recorded(source)) if self._path(row) not in paths]
        for row in gone:
            if result.status == "done" and self._remove(row):
                self._ledger.outputs.delete([row.target])
            else:
                self._ledger.outputs.set_skipped(row.target)

    def _recorded(self, source: bytes) -> dict[bytes, OutputRecord]:
        return {row.target: row for row in self._ledger.outputs.of_source(source)}

    def _path(self, row: OutputRecord) -> bytes:
        if row.target.startswith(NO_FILE_KEY):
            return row.target
        return os.path.normpath(os.path.join(self._folder, row.target))

    def _remove(self, row: OutputRecord) -> bool:
        """Remove a part that is not made any more, if nobody changed it; return whether no file is left."""
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
