"""Group and list the files that failed and have not been made since, each with its reason, or dismiss some of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from typing import TYPE_CHECKING

from pipeline.commands import warn_of_state
from pipeline.errors import UsageError
from pipeline.ledger.origins import is_group, origin_of
from pipeline.messages import Source
from pipeline.text import command_for, counted, format_bytes, indented, local_time, one_line, printable, quoted, shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from pipeline.config.model import Config
    from pipeline.ledger.failures import Failure, RetryPolicy
    from pipeline.ledger.ledger import Ledger
    from pipeline.operations.failure_groups import Failing, LedgerGroup, Shared
    from pipeline.operations.state_of_pipeline import StateOfPipeline


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `failures`."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    dismiss = "record that files which match, as in .gitignore, need not be done as they are: they are not tried, and "
    dismiss += "do not affect the exit code"
    parser.add_argument("--dismiss", action="append", metavar="PATTERN", help=f"{dismiss}; may be repeated")


def execute(arguments: argparse.Namespace) -> int:
    """Print a line for each failed output, and below it what its stages printed, or dismiss the failures that match."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.failures import RetryPolicy
    from pipeline.ledger.session import open_to_read
    from pipeline.operations.state_of_pipeline import find_state

    if arguments.dismiss is not None:
        return _dismiss(load_config(Path(arguments.file), reads_inputs=False), arguments.dismiss)
    of = find_state(arguments.file)
    patience = RetryPolicy(of.config.errors.hold_after if of.config else None)
    with open_to_read(of.state / "ledger.sqlite") as ledger:
        warn_of_state(of, ledger, "; which files are held cannot be said until it loads")
        is_left_alone, last = _left_alone(of, ledger, patience), ledger.runs.last()
        last_run_ns = round(last["started"] * 1e9) if last else 0
        if not ledger.failures.has_any:
            print(f"{of.name}: no failures on record", file=sys.stderr)
        elif not arguments.json:
            _open(of, ledger, is_left_alone, last_run_ns)
        for each in ledger.failures.all():
            if arguments.json:
                print(json.dumps(_as_json(each, is_left_alone(each), last_run_ns), ensure_ascii=False))
            else:
                print(f"{_line(each)}{_describe_attempts(each, patience, is_left_alone(each))}")
                if printed := ledger.failures.printed(each):
                    print(indented(printed))
        if of.config:
            _say_alike(of.config, ledger)
    return 0


# -- what a person needs first -----------------------------------------------------------------------------------------


def _open(of: StateOfPipeline, ledger: Ledger, is_left_alone: Callable[[Failure], bool], last_run_ns: int) -> None:
    """Print how many files failed, the groups that they form, and the one thing to do next."""
    from pipeline.operations.failure_groups import group_failures

    failing = group_failures(ledger, is_left_alone, last_run_ns, time.time_ns() - 86_400 * 10**9)
    print(_headline(of.name, failing, last_run_ns))
    for group in failing.groups:
        print("", *map(printable, _group_lines(group)), sep="\n")
    if failing.more_groups:
        print(f"\nand {counted(failing.more_files, 'file')} for {counted(failing.more_groups, 'other reason')}")
    if failing.groups:
        print(f"\nnext: {_next_step(of, ledger, failing.groups[0])}")
    print()


def _headline(name: str, failing: Failing, last_run_ns: int) -> str:
    is_one = failing.files == 1
    count = "" if is_one else "all " if failing.new_files == failing.files else f"{failing.new_files:,} "
    new = f"{count}new in the run of {local_time(last_run_ns / 1e9)}"
    new = new if failing.new_files else f"{'not' if is_one else 'none'} new"
    count = "but" if is_one else f"{failing.recent_files:,}"
    recent = f", {count} since yesterday" if failing.recent_files > failing.new_files else ""
    rest = [
        f"{count:,} {word}"
        for word, count in (("held", failing.held_files), ("dismissed", failing.dismissed_files))
        if count
    ]
    return "; ".join([f"{name}: {counted(failing.files, 'file')} failed, {new}{recent}", *rest])


