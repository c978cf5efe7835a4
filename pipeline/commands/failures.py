"""List the files that failed and have not been done since, with the reason."""

from __future__ import annotations

import argparse
import json

from pipeline.names import as_json, shown


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `failures` takes."""
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def execute(arguments: argparse.Namespace) -> int:
    """Print a line for each failed output."""
    from contextlib import closing
    from pathlib import Path

    from pipeline.ledger import Ledger
    from pipeline.load import load_config

    config = load_config(Path(arguments.file))
    file = config.state / "ledger.sqlite"
    if not file.exists():
        return 0
    with closing(Ledger(file)) as ledger:
        for each in ledger.failures():
            if arguments.json:
                fields = {"stage": each.stage, "kind": each.kind, "error": each.error, "attempts": each.attempts}
                print(json.dumps(as_json(each.source) | fields, ensure_ascii=False))
            else:
                times = f", attempt {each.attempts}" if each.attempts > 1 else ""
                kind = "" if each.error.startswith(each.kind) else f"{each.kind}: "
                print(f"{shown(each.source)} ({each.stage}): {kind}{each.error}{times}")
    return 0
