"""Write a stage with a test that passes, or a pipeline for the files in a folder; nothing is overwritten."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from pathlib import Path

from pipeline.commands import warn_of_namesake
from pipeline.errors import UsageError
from pipeline.text import program


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Register the arguments of `new`."""
    parser.add_argument(
        "name", nargs="?", metavar="STAGE", help="write stages/STAGE.py, and its test, beside the pipeline"
    )
    takes = "what the new stage takes (image)"
    parser.add_argument("--takes", choices=("image", "text", "bytes", "path"), default="image", help=takes)
    folder = "write a pipeline.yaml for the files in FOLDER"
    parser.add_argument("--pipeline", dest="folder", metavar="FOLDER", help=folder)


def execute(arguments: argparse.Namespace) -> int:
    """Write the stage or the pipeline, print the new files, and suggest the next command."""
    from pipeline.commands.stages import pipeline_and_stage

    file, name = pipeline_and_stage(arguments)
    if (name is None) == (arguments.folder is None):
        raise UsageError("name one thing to write: 'new STAGE', or 'new --pipeline FOLDER'")
    warn_of_namesake(Path(file).resolve().parent)
    if name is None:
        return _write_pipeline(Path(arguments.folder), Path(file))
    return _write_stage(name, Path(file), arguments.takes)


def _write_stage(name: str, file: Path, takes: str) -> int:
    from pipeline.config.json_schema import SCHEMA_FILE, read_schema, write_schema
    from pipeline.operations.scaffold_stage import write_stage

    folder = file.resolve().parent
    _print(write_stage(name, folder, takes))
    schema = folder / SCHEMA_FILE
    if schema.exists():  # it holds the options of every stage
        write_schema(read_schema(file)[0], schema)
    at = "" if folder == Path.cwd() else f"cd {shlex.quote(os.path.relpath(folder))} && "
    lines = [f"next: {at}pytest tests/stages", f"      {at}{program()} stages {name}"]
    print(*lines, sep="\n", file=sys.stderr)
    return 0


def _write_pipeline(folder: Path, file: Path) -> int:
    from pipeline.operations.scaffold_pipeline import write_pipeline

    written, found = write_pipeline(folder, file)
    _print(written)
    named = "" if os.path.normpath(file) == "pipeline.yaml" else f" {_argument(file)}"
    print(f"{folder}: {found}\nnext: {program()}{named}", file=sys.stderr)
    return 0


def _argument(file: Path) -> str:
    word = shlex.quote(str(file))
    return word if file.suffix in (".yaml", ".yml") else f"-f {word}"


def _print(written: list[Path]) -> None:
    for file in written:
        print(os.path.relpath(file))
