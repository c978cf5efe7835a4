"""How the benches are told which works and contenders to measure."""

from __future__ import annotations

import argparse


def add_choice(parser: argparse.ArgumentParser, option: str, known: list[str]) -> None:
    """Register an option that takes names separated by `;` and may be given more than once; "..." permits any."""

    def names(text: str) -> list[str]:
        found = [name for part in text.split(";") if (name := part.strip())]
        if unknown := [name for name in found if name not in known and "..." not in known]:
            raise argparse.ArgumentTypeError(f"there is no {', no '.join(unknown)}; there are: {'; '.join(known)}")
        return found

    parser.add_argument(option, action="extend", type=names, help="only these, separated by ';': " + "; ".join(known))
