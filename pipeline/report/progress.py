"""What a person sees of a run: the bar while it lasts, the summary when it has ended. All of it on stderr."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from pipeline.messages import MOVED, Origin, Outcome, Result
from pipeline.text import indented, reason_of

# How many failed files the summary names; `failures` lists them all.
_NAMED = 20


@dataclass
class Summary:
    """What a run did, in outputs."""

    run: str = ""
    done: int = 0
    up_to_date: int = 0
    skipped: int = 0
    failed: int = 0
    held: int = 0
    """Not tried again, since they failed too often or were dismissed."""
    pruned: int = 0
    seconds: float = 0.0
    exit: int = 0
    sources: int = 0
    dismissed: int = 0
    """How many of those that are held."""
    renamed: int = 0
    """Not made, but moved to where they belong by now."""
    settling: int = 0
    unmatched: int = 0
    """Sources that no stage reads."""
    vanished: int = 0
    failed_files: int = 0
    """In which a stage failed; not counted is what the plan refused."""
    pipeline: str = ""
    stopped: str = ""
    """Why it ended before its time, if it did."""
    notes: list[str] = field(default_factory=list)
    """What else a person should know."""
    failures: list[tuple[Origin, Result]] = field(default_factory=list)
    """The first of the failed outputs."""
    reasons: Counter[str] = field(default_factory=Counter)
    """How many outputs failed, by reason."""
    remarks: Counter[str] = field(default_factory=Counter)
    """What was noted of outputs that are done, and how often."""

    def add(self, outcome: Outcome) -> None:
        """Count what became of one job."""
        for result in outcome.results:
            if result.status == "done":
                self.done += result.outputs
                if result.text:
                    self.remarks.update(each.partition(",")[0] for each in result.text.split("; "))
            elif result.status == "skipped":
                self.skipped += 1
            elif result.kind == "vanished":  # nothing is left to be made, as in a run that began a moment later
                self.vanished += 1
            else:
                self.add_failure(outcome.origin, result)

    def count_tried(self, outcome: Outcome) -> bool:
        """Whether a stage failed over the file, which is counted then."""
        failed = any(result.status == "failed" and result.kind not in MOVED for result in outcome.results)
        self.failed_files += failed
        return failed

    def add_failure(self, origin: Origin, result: Result) -> None:
        """Count a failed output."""
        self.failed += 1
        self.exit = max(self.exit, 1)
        self.reasons[reason_of(result.text) if result.kind == "error" else result.kind or "error"] += 1
        if len(self.failures) < _NAMED:
            self.failures.append((origin, result))

    def as_json(self) -> dict[str, Any]:
        """The object that `--json` prints; what seldom happens has no key where it did not."""
        keys = ["run", "done", "up_to_date", "skipped", "failed", "held", "pruned", "seconds", "exit", "sources"]
        keys += [key for key in ("dismissed", "settling", "unmatched", "vanished", "renamed") if getattr(self, key)]
        return {key: getattr(self, key) for key in keys} | {"seconds": round(self.seconds, 3)}

    def lines(self, *, verbose: bool = False) -> list[str]:
        """The summary as text: one line when all is well; with `verbose`, failures with their tracebacks."""
        lines = [self._headline(), *_named(self.failures, verbose)]
        if self.failed > len(self.failures):
            lines.append(f"  ... and {self.failed - len(self.failures):,} more: python -m pipeline failures")
        if len(self.reasons) > 1:
            counted = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            lines.append(f"reasons: {counted}")
        lines += [f"{count:,} done with a note: {remark}" for remark, count in self.remarks.most_common()]
        if self.held > self.dismissed:
            lines.append("held files failed too often: 'failures' lists them, --retry-failed tries them once more")
        return lines + self.notes + ([f"stopped: {self.stopped}"] if self.stopped else [])

    def _headline(self) -> str:
        head = f"{self.pipeline}: " if self.pipeline else ""
        counted = [("done", self.done), ("renamed", self.renamed), ("up to date", self.up_to_date)]
        counted += [("skipped", self.skipped)]
        counted += [("failed", self.failed), ("held", self.held - self.dismissed), ("dismissed", self.dismissed)]
        counted += [("settling", self.settling), ("unmatched", self.unmatched), ("vanished", self.vanished)]
        counted += [("pruned", self.pruned)]
        nothing = "nothing done" if self.stopped else "nothing to do"
        parts = [f"{number:,} {word}" for word, number in counted if number] or [nothing]
        files = f"{self.sources:,} {'file' if self.sources == 1 else 'files'}"
        return f"{head}{', '.join(parts)} ({files}, {self.seconds:.1f} s)"


def _named(failures: list[tuple[Origin, Result]], verbose: bool) -> list[str]:
    """A line for each way in which a file failed; outputs that failed alike share one."""
    alike: dict[tuple[Origin, str], list[Result]] = {}
    for origin, result in failures:
        alike.setdefault((origin, result.text), []).append(result)
    lines = []
    for (origin, text), results in alike.items():
        lines.append(f"  {origin} ({', '.join(result.stage for result in results)}): {text}")
        if verbose and results[0].detail:
            lines.append(indented(results[0].detail))
    return lines


class Progress:
    """A bar on a terminal, nothing elsewhere; when `verbose`, also what the stages print."""

    def __init__(self, *, quiet: bool, verbose: bool = False) -> None:
        self._shows = not quiet and sys.stderr.isatty()
        self._verbose = verbose
        self._bar: Any = None

    def start(self, jobs: int) -> None:
        """Show a bar over so many files."""
        if self._shows and jobs:
            from tqdm import tqdm

            self._bar = tqdm(total=jobs, unit="file", file=sys.stderr, leave=False, dynamic_ncols=True)

    def follow(self, outcome: Outcome) -> None:
        """Hear of whatever became of a file, also where other stages are still at work on it."""

    def check_followed(self) -> None:
        """Raise EnvironmentFailure where somebody followed the run, and does so no more."""

    def step(self, outcome: Outcome) -> None:
        """One file is through."""
        if self._verbose and outcome.output:
            self._print(f"{outcome.origin} printed:\n{indented(outcome.output)}")
        if self._bar is not None:
            self._bar.update()

    def _print(self, text: str) -> None:
        if self._bar is None:
            print(text, file=sys.stderr)
        else:
            self._bar.write(text, file=sys.stderr)

    def tell(self, text: str) -> None:
        """Say something at once, to whoever is watching."""
        if self._shows:
            self._print(text)

    def stop(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def say(summary: Summary, *, quiet: bool, verbose: bool) -> None:
    """Print the summary: always on a terminal, elsewhere only if the exit code is not 0."""
    if summary.exit or (sys.stderr.isatty() and not quiet):
        print("\n".join(summary.lines(verbose=verbose)), file=sys.stderr)
