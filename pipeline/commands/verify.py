"""Read every output again, and list those that differ from their record: missing, torn, edited or decayed."""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from typing import TYPE_CHECKING

from pipeline.commands import warn_of_foreign_state
from pipeline.ledger.origins import origin_of
from pipeline.text import as_json, counted, shown

if TYPE_CHECKING:
    from pipeline.operations.verify import Finding


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `verify`."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line for every finding")


def execute(arguments: argparse.Namespace) -> int:
    """Print a line for every output that differs from its record; nothing is repaired."""
    from pathlib import Path

    from pipeline.config.load import load_config
    from pipeline.ledger.session import open_to_read
    from pipeline.operations.verify import verify

    config = load_config(Path(arguments.file), reads_inputs=False)
    with open_to_read(config.state / "ledger.sqlite") as ledger:
        warn_of_foreign_state(config, ledger)
    counts: Counter[str] = Counter()
    without_digest = 0
    for finding in verify(config.state / "ledger.sqlite", config.folder):
        counts[finding.kind] += 1
        without_digest += finding.row.digest is None
        if finding.kind != "as recorded":
            print(json.dumps(_as_json(finding), ensure_ascii=False) if arguments.json else _line(finding))
    _print_counts(counts, without_digest)
    return 1 if counts.total() > counts["as recorded"] else 0


def _line(finding: Finding) -> str:
    return f"{shown(finding.row.target)}: {finding.text}"


def _as_json(finding: Finding) -> dict[str, str | None]:
    row = finding.row
    fields = {"stage": row.stage, "finding": finding.kind, "text": finding.text}
    return origin_of(row.source).as_json() | fields | as_json(row.target, "output")


def _print_counts(counts: Counter[str], without_digest: int) -> None:
    found = [f"{counts['as recorded']:,} as recorded"]
    found += [f"{count:,} {kind}" for kind, count in counts.most_common() if kind != "as recorded"]
    print(f"{counted(counts.total(), 'output')} verified: {', '.join(found)}", file=sys.stderr)
    if without_digest:
        print(f"of {without_digest:,} the contents were never recorded: only size and time", file=sys.stderr)
