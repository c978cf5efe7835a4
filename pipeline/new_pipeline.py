"""What `new --pipeline FOLDER` writes: a pipeline for the files that are in the folder."""

from __future__ import annotations

import os
import re
import shlex
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.catalogue import list_stages
from pipeline.discover import Walk
from pipeline.editor import SCHEMA_FILE, modeline, pipeline_schema, write_schema
from pipeline.errors import UsageError
from pipeline.load import load_config
from pipeline.names import counted

# Files that are looked at; what more there are is most likely like them.
_LOOKED_AT = 20_000


@dataclass(frozen=True)
class _Kind:
    """Files that go through the same stages."""

    name: str
    suffixes: tuple[str, ...]
    stages: str
    """What is done with them: YAML, with `{match}` where their patterns may stand and `{stem}` for what tells them."""


_PICTURES = _Kind(
    "picture",
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".bmp"),
    """\
  - name: web                      # fits into 1600 x 1600 pixels, never larger than it was
    uses: resize{match}
    with: {width: 1600, height: 1600}
    output: OUT/web/{dir}/STEM.webp
  - name: thumb                    # fills 200 x 200 pixels
    from: web
    uses: resize
    with: {width: 200, height: 200, fit: cover}
    output: OUT/thumb/{dir}/STEM.jpg
""",
)
_TEXTS = _Kind(
    "text",
    (".txt", ".md", ".csv", ".tsv", ".log", ".srt", ".rst"),
    """\
  - name: text                     # UTF-8, and lines that end as on Unix
    uses: text{match}
    with: {fallback: cp1252}
    output: OUT/text/{dir}/{name}
""",
)
_OTHERS = _Kind(
    "other file",
    (),
    """\
  - name: checksum                 # a line for each file, as sha256sum writes it
    uses: checksum{match}
    output: OUT/checksum/{dir}/{name}.sha256
""",
)
_KINDS = (_PICTURES, _TEXTS)


def write_pipeline(folder: Path, file: Path) -> tuple[list[Path], str]:
    """Write a pipeline over a folder, and its schema beside it; gives their paths, and what was found in the folder.

    Raises UsageError where there is nothing to go by, or a file in the way.
    """
    if file.exists():
        hint = f"name another: python -m pipeline new other.yaml --pipeline {shlex.quote(str(folder))}"
        raise UsageError(f"{file} exists; nothing is overwritten", hint=hint)
    if not folder.is_dir():
        raise UsageError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}")
    names = _names(folder)
    found = Counter(_kind_of(name) for name in names)
    if not found:
        raise UsageError(f"there is no file in {folder}; put some there first")
    schema = file.with_name(SCHEMA_FILE)
    text = f"{modeline(schema, file)}\n{_pipeline(folder, file, found, names)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "x", encoding="utf-8") as opened:
        opened.write(text)
    load_config(file)
    write_schema(pipeline_schema(list_stages(file.resolve().parent)), schema)
    return [file, schema], _said(found, len(names))


def _said(found: Counter[_Kind], looked_at: int) -> str:
    """What was found, in a line."""
    known = [counted(found[kind], kind.name) for kind in found if kind is not _OTHERS]
    first = f"the first {_LOOKED_AT:,} files are " if looked_at == _LOOKED_AT else ""
    others = counted(found[_OTHERS], _OTHERS.name) if found[_OTHERS] else ""
    if known and others:
        others = f"; left out: {others}"
    return first + ", ".join(known) + others


def _names(folder: Path) -> list[bytes]:
    """The files that a pipeline would find there, or as many as are looked at."""
    return [source.path for source in islice(Walk(os.fsencode(folder)), _LOOKED_AT)]


def _kind_of(name: bytes) -> _Kind:
    suffix = os.path.splitext(os.fsdecode(name))[1].lower()
    return next((kind for kind in _KINDS if suffix in kind.suffixes), _OTHERS)


def _pipeline(folder: Path, file: Path, found: Counter[_Kind], names: list[bytes]) -> str:
    """The YAML for what was found; what is not known is only named where there is anything else."""
    kinds = [kind for kind in _KINDS if found[kind]] or [_OTHERS]
    root = os.path.relpath(folder.resolve(), file.resolve().parent)
    lines = ["inputs:", f"  root: {_quoted(root)}"]
    if kinds != [_OTHERS]:
        lines.append(f"  include: [{', '.join(_patterns(kinds, names))}]")
    elif not (own := os.path.relpath(file.resolve(), folder.resolve())).startswith(".."):
        beside = os.path.join(os.path.dirname(own), SCHEMA_FILE)
        lines.append(f"  exclude: [{_quoted('/' + own)}, {_quoted('/' + beside)}]")
    lines.append("stages:")
    for kind in kinds:
        stem = "{stem}" if _are_told_apart(names, kind) else "{name}"
        match = f"\n    match: [{', '.join(_patterns([kind], names))}]" if len(kinds) > 1 else ""
        stages = kind.stages.replace("{match}", match).replace("STEM", stem)
        lines.append(stages.replace("OUT", _output_folder(file)).rstrip("\n"))
    return "\n".join(lines) + "\n"


def _patterns(kinds: Iterable[_Kind], names: list[bytes]) -> Iterator[str]:
    """A pattern for each of the kinds' suffixes that were found."""
    seen = {os.path.splitext(os.fsdecode(name))[1].lower() for name in names}
    for kind in kinds:
        yield from (f'"*{suffix}"' for suffix in kind.suffixes if suffix in seen)


def _are_told_apart(names: list[bytes], kind: _Kind) -> bool:
    """Whether no two files of a kind have the same name but for the suffix, and so would want one output."""
    stems = Counter(os.path.splitext(name)[0].lower() for name in names if _kind_of(name) is kind)
    return not stems or max(stems.values()) == 1


def _output_folder(file: Path) -> str:
    """A name that is free beside the pipeline."""
    names = ("output", *(f"output-{number}" for number in range(2, 1000)))
    return next(name for name in names if not os.path.lexists(file.with_name(name)))


def _quoted(path: str) -> str:
    """A path as YAML, in quotes where it is no plain word."""
    if re.fullmatch(r"[A-Za-z0-9_./][A-Za-z0-9_./ -]*", path) and path.strip() == path and not path.isdecimal():
        return path
    return '"' + path.replace("\\", "\\\\").replace('"', '\\"') + '"'
