"""The summary of a run: its counts, the first of its failures, and its text for a person."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import field
from typing import Any

from pipeline.messages import MOVED, Origin, Outcome, Result
from pipeline.records import dataclass
from pipeline.stdio import print_error
from pipeline.text import in_general, indented, printable, program

# What a failure is counted as, where its text has figures of its own.
_REASONS = {"members_failed": "members failed"}
# How many kinds of files that no stage reads are named.
_KINDS = 6
# How many failed files the summary names; `failures` lists them all.
_NAMED = 20


@dataclass
class Summary:
    """The counts of a run, in outputs unless stated otherwise, and its failures and notes."""

    run: str = ""
    """The id of the run."""
    done: int = 0
    up_to_date: int = 0
    skipped: int = 0
    failed: int = 0
    edited: int = 0
    """The number of outputs that were kept since someone else had edited them."""
    set_aside: int = 0
    """The number of files that had to make room for outputs and may be a person's, or were made of what is gone."""
    held: int = 0
    """The number of outputs that were not tried again, since they failed too often or were dismissed."""
    pruned: int = 0
    seconds: float = 0.0
    exit: int = 0
    """The exit code of the program."""
    sources: int = 0
    """The number of input files that were found and selected."""
    dismissed: int = 0
    """The number of outputs that were not tried again since they were dismissed; included in `held`."""
    renamed: int = 0
    """The number of outputs that were not made but moved to a new path."""
    settling: int = 0
    """The number of outputs left for the next run, since their source was modified just now."""
    kinds_unmatched: Counter[str] = field(default_factory=Counter)
    """The number of sources that no stage reads, by their suffix without its dot."""
    vanished: int = 0
    """The number of outputs whose source was removed while it was read."""
    failed_files: int = 0
    """The number of files in which a stage failed, without those that the plan refused."""
    pipeline: str = ""
    yaml: str = ""
    """The absolute path of pipeline.yaml; empty where the run was answered from a note, as are the next ones."""
    state: str = ""
    """The absolute path of the state folder."""
    log: str = ""
    """The absolute path of the run's log."""
    report: str = ""
    """The absolute path of the run's report; empty if none was written."""
    stopped: str = ""
    """The reason for which the run ended early; empty if it did not."""
    notes: list[str] = field(default_factory=list)
    """Further remarks for a person, in order."""
    failures: list[tuple[Origin, Result]] = field(default_factory=list)
    """The first 20 failed outputs, each with its source or group."""
    new_failed: int = 0
    """The number of failed outputs that had not failed before, of the same source by the same recipe."""
    recovered: int = 0
    """The number of outputs that had failed before and are made now."""
    reasons: Counter[str] = field(default_factory=Counter)
    """The number of failed outputs, by reason."""
    cut_off: list[str] = field(default_factory=list)
    """The files that a worker had in hand when the run was stopped at once, each with how long and in which stage."""
    untold: list[str] = field(default_factory=list)
    """Whom the run could not tell how it ended, and what it could not measure, each with the reason."""
    remarks: Counter[str] = field(default_factory=Counter)
    """The number of outputs with a note, by the note."""

    @property
    def unmatched(self) -> int:
        """The number of sources that no stage reads."""
        return self.kinds_unmatched.total()

    def add(self, outcome: Outcome) -> None:
        """Count the results of one job."""
        for result in outcome.results:
            if result.status == "done":
                self.done += result.outputs
                if result.notes:
                    self.remarks.update(general for _, general in result.notes)
            elif result.status == "skipped":
                self.skipped += 1
            elif (
                result.kind == "vanished" and result.code != "in_hand"
            ):  # nothing is left to be made, as in a run that began a moment later
                self.vanished += 1
            else:
                self.add_failure(outcome.origin, result)

    def count_tried(self, outcome: Outcome) -> bool:
        """Count a file if a stage failed in it; return whether one did."""
        failed = any(result.status == "failed" and result.kind not in MOVED for result in outcome.results)
        self.failed_files += failed
        return failed

    def add_failure(self, origin: Origin, result: Result) -> None:
        """Count a failed output."""
        self.failed += 1
        self.exit = max(self.exit, 1)
        reason = _REASONS.get(result.code) or in_general(result.text)
        self.reasons[reason if result.kind == "error" else result.kind or "error"] += 1
        if len(self.failures) < _NAMED:
            self.failures.append((origin, result))

    def as_json(self) -> dict[str, Any]:
        """Return the object that `--json` prints; the rarer counts are left out if they are 0."""
        keys = ["run", "done", "up_to_date", "skipped", "failed", "held", "pruned", "seconds", "exit", "sources"]
        keys += [
            key
            for key in (
                "edited",
                "set_aside",
                "dismissed",
                "settling",
                "unmatched",
                "vanished",
                "renamed",
                "new_failed",
                "recovered",
            )
            if getattr(self, key)
        ]
        kinds = {"kinds_unmatched": dict(self.kinds_unmatched.most_common())} if self.kinds_unmatched else {}
        notes = {"notes": dict(self.remarks.most_common())} if self.remarks else {}
        return {key: getattr(self, key) for key in keys} | {"seconds": round(self.seconds, 3)} | kinds | notes

    def lines(self, *, verbose: bool = False) -> list[str]:
        """Return the lines of the summary: one if all is well; with `verbose`, failures have their tracebacks."""
        lines = [self._headline(), *_named(self.failures, verbose), *(f"  {each}" for each in self.cut_off)]
        if self.failed > len(self.failures):
            lines.append(f"  ... and {self.failed - len(self.failures):,} more: {program()} failures")
        if len(self.reasons) > 1:
            counted = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            lines.append(f"reasons: {counted}")
        lines += [f"{count:,} done with a note: {remark}" for remark, count in self.remarks.most_common()]
        if self.held > self.dismissed:
            lines.append("held files failed too often: 'failures' lists them, --retry-failed tries them once more")
        lines += self.notes + ([f"stopped: {self.stopped}"] if self.stopped else [])
        return [printable(line) for line in lines]

    def _headline(self) -> str:
        head = f"{self.pipeline}: " if self.pipeline else ""
        counted = [("done", self.done), ("renamed", self.renamed), ("up to date", self.up_to_date)]
        counted += [("edited", self.edited), ("skipped", self.skipped)]
        counted += [("failed", self.failed), ("held", self.held - self.dismissed), ("dismissed", self.dismissed)]
        counted += [("settling", self.settling), (f"unmatched ({kinds_of(self.kinds_unmatched)})", self.unmatched)]
        counted += [("vanished", self.vanished)]
        counted += [("pruned", self.pruned)]
        nothing = "nothing done" if self.stopped else "nothing to do"
        parts = [f"{number:,} {word}" for word, number in counted if number] or [nothing]
        files = f"{self.sources:,} {'file' if self.sources == 1 else 'files'}"
        return f"{head}{', '.join(parts)} ({files}, {self.seconds:.1f} s)"


