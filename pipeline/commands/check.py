"""Read pipeline.yaml and every stage it names, and say all that is wrong; show the tree if nothing is."""

from __future__ import annotations

import argparse
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Say what `check` takes."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in 'run'")


def execute(arguments: argparse.Namespace) -> int:
    """Check, and print a line a stage."""
    from pathlib import Path

    from pipeline.config.load import load_config

    config = load_config(Path(arguments.file), arguments.set)
    print(*config.warnings, sep="\n", end="\n" if config.warnings else "", file=sys.stderr)
    for stage in config.stages:
        parent = config.stages[stage.parent].name if stage.parent is not None else "inputs"
        output = f" -> {stage.output.template.text}" if stage.output else " -> no file" if stage.leaves_no_file else ""
        print(f"{stage.name}: {parent} -> {stage.stage.uses}{output}")
    return 0
