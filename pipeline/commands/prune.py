"""Remove the outputs that nothing produces any more and that nobody has edited, after showing them."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING

from pipeline.ledger.origins import origin_of
from pipeline.text import as_json, command_for, counted, format_bytes, shown

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.model import Config
    from pipeline.files.state_dir import State
    from pipeline.ledger.ledger import Ledger
    from pipeline.operations.prune import Pruned
    from pipeline.planning.orphans import Fate
    from pipeline.planning.plan import Plan

# How many orphans are named before the question.
_SHOWN = 20


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `prune`."""
    parser.add_argument("--yes", action="store_true", help="remove them without asking")
    parser.add_argument("--json", action="store_true", help="list all of them, one JSON object a line; does not ask")


def execute(arguments: argparse.Namespace) -> int:
    """Print the orphans, ask for confirmation, and remove them."""
    from contextlib import closing
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.recovery import is_new
    from pipeline.ledger.session import open_to_write
    from pipeline.operations.lock_out import lock_state

    config = load_config(Path(arguments.file))
    if is_new(config.state / "ledger.sqlite"):
        print("no orphans: nothing was ever made", file=sys.stderr)
        return 0
    # Held while the ledger is written, since it has one writer.
    with closing(lock_state(config.state, config.name)) as state, open_to_write(state) as ledger:
        return _prune(config, state, ledger, arguments)


def _prune(config: Config, state: State, ledger: Ledger, arguments: argparse.Namespace) -> int:
    """Prune; end with the exit code of a limit where outputs are kept whose sources are gone."""
    from pipeline.errors import PolicyStop

    plan = _plan(config, ledger)
    code = _prune_orphans(config, state, ledger, plan, arguments)
    return PolicyStop.exit_code if plan.kept else code


def _prune_orphans(config: Config, state: State, ledger: Ledger, plan: Plan, arguments: argparse.Namespace) -> int:
    from pipeline.files.ownership import OwnedFolders
    from pipeline.operations.prune import Pruner, is_confirmed
    from pipeline.planning.orphans import fates

    counts, size_bytes = _count(fates(plan.store, config.folder))
    if arguments.json:
        _list(fates(plan.store, config.folder))
        if not arguments.yes:
            return 0
    else:
        _show(fates(plan.store, config.folder), counts, size_bytes, str(config.file))
    if not counts["prune"] + counts["forget"]:
        return 0
    if counts["prune"] and not is_confirmed(yes=arguments.yes):
        print("nothing was removed", file=sys.stderr)
        return 0
    if counts["prune"]:
        ledger.overrides.add("prune", {"removed": counts["prune"], "size_bytes": size_bytes})
    pruner = Pruner(ledger, config.folder, OwnedFolders(config.folder, state.id), ledger.runs.unclean())
    return _report(pruner.prune(fates(plan.store, config.folder)))


def _plan(config: Config, ledger: Ledger) -> Plan:
    """Plan a run over all files. Raises FilemillError if a guard would stop that run."""
    from pipeline.operations.guards import guards_of
    from pipeline.planning.lost_folders import describe
    from pipeline.planning.plan import make_plan
    from pipeline.planning.recipe import output_specs
    from pipeline.planning.selection import Selection

    guards = guards_of(config, ledger)
    guards.check_places()
    plan = make_plan(config, ledger, output_specs(config, ledger, record=False), Selection())
    guards.check_plan(plan, Selection())
    for line in (*plan.walk.describe_unlisted(), *describe(plan.kept)):
        print(line, file=sys.stderr)
    return plan


def _count(found: Iterator[Fate]) -> tuple[Counter[str], int]:
    """Count the orphans by action, and the bytes of those that may be removed."""
    counts: Counter[str] = Counter()
    size_bytes = 0
    for fate in found:
        counts[fate.action] += 1
        size_bytes += (fate.orphan.size or 0) if fate.action == "prune" else 0
    return counts, size_bytes


def _list(found: Iterator[Fate]) -> None:
    for fate in found:
        if fate.action != "forget":
            orphan = fate.orphan
            fields = {"stage": orphan.stage, "action": fate.action, "why": fate.why, "size_bytes": orphan.size}
            print(
                json.dumps(
                    origin_of(orphan.source).as_json() | fields | as_json(orphan.target, "output"), ensure_ascii=False
                )
            )


def _show(found: Iterator[Fate], counts: Counter[str], size_bytes: int, file: str) -> None:
    """Print the names of the first orphans, and the number of all."""
    there = (fate for fate in found if fate.action != "forget")
    for fate in islice(there, _SHOWN):
        print(f"  {fate.action:<6}{shown(fate.orphan.target)}: {fate.why}", file=sys.stderr)
    more = counts["prune"] + counts["keep"] - _SHOWN
    if more > 0:
        print(f"  ... and {more:,} more: {command_for('prune', file, '--json')}", file=sys.stderr)
    kept = f"; {counts['keep']:,} kept" if counts["keep"] else ""
    what = f"{counted(counts['prune'], 'orphan')} to remove, {format_bytes(size_bytes)}" if counts["prune"] else ""
    print(f"{what or 'no orphans to remove'}{kept}", file=sys.stderr)


def _report(pruned: Pruned) -> int:
    kept = f", {pruned.kept:,} kept" if pruned.kept else ""
    print(f"{counted(pruned.removed, 'orphan')} removed{kept}", file=sys.stderr)
    if pruned.failed:
        print(pruned.describe_failures(), file=sys.stderr)
    return 1 if pruned.failed else 0
