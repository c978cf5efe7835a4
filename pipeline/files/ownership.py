"""Owner files, which name the pipeline that owns an output folder, so that only our own folders are removed."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from pipeline.errors import EnvironmentFailure
from pipeline.files.file_system import describe, read_regular
from pipeline.files.sync import replace_durably
from pipeline.files.template import OWNER_FILE
from pipeline.records import dataclass


@dataclass(frozen=True)
class Owner:
    """A pipeline, as an owner file identifies it."""

    state: str
    """The id of the pipeline's state folder."""
    pipeline: str
    host: str
    state_folder: str


def owner_here(state_folder: Path, state_id: str, pipeline: str) -> Owner:
    """Return a pipeline on this machine as an owner; the id is empty before its first run."""
    return Owner(state_id, pipeline, os.uname().nodename, str(state_folder))


def is_claimed(place: Path, ours: Owner) -> bool:
    """Return whether the owner file in a folder has the id of our state."""
    return bool(ours.state) and (_read_owner_file(place) or {}).get("state") == ours.state


def claimed_as(place: Path, state_id: str) -> bytes:
    """Return the path by which we claimed a folder; empty where its owner file is not of our state."""
    said = (_read_owner_file(place) if state_id else None) or {}
    return os.fsencode(str(said.get("folder", ""))) if said.get("state") == state_id else b""


def other_owner(place: Path, ours: Owner, known_host: str | None, known_runs: Collection[str] = ()) -> Owner | None:
    """Return the owner of a folder if that is another pipeline, else None.

    Args:
        place: The output folder.
        ours: This pipeline.
        known_host: The host on which our ledger last claimed the folder; None if that is not known.
        known_runs: The names of the runs in our ledger.
    """
    said = _read_owner_file(place)
    if not said or not _belongs_to_another(said, ours, place, known_host, known_runs):
        return None
    return Owner(*(str(said.get(key, "?")) for key in ("state", "pipeline", "host", "state_folder")))


def pipeline_of(folder: bytes) -> str:
    """Return the name of the pipeline that the owner file in a folder names; empty where it cannot be read."""
    return str((_read_owner_file(Path(os.fsdecode(folder))) or {}).get("pipeline", ""))


def listed_links(folder: bytes) -> dict[str, str]:
    """Return the links that the owner file in a folder lists, relative to the folder, and where each leads."""
    found = (_read_owner_file(Path(os.fsdecode(folder))) or {}).get("links")
    return {name: to for name, to in found.items() if "\0" not in name} if isinstance(found, dict) else {}


def claimed_run(place: Path, state_id: str) -> int | None:
    """Return the number of our last run that announced writing to a folder; None where none of this state did."""
    said = _read_owner_file(place) or {}
    run = said.get("run") if state_id and said.get("state") == state_id else None
    return run if isinstance(run, int) else None


def claimed_folders(folders: Iterable[bytes], state_id: str) -> frozenset[bytes]:
    """Return those of some output folders whose owner files have our state's id."""
    owners = {folder: _read_owner_file(Path(os.fsdecode(folder))) or {} for folder in folders}
    return frozenset(folder for folder, said in owners.items() if state_id and said.get("state") == state_id)


def is_empty_but_for_owner(folder: bytes) -> bool:
    """Return whether an output folder is not there, or holds nothing but its owner file."""
    try:
        with os.scandir(folder) as entries:
            return all(os.fsdecode(entry.name) == OWNER_FILE for entry in entries)
    except FileNotFoundError:
        return True
    except OSError:
        return False


