"""Keeps what was read of a pipeline, with what it was read from: while none of that changes, nothing is imported.

    asked       file, `--set` edits, folder, `sys.path`, version of Python and of filemill, the text of the YAML
    stamps      of every file of the code, and of whatever the check of the options has opened
    names       what could be imported from each folder that an import may look into, and all that lies beside code
    places      where the links lead by which the code was found
    matches     of each pattern of `depends`

The seal lies in the state folder, which its reader can only guess from the text. It is a cache: a seal that is damaged,
of another version, or not there costs the start of a process.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import Any

import pipeline
from pipeline.config.model import Config
from pipeline.files.file_system import open_regular, read_regular
from pipeline.files.state_dir import SEAL_FILE
from pipeline.files.template import TemplateError, parse_template
from pipeline.stage.counted import Stamp, counts, digest_of_bytes, stamp_of
from pipeline.stage.isolation import unpack

# A file system may give two versions of a file that is written twice within this time one and the same stamp.
_YOUNG_NS = 2 * 10**9
_DIGEST_BYTES = 16
_WORD = re.compile(rb"^(name|state):[ \t]+([^\s'\"&*!|>{\[#][^#\r\n]*?)[ \t\r]*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Asked:
    """The question that a reading answers; another question needs a reading of its own."""

    file: str
    place: str
    """The file, links resolved."""
    edits: tuple[str, ...]
    text: str
    """The digest of the YAML."""
    folder: str
    path: tuple[str, ...]
    home: str
    version: str


@dataclass(frozen=True)
class Seal:
    """A pipeline as it was read, and what it was read from."""

    asked: Asked
    read_ns: int
    """The time before the reading, in nanoseconds since the epoch."""
    config: Config
    stamps: Mapping[str, Stamp | None]
    digests: Mapping[str, str]
    """The digest of each file that was written to shortly before the reading: its stamp alone is not enough."""
    names: Mapping[str, Any]
    listed: Mapping[str, tuple[str, ...]]
    written: frozenset[str]
    """The files that the reading itself opened to write, such as a log."""
    places: Mapping[str, str]
    matches: Mapping[str, tuple[str, ...]]

    def holds(self) -> bool:
        """Return whether a reading would find the same."""
        config = self.config
        return (
            os.path.isdir(config.inputs.root)
            and all(stamp_of(path) == stamp for path, stamp in self.stamps.items())
            and all(_digest_of(path) == digest for path, digest in self.digests.items())
            and _names(self.names, config) == self.names
            and _listings(self.listed, config, self.written) == self.listed
            and all(os.path.realpath(path) == place for path, place in self.places.items())
            and all(_matches(config.folder, pattern) == found for pattern, found in self.matches.items())
            and all(
                _leads_where_it_did(config, text, of_groups, folder) for text, of_groups, folder in _outputs(config)
            )
        )


def question(file: Path, edits: tuple[str, ...], text: bytes) -> Asked:
    """Return what is asked now, in this process."""
    return Asked(
        file=str(file),
        place=os.path.realpath(file),
        edits=edits,
        text=digest_of_bytes(text),
        folder=_working_folder(),
        path=tuple(sys.path),
        home=os.path.expanduser("~"),
        version=_version(),
    )


def _working_folder() -> str:
    try:
        return os.getcwd()
    except FileNotFoundError:  # it was removed; who names all in full does not need it
        return ""


def sealed_reading(asked: Asked, text: bytes) -> Config | None:
    """Return the pipeline as it was read before, if a reading would find the same; its `seal` is to be kept, if any."""
    read_ns = time.time_ns()
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError, ImportError, EOFError, pickle.PickleError):
        packed = read_regular(_guess_state(asked, text) / SEAL_FILE)
        if _digest(packed[_DIGEST_BYTES:]) != packed[:_DIGEST_BYTES]:
            return None
        seal: Seal = unpack(packed[_DIGEST_BYTES:])
        if seal.asked == asked and seal.holds():
            # What was young then is old by now, if nobody has written to it.
            digests = _digests_of_young(seal.stamps, read_ns) if seal.digests else {}
            is_older = len(digests) < len(seal.digests)
            renewed = _packed(replace(seal, read_ns=read_ns, digests=digests)) if is_older else b""
            return replace(seal.config, seal=renewed)
    return None


def seal_of(
    asked: Asked,
    read_ns: int,
    config: Config,
    stamps: Mapping[str, Stamp | None],
    folders: Iterable[str],
    listed: Iterable[str],
    written: Iterable[str],
    places: Mapping[str, str],
    patterns: Iterable[str],
) -> bytes:
    """Return what is kept of a reading; nothing where something appeared meanwhile that an import may have missed."""
    names = _names(folders, config)
    if any(_is_newer(os.path.join(folder, each), read_ns) for folder in names for each in _listed(names[folder])):
        return b""
    matches = {pattern: _matches(config.folder, pattern) for pattern in patterns}
    own = frozenset(written)
    listings, young = _listings(listed, config, own), _digests_of_young(stamps, read_ns)
    return _packed(Seal(asked, read_ns, config, stamps, young, names, listings, own, places, matches))


def _packed(seal: Seal) -> bytes:
    packed = pickle.dumps(seal)
    return _digest(packed) + packed


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=_DIGEST_BYTES).digest()


def _guess_state(asked: Asked, text: bytes) -> Path:
    """Return where the state folder is likely to be: reading the YAML properly takes longer than all the rest."""
    said = {word.decode(): value.decode() for word, value in _WORD.findall(text)}
    file = Path(asked.file)
    name = said.get("name") or re.sub(r"[^A-Za-z0-9_-]", "_", file.stem)
    return Path(os.path.normpath(file.resolve().parent / os.path.expanduser(said.get("state") or f".pipeline/{name}")))


@cache
def _version() -> str:
    """Return the version of Python, and of every module of ours: of a checkout any may have been edited."""
    ours = os.path.dirname(os.path.abspath(pipeline.__file__))
    files = sorted(_modules(ours)) + sorted(_modules(os.path.join(os.path.dirname(ours), "stages")))
    stamps = [(path, stamp_of(path)) for path in files]
    return f"{sys.executable} {sys.version} {pipeline.__version__} {_digest(repr(stamps).encode()).hex()}"


def _modules(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__"]
        yield from (os.path.join(place, file) for file in files if file.endswith(".py"))


# -- what is compared --------------------------------------------------------------------------------------------------


def _digests_of_young(stamps: Mapping[str, Stamp | None], read_ns: int) -> dict[str, str]:
    """Return the digests of the files that were written to so shortly before that their stamps may not change again."""
    young = [
        path for path, stamp in stamps.items() if stamp and max(stamp.mtime_ns, stamp.ctime_ns) > read_ns - _YOUNG_NS
    ]
    return {path: _digest_of(path) for path in young}


def _digest_of(path: str) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def _names(folders: Iterable[str], config: Config) -> dict[str, Any]:
    """Return what may be imported from each of these folders; of what is installed, when it changed last."""
    used = _used(config)
    return {
        folder: _importable(folder, used)
        if counts(os.path.join(folder, "_.py")) and os.path.isdir(folder)
        else stamp_of(folder)
        for folder in folders
    }


def _listings(folders: Iterable[str], config: Config, written: frozenset[str]) -> dict[str, tuple[str, ...]]:
    """Return the names of what lies in these folders, unless it is hidden, a run's, or written by the reading."""
    used = _used(config) | written
    return {folder: _listed_in(folder, lambda each: each.path not in used) for folder in folders}


