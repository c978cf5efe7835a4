"""Output folders that the ledger knows by another path than the templates have now, and that are the same folders.

A template may have been respelt through a link, a link have taken a folder's place, or a folder been moved to where a
link leads. What is recorded of the outputs then gets the path of now: nothing is made again, and nothing is an orphan.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import Path

from pipeline.config.model import Config
from pipeline.files.naming import resolve_folder
from pipeline.files.ownership import claimed_as
from pipeline.files.state_dir import known_identity
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import CLAIMS


def respell(config: Config, ledger: Ledger) -> None:
    """Give what is recorded in output folders the paths that these have now."""
    known = ledger.facts.get("outputs") or {}
    current = {os.fsdecode(each.written_folder): folder for folder, each in config.output_folders.items()}
    found = list(_respelt(config, known, current)) if current.keys() - known.keys() else []
    if not found:
        return
    ledger.begin()
    claims = ledger.facts.get(CLAIMS) or {}
    for before, now in found:
        ledger.move_folder(os.fsencode(before), os.fsencode(now))
        known[now] = known.pop(before)
        path = _path(config, before)
        if path in claims:
            claims[_path(config, now)] = claims.pop(path)
    ledger.facts.set("outputs", known)
    ledger.facts.set(CLAIMS, claims)
    ledger.unchanged.delete()
    ledger.has_news = True
    ledger.commit()


def _path(config: Config, kept: str) -> str:
    """Return the path of a folder, given as the ledger keeps it."""
    return os.path.normpath(os.path.join(config.folder, kept))


def _respelt(config: Config, known: Collection[str], current: dict[str, bytes]) -> Iterator[tuple[str, str]]:
    """Yield the folders that have another path now, each with that path, both as the ledger keeps them."""
    state = known_identity(config.state)
    left = {each: os.fsencode(_path(config, each)) for each in known if each not in current}
    for now, folder in current.items():
        if now in known:
            continue
        moved_from = claimed_as(Path(os.fsdecode(folder)), state)
        for before, path in left.items():
            was_moved = moved_from == path and not claimed_as(Path(os.fsdecode(path)), state)
            if resolve_folder(path) == folder or was_moved:
                del left[before]
                yield before, now
                break
