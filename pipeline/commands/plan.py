"""Show what a run would do with every output, and why, without changing anything."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from pipeline.commands.run import add_selection, confirmations_of, edits_of, selection_of
from pipeline.errors import FilemillError
from pipeline.files.template import NO_FILE_KEY
from pipeline.ledger.origins import origin_of
from pipeline.text import as_json, counted, shown

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import Ledger
    from pipeline.messages import Origin
    from pipeline.planning.decisions import Action, Code
    from pipeline.planning.orphans import Fate
    from pipeline.planning.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `plan`, and those that `run --dry-run` accepts with it."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every output and every orphan")
    parser.add_argument(
        "-v", "--verbose", action="store_true", help="the route, and a line for every output and every orphan"
    )
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-j", "--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--grace", type=float, help=argparse.SUPPRESS)
    add_selection(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Plan, and print the counts by reason, or every decision."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.config.routes import describe_route
    from pipeline.ledger.session import open_to_read
    from pipeline.operations.guards import guards_of
    from pipeline.planning.first_run import describe_streaming
    from pipeline.planning.lost_folders import describe
    from pipeline.planning.orphans import fates
    from pipeline.planning.plan import make_plan
    from pipeline.planning.recipe import output_specs

    config = load_config(Path(arguments.file), edits_of(arguments))
    for note in (*config.warnings, *(config.unseen if arguments.verbose else ())):
        print(note, file=sys.stderr)
    with open_to_read(config.state / "ledger.sqlite", tuple(config.output_folders)) as ledger:
        confirmed = confirmations_of(arguments)
        guards = guards_of(config, ledger, confirmed)
        is_well = _warn(guards.check_places)
        details, leaves = arguments.json or arguments.verbose, output_specs(config, ledger, record=False)
        selection = selection_of(arguments)
        plan = make_plan(config, ledger, leaves, selection, everything=details, is_loss_meant=confirmed.rebuild)
        if is_well:
            _warn(lambda: guards.check_plan(plan, selection))
        for line in (
            *guards.notes,
            *plan.walk.describe_unlisted(),
            *plan.walk.describe_left_out(),
            *describe(plan.kept),
        ):
            print(line, file=sys.stderr)
        if arguments.verbose and not arguments.json:
            print(*describe_route(config), describe_streaming(config, leaves), sep="\n", end="\n\n")
        if not arguments.json:
            _print_counts(plan)
            _print_orphans(fates(plan.store, config.folder))
        if details:
            _print_decisions(plan, fates(plan.store, config.folder), arguments.json)
        if not arguments.json:
            _print_estimate(plan, config, ledger)
    return 0


def _warn(check: Callable[[], None]) -> bool:
    """Print the error with which a guard would stop the run; return whether the guard passes."""
    try:
        check()
    except FilemillError as error:
        print(f"a run would end with exit code {error.exit_code}: {error}", file=sys.stderr)
        return False
    return True


def _print_counts(plan: Plan) -> None:
    """Print a table whose columns add up to the number of files and of outputs."""
    from pipeline.planning.decisions import ACTIONS, text_of

    counts = plan.counts + plan.counts_of_groups
    print(f"{counted(counts.total(), 'output')} of {counted(plan.sources, 'file')}")
    print(f"{'files':>9} {'outputs':>9}")
    rows = sorted(
        (ACTIONS.index(action), -outputs, text_of(reason), action, reason)
        for (action, reason), outputs in counts.items()
    )
    for _, outputs, why, action, reason in rows:
        files = plan.files[action, reason]
        print(f"{f'{files:,}' if files else '':>9} {-outputs:>9,}  {_described(action, why)}")
    if plan.unmatched:
        from pipeline.report.summary import kinds_of

        print(f"{plan.unmatched.total():>9,} {0:>9}  unmatched, no stage reads them: {kinds_of(plan.unmatched)}")


def _print_estimate(plan: Plan, config: Config, ledger: Ledger) -> None:
    """Print what a run is expected to take, if there is work and anything is known of such work."""
    from pipeline.files.file_system import free_bytes
    from pipeline.operations.launch import count_workers
    from pipeline.planning.estimate import describe, efficiency
    from pipeline.planning.learnt import Learnt

    learnt = Learnt.load(ledger)
    if learnt.is_empty or not plan.jobs + plan.jobs_of_groups:
        return
    workers = count_workers(config)
    rooms = [free for folder in config.output_folders if (free := free_bytes(folder)) is not None]
    if said := describe(plan.store.expect(learnt, workers), workers, efficiency(ledger), min(rooms, default=None)):
        print(f"expected: {said}")


def _described(action: Action, why: str) -> str:
    """Return the action and the reason as text; the reason alone if nothing is done."""
    return f"{action}: {why}" if action in ("make", "rename") else f"{why}: refused" if action == "refuse" else why


def _print_orphans(found: Iterable[Fate]) -> None:
    counts = Counter(f"{fate.action}: {fate.why}" for fate in found if fate.action != "forget")
    if counts:
        print(counted(counts.total(), "orphan"))
    for text, count in counts.most_common():
        print(f"{'':>9} {count:>9,}  {text}")


def _print_decisions(plan: Plan, found: Iterable[Fate], json_lines: bool) -> None:
    from pipeline.planning.decisions import text_of

    for each in plan.store.decisions():
        why, code = text_of(each.reason), each.reason.code
        _print_line(each.origin, each.stage, each.action, code, why, each.target, json_lines)
    for fate in found:
        if fate.action != "forget":
            orphan = fate.orphan
            _print_line(
                origin_of(orphan.source), orphan.stage, fate.action, orphan.code, fate.why, orphan.target, json_lines
            )


def _print_line(origin: Origin, stage: str, action: str, code: Code, why: str, target: bytes, json_lines: bool) -> None:
    if target.startswith(NO_FILE_KEY):
        target = b""
    if json_lines:
        fields = {"stage": stage, "action": action, "why": why, "code": code}
        fields |= as_json(target, "output") if target else {}
        print(json.dumps(origin.as_json() | fields, ensure_ascii=False))
    else:
        output = f" -> {shown(target)}" if target else ""
        print(f"{action:<11} {stage:<12} {origin}{output}: {why}")
