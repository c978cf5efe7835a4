"""Record outputs as up to date that are stale only because of one changed part of a stage, such as its code."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from pipeline.errors import UsageError
from pipeline.text import counted

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import Ledger
    from pipeline.planning.plan import Plan
    from pipeline.planning.recipe import OutputSpec


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `accept`."""
    parser.add_argument("--stage", required=True, metavar="S", help="the stage that changed")
    because = "the part of it that changed and makes no difference, such as code or options, as 'explain' names it"
    parser.add_argument("--because", required=True, metavar="PART", help=because)
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def execute(arguments: argparse.Namespace) -> int:
    """Print how many outputs can be accepted, ask for confirmation, and record them as up to date."""
    from contextlib import closing
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.session import open_to_write
    from pipeline.operations.guards import guards_of
    from pipeline.operations.lock_out import lock_state
    from pipeline.planning.recipe_diff import Part

    config = load_config(Path(arguments.file))
    _refuse_unknown(arguments.stage, [stage.name for stage in config.stages], "--stage", "stage")
    _refuse_unknown(arguments.because, list(get_args(Part)), "--because", "part of a recipe")
    # Held while the ledger is written, since it has one writer.
    with closing(lock_state(config.state, config.name)) as state, open_to_write(state) as ledger:
        guards_of(config, ledger).check_owners()
        return _accept(config, ledger, arguments)


def _refuse_unknown(word: str, known: list[str], option: str, what: str) -> None:
    from pipeline.text import did_you_mean

    if word not in known:
        asks = did_you_mean(word, known) or f"; there are {', '.join(known)}"
        raise UsageError(f"{option}: no {what} {word!r}{asks}")


def _accept(config: Config, ledger: Ledger, arguments: argparse.Namespace) -> int:
    from pipeline.operations.override_tally import Tally
    from pipeline.operations.prune import is_confirmed
    from pipeline.planning.plan import make_plan
    from pipeline.planning.recipe import output_specs
    from pipeline.planning.selection import Selection

    stage, part = arguments.stage, arguments.because
    leaves = output_specs(config, ledger, record=True)
    plan = make_plan(config, ledger, leaves, Selection())
    by_stage = {leaf.stage: leaf for leaf in leaves}
    tally = Tally((leaf.stage, why) for leaf, _, why in _stale(plan, ledger, by_stage, stage, part))
    because = f"stale for nothing but {stage}: {part}"
    none = f"to accept: none is {because}"
    print(*tally.lines(some=f"to accept, {because}", none=none, left="stale for more"), sep="\n", file=sys.stderr)
    if not tally.fit:
        return 0
    if not is_confirmed(yes=arguments.yes):
        print("nothing was accepted", file=sys.stderr)
        return 0
    ledger.begin()
    override = ledger.overrides.add("accept", {"stage": stage, "because": part, "outputs": tally.fit})
    found = _stale(plan, ledger, by_stage, stage, part)
    fit = ((target, leaf.number) for leaf, target, why in found if not why and leaf.number)
    ledger.overrides.accept(fit, override)
    ledger.commit()
    print(f"{counted(tally.total, 'output')} accepted", file=sys.stderr)
    return 0


def _stale(
    plan: Plan, ledger: Ledger, leaves: dict[str, OutputSpec], stage: str, part: str
) -> Iterator[tuple[OutputSpec, bytes, str]]:
    """Yield every output that is stale because of `part`, with any further reason for that; empty if there is none."""
    from pipeline.planning.decisions import text_of, without_particulars
    from pipeline.planning.recipe_diff import differences_from

    known: dict[tuple[int, str], tuple[bool, str]] = {}
    for decision in plan.store.decisions("make"):
        leaf = leaves[decision.stage]
        target = decision.moved_from or leaf.template.key(decision.path)
        recipe = ledger.outputs.recipe_of(target)
        if recipe is None or recipe == leaf.number:
            continue
        if (recipe, leaf.stage) not in known:
            found = differences_from(ledger.recipe_parts(recipe), leaf)
            others = [each.text for each in found if each.part != part or each.stage not in (stage, "")]
            known[recipe, leaf.stage] = (len(others) < len(found), others[0] if others else "")
        is_for_it, other = known[recipe, leaf.stage]
        if is_for_it:
            # The plan asks for the source before the recipe, and says the first that it finds.
            is_recipe = decision.reason.code == "recipe_changed"
            yield leaf, target, other or ("" if is_recipe else text_of(without_particulars(decision.reason)))
