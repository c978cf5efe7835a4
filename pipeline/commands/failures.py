"""List the files that failed and have not been made since, each with its reason, or dismiss some of them."""

from __future__ import annotations

import argparse
import json
import os
import sys
from typing import TYPE_CHECKING

from pipeline.commands import warn_of_foreign_state
from pipeline.errors import UsageError
from pipeline.ledger.origins import is_group, origin_of
from pipeline.messages import Source
from pipeline.text import indented

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.config.model import Config
    from pipeline.ledger.failures import Failure, RetryPolicy
    from pipeline.ledger.ledger import Ledger


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `failures`."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    dismiss = "record that files which match, as in .gitignore, need not be done as they are: not tried, and no exit 6"
    parser.add_argument("--dismiss", metavar="PATTERN", help=dismiss)


def execute(arguments: argparse.Namespace) -> int:
    """Print a line for each failed output, and below it what its stages printed, or dismiss the failures that match."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.failures import RetryPolicy
    from pipeline.ledger.session import open_to_read

    config = load_config(Path(arguments.file), reads_inputs=False)
    if arguments.dismiss is not None:
        return _dismiss(config, arguments.dismiss)
    patience = RetryPolicy(config.errors.hold_after)
    with open_to_read(config.state / "ledger.sqlite") as ledger:
        warn_of_foreign_state(config, ledger)
        is_unchanged = _unchanged(config, ledger)
        for each in ledger.failures.all():
            is_left_alone = patience.is_over(each) and is_unchanged(each)
            if arguments.json:
                print(json.dumps(_as_json(each, is_left_alone), ensure_ascii=False))
            else:
                print(f"{_line(each)}{_describe_attempts(each, patience, is_left_alone)}")
                if printed := ledger.failures.printed(each):
                    print(indented(printed))
        _say_alike(config, ledger)
    return 0


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


def _as_json(failure: Failure, is_left_alone: bool) -> dict[str, object]:
    fields = {"stage": failure.stage, "kind": failure.kind, "error": failure.error, "attempts": failure.attempts}
    if is_left_alone:
        fields["dismissed" if failure.dismissed_at is not None else "held"] = True
    return origin_of(failure.source).as_json() | fields


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


def _dismiss(config: Config, pattern: str) -> int:
    """Dismiss the failures whose source matches a pattern. Raises AlreadyRunning, since the ledger has one writer."""
    from contextlib import closing

    from pipeline.files.state_dir import open_state
    from pipeline.files.walk import matcher, pattern_problem
    from pipeline.ledger.recovery import is_new
    from pipeline.ledger.session import open_to_write
    from pipeline.operations.guards import guards_of

    if problem := pattern_problem(pattern):
        raise UsageError(f"--dismiss: {problem}")
    dismissed, refused = 0, 0
    if not is_new(config.state / "ledger.sqlite"):
        with closing(open_state(config.state, config.name)) as state, open_to_write(state) as ledger:
            guards_of(config, ledger).check_owners()
            ledger.begin()
            dismissed, refused = ledger.failures.dismiss(matcher([pattern]), pattern)
            ledger.commit()
    print(f"{dismissed:,} {'failure' if dismissed == 1 else 'failures'} dismissed", file=sys.stderr)
    if refused:
        print(f"{refused:,} left: no stage failed over them, the place of their outputs is taken", file=sys.stderr)
    return 0
