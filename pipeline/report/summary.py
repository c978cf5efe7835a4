"""The summary of a run: its counts, its failures by reason, and its text for a person; its mail is in mail.py."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import field
from typing import Any

from pipeline.errors import ENDED_IN_ORDER, NOT_STOPPED, SUCCEEDED, PolicyStop
from pipeline.messages import MOVED, Origin, Outcome, Result
from pipeline.records import dataclass
from pipeline.report.failure_group import SummaryGroup
from pipeline.stdio import has_color, in_color, print_error
from pipeline.text import command_for, in_general, printable, quoted

# What a failure is counted as, where its text has figures of its own.
_REASONS = {"members_failed": "members failed"}
# How many kinds of files that no stage reads are named.
_KINDS = 6
# How many failed files, and groups of them, are kept with all that is known of them; `failures` lists them all.
_KEPT = 20
# How many groups of failures are shown, and how many are told apart at all: texts that all differ must fill no memory.
_SHOWN_GROUPS, _MAX_GROUPS = 10, 1000
# The verbs that take `--set`, of those that a command may have.
_VERBS_WITH_EDITS = ("run", "plan", "check")


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
    tried_for_all: list[tuple[Origin, str]] = field(default_factory=list)
    """Those of them that were tried all the same, one for all that had failed alike, and failed as before."""
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
    edits: tuple[str, ...] = ()
    """The `--set` edits with which the run was made."""
    is_partial: bool = False
    """True for a run over a part of the files."""
    is_moved: bool = False
    """True for a sample, whose outputs and state lie where no command looks."""
    stopped: str = ""
    """The reason for which the run ended early; empty if it did not."""
    remedy: str = ""
    """The verb that helps where a limit of the user's own has stopped the run; empty where none did."""
    notes: list[str] = field(default_factory=list)
    """Further remarks for a person, in order."""
    new_notes: list[str] = field(default_factory=list)
    """Those of them that the run before did not tell as well."""
    reminder: str = ""
    """What is said once a week of files that are held; empty unless it is time for it."""
    failures: list[tuple[Origin, Result]] = field(default_factory=list)
    """The first 20 failed outputs, each with its source or group."""
    groups: dict[tuple[bool, str, str, str], SummaryGroup] = field(default_factory=dict)
    """The failed outputs, by whether they are new, kind, reason and place."""
    new_failed: int = 0
    """The number of failed outputs that had not failed before, of the same source by the same recipe."""
    recovered: int = 0
    """The number of outputs that had failed before and are made, or left out, now."""
    first_recovered: list[tuple[Origin, str]] = field(default_factory=list)
    """The first 20 of these, each with its source or group and its stage."""
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
            elif result.is_failure:
                self.add_failure(outcome.origin, result)
            elif result.code == "held":
                self.held += 1
                self.tried_for_all.append((outcome.origin, result.stage))
            else:  # nothing is left to be made, as in a run that began a moment later
                self.vanished += 1

    @property
    def ended_in_order(self) -> bool:
        """Whether the run came to its end; where files failed, a time limit shows in no exit code."""
        return self.exit in ENDED_IN_ORDER and not self.stopped

    def count_tried(self, outcome: Outcome) -> bool:
        """Count a file if a stage failed in it; return whether one did."""
        failed = any(result.status == "failed" and result.kind not in MOVED for result in outcome.results)
        self.failed_files += failed
        return failed

    def add_failure(self, origin: Origin, result: Result) -> None:
        """Count a failed output."""
        self.failed += 1
        self.new_failed += result.is_new
        self.exit = 1 if self.exit in NOT_STOPPED else self.exit
        kind = result.kind or "error"
        reason = (_REASONS.get(result.code) or in_general(result.text)) if result.kind == "error" else kind
        self.reasons[reason] += 1
        if len(self.failures) < _KEPT:
            self.failures.append((origin, result))
        key = (result.is_new, kind, reason, result.place)
        if key not in self.groups and len(self.groups) < _MAX_GROUPS:
            self.groups[key] = SummaryGroup(reason, result.place, result.is_new)
        if group := self.groups.get(key):
            # A traceback may be long, and the log has all of them.
            group.add(origin, result if len(self.groups) <= _KEPT else result._replace(detail=""))

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

    def command(self, verb: str, *options: str) -> str:
        """Return the command that does something with the pipeline as this run had it; empty if there is none."""
        if self.is_moved:
            return ""
        if not self.edits or verb in _VERBS_WITH_EDITS:
            edits = (word for edit in self.edits for word in ("--set", quoted(edit)))
            return command_for(verb, self.yaml, *options, *edits)
        has_other_state = any(edit.partition("=")[0].strip() == "state" for edit in self.edits)
        # What is on record can be told without the edits; to prune without them would remove what is wanted.
        return "" if verb != "failures" or has_other_state else command_for(verb, self.yaml, *options)

    def lines(self, *, verbose: bool = False) -> list[str]:
        """Return the lines of the summary: one if all is well; with `verbose`, failures have their tracebacks."""
        shown_groups = self.first_groups(self.groups.values())
        mark = "new: " if self.new_failed < self.failed else ""
        lines = [self.headline()]
        for group in shown_groups:
            lines += group.lines(verbose=verbose, mark=mark if group.is_new else "")
        lines += [f"  {each}" for each in self.cut_off]
        if more := self.failed - sum(group.outputs for group in shown_groups):
            lines.append(f"  ... and {more:,} more: {self.command('failures') or self.log}")
        if len(self.reasons) > 1:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.reasons.most_common())
            lines.append(f"reasons: {reasons}")
        lines += self.recovered_lines()
        lines += self.remark_lines()
        if self.held > self.dismissed:
            lines.append("files are held from earlier runs: 'failures' lists them, --retry-failed tries them once more")
        lines += self.notes
        if self.log and any(each.detail or each.kind not in ("error", "changed") for _, each in self.failures):
            lines.append(f"details: {self.log}")
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return [printable(line) for line in lines]

    @property
    def was_stopped(self) -> bool:
        """True if the run ended otherwise than it should, of which it always says why."""
        return self.exit not in NOT_STOPPED

    def news(self) -> list[str]:
        """Return the lines that are printed without a terminal: none if nothing is new, and at most 4 kB of them."""
        if not (self.was_stopped or self.new_failed or self.recovered or self.new_notes or self.reminder):
            return []
        from pipeline.report.mail import mail_of  # here, since most nights have no news

        return mail_of(self)

    @staticmethod
    def first_groups(groups: Iterable[SummaryGroup]) -> list[SummaryGroup]:
        """Return the groups that are shown: new ones first, and the largest of them."""
        return sorted(groups, key=lambda group: (not group.is_new, -group.files))[:_SHOWN_GROUPS]

    def remark_lines(self) -> list[str]:
        """Return the lines on what the notes of outputs say."""
        return [f"{count:,} done with a note: {remark}" for remark, count in self.remarks.most_common()]

    def recovered_lines(self) -> list[str]:
        """Return the line on outputs that had failed before."""
        if not self.recovered:
            return []
        names = list(dict.fromkeys(f"{origin} ({stage})" for origin, stage in self.first_recovered))[:_SHOWN_GROUPS]
        more = self.recovered - len(names)
        return [f"recovered: {', '.join(names)}{f' and {more:,} more' if more else ''}"]

    def headline(self) -> str:
        """Return the line on all that was counted."""
        head = f"{self.pipeline}: " if self.pipeline else ""
        are_new = f" ({self.new_failed:,} new)" if 0 < self.new_failed < self.failed else ""
        counts = [("done", self.done), ("renamed", self.renamed), ("up to date", self.up_to_date)]
        counts += [("edited", self.edited), ("skipped", self.skipped), (f"failed{are_new}", self.failed)]
        counts += [("held", self.held - self.dismissed), ("dismissed", self.dismissed)]
        counts += [("settling", self.settling), (f"unmatched ({kinds_of(self.kinds_unmatched)})", self.unmatched)]
        counts += [("vanished", self.vanished)]
        counts += [("pruned", self.pruned)]
        nothing = "nothing done" if self.stopped else "nothing to do"
        parts = [f"{number:,} {word}" for word, number in counts if number] or [nothing]
        files = f"{self.sources:,} {'file' if self.sources == 1 else 'files'}"
        return f"{head}{', '.join(parts)} ({files}, {self.seconds:.1f} s)"