def _group_lines(group: LedgerGroup) -> Iterator[str]:
    """Yield what a group failed for, what its files share, and whose fault it likely is."""
    kind = "" if group.kind == "error" or group.reason.startswith(group.kind) else f"{group.kind}: "
    place = f" at {group.place}" if group.place else ""
    new = f" ({group.new_files:,} new)" if 0 < group.new_files < group.files else ""
    stages = f"stage{'s' * (len(group.stages) > 1)} {', '.join(group.stages)}"
    yield f"{counted(group.files, 'file')}{new} in {stages}: {kind}{one_line(group.reason, 300)}{place}"
    is_all_new = group.new_files == group.files  # and so is the night in which they began
    for shared in (each for each in group.shared if not (is_all_new and each.trait.what == "night")):
        opening = "all" if shared.files == group.files else "of"
        count = f"{shared.files:,}" if opening == "all" else f"{group.files:,}, {shared.files:,} are"
        yield f"  {opening} {count} {_describe_trait(shared)} ({_percent(shared.share)} of all files)"
    if group.who in _AT_FAULT:
        are_many = "s" * (group.who == "file" and group.files > 1)
        yield f"  likely {_AT_FAULT[group.who]}{are_many}: {group.why}"
    if group.files > 1:
        more = ", ..." if group.files > len(group.examples) else ""
        yield f"  {', '.join(str(origin_of(each)) for each in group.examples)}{more}"


_AT_FAULT = {
    "file": "the fault of the file", "stage": "the fault of the stage", "machine": "the fault of the machine",
    "pipeline": "the fault of the pipeline", "nobody": "nobody's fault",
}  # fmt: skip


def _describe_trait(shared: Shared) -> str:
    what, first, after = shared.trait
    if isinstance(first, bytes):
        return f"in {shown(first)}" if what == "folder" else f"named *{shown(first)}"
    if what == "worker":
        return f"in worker {first}"
    if what == "night":
        return f"failing since {local_time(first / 1e9)[:10]}"
    if not first:
        return "empty" if after == 1 else f"of less than {format_bytes(after)}"
    return f"of {format_bytes(first)} {f'to {format_bytes(after)}' if after < 2**60 else 'or more'}"


def _percent(share: float) -> str:
    return f"{100 * share:.0f} %" if share >= 0.01 else f"{100 * share:.2g} %"


def _next_step(of: StateOfPipeline, ledger: Ledger, group: LedgerGroup) -> str:
    """Return what to do about the foremost group, in one line; without a pipeline that loads, that is to be mended."""
    from pipeline.files.state_dir import log_of_run

    if (config := of.config) is None:
        return f"mend the pipeline: {command_for('check', str(of.file.absolute()))}"
    yaml = str(config.file.absolute())
    path = quoted(os.path.join(config.inputs.root.absolute(), os.fsdecode(group.examples[0])))
    again = command_for("run", yaml, *(["--retry-failed"] if group.is_any_held else []))
    if group.who == "pipeline":
        return "give each output a path of its own, as by {dir} or {suffix}, or move away what lies there"
    if group.who == "machine":
        log = log_of_run(config.state.absolute(), group.run)
        return f"see to the machine (log: {shown(os.fsencode(log))}), then: {again}"
    if group.who == "nobody":
        return again
    if is_group(group.examples[0]):
        return f"see to its members, then: {again}"
    if group.who == "file" and (patterns := _patterns_of(ledger, group)):
        one = group.files == 1
        what = f"repair or replace {path}" if one else f"look at {path}, and repair or replace the files"
        dismiss = command_for("failures", yaml, *(f"--dismiss {quoted(each)}" for each in patterns))
        return f"{what}; if {'it' if one else 'they'} need not be done: {dismiss}"
    return command_for("try", yaml, path)


def _patterns_of(ledger: Ledger, group: LedgerGroup) -> list[str]:
    """Return patterns for `--dismiss` that take the failures of a group, and no others; none if there are none."""
    from pipeline.files.walk import matcher

    traits = {each.trait.what: each.trait.first for each in group.shared if each.files == group.files}
    shared = {what: _escaped(os.fsdecode(first)) for what, first in traits.items() if isinstance(first, bytes)}
    folder, suffix = shared.get("folder", ""), shared.get("suffix", "")
    choices = [[f"/{folder}"] if folder else [], [f"*{suffix}"] if suffix else []]
    choices += [[f"/{folder}**/*{suffix}"]] if folder and suffix else []
    if len(group.examples) == group.files and not any(map(is_group, group.examples)):
        choices.append([f"/{_escaped(os.fsdecode(each))}" for each in group.examples])
    for patterns in choices:
        if patterns and all(map(str.isprintable, patterns)):
            matches, others = matcher(patterns), (each for each in ledger.failures.all() if each.dismissed_at is None)
            # Who follows the advice must not dismiss what fails for another reason.
            if all(matches(each.source) == group.holds(each) for each in others if each.tried):
                return patterns
    return []


def _escaped(text: str) -> str:
    """Return a text as a pattern of gitignore that matches it alone."""
    return "".join(f"\\{each}" if each in "\\*?[! #" else each for each in text)


# -- the files ---------------------------------------------------------------------------------------------------------