def claim(
    place: Path, ours: Owner, run: int | None = None, run_name: str = "", links: Mapping[str, str] | None = None
) -> None:
    """Write our owner file into an output folder, which is made where there is none. Raises EnvironmentFailure.

    `run` and `run_name` are number and name of the run that is about to write to it, and `links` those through which it
    may write; without a run those there stay.
    """
    try:
        place.mkdir(parents=True, exist_ok=True)
        before = _read_owner_file(place) or {}
        said: dict[str, Any] = asdict(ours) | {"folder": str(place)}
        if run is not None:
            said |= {"run": run, "run_name": run_name} | ({"links": dict(links)} if links else {})
        elif before.get("state") == ours.state:
            said |= {key: before[key] for key in ("run", "run_name", "links") if key in before}
        if before != said:
            # Of one name, so that what a killed run left is used up by the next.
            new = place / f"{OWNER_FILE}-owner"
            replace_durably(place / OWNER_FILE, json.dumps(said, indent=1).encode() + b"\n", new)
    except OSError as error:
        why = describe(error, error.filename2 or error.filename or place)
        raise EnvironmentFailure(f"the output folder {place} cannot be used: {why}") from error


def _read_owner_file(place: Path) -> dict[str, Any] | None:
    """Read the owner file in a folder; an empty dict where it is damaged, None where it cannot be read."""
    try:
        said = json.loads(read_regular(place / OWNER_FILE))
    except OSError:
        return None
    except (ValueError, RecursionError):
        return {}
    return said if isinstance(said, dict) else {}


def _belongs_to_another(
    said: dict[str, Any], ours: Owner, place: Path, known_host: str | None, known_runs: Collection[str]
) -> bool:
    if said.get("folder") != str(place):
        # The folder was moved or copied here, and the owner file with it.
        return said.get("state") != ours.state
    if said.get("state") != ours.state:
        # Not if the state folder at the recorded place was removed and created again, with a new id.
        return (said.get("state_folder"), said.get("host")) != (ours.state_folder, ours.host)
    if said.get("host") != ours.host and known_host not in (None, said.get("host")):
        # The same id, but our ledger did not claim the folder last: a copy of our state on another machine did. If it
        # knows the last run that wrote there, nothing but the name of the machine is another.
        return said.get("run_name") not in known_runs
    # The same id in two state folders: one is a copy, if the other still exists.
    elsewhere = Path(str(said.get("state_folder")))
    return str(elsewhere) != ours.state_folder and _has_id(elsewhere, ours.state)


def _has_id(state_folder: Path, state_id: str) -> bool:
    try:
        return read_regular(state_folder / "id").decode().strip() == state_id
    except (OSError, ValueError):
        return False


# The number of folders whose owner is remembered.
_REMEMBERED = 1000


class OwnedFolders:
    """The folders that are ours: those with our owner file, and the folders below them."""

    def __init__(self, folder: Path, state_id: str) -> None:
        self._base = os.fsencode(folder)
        self._state_id = state_id
        self._ours: dict[bytes, bool] = {}

    def is_ours(self, folder: bytes) -> bool:
        """Return whether a folder is an output folder of ours, or lies below one without a link in between."""
        if folder not in self._ours:
            if len(self._ours) >= _REMEMBERED:
                self._ours.clear()
            self._ours[folder] = self._look_up_owner(folder)
        return self._ours[folder]

    def _look_up_owner(self, folder: bytes) -> bool:
        try:
            owner = json.loads(read_regular(os.path.join(folder, os.fsencode(OWNER_FILE))))
            return isinstance(owner, dict) and owner.get("state") == self._state_id
        except (FileNotFoundError, NotADirectoryError):
            pass
        except (OSError, ValueError, RecursionError):
            return False
        above = os.path.dirname(folder)
        if folder in (self._base, above):  # no output folder: its owner file was taken away
            return folder == self._base
        return not os.path.islink(folder) and self.is_ours(above)

    def remove_if_empty(self, folder: bytes) -> None:
        """Remove a folder and those above it while they are empty; the owner file keeps an output folder."""
        with suppress(OSError):
            while folder and not self._base.startswith(folder) and self.is_ours(folder):
                os.rmdir(folder)
                folder = os.path.dirname(folder)
