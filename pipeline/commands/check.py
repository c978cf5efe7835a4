"""Check pipeline.yaml and every stage it names, and print all complaints, or the tree of stages if there are none."""

from __future__ import annotations

import argparse
import sys

from pipeline.commands import warn_of_namesake


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `check`."""
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="as in 'run'")


def execute(arguments: argparse.Namespace) -> int:
    """Check a pipeline, and print one line for each stage."""
    from pathlib import Path

    from pipeline.config.load import load_config

    config = load_config(Path(arguments.file), arguments.set)
    from pipeline.operations.missing_extras import describe_missing_for
    from pipeline.planning.plan import walk_of  # once the pipeline is loaded, by a copy of this process
    from pipeline.text import printable

    if config.defaults:
        print(f"defaults: {printable(str(config.defaults))}", file=sys.stderr)
    for note in (*config.warnings, *config.unseen):
        print(note, file=sys.stderr)
    warn_of_namesake(config.folder)
    walk = walk_of(config)
    walk.find_owned()
    for line in (*walk.describe_left_out(), *describe_missing_for(config, walk)):
        print(line, file=sys.stderr)
    for stage in config.stages:
        parent = config.stages[stage.parent].name if stage.parent is not None else "inputs"
        output = f" -> {stage.output.template.text}" if stage.output else " -> no file" if stage.leaves_no_file else ""
        print(f"{stage.name}: {parent} -> {stage.stage.uses}{output}")
    return 0