def _used(config: Config) -> set[str]:
    """Return the folders of inputs, outputs and state, and all above them."""
    places = [config.state, config.inputs.root, *(Path(os.fsdecode(each)) for each in config.output_folders)]
    return {str(each) for place in places for each in (place, *place.parents)}


def _importable(folder: str, used: set[str]) -> tuple[str, ...]:
    """Return the names that an import may find in a folder, but for the folders of inputs, outputs and state."""
    endings = tuple(all_suffixes())

    def is_importable(each: os.DirEntry[str]) -> bool:
        is_package = each.name.isidentifier() and each.is_dir()
        return each.name.endswith(endings) or (is_package and each.path not in used)

    return _listed_in(folder, is_importable)


def _listed_in(folder: str, counts_here: Callable[[os.DirEntry[str]], bool]) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            shown = (each for each in entries if not each.name.startswith(".") and each.name != "__pycache__")
            return tuple(sorted(each.name for each in shown if counts_here(each)))
    except OSError:
        return ()


def _listed(names: Any) -> tuple[str, ...]:
    return () if names is None or isinstance(names, Stamp) else names


def _is_newer(path: str, time_ns: int) -> bool:
    """Return whether a module appeared, or was written to, after a time; of a folder its `__init__.py` tells."""
    stamp = stamp_of(os.path.join(path, "__init__.py") if os.path.isdir(path) else path)
    return stamp is not None and stamp.ctime_ns >= time_ns


def _matches(folder: Path, pattern: str) -> tuple[str, ...]:
    """Return the files that a pattern of `depends` matches; itself where it names one."""
    import glob

    found = glob.glob(os.path.expanduser(pattern), root_dir=folder, recursive=True)
    return tuple(sorted(each for each in found if os.path.isfile(os.path.join(folder, each))))


def _outputs(config: Config) -> list[tuple[str, bool, bytes]]:
    return [
        (stage.output.template.text, stage.gather, stage.output.template.folder)
        for stage in config.stages
        if stage.output
    ]


def _leads_where_it_did(config: Config, text: str, of_groups: bool, folder: bytes) -> bool:
    """Return whether the links in an output's path are those that they were."""
    try:
        return parse_template(text, config.folder, of_groups=of_groups).folder == folder
    except TemplateError:
        return False
