"""Write the JSON Schema of pipeline.yaml with the options of every stage, by which editors complete and check it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from pipeline.errors import UsageError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the options of `schema`."""
    parser.add_argument("-o", "--output", metavar="FILE", help="write it there instead of on stdout")
    parser.add_argument("--defaults", action="store_true", help="the schema of a file that 'defaults:' names")


def execute(arguments: argparse.Namespace) -> int:
    """Write the schema for pipelines in the folder of the named pipeline, which need not exist yet."""
    from pipeline.config.json_schema import as_text, defaults_schema, modeline, read_schema, write_schema

    pipeline, named = Path(arguments.file), arguments.pipeline
    if named and not named.endswith((".yaml", ".yml")):
        raise UsageError(f"{named} is no pipeline; '-o {named}' writes the schema there")
    schema, problems = (defaults_schema(), []) if arguments.defaults else read_schema(pipeline)
    for problem in problems:
        print(f"left out: {problem}", file=sys.stderr)
    if arguments.output is None:
        print(as_text(schema), end="")
        return 0
    write_schema(schema, Path(arguments.output))
    if sys.stderr.isatty():
        line, whose = modeline(Path(arguments.output), pipeline), "defaults" if arguments.defaults else "pipeline"
        print(f"editors find it by this first line of the {whose}:\n{line}", file=sys.stderr)
    return 0
