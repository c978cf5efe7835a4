"""Lays a pipeline over the defaults of its machine: a file with a few words, which many pipelines name.

pipeline.yaml and `--set` --+
                            +--> one document, in which each value has the spot where it is written
site.yaml ------------------+
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from dataclasses import field, replace
from pathlib import Path
from typing import Any

from pipeline.config.document import Document, parse_document
from pipeline.config.evidence import MAX_BYTES, digest_of_contents
from pipeline.config.paths import place_of
from pipeline.config.schema import parse_pipeline
from pipeline.files.file_system import open_regular
from pipeline.records import dataclass
from pipeline.stage.counted import Stamp, stamp_of
from pipeline.stage.options import Place
from pipeline.text import did_you_mean, printable

WORDS = ("notify", "metrics", "pool", "errors", "timeout")
"""What belongs to a machine and not to one pipeline, and so may stand in its defaults."""

# The rest of a pipeline, beside which the words of the defaults are checked as in any other.
_REST = {"inputs": {"root": "."}, "stages": [{"name": "any", "uses": "any"}]}


@dataclass(frozen=True)
class ReadDefaults:
    """The state of the file of defaults when it was read; empty without one."""

    file: Path | None = None
    stamps: dict[str, Stamp | None] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)


def lay_over_defaults(document: Document, folder: Path) -> ReadDefaults:
    """Add to a pipeline's data what only its file of defaults says, and complain about that file."""
    named = document.data.get("defaults")
    if not isinstance(named, str) or not named or "\0" in named:
        return ReadDefaults()  # the vocabulary says what is wrong
    path = os.path.normpath(os.path.join(folder, os.path.expanduser(named)))
    stamp = stamp_of(path)
    try:
        with io.BufferedReader(open_regular(path)) as file:
            raw = file.read(MAX_BYTES + 1)
    except OSError as error:
        document.complain(("defaults",), f"defaults: {named!r}: {error.strerror}")
        return ReadDefaults()
    defaults = parse_document(_shown(document.file, named, path), raw)
    document.defaults = defaults
    _check(defaults)
    for each in defaults.complaints:
        document.complain_at(replace(each.spot, in_defaults=True), each.text, each.hint)
    if not defaults.complaints:
        _resolve_paths(defaults.data, Path(path).parent)
    _merge(document, defaults)
    return ReadDefaults(Path(path), {path: stamp}, {path: digest_of_contents(raw)})


def _shown(file: str, named: str, path: str) -> str:
    """Return the path of the defaults as seen from where the pipeline is named, if it leads there."""
    shown = os.path.normpath(os.path.join(os.path.dirname(file), os.path.expanduser(named)))
    return printable(shown if os.path.realpath(shown) == os.path.realpath(path) else path)


def _check(defaults: Document) -> None:
    """Reduce the data of a file of defaults to the words that it may have, and complain about all else."""
    if defaults.data is not None and not isinstance(defaults.data, dict):
        defaults.complain((), f"a mapping is needed here, with {_listed()}")
    given: dict[str, Any] = defaults.data if isinstance(defaults.data, dict) else {}
    for word in given.keys() - set(WORDS):
        text = f"unknown key {word!r}{did_you_mean(word, WORDS)}"
        defaults.complain((word,), text, key=True, hint=f"a file of defaults can have {_listed()}")
    kept = {word: given[word] for word in WORDS if word in given}
    defaults.data = _REST | kept
    parse_pipeline(defaults)
    defaults.data = kept


def _listed() -> str:
    return ", ".join(map(repr, WORDS[:-1])) + f" and {WORDS[-1]!r}"


def _resolve_paths(data: dict[str, Any], folder: Path) -> None:
    """Make the relative paths absolute that are of the machine: they are relative to the file that has them."""
    if isinstance(metrics := data.get("metrics"), str):
        data["metrics"] = place_of(metrics, folder)
    for each in notify if isinstance(notify := data.get("notify"), list) else ():
        argv = each.get("argv") if isinstance(each, dict) else None
        if isinstance(argv, list) and argv and isinstance(argv[0], str) and "/" in argv[0]:
            argv[0] = place_of(argv[0], folder)


def _merge(document: Document, defaults: Document) -> None:
    """Add what the pipeline does not say, mappings key by key, with its spots."""
    pool = document.data.get("pool")
    if isinstance(pool, dict) and "initializer" in pool and isinstance(defaults.data.get("pool"), dict):
        defaults.data["pool"].pop("initargs", None)  # those of another function
    taken = set(_add(document.data, defaults.data))
    for spots, others in ((document.keys, defaults.keys), (document.values, defaults.values)):
        for place, spot in others.items():
            if any(place[:depth] in taken for depth in range(1, len(place) + 1)):
                spots[place] = replace(spot, in_defaults=True)


def _add(own: dict[str, Any], others: dict[str, Any], place: Place = ()) -> Iterator[Place]:
    """Add what a mapping does not have, and yield the place of each value that was taken."""
    for word, value in others.items():
        if word not in own:
            own[word] = value
            yield (*place, word)
        elif isinstance(value, dict) and isinstance(own[word], dict):
            yield from _add(own[word], value, (*place, word))
