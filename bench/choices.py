"""How the benches are told which works and contenders to measure."""

from __future__ import annotations

import argparse


def names(text: str) -> list[str]:
    """Split "filemill; pyvips, cascade" into names at the semicolons."""
    return [name for part in text.split(";") if (name := part.strip())]


def add_choice(parser: argparse.ArgumentParser, option: str, known: list[str]) -> None:
    """Register an option that takes names separated by `;` and may be given more than once."""
    parser.add_argument(option, action="extend", type=names, help="only these, separated by ';': " + "; ".join(known))
