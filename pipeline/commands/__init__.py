"""The verbs of the command line, one file each: `add_arguments` has its options, `execute` returns the exit code."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.config.model import Config
    from pipeline.ledger.ledger import Ledger


def warn_of_foreign_state(config: Config, ledger: Ledger) -> None:
    """Print a line to stderr where the state belongs to another pipeline, whose records a verb is about to show."""
    from pipeline.operations.guards import guards_of

    if sentence := guards_of(config, ledger).describe_state():
        print(sentence, file=sys.stderr)
