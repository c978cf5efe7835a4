"""What a run keeps of itself while it goes: the ledger's rows, the log, and the counts of the summary."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from itertools import islice
from typing import TextIO, TypeVar

from pipeline.config.model import Errors
from pipeline.errors import EnvironmentFailure, PolicyStop
from pipeline.files.atomic import remove_temporaries
from pipeline.files.template import NoFile, Template
from pipeline.ledger.ledger import Ledger
from pipeline.messages import KILLED, GroupJob, Job, Outcome
from pipeline.planning.recorded_parts import MadeParts
from pipeline.report.heartbeat import Heartbeat
from pipeline.report.progress import Progress, Summary

J = TypeVar("J", Job, GroupJob)

# Seconds between commits of the ledger: what a killed run may have to redo.
COMMIT_EVERY_S = 0.1
# Jobs whose targets are recorded as intended together.
_INTEND_AHEAD = 1024
# The graver exit code wins; a signal is graver than all of these.
_BY_GRAVITY = (0, 5, 1, 4, 2, 3, 70)


class Journal:
    """Writes down what becomes of every job, and why the run ends if it ends before its time."""

    def __init__(
        self,
        ledger: Ledger,
        summary: Summary,
        log: TextIO,
        progress: Progress,
        templates: Mapping[str, Template | NoFile],
    ) -> None:
        self.summary = summary
        self.recipes: dict[str, int] = {}
        """The numbers of the outputs' recipes, by stage."""
        self.heartbeat: Heartbeat | None = None
        """Where others can see how far the run has come."""
        self.errors = Errors()
        """How many failures are put up with."""
        self.planned = 0
        """How many files the run is to do."""
        self._ledger = ledger
        self._log = log
        self._progress = progress
        self._templates = templates
        self.made_parts: MadeParts | None = None
        """What is known of outputs in parts, where there are any."""
        self._failed_on_their_way: set[bytes] = set()
        """The files that failed in one pool and are still to come from another."""
        self._committed_at = time.monotonic()

    @property
    def is_stopped(self) -> bool:
        """Whether nothing more is to be started."""
        return bool(self.summary.stopped)

    def intended(self, jobs: Iterator[J]) -> Iterator[J]:
        """The same jobs, each recorded as intended before it is handed out."""
        while ahead := list(islice(jobs, _INTEND_AHEAD)):
            self._ledger.begin()
            self._ledger.intend(ahead, self._key)
            self.commit()
            yield from ahead

    def refuse(self, outcome: Outcome) -> None:
        """Write down that the plan refuses what was not tried."""
        self._record(outcome, tried=False)

    def record(self, outcome: Outcome) -> None:
        """Write down what became of a job, and stop the run if too many files have failed."""
        if outcome.environment:
            self.stop(EnvironmentFailure.exit_code, outcome.environment)
            # What the machine did not let us write is no attempt of the file's.
            kept = tuple(result for result in outcome.results if result.status != "failed")
            outcome = outcome._replace(results=kept)
        failed_before = self.summary.failed
        self._record(outcome, tried=True)
        if self.summary.failed > failed_before:
            self._count_failed(outcome)
        self._progress.follow(outcome)
        if outcome.goes_on:
            return
        if outcome.source:
            self._failed_on_their_way.discard(outcome.source.path)
        self._progress.step(outcome)
        if self.heartbeat:
            self.heartbeat.through += 1

    def _count_failed(self, outcome: Outcome) -> None:
        """Count a file in which a stage failed, and once, though it may fail in several pools."""
        source = outcome.source
        if source and source.path in self._failed_on_their_way:
            return
        if self.summary.count_tried(outcome):
            if source and outcome.goes_on:
                self._failed_on_their_way.add(source.path)
            self._check_errors()

    def _check_errors(self) -> None:
        allowance, failed = self.errors.allowance(self.planned), self.summary.failed_files
        if allowance is not None and failed > allowance and not self.is_stopped:
            text = f"{failed:,} of {self.planned:,} files failed already, and errors.max is {self.errors.max}"
            why = f"{text}; what was in hand was finished, and the same line does the rest"
            self.stop(PolicyStop.exit_code, why)

    def _record(self, outcome: Outcome, *, tried: bool) -> None:
        self._ledger.begin()
        if self.made_parts:
            self.made_parts.record(outcome)
        self._ledger.record(outcome, self._key, self.recipes, tried)
        self.summary.add(outcome)
        for result in outcome.results:
            if result.status == "failed":
                name = f"{outcome.origin} ({result.stage})"
                self._write(f"{name}: {result.kind}: {result.text}\n{result.detail}{outcome.output}")
                if result.kind in KILLED:
                    remove_temporaries(result.path, [self.summary.run])
            elif result.text and result.status == "done":
                self._write(f"{outcome.origin} ({result.stage}): {result.text}")

    def note(self, text: str) -> None:
        """Tell a person something that concerns no single output."""
        self.summary.notes.append(text)
        self._write(text)

    def stop(self, exit_code: int, why: str) -> None:
        """End the run before its time; of several causes the graver one counts."""
        self._write(f"stopped: {why}")
        if _gravity(exit_code) > _gravity(self.summary.exit):
            self.summary.exit, self.summary.stopped = exit_code, why

    def commit_if_due(self) -> None:
        """Commit what was written, if the last time is long enough ago."""
        if time.monotonic() - self._committed_at > COMMIT_EVERY_S:
            self.commit()
            if self.heartbeat:
                self.heartbeat.beat(self.summary, stage="running")

    def commit(self) -> None:
        """Commit what was written."""
        self._ledger.commit()
        self._committed_at = time.monotonic()

    def _key(self, stage: str, path: bytes) -> bytes:
        return self._templates[stage].key(path)

    def _write(self, text: str) -> None:
        with suppress(OSError):  # a full disk must not hide what is to be said about it
            self._log.write(f"{text}\n")


def _gravity(exit_code: int) -> int:
    return _BY_GRAVITY.index(exit_code) if exit_code in _BY_GRAVITY else len(_BY_GRAVITY)
