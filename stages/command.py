"""Runs a program over each file, whatever the program: ffmpeg, cwebp, jpegtran, a script of your own."""

from __future__ import annotations

import mimetypes
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from pipeline import FileFailure, Item
from pipeline.stage.program import fields_of, fill, find_program, parse, remove_tree, run_program
from pipeline.types import printable_path

# Bumped when a program is given other words for the same options.
RECIPE = 1

# The fields of `argv` beside the names under `files`.
_FIELDS = ("source", "target", "folder")
# How many of the files that a program made a failure names.
_NAMED = 5
# The types of so many formats that they tell nothing about a file.
_VAGUE_TYPES = ("text/plain", "application/octet-stream")


class Command:
    """Runs a program, which reads a file and makes another.

    `argv` is the program and its arguments, each a text of its own: no shell ever sees them, so that nothing in them,
    nor in a file's name, has a meaning for one. In them `{source}` is the path of the file to read and `{target}` that
    of the file to make, both absolute; `{{` is a brace. So `with: {argv: [cwebp, -quiet, "{source}", -o, "{target}"]}`
    makes WebP of pictures, if the output ends with `.webp`. The program must only read the source.

    A program that chooses the name of its file itself is given `{folder}` in place of `{target}`, an empty folder: the
    one file in it is the result, as in `{argv: [soffice, --headless, --convert-to, pdf, --outdir, "{folder}",
    "{source}"]}`.

    With neither of them the program changes a file in place: `{source}` is a copy then, and the source itself is never
    touched. The copy is the result if it was changed, or if nothing else was made, and it has the suffix that the
    output has; else the one file that appeared beside it is, as with `gzip -k`.

    A word that names a file relative to pipeline.yaml, such as `tools/fix.py`, is given as its absolute path, and the
    contents of the file count as part of the recipe. `files` does the same for a file within a word: `files: {icc:
    p/srgb.icc}` makes `{icc}` of it, as in `--profile={icc}`.

    `suffix` is what the name of the result ends with, such as `.webp`, by which many programs know the format to make;
    without it, that of the output, or of the source where the output has the source's. A result with another suffix
    fails the file, and so do several files where one belongs, which are named. `env` sets environment variables.

    The program runs in a folder of its own, whose contents are thrown away, with nothing on its stdin. If its exit code
    is not 0, the file fails with the end of what the program said on stderr.
    """

    def __init__(
        self,
        *,
        argv: Annotated[tuple[str | Path, ...], MinLen(1)],
        suffix: str | None = None,
        env: dict[str, str] | None = None,
        files: dict[str, Path] | None = None,
    ) -> None:
        self._suffix, self._environment, self._files = suffix, os.environ | (env or {}), files or {}
        for name, file in self._files.items():
            if not file.exists():
                raise ValueError(f"files: there is no {name} {str(file)!r}")
        self._argv = [parse(word, [*_FIELDS, *self._files]) for word in argv]
        self._program = find_program(fill(self._argv[0], self._files), self._environment)
        fields = fields_of(self._argv)
        self._works_in_place, self._chooses_name = not fields & {"target", "folder"}, "folder" in fields

    @staticmethod
    def check(
        *, argv: tuple[str | Path, ...], suffix: str | None, env: dict[str, str] | None, files: dict[str, Path] | None
    ) -> None:
        """Check the options when the pipeline is loaded. Raises ValueError for a command that cannot be run."""
        for name in files or {}:
            if not name.isidentifier() or name in _FIELDS:
                raise ValueError(f"files: {name!r} cannot be a field; say a word such as 'script'")
        for name in env or {}:
            if not name or "=" in name:
                raise ValueError(f"env: {name!r} is no name of a variable")
        if any("\0" in str(text) for text in (*argv, *(env or {}), *(env or {}).values())):
            raise ValueError("argv and env: no NUL can be passed to a program")
        words = [parse(word, [*_FIELDS, *(files or {})]) for word in argv]
        fields = fields_of(words)
        if "source" not in fields:
            raise ValueError("argv: '{source}' is not in it, so the program would not know which file to read")
        if {"target", "folder"} <= fields:
            raise ValueError("argv: '{target}' and '{folder}' are both in it; the program makes one of them")
        if suffix is not None and not re.fullmatch(r"\.[^/\0]+", suffix):
            raise ValueError(f"suffix: {suffix!r} is none; say one such as '.webp'")
        if isinstance(argv[0], str):  # where a file lies is known when pipeline.yaml's folder is
            _check_program(argv[0], [field for _, field in words[0] if field], os.environ | (env or {}))

    @staticmethod
    def check_output(ending: str, /, *, suffix: str | None, **others: object) -> dict[str, str]:
        """Return the suffix of the output as an option. Raises ValueError if the option given is another format."""
        if suffix is None:
            return {"suffix": ending} if ending else {}
        if not (ending and suffix.lower().endswith(ending.lower())):
            raise ValueError(f"its output does not end with {suffix!r}, which is the 'suffix' of what it makes")
        return {}

    def __call__(self, item: Item[Path]) -> Path:
        scratch, source = Path(os.path.abspath(item.scratch)), Path(os.path.abspath(item.value))
        suffix = source.suffix if self._suffix is None else self._suffix
        folder = Path(tempfile.mkdtemp(dir=scratch))
        try:
            make = self._change_copy if self._works_in_place else self._make
            made = make(source, folder, suffix)
            return made.rename(scratch / f"{folder.name}-target{made.suffix}")
        finally:
            if source.is_file():  # or what the program made of it may be all that is left of it
                remove_tree(folder)

    def _make(self, source: Path, folder: Path, suffix: str) -> Path:
        """Run the program in a folder, and return the file that it made in another one."""
        made = folder / "made"
        target = made / f"target{suffix}"
        made.mkdir()
        self._run({"source": source, "target": target, "folder": made}, folder / "work")
        found = files_below(made)
        if not self._chooses_name and target.is_dir():
            raise self._failure("made a folder and no file")
        if not self._chooses_name and not target.is_file():
            hint = f"; it made {names(found, made)}: give it '{{folder}}' if it chooses the name" if found else ""
            raise self._failure(f"made no {{target}}{hint}")
        return self._only(found, made, suffix)

    def _change_copy(self, source: Path, folder: Path, suffix: str) -> Path:
        """Run the program over a copy of the source, and return the copy, or the file that it made beside it."""
        target = Path(shutil.copyfile(source, folder / f"target{source.suffix}"))
        # A time that is not of now shows that the program wrote to it, however soon.
        os.utime(target, ns=(source.stat().st_atime_ns, source.stat().st_mtime_ns))
        before = _state_of(target)
        self._run({"source": target}, folder)
        others = [each for each in files_below(folder) if each != target]
        has_format, is_changed = is_named_as(target.name, suffix), _state_of(target) != before
        rivals = [each for each in others if is_changed and is_named_as(each.name, suffix)]
        if target.is_file() and has_format and (is_changed or not others):
            return self._only([target, *rivals], folder, suffix)
        if others:
            return self._only(others, folder, suffix)
        if target.is_file():
            raise self._failure(f"made no {suffix!r}, and the file that it was to change is a {target.suffix!r}")
        raise self._failure("the file that it was to change is gone")

    def _run(self, values: Mapping[str, Path], folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        argv = [fill(word, {**self._files, **values}) for word in self._argv]
        run_program(argv, self._program, folder, self._environment)

    def _only(self, found: Sequence[Path], folder: Path, suffix: str) -> Path:
        """Return the one file that was found. Raises FileFailure where there are several, or it has another suffix."""
        if not found:
            raise self._failure("made no file in {folder}")
        if len(found) > 1:
            raise self._failure(f"made {len(found)} files where one belongs: {names(found, folder)}")
        if not is_named_as(found[0].name, suffix):
            which = f"made {names(found, folder)}, which does not end with {suffix!r}"
            raise self._failure(which)
        return found[0]

    def _failure(self, text: str) -> FileFailure:
        return FileFailure(f"{Path(self._program).name} ended well (exit code 0), but {text}")


def files_below(folder: Path) -> list[Path]:
    """Return the files below a folder, in the order of their paths, without hidden ones."""
    found = (each for each in folder.rglob("[!.]*") if each.is_file())
    return sorted(each for each in found if not any(part.startswith(".") for part in each.relative_to(folder).parts))


def names(files: Sequence[Path], folder: Path) -> str:
    """Return the paths of files relative to a folder, in quotes: the first five, and how many more there are."""
    more = f" and {len(files) - _NAMED:,} more" if len(files) > _NAMED else ""
    return ", ".join(f"'{printable_path(each.relative_to(folder))}'" for each in files[:_NAMED]) + more


def is_named_as(name: str, suffix: str) -> bool:
    """Return whether a file's name ends with a suffix, or with another one of the same format, as .jpeg for .jpg."""
    own = os.path.splitext(name)[1]
    if own.lower() == suffix.lower() or (suffix and name.lower().endswith(suffix.lower())):
        return True
    types = mimetypes.MimeTypes().types_map[True]  # those that Python itself knows, on every machine
    found = types.get(own.lower())
    return found is not None and found not in _VAGUE_TYPES and found == types.get(suffix.lower())


def _state_of(path: Path) -> tuple[int, int, int] | None:
    """Return what changes when a file is written to or replaced; None where there is none."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


def _check_program(name: str, fields: list[str], environment: Mapping[str, str]) -> None:
    if any(field in _FIELDS for field in fields):
        raise ValueError(f"argv: it begins with {name!r}, which is no program")
    if fields:
        return  # where the file lies is known when pipeline.yaml's folder is
    if "/" in name and not os.path.isabs(name):
        raise ValueError(f"argv: there is no file {name!r} beside pipeline.yaml")
    find_program(name, environment)