def _line(failure: Failure) -> str:
    kind = "" if failure.error.startswith(failure.kind) else f"{failure.kind}: "
    return f"{origin_of(failure.source)} ({failure.stage}): {kind}{failure.error}"


def _describe_attempts(failure: Failure, patience: RetryPolicy, is_left_alone: bool) -> str:
    """Describe the number of tries of a failed output, or the reason for which it is not tried again."""
    from pipeline.planning.decisions import text_of
    from pipeline.planning.freshness import decide_failed

    if is_left_alone:
        return f", {text_of(decide_failed(failure, patience)[1])}"
    if not failure.attempts:
        return ""
    most = f" of {patience.hold_after}" if failure.attempts <= (patience.hold_after or 0) else ""
    return f", attempt {failure.attempts}{most}"


def _say_alike(config: Config, ledger: Ledger) -> None:
    """Say on stderr of which stages all files failed alike, so that the reason is hardly in the files."""
    from pipeline.planning.freshness import find_alike
    from pipeline.planning.recipe import output_specs

    for spec in output_specs(config, ledger, record=False):
        if alike := find_alike(config, ledger, spec):
            what = f"stage {spec.stage!r} failed alike in {alike.files:,} files and has made none since: {alike.error}"
            print(f"{what}; the next run tries one of them, and once it is made, the others", file=sys.stderr)


def _as_json(failure: Failure, is_left_alone: bool, last_run_ns: int) -> dict[str, object]:
    fields = {"stage": failure.stage, "kind": failure.kind, "error": failure.error, "attempts": failure.attempts}
    fields |= {"run": failure.run, "failed_at": _seconds(failure.failed_at)}
    fields |= {"first_failed_at": _seconds(failure.first_failed_at), "place": failure.place, "worker": failure.seat}
    if is_left_alone:
        fields["dismissed" if failure.dismissed_at is not None else "held"] = True
    if failure.is_new_since(last_run_ns):
        fields["new"] = True
    return origin_of(failure.source).as_json() | fields


def _seconds(at_ns: int | None) -> float | None:
    return at_ns and at_ns / 1e9


def _left_alone(of: StateOfPipeline, ledger: Ledger, patience: RetryPolicy) -> Callable[[Failure], bool]:
    """Return a predicate: a failure is not tried again; only dismissed ones are known if the pipeline does not load."""
    if of.config is None:
        return lambda failure: failure.dismissed_at is not None
    is_unchanged = _unchanged(of.config, ledger)
    return lambda failure: patience.is_over(failure) and is_unchanged(failure)


def _unchanged(config: Config, ledger: Ledger) -> Callable[[Failure], bool]:
    """Return a predicate: the source and the recipe of a failure have not changed since."""
    from pipeline.planning.file_state import same_origin
    from pipeline.planning.recipe import output_specs

    recipes = {leaf.stage: leaf.number for leaf in output_specs(config, ledger, record=False)}
    root = os.fsencode(config.inputs.root)

    def is_unchanged(failure: Failure) -> bool:
        if is_group(failure.source):  # whose members are known to a plan only
            return failure.recipe == recipes.get(failure.stage)
        try:
            found = os.stat(os.path.join(root, failure.source))
        except OSError:
            return False
        source = Source(failure.source, found.st_size, found.st_mtime_ns)
        is_same = failure.recipe == recipes.get(failure.stage) and same_origin(source, failure)
        return is_same and not failure.is_freed_by(os.path.join(root, failure.source))

    return is_unchanged


def _dismiss(config: Config, patterns: Sequence[str]) -> int:
    """Dismiss the failures whose source matches a pattern. Raises AlreadyRunning, since the ledger has one writer."""
    from contextlib import closing

    from pipeline.files.state_dir import open_state
    from pipeline.files.walk import matcher, pattern_problem
    from pipeline.ledger.recovery import is_new
    from pipeline.ledger.session import open_to_write
    from pipeline.operations.guards import guards_of

    if problem := next(filter(None, map(pattern_problem, patterns)), ""):
        raise UsageError(f"--dismiss: {problem}")
    dismissed, refused = 0, 0
    if not is_new(config.state / "ledger.sqlite"):
        with closing(open_state(config.state, config.name)) as state, open_to_write(state) as ledger:
            guards_of(config, ledger).check_owners()
            ledger.begin()
            dismissed, refused = ledger.failures.dismiss(matcher(patterns), " ".join(patterns))
            ledger.commit()
    print(f"{counted(dismissed, 'file')} dismissed", file=sys.stderr)
    if refused:
        print(f"{refused:,} left: no stage failed over them, the place of their outputs is taken", file=sys.stderr)
    return 0
