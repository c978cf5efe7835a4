"""What the ledger knows as a whole: of which files, and of how many outputs below a folder."""

from __future__ import annotations

from pipeline.groups import OF_FILES
from pipeline.ledger import Ledger

# "0" is what comes after "/".
_MADE_BELOW = "FROM outputs WHERE target >= ? AND target < ? AND status = 'done'"


def is_blank(ledger: Ledger) -> bool:
    """Whether nothing was ever made or intended."""
    either = "SELECT 1 FROM outputs UNION ALL SELECT 1 FROM intents LIMIT 1"
    return ledger.connection.execute(either).fetchone() is None


def made_below(ledger: Ledger, folder: bytes, most: int = 20) -> list[bytes]:
    """The first outputs on record whose keys begin so, that is with a folder's and a slash."""
    values = (folder, folder[:-1] + b"0", most)
    return [row[0] for row in ledger.connection.execute(f"SELECT target {_MADE_BELOW} LIMIT ?", values)]


def count_made_below(ledger: Ledger, folder: bytes) -> int:
    """How many they are in all."""
    found = ledger.connection.execute(f"SELECT count(*) {_MADE_BELOW}", (folder, folder[:-1] + b"0"))
    return int(found.fetchone()[0])


def count_known_sources(ledger: Ledger, without: tuple[bytes, ...] = ()) -> int:
    """The sources of which something was made or left out, less those in some folders."""
    which = f"SELECT DISTINCT source FROM outputs WHERE status != 'intended' AND {OF_FILES}"
    found = ledger.connection.execute(which)
    return sum(not source.startswith(without) for (source,) in found)
