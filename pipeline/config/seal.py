"""Keeps what was read of a pipeline, with what it was read from: while none of that changes, nothing is imported.

The seal lies in the state folder, which its reader can only guess from the text. It is a cache: a seal that is damaged,
of another version, or not there costs the start of a process.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import replace

from pipeline.config.evidence import (
    Asked,
    Evidence,
    Listing,
    Places,
    digests_of_young,
    guess_state,
    listings,
    matches_of,
    names_in,
)
from pipeline.config.model import Config
from pipeline.files import hashlib
from pipeline.files.file_system import read_regular
from pipeline.files.state_dir import SEAL_FILE
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp, stamp_of
from pipeline.stage.isolation import unpack

_DIGEST_BYTES = 16


@dataclass(frozen=True)
class Seal:
    """A pipeline as it was read, and what it was read from."""

    config: Config
    evidence: Evidence


def sealed_reading(asked: Asked, text: bytes) -> Config | None:
    """Return the pipeline as it was read before, if a reading would find the same; its `seal` is to be kept, if any."""
    read_ns = time.time_ns()
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, EOFError, pickle.PickleError):
        packed = read_regular(guess_state(asked, text) / SEAL_FILE)
        if _digest(packed[_DIGEST_BYTES:]) != packed[:_DIGEST_BYTES]:
            return None
        seal: Seal = unpack(packed[_DIGEST_BYTES:])
        evidence = seal.evidence
        if evidence.asked == asked and evidence.holds():
            # What was young then is old by now, if nobody has written to it.
            digests = digests_of_young(evidence.stamps, read_ns) if evidence.digests else {}
            if len(digests) < len(evidence.digests):
                return _sealed(seal.config, replace(evidence, digests=digests))
            return replace(seal.config, evidence=evidence)
    return None


def seal_reading(
    asked: Asked,
    read_ns: int,
    config: Config,
    stamps: Mapping[str, Stamp | None],
    folders: Iterable[str],
    listed: Iterable[str],
    written: Iterable[str],
    places: Mapping[str, str],
    patterns: Iterable[str],
    read: Mapping[str, str],
) -> Config:
    """Return a pipeline with the seal of its reading; without one where an import may have missed what appeared since.

    `read_ns` is the time before the reading, in nanoseconds since the epoch, and `read` has the digests of files as
    they were read then, whatever is in them by now.
    """
    where, own = Places.of(config), frozenset(written)
    names = names_in(folders, where.used)
    if any(_is_newer(os.path.join(folder, each), read_ns) for folder in names for each in _listed(names[folder])):
        return config
    matches = {pattern: matches_of(where.folder, pattern) for pattern in patterns}
    digests, found = {**digests_of_young(stamps, read_ns), **read}, listings(listed, where.used | own)
    return _sealed(config, Evidence(asked, where, stamps, digests, names, found, own, places, matches))


def _sealed(config: Config, evidence: Evidence) -> Config:
    packed = pickle.dumps(Seal(config, evidence))
    return replace(config, seal=_digest(packed) + packed, evidence=evidence)


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _listed(names: Listing | Stamp | None) -> Listing:
    return () if names is None or isinstance(names, Stamp) else names


def _is_newer(path: str, time_ns: int) -> bool:
    """Return whether a module appeared, or was written to, after a time; of a folder its `__init__.py` tells."""
    stamp = stamp_of(os.path.join(path, "__init__.py") if os.path.isdir(path) else path)
    return stamp is not None and stamp.ctime_ns >= time_ns