def next_commands(summary: Summary) -> tuple[str, ...]:
    """Return the commands that help after a run, the one to begin with first."""
    # Only a run that had nothing to do does not know its YAML.
    commands = [summary.command(verb, *more) for verb, *more in _next_steps(summary)] if summary.yaml else []
    return tuple(filter(None, commands))


def _next_steps(summary: Summary) -> Iterator[tuple[str, ...]]:
    """Yield verbs with their options: what goes on with the run, then what is for the files that it could not do."""
    is_any_held = summary.held > summary.dismissed
    if summary.exit == 2:
        yield ("check",)
        return
    if summary.exit == PolicyStop.exit_code:  # the same line would meet the limit again, or the folder that is lost
        yield (summary.remedy or "plan",)
    elif summary.exit not in ENDED_IN_ORDER:
        yield ("run",)
    if (summary.failed or is_any_held) and summary.remedy != "failures":
        yield ("failures",)
    if is_any_held:
        yield ("run", "--retry-failed")
    if summary.exit == 1 and summary.stopped:  # by its time limit, which shows in no exit code then
        yield ("run",)


def kinds_of(kinds: Counter[str]) -> str:
    """Return files counted by kind as text, such as `2,000 xmp, 200 heic`; the rarest together."""
    shown = [f"{count:,} {kind}" for kind, count in kinds.most_common(_KINDS)]
    rest = kinds.total() - sum(count for _, count in kinds.most_common(_KINDS))
    return ", ".join(shown + ([f"{rest:,} others"] if rest else []))


def print_summary(summary: Summary, *, is_quiet: bool, is_verbose: bool) -> None:
    """Print the summary to stderr: all of it on a terminal, or if verbose; else, or if quiet, what is new."""
    is_whole = not is_quiet and (is_verbose or sys.stderr.isatty())
    lines = summary.lines(verbose=is_verbose) if is_whole else summary.news()
    if is_whole and has_color(sys.stderr):
        lines[0] = in_color(lines[0], "red" if summary.exit not in SUCCEEDED else "green")
    if lines:
        print("\n".join(lines), file=sys.stderr)


def print_untold(summary: Summary) -> None:
    """Print to stderr what could not be told of a run, however it ended."""
    for each in summary.untold:
        print_error(f"warning: {each}")