def kinds_of(kinds: Counter[str]) -> str:
    """Return files counted by kind as text, such as `2,000 xmp, 200 heic`; the rarest together."""
    shown = [f"{count:,} {kind}" for kind, count in kinds.most_common(_KINDS)]
    rest = kinds.total() - sum(count for _, count in kinds.most_common(_KINDS))
    return ", ".join(shown + ([f"{rest:,} others"] if rest else []))


def _named(failures: list[tuple[Origin, Result]], verbose: bool) -> list[str]:
    """Return a line for each distinct failure of a file; outputs that failed alike share one."""
    alike: dict[tuple[Origin, str], list[Result]] = {}
    for origin, result in failures:
        alike.setdefault((origin, result.text), []).append(result)
    lines = []
    for (origin, text), results in alike.items():
        lines.append(f"  {origin} ({', '.join(result.stage for result in results)}): {text}")
        if verbose and results[0].detail:
            lines.append(indented(results[0].detail))
    return lines


def print_summary(summary: Summary, *, is_quiet: bool, is_verbose: bool) -> None:
    """Print the summary to stderr: on a terminal unless quiet, elsewhere if something is wrong or was set aside."""
    if summary.exit or summary.set_aside or (sys.stderr.isatty() and not is_quiet):
        print("\n".join(summary.lines(verbose=is_verbose)), file=sys.stderr)


def print_untold(summary: Summary) -> None:
    """Print to stderr what could not be told of a run, however it ended."""
    for each in summary.untold:
        print_error(f"warning: {each}")
