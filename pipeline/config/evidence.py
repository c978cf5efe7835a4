"""What a pipeline was read from, as plain data: while a second look finds the same, a reading would too.

    asked       file, `--set` edits, folder, `sys.path`, version of Python and of filemill, the text of the YAML
    stamps      of every file of the code, and of whatever the check of the options has opened
    names       what could be imported from each folder that an import may look into, and all that lies beside code
    places      where the links lead by which the code was found
    matches     of each pattern of `depends`

Nothing here imports the classes of a pipeline, so that who only asks whether anything has changed need not load them.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from importlib.machinery import all_suffixes
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pipeline
from pipeline.files import hashlib
from pipeline.files.file_system import open_regular
from pipeline.files.template import TemplateError, parse_template
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp, counts, digest_of_bytes, stamp_of

if TYPE_CHECKING:
    from pipeline.config.model import Config

# Far above any pipeline a person writes, far below what would keep the parser busy for a second.
MAX_BYTES = 1 << 20
# A file system may give two versions of a file that is written twice within this time one and the same stamp.
_YOUNG_NS = 2 * 10**9
_WORD = re.compile(rb"^(name|state):[ \t]+([^\s'\"&*!|>{\[#][^#\r\n]*?)[ \t\r]*(?:#.*)?$", re.MULTILINE)

Listing = tuple[str, ...]


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
class Places:
    """Where a pipeline lies, what its runs write to, and so what is no part of its code."""

    folder: str
    """The folder of the YAML."""
    root: str
    used: frozenset[str]
    """The folders of inputs, outputs, state and traces, and all above them."""
    outputs: tuple[tuple[str, bool, str], ...]
    """The text of each output's path, whether it is that of groups, and its folder, links resolved."""

    @classmethod
    def of(cls, config: Config) -> Places:
        """Return the places of a pipeline."""
        folders = [config.state, config.inputs.root, *(Path(os.fsdecode(each)) for each in config.output_folders)]
        folders += [config.trace_folder] if config.trace_folder else []
        used = frozenset(str(each) for folder in folders for each in (folder, *folder.parents))
        outputs = tuple(
            (stage.output.template.text, stage.gather, os.fsdecode(stage.output.template.folder))
            for stage in config.stages
            if stage.output
        )
        return cls(str(config.folder), str(config.inputs.root), used, outputs)


