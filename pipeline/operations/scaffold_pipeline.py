"""What `new --pipeline FOLDER` writes: a pipeline for the files that are in the folder."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from pipeline.config.catalogue import visible_stages
from pipeline.config.document import plain_scalar
from pipeline.config.json_schema import SCHEMA_FILE, modeline, pipeline_schema, write_schema
from pipeline.config.load import load_config
from pipeline.errors import UsageError
from pipeline.files.walk import Walk
from pipeline.text import counted, shown

# Files that are looked at; what more there are is most likely like them.
_LOOKED_AT = 20_000


@dataclass(frozen=True)
class _Kind:
    """Files that go through the same stages."""

    name: str
    suffixes: tuple[str, ...]
    stages: str
    """What is done with them: YAML, in which MATCH, OUT and STEM are filled in."""
    program: str = ""
    """What has to be installed for that: a program,"""
    module: str = ""
    """or a module."""

    @property
    def can_be_done(self) -> bool:
        """Whether what it takes is here."""
        has_program = not self.program or shutil.which(self.program) is not None
        return has_program and (not self.module or importlib.util.find_spec(self.module) is not None)


_PICTURES = _Kind(
    "picture",
    (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".bmp"),
    """\
  - name: web                      # fits into 1600 x 1600 pixels, never larger than it was
    uses: resizeMATCH
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
    uses: textMATCH
    with: {fallback: cp1252}
    output: OUT/text/{dir}/{name}
""",
)
_PDFS = _Kind(
    "PDF",
    (".pdf",),
    """\
  - name: pages                    # a picture of every page
    uses: pagesMATCH
    with: {dpi: 150}
    output: OUT/pages/{dir}/STEM-{part}.jpg
""",
    module="pypdfium2",
)
_SOUNDS = _Kind(
    "sound",
    (".wav", ".flac", ".aif", ".aiff", ".m4a", ".mp3", ".ogg", ".opus", ".wma"),
    """\
  - name: sound                    # Opus, as small as it sounds well
    uses: commandMATCH
    with:
      argv: [ffmpeg, -nostdin, -loglevel, error, -i, "{source}", -map, "0:a", -b:a, 96k, "{target}"]
      suffix: .opus
    output: OUT/sound/{dir}/STEM.opus
""",
    program="ffmpeg",
)
_FILMS = _Kind(
    "film",
    (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"),
    """\
  - name: still                    # the first picture of a film
    uses: commandMATCH
    with:
      argv: [ffmpeg, -nostdin, -loglevel, error, -i, "{source}", -frames:v, "1", "{target}"]
      suffix: .jpg
    output: OUT/still/{dir}/STEM.jpg
""",
    program="ffmpeg",
)
_OTHERS = _Kind(
    "other file",
    (),
    """\
  - name: checksum                 # a line for each file, as sha256sum writes it
    uses: checksumMATCH
    output: OUT/checksum/{dir}/{name}.sha256
""",
)
_KINDS = (_PICTURES, _TEXTS, _PDFS, _SOUNDS, _FILMS)


def write_pipeline(folder: Path, file: Path) -> tuple[list[Path], str]:
    """Write a pipeline over a folder, and its schema beside it; gives their paths, and what was found in the folder.

    Raises UsageError where there is nothing to go by, or a file in the way.
    """
    if file.exists():
        hint = f"name another: python -m pipeline new other.yaml --pipeline {shlex.quote(str(folder))}"
        raise UsageError(f"{file} exists; nothing is overwritten", hint=hint)
    if not folder.is_dir():
        raise UsageError(f"{folder} {'is no folder' if folder.exists() else 'does not exist'}")
    files = _files_by_kind(folder)
    if not files:
        raise UsageError(f"there is no file in {folder}; put some there first")
    if any("\udc80" <= letter <= "\udcff" for letter in str(folder)):
        raise UsageError(f"{shown(os.fsencode(folder))}: a name that is not UTF-8 cannot stand in a pipeline")
    schema = file.with_name(SCHEMA_FILE)
    text = f"{modeline(schema, file)}\n{_pipeline(folder, file, files)}"
    file.parent.mkdir(parents=True, exist_ok=True)
    with open(file, "x", encoding="utf-8") as opened:
        opened.write(text)
    load_config(file)
    write_schema(pipeline_schema(visible_stages(file)), schema)
    return [file, schema], _said(files)


def _files_by_kind(folder: Path) -> dict[_Kind, list[str]]:
    """The files that a pipeline would find there, or as many as are looked at, by what can be done with them."""
    kinds = {suffix: kind for kind in _KINDS if kind.can_be_done for suffix in kind.suffixes}
    files: dict[_Kind, list[str]] = {}
    for source in islice(Walk(os.fsencode(folder)), _LOOKED_AT):
        name = os.fsdecode(source.path)
        files.setdefault(kinds.get(_suffix(name), _OTHERS), []).append(name)
    return files


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _said(files: dict[_Kind, list[str]]) -> str:
    """What was found, in a line."""
    said = ", ".join(counted(len(names), kind.name) for kind, names in files.items() if kind is not _OTHERS)
    if _OTHERS in files:
        said += ("; left out: " if said else "") + counted(len(files[_OTHERS]), _OTHERS.name)
    first = f"the first {_LOOKED_AT:,} files are " if sum(map(len, files.values())) == _LOOKED_AT else ""
    return first + said


def _pipeline(folder: Path, file: Path, files: dict[_Kind, list[str]]) -> str:
    """The YAML for what was found; files of which nothing is known are left out where there are others."""
    kinds = [kind for kind in _KINDS if kind in files] or [_OTHERS]
    lines = ["inputs:", f"  root: {_quoted(os.path.relpath(folder.resolve(), file.resolve().parent))}"]
    if kinds != [_OTHERS]:
        lines.append(f"  include: {_patterns(kinds, files)}")
    elif not (own := os.path.relpath(file.resolve(), folder.resolve())).startswith(".."):
        beside = os.path.join(os.path.dirname(own), SCHEMA_FILE)
        lines.append(f"  exclude: [{_quoted('/' + own)}, {_quoted('/' + beside)}]")
    lines.append("stages:")
    for kind in kinds:
        match = f"\n    match: {_patterns([kind], files)}" if len(kinds) > 1 else ""
        stem = "{stem}" if _are_told_apart(files[kind]) else "{name}"
        stages = kind.stages.replace("MATCH", match).replace("STEM", stem).replace("OUT", _output_folder(file))
        lines.append(stages.rstrip("\n"))
    return "\n".join(lines) + "\n"


def _patterns(kinds: Iterable[_Kind], files: dict[_Kind, list[str]]) -> str:
    """A list of a pattern for each suffix that files of these kinds have."""
    suffixes = dict.fromkeys(_suffix(name) for kind in kinds for name in files[kind])
    return f"[{', '.join(_quoted(f'*{suffix}') for suffix in suffixes)}]"


def _are_told_apart(names: list[str]) -> bool:
    """Whether no two have the same name but for the suffix, and so would want one output."""
    return len({os.path.splitext(name)[0].lower() for name in names}) == len(names)


def _output_folder(file: Path) -> str:
    """A name that is free beside the pipeline."""
    names = ("output", *(f"output-{number}" for number in range(2, 1000)))
    return next(name for name in names if not os.path.lexists(file.with_name(name)))


def _quoted(text: str) -> str:
    """A text as YAML, in quotes where it is no plain word."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_./]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?", text) and plain_scalar(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)
