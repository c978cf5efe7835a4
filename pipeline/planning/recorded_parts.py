"""The parts of fan-outs in the ledger: told to the jobs that make them again, and updated by their outcomes."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterator, Sequence

from pipeline.files.atomic import run_apart
from pipeline.files.clocks import CLOCK_SLACK_NS, may_be_since
from pipeline.files.file_system import is_gone
from pipeline.files.naming import SameNames
from pipeline.files.parts import FoundPart, find_parts, remove_temporaries_of
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.intents import PartIntent
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.outputs import OutputRecord
from pipeline.messages import KILLED, Job, Outcome, Result, Target
from pipeline.planning.file_state import is_ours
from pipeline.planning.recipe import OutputSpec, take_parts


class RecordedParts:
    """The records of all outputs that are in parts. A run has one only where the tree fans out, or a run was killed."""

    def __init__(
        self,
        ledger: Ledger,
        leaves: Sequence[OutputSpec],
        folder: bytes,
        root: bytes,
        claimed: Container[bytes],
        *,
        force: bool,
    ) -> None:
        """`root` is the input root, and `claimed` are the output folders that were ours before this run."""
        self._ledger = ledger
        self._leaves = {leaf.stage: leaf for leaf in leaves if leaf.has_parts}
        self._folder = folder
        self._root = root
        self._claimed = claimed
        self._force = force

    def recover(self, unclean_runs: Sequence[str]) -> None:
        """Record the parts that killed runs made but did not record, and remove the temporaries they left."""
        # The longest first: what fits in several places is that of the most particular one.
        for intent in sorted(self._ledger.intents.parts(), key=lambda each: -len(each.prefix)):
            prefix = os.path.join(self._folder, intent.prefix)
            remove_temporaries_of(prefix, intent.suffix, [run_apart(run, intent.source) for run in unclean_runs])
            for part in find_parts(prefix, intent.suffix):
                if may_be_since(part.ctime_ns, intent.since_ns - CLOCK_SLACK_NS):
                    key = intent.prefix + part.name.encode() + intent.suffix
                    self._record_found(key, intent, part)
            self._ledger.intents.end_parts(intent.target)

    def _record_found(self, key: bytes, intent: PartIntent, part: FoundPart) -> None:
        if self._ledger.outputs.get(key) is None:
            values = intent.source, intent.stage, part.size_bytes, part.mtime_ns, part.name.encode()
            self._ledger.outputs.add_part(key, *values)

    def with_parts(self, jobs: Iterator[Job]) -> Iterator[Job]:
        """Yield the jobs with the paths of their parts: where new ones go, and which were made before."""
        return map(self._job_with_parts, jobs) if self._leaves else jobs

    def _job_with_parts(self, job: Job) -> Job:
        return job._replace(targets=tuple(self._target_with_parts(job.source.path, each) for each in job.targets))

    def _target_with_parts(self, source: bytes, target: Target) -> Target:
        leaf = self._leaves.get(target.stage)
        if leaf is None:
            return target
        around = leaf.template.around_part(source)
        left = self._left_by_others(leaf, source, *around)
        owned = take_parts(leaf, source, self._recorded(source), left_out=True) + left
        window = self._ledger.window
        # Of a part that was only found to be there nobody knows who wrote it last.
        is_found = any(row.digest is None and row.size is not None for row in owned)
        is_guarded = target.digests is not None or is_found or bool(left)
        digests = tuple(digest for row in owned for digest in row.digests) if is_guarded else None
        return target._replace(
            around=around,
            owned=tuple(map(self._path, owned)),
            is_forced=self._force,
            ours=(window[:2],) if window and leaf.template.folder in self._claimed else (),
            handed_ns=time.time_ns(),
            digests=digests,
        )

    def _left_by_others(self, leaf: OutputSpec, source: bytes, before: bytes, after: bytes) -> list[OutputRecord]:
        """Return the parts in the place of a source's own that were made of files that are gone, as of its old name."""
        if not leaf.template.has_file:
            return []
        rows = self._ledger.outputs.parts_between(leaf.template.key(before), after)
        return [row for row in rows if row.source != source and is_gone(os.path.join(self._root, row.source))]

    def update(self, outcome: Outcome) -> None:
        """Delete or keep the records of parts made before, by the outcome of a job that is about to be recorded."""
        if (source := outcome.source) is None:
            return
        for result in outcome.results:
            if leaf := self._leaves.get(result.stage):
                self._update(leaf, source.path, result)

    def _update(self, leaf: OutputSpec, source: bytes, result: Result) -> None:
        if result.kind in KILLED:  # nobody has cleared up after it
            remove_temporaries_of(*leaf.template.around_part(source), [run_apart(self._ledger.run, source)])
        if result.status == "failed":
            return
        paths = {part.path for part in result.parts}
        gone = [row for row in take_parts(leaf, source, self._recorded(source)) if self._path(row) not in paths]
        names = SameNames(paths) if gone else SameNames()
        for row in gone:
            is_respelt = names.find(self._path(row)) is not None
            if result.status == "done" and (is_respelt or self._remove(row)):
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
            if not is_ours(path, os.lstat(path), row.size, row.mtime_ns, row.digests):
                return False
            os.unlink(path)
        except (FileNotFoundError, NotADirectoryError):
            return True
        except OSError:
            return False
        return True