@dataclass(frozen=True)
class Evidence:
    """What a pipeline was read from."""

    asked: Asked
    places_of: Places
    stamps: Mapping[str, Stamp | None]
    digests: Mapping[str, str]
    """The digest of each file that was written to shortly before the reading: its stamp alone is not enough."""
    names: Mapping[str, Listing | Stamp | None]
    listed: Mapping[str, Listing]
    written: frozenset[str]
    """The files that the reading itself opened to write, such as a log."""
    places: Mapping[str, str]
    matches: Mapping[str, Listing]

    def holds(self) -> bool:
        """Return whether a reading would find the same."""
        where = self.places_of
        return (
            os.path.isdir(where.root)
            and all(stamp_of(path) == stamp for path, stamp in self.stamps.items())
            and all(_digest_of(path) == digest for path, digest in self.digests.items())
            and names_in(self.names, where.used) == self.names
            and listings(self.listed, where.used | self.written) == self.listed
            and all(os.path.realpath(path) == place for path, place in self.places.items())
            and all(matches_of(where.folder, pattern) == found for pattern, found in self.matches.items())
            and all(_leads_where_it_did(where.folder, *output) for output in where.outputs)
        )

    def as_json(self) -> dict[str, Any]:
        """Return all of it as what JSON can hold."""
        return {key: sorted(value) if isinstance(value, frozenset) else value for key, value in vars(self).items()} | {
            "asked": vars(self.asked),
            "places_of": vars(self.places_of) | {"used": sorted(self.places_of.used)},
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Evidence:
        """Return the evidence of which `as_json` was kept. Raises KeyError, TypeError, ValueError."""
        asked, where = data["asked"], data["places_of"]
        return cls(
            Asked(**asked | {"edits": tuple(asked["edits"]), "path": tuple(asked["path"])}),
            Places(where["folder"], where["root"], frozenset(where["used"]), tuple(map(tuple, where["outputs"]))),
            {path: stamp and Stamp(*stamp) for path, stamp in data["stamps"].items()},
            data["digests"],
            {folder: _names_from_json(found) for folder, found in data["names"].items()},
            {folder: tuple(found) for folder, found in data["listed"].items()},
            frozenset(data["written"]),
            data["places"],
            {pattern: tuple(found) for pattern, found in data["matches"].items()},
        )


def _names_from_json(found: Any) -> Listing | Stamp | None:
    """Return names, or the stamp of a folder, which has numbers where names are text."""
    if found and isinstance(found[0], int):
        return Stamp(*found)
    return None if found is None else tuple(found)


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


def guess_state(asked: Asked, text: bytes) -> Path:
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
    return f"{sys.executable} {sys.version} {pipeline.__version__} {digest_of_bytes(repr(stamps).encode())}"


def _modules(folder: str) -> Iterator[str]:
    for place, folders, files in os.walk(folder):
        folders[:] = [each for each in folders if each != "__pycache__"]
        yield from (os.path.join(place, file) for file in files if file.endswith(".py"))


# -- what is compared --------------------------------------------------------------------------------------------------


def digests_of_young(stamps: Mapping[str, Stamp | None], read_ns: int) -> dict[str, str]:
    """Return the digests of the files that were written to so shortly before that their stamps may not change again."""
    return {path: _digest_of(path) for path, stamp in stamps.items() if stamp and is_young(stamp, read_ns)}


def is_young(stamp: Stamp, at_ns: int) -> bool:
    """Return whether a file was written to so shortly before a time that a later change need not show in its stamp."""
    return max(stamp.mtime_ns, stamp.ctime_ns) > at_ns - _YOUNG_NS


def digest_of_contents(data: bytes) -> str:
    """Return what `digests_of_young` gives for a file with these contents."""
    return hashlib.blake2b(data).hexdigest()


def _digest_of(path: str) -> str:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, hashlib.blake2b).hexdigest()
    except OSError:
        return ""


def names_in(folders: Iterable[str], used: frozenset[str]) -> dict[str, Listing | Stamp | None]:
    """Return what may be imported from each of these folders; of what is installed, when it changed last."""
    return {
        folder: _importable(folder, used)
        if counts(os.path.join(folder, "_.py")) and os.path.isdir(folder)
        else stamp_of(folder)
        for folder in folders
    }


def listings(folders: Iterable[str], left_out: frozenset[str]) -> dict[str, Listing]:
    """Return the names of what lies in these folders, unless it is hidden or among the paths left out."""
    return {folder: _listed_in(folder, lambda each: each.path not in left_out) for folder in folders}


def _importable(folder: str, used: frozenset[str]) -> Listing:
    """Return the names that an import may find in a folder, but for the folders of inputs, outputs and state."""
    endings = tuple(all_suffixes())

    def is_importable(each: os.DirEntry[str]) -> bool:
        is_package = each.name.isidentifier() and each.is_dir()
        return each.name.endswith(endings) or (is_package and each.path not in used)

    return _listed_in(folder, is_importable)


def _listed_in(folder: str, counts_here: Callable[[os.DirEntry[str]], bool]) -> Listing:
    try:
        with os.scandir(folder) as entries:
            shown = (each for each in entries if not each.name.startswith(".") and each.name != "__pycache__")
            return tuple(sorted(each.name for each in shown if counts_here(each)))
    except OSError:
        return ()


def matches_of(folder: str, pattern: str) -> Listing:
    """Return the files that a pattern of `depends` matches; itself where it names one."""
    import glob

    found = glob.glob(os.path.expanduser(pattern), root_dir=folder, recursive=True)
    return tuple(sorted(each for each in found if os.path.isfile(os.path.join(folder, each))))


def _leads_where_it_did(base: str, text: str, of_groups: bool, folder: str) -> bool:
    """Return whether the links in an output's path are those that they were."""
    try:
        return parse_template(text, Path(base), of_groups=of_groups).folder == os.fsencode(folder)
    except TemplateError:
        return False
