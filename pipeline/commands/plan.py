"""Say what a run would do with every output, and why, before anything is touched."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from pipeline.commands.run import add_selection, edits_of, selection_of
from pipeline.names import as_json, shown

if TYPE_CHECKING:
    from pipeline.plan import Plan


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `plan` takes; also what `run --dry-run` may bring along."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every output")
    parser.add_argument("-v", "--verbose", action="store_true", help="a line for every output")
    parser.add_argument("-q", "--quiet", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("-j", "--processes", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--engine", help=argparse.SUPPRESS)
    parser.add_argument("--grace", type=float, help=argparse.SUPPRESS)
    add_selection(parser)


def execute(arguments: argparse.Namespace) -> int:
    """Plan, and print the counts by reason, or every decision."""
    from contextlib import closing
    from pathlib import Path

    from pipeline.ledger import Ledger
    from pipeline.load import load_config
    from pipeline.plan import leaves_of, make_plan

    config = load_config(Path(arguments.file), edits_of(arguments))
    print(*config.warnings, sep="\n", end="\n" if config.warnings else "", file=sys.stderr)
    file = config.state / "ledger.sqlite"
    with closing(Ledger(file if file.exists() else None)) as ledger:
        details, leaves = arguments.json or arguments.verbose, leaves_of(config, ledger, record=False)
        plan = make_plan(config, ledger, leaves, selection_of(arguments), everything=details)
        if arguments.files_from is not None:
            print(*plan.walk.describe_left_out(), sep="\n", end="\n" if plan.walk.left_out else "", file=sys.stderr)
        if not arguments.json:
            _print_counts(plan)
        if details:
            _print_decisions(plan, arguments.json)
    return 0


def _print_counts(plan: Plan) -> None:
    total = sum(plan.counts.values())
    print(f"{total:,} outputs of {plan.sources:,} files")
    for (action, why), count in sorted(plan.counts.items(), key=lambda pair: (pair[0][0], -pair[1])):
        reason = "" if why in ("up to date", action) else f": {why}"
        print(f"  {count:>9,} {action}{reason}")


def _print_decisions(plan: Plan, json_lines: bool) -> None:
    for each in plan.spool.decisions():
        if json_lines:
            fields = {"stage": each.stage, "action": each.action, "why": each.why}
            print(json.dumps(as_json(each.source.path) | fields, ensure_ascii=False))
        else:
            print(f"{each.action:<11} {each.stage:<12} {shown(each.source.path)}: {each.why}")
