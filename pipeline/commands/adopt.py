"""Record outputs that exist and are not in the ledger as made by the pipeline as it is now."""

from __future__ import annotations

import argparse
import os
import stat
import sys
from typing import TYPE_CHECKING

from pipeline.commands.run import only_of
from pipeline.messages import Source
from pipeline.text import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from pipeline.config.model import Config
    from pipeline.files.digest import Reading
    from pipeline.ledger.ledger import Ledger
    from pipeline.ledger.overrides import AdoptedOutput
    from pipeline.planning.decisions import Decision
    from pipeline.planning.plan import Plan

# Nanoseconds: a copy may have cut the time of an output, or of its source, to whole seconds.
_SECOND_NS = 1_000_000_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `adopt`."""
    only = "only the outputs of files that match, as in .gitignore; may be repeated"
    parser.add_argument("--only", action="append", default=[], metavar="PATTERN", help=only)
    parser.add_argument("--yes", action="store_true", help="do it without asking")


def execute(arguments: argparse.Namespace) -> int:
    """Print how many outputs can be adopted, ask for confirmation, and record them as made."""
    from contextlib import closing
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.session import open_to_write
    from pipeline.operations.guards import guards_of
    from pipeline.operations.lock_out import lock_state

    only = only_of(arguments)
    config = load_config(Path(arguments.file))
    # Held while the ledger is written, since it has one writer.
    with closing(lock_state(config.state, config.name)) as state, open_to_write(state) as ledger:
        guards_of(config, ledger).check_owners()
        return _adopt(config, ledger, only, yes=arguments.yes)


def _adopt(config: Config, ledger: Ledger, only: tuple[str, ...], *, yes: bool) -> int:
    from pipeline.operations.override_tally import Tally
    from pipeline.operations.prune import is_confirmed
    from pipeline.planning.plan import make_plan
    from pipeline.planning.recipe import output_specs
    from pipeline.planning.selection import Selection

    leaves = output_specs(config, ledger, record=True)
    plan = make_plan(config, ledger, leaves, Selection(only=only))
    tally = Tally((decision.stage, why) for decision, _, why in _unrecorded(plan))
    some = "to adopt, as made from the files as they are by the stages as they are"
    left = "to be moved away, or made anew by --force"
    print(*tally.lines(some=some, none="to adopt", left=left), sep="\n", file=sys.stderr)
    if not tally.fit:
        return 0
    if not is_confirmed(yes=yes):
        print("nothing was adopted", file=sys.stderr)
        return 0
    ledger.begin()
    details: dict[str, object] = {"outputs": tally.fit}
    details |= {"only": ", ".join(only)} if only else {}
    override = ledger.overrides.add("adopt", details)
    ledger.overrides.adopt(_adoptable(plan, config), override)
    ledger.commit()
    print(f"{counted(tally.total, 'output')} adopted", file=sys.stderr)
    return 0


def _adoptable(plan: Plan, config: Config) -> Iterator[AdoptedOutput]:
    """Yield every output that can be adopted, with the digest of its contents and, if needed, that of its source."""
    from pipeline.ledger.overrides import AdoptedOutput

    leaves = {leaf.stage: leaf for leaf in plan.specs}
    for decision, found, why in _unrecorded(plan):
        leaf, origin = leaves[decision.stage], decision.origin
        if why or leaf.number is None:
            continue
        reading = _read(decision.path, found.st_size, found.st_mtime_ns)
        by_contents = config.changed_by == "hash"
        read_from = _read_source(config, origin) if by_contents and isinstance(origin, Source) else None
        yield AdoptedOutput(
            origin=origin,
            target=decision.target,
            stage=leaf.stage,
            recipe=leaf.number,
            size_bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            digest=reading.digest if reading else None,
            source_digest=read_from.digest if read_from else None,
            source_ctime_ns=read_from.ctime_ns if read_from and read_from.was_at_rest else None,
        )


def _read_source(config: Config, source: Source) -> Reading | None:
    path = os.path.join(os.fsencode(config.inputs.root), source.path)
    return _read(path, source.size_bytes, source.mtime_ns)


def _read(path: bytes, size_bytes: int, mtime_ns: int) -> Reading | None:
    """Read and digest a file; None if it cannot be read, or if its size or time has changed since the plan was made."""
    from pipeline.files.digest import read
    from pipeline.ledger.origins import kept_time

    try:
        reading = read(path)
    except OSError:
        return None
    is_same = (reading.size_bytes, kept_time(reading.mtime_ns)) == (size_bytes, kept_time(mtime_ns))
    return reading if is_same else None


def _unrecorded(plan: Plan) -> Iterator[tuple[Decision, os.stat_result, str]]:
    """Yield every unrecorded output that exists, with the reason for which it cannot be adopted; empty if it can."""
    for decision in plan.store.decisions("refuse"):
        if decision.reason.code != "not_ours":
            continue
        try:
            found = os.lstat(decision.path)
        except OSError:  # gone since the plan was made
            continue
        yield decision, found, _why_not_adoptable(decision, found)


def _why_not_adoptable(decision: Decision, found: os.stat_result) -> str:
    if not stat.S_ISREG(found.st_mode):
        return "no regular file"
    if not found.st_size:
        return "empty"
    origin = decision.origin  # of a group, how old its members are makes no difference
    if isinstance(origin, Source) and found.st_mtime_ns // _SECOND_NS < origin.mtime_ns // _SECOND_NS:
        return "older than its source"
    return ""
