"""Writes a pipeline for the kinds of files that a folder holds."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import shlex
import shutil
from collections.abc import Iterable
from importlib import resources
from itertools import islice
from pathlib import Path

from pipeline.config.document import plain_scalar
from pipeline.config.json_schema import SCHEMA_FILE, modeline, read_schema, write_schema
from pipeline.config.load import load_config
from pipeline.errors import UsageError
from pipeline.files.walk import Walk
from pipeline.images.extras import EXTRAS
from pipeline.operations.missing_extras import describe_missing
from pipeline.records import dataclass
from pipeline.text import counted, program, shown

# Files that are sorted by kind; the rest are most likely of the same kinds.
_MAX_SORTED = 20_000


@dataclass(frozen=True)
class _Kind:
    """A kind of file, with the template of the stages that such files go through."""

    name: str
    suffixes: tuple[str, ...]
    program: str = ""
    """The program that the stages run; empty if they run none."""
    module: str = ""
    """The optional module that the stages import; empty if they import none."""

    @property
    def is_possible(self) -> bool:
        """True if the program and the module are installed."""
        has_program = not self.program or shutil.which(self.program) is not None
        return has_program and (not self.module or importlib.util.find_spec(self.module) is not None)

    @property
    def stages(self) -> str:
        """The stages as YAML, with MATCH, OUT and STEM to be filled in."""
        file = f"{self.name.lower().replace(' ', '_')}.yaml.tmpl"
        return (resources.files("pipeline.operations") / "templates" / file).read_text(encoding="utf-8")


_OTHER = _Kind("other file", ())
_PICTURES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".avif", ".bmp")
_KINDS = (
    _Kind("picture", (*_PICTURES, *sorted(os.fsdecode(suffix) for extra in EXTRAS for suffix in extra.suffixes))),
    _Kind("text", (".txt", ".md", ".csv", ".tsv", ".log", ".srt", ".rst")),
    _Kind("PDF", (".pdf",), module="pypdfium2"),
    _Kind("sound", (".wav", ".flac", ".aif", ".aiff", ".m4a", ".mp3", ".ogg", ".opus", ".wma"), program="ffmpeg"),
    _Kind("film", (".mp4", ".mov", ".mkv", ".avi", ".webm", ".m4v", ".mpg", ".mpeg"), program="ffmpeg"),
)


def write_pipeline(folder: Path, file: Path) -> tuple[list[Path], str]:
    """Write a pipeline over a folder, with its schema beside it.

    Returns:
        The paths written, and one line that counts the files found in the folder by kind.

    Raises:
        UsageError: The folder has no file, or cannot be named in YAML, or `file` exists.
    """
    if file.exists():
        hint = f"name another: {program()} new other.yaml --pipeline {shlex.quote(str(folder))}"
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
    write_schema(read_schema(file)[0], schema)
    return [file, schema], _summarize(files)


def _files_by_kind(folder: Path) -> dict[_Kind, list[str]]:
    """Sort the files that a pipeline would find in a folder, the first 20,000 at most, by kind."""
    kinds = {suffix: kind for kind in _KINDS if kind.is_possible for suffix in kind.suffixes}
    files: dict[_Kind, list[str]] = {}
    for source in islice(Walk(os.fsencode(folder)), _MAX_SORTED):
        name = os.fsdecode(source.path)
        files.setdefault(kinds.get(_suffix(name), _OTHER), []).append(name)
    return files


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def _summarize(files: dict[_Kind, list[str]]) -> str:
    """Count the files by kind, in one line."""
    summary = ", ".join(counted(len(names), kind.name) for kind, names in files.items() if kind is not _OTHER)
    if _OTHER in files:
        summary += ("; left out: " if summary else "") + counted(len(files[_OTHER]), _OTHER.name)
    suffixes = (os.fsencode(_suffix(name)) for names in files.values() for name in names)
    summary = "; ".join((summary, *describe_missing(suffixes)))
    first = f"the first {_MAX_SORTED:,} files are " if sum(map(len, files.values())) == _MAX_SORTED else ""
    return first + summary


def _pipeline(folder: Path, file: Path, files: dict[_Kind, list[str]]) -> str:
    """Return the YAML of a pipeline over these files; unknown kinds are left out unless they are all there is."""
    kinds = [kind for kind in _KINDS if kind in files] or [_OTHER]
    lines = ["inputs:", f"  root: {_quoted(os.path.relpath(folder.resolve(), file.resolve().parent))}"]
    if kinds != [_OTHER]:
        lines.append(f"  include: {_patterns(kinds, files)}")
    elif not (own := os.path.relpath(file.resolve(), folder.resolve())).startswith(".."):
        beside = os.path.join(os.path.dirname(own), SCHEMA_FILE)
        lines.append(f"  exclude: [{_quoted('/' + own)}, {_quoted('/' + beside)}]")
    lines.append("stages:")
    for kind in kinds:
        match = f"\n    match: {_patterns([kind], files)}" if len(kinds) > 1 else ""
        stem = "{stem}" if _has_unique_stems(files[kind]) else "{name}"
        stages = kind.stages.replace("MATCH", match).replace("STEM", stem).replace("OUT", _output_folder(file))
        lines.append(stages.rstrip("\n"))
    return "\n".join(lines) + "\n"


def _patterns(kinds: Iterable[_Kind], files: dict[_Kind, list[str]]) -> str:
    """Return a YAML list with one pattern for each suffix that files of these kinds have."""
    suffixes = dict.fromkeys(_suffix(name) for kind in kinds for name in files[kind])
    return f"[{', '.join(_quoted(f'*{suffix}') for suffix in suffixes)}]"


def _has_unique_stems(names: list[str]) -> bool:
    """Return whether no two names differ in their suffix only, so that `{stem}` gives each its own output."""
    return len({os.path.splitext(name)[0].lower() for name in names}) == len(names)


def _output_folder(file: Path) -> str:
    """Return a folder name that is free beside the pipeline."""
    names = ("output", *(f"output-{number}" for number in range(2, 1000)))
    return next(name for name in names if not os.path.lexists(file.with_name(name)))


def _quoted(text: str) -> str:
    """Write a text as YAML, quoted unless it is a plain word."""
    is_plain = re.fullmatch(r"[A-Za-z0-9_./]([A-Za-z0-9_./ -]*[A-Za-z0-9_./-])?", text) and plain_scalar(text) == text
    return text if is_plain else json.dumps(text, ensure_ascii=False)
