"""Owner files say which pipeline an output folder belongs to; only folders of our own are ever removed."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFailure
from pipeline.files.file_system import describe
from pipeline.files.sync import replace_durably
from pipeline.files.template import OWNER_FILE


@dataclass(frozen=True)
class Owner:
    """A pipeline, as an owner file names it."""

    state: str
    """Its state's id."""
    pipeline: str
    host: str
    state_folder: str


def owner_here(state_folder: Path, state_id: str, pipeline: str) -> Owner:
    """Return the owner that a pipeline on this machine is; its id is empty where there is no state yet."""
    return Owner(state_id, pipeline, socket.gethostname(), str(state_folder))


def is_claimed(place: Path, ours: Owner) -> bool:
    """Return whether the owner file in a folder has our state's id."""
    return bool(ours.state) and (_said(place) or {}).get("state") == ours.state


def other_owner(place: Path, ours: Owner, known_host: str | None) -> Owner | None:
    """Return the owner of a folder that is not ours, else None; `known_host` is the host of our last claim."""
    said = _said(place)
    if not said or not _is_anothers(said, ours, place, known_host):
        return None
    return Owner(*(str(said.get(key, "?")) for key in ("state", "pipeline", "host", "state_folder")))


def claimed_run(place: Path, state_id: str) -> int | None:
    """Return the number of our last run that said it would write to a folder; None where none of this state did."""
    said = _said(place) or {}
    run = said.get("run") if state_id and said.get("state") == state_id else None
    return run if isinstance(run, int) else None


def claimed_folders(folders: Iterable[bytes], state_id: str) -> frozenset[bytes]:
    """Return those of some output folders whose owner files have our state's id."""
    ours = (folder for folder in folders if (_said(Path(os.fsdecode(folder))) or {}).get("state") == state_id)
    return frozenset(ours if state_id else ())


def claim(place: Path, ours: Owner, run: int | None = None) -> None:
    """Write our owner file into an output folder, which is made where there is none. Raises EnvironmentFailure.

    `run` is the number of the run that is about to write to it; without one the number there stays.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        before = _said(place) or {}
        number = claimed_run(place, ours.state) if run is None else run
        said = asdict(ours) | {"folder": str(place)} | ({} if number is None else {"run": number})
        if before != said:
            # Of one name, so that what a killed run left is used up by the next.
            new = place / f"{OWNER_FILE}-owner"
            replace_durably(place / OWNER_FILE, json.dumps(said, indent=1).encode() + b"\n", new)
    except OSError as error:
        why = describe(error, error.filename or place)
        raise EnvironmentFailure(f"the output folder {place} cannot be used: {why}") from error


def _said(place: Path) -> dict[str, Any] | None:
    """Read the owner file in a folder; an empty dict where it is damaged, None where it cannot be read."""
    try:
        said = json.loads((place / OWNER_FILE).read_bytes())
    except OSError:
        return None
    except ValueError:
        return {}
    return said if isinstance(said, dict) else {}


def _is_anothers(said: dict[str, Any], ours: Owner, place: Path, known_host: str | None) -> bool:
    if said.get("folder") != str(place):
        # The folder was moved or copied here, and the owner file with it.
        return said.get("state") != ours.state
    if said.get("state") != ours.state:
        # Unless the same state folder was removed and is made anew.
        return (said.get("state_folder"), said.get("host")) != (ours.state_folder, ours.host)
    if said.get("host") != ours.host and known_host not in (None, said.get("host")):
        # One id, but it was not by our ledger that the folder was last claimed: a copy of us on another machine has.
        return True
    # One id in two places: a copied state, if the first is still there.
    elsewhere = Path(str(said.get("state_folder")))
    return str(elsewhere) != ours.state_folder and _still_there(elsewhere, ours.state)


def _still_there(state_folder: Path, state_id: str) -> bool:
    try:
        return (state_folder / "id").read_text().strip() == state_id
    except (OSError, ValueError):
        return False


# The number of folders whose owner is remembered.
_REMEMBERED = 1000


class Places:
    """Tells which folders are ours: output folders with our owner file in them, and the folders below them."""

    def __init__(self, folder: Path, state_id: str) -> None:
        self._base = os.fsencode(folder)
        self._state_id = state_id
        self._ours: dict[bytes, bool] = {}

    def is_ours(self, folder: bytes) -> bool:
        """Return whether a folder is an output folder of ours, or below one and reached from it through no link."""
        if folder not in self._ours:
            if len(self._ours) >= _REMEMBERED:
                self._ours.clear()
            self._ours[folder] = self._find_whether_ours(folder)
        return self._ours[folder]

    def _find_whether_ours(self, folder: bytes) -> bool:
        try:
            owner = json.loads(Path(os.fsdecode(folder), OWNER_FILE).read_bytes())
            return isinstance(owner, dict) and owner.get("state") == self._state_id
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError):
            return False
        above = os.path.dirname(folder)
        if folder in (self._base, above):  # no output folder: its owner file was taken away
            return folder == self._base
        return not os.path.islink(folder) and self.is_ours(above)

    def remove_if_empty(self, folder: bytes) -> None:
        """Remove a folder and those above it while they are empty; an output folder never is, by its owner file."""
        with suppress(OSError):
            while folder and not self._base.startswith(folder) and self.is_ours(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)
