"""Runs a program over each file, whatever the program: ffmpeg, cwebp, jpegtran, a script of your own."""

from __future__ import annotations

import os
import re
import shutil
import string
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from pipeline import FileFailure, Item
from pipeline.stage.program import run_program

# Bumped when a program is given other words for the same options.
RECIPE = 1

# The fields of `argv` beside the names under `files`.
_FIELDS = ("source", "target")


class Command:
    """Runs a program, which reads a file and makes another.

    `argv` is the program and its arguments, each a text of its own: no shell ever sees them, so that nothing in them,
    nor in a file's name, has a meaning for one. In them `{source}` is the path of the file to read and `{target}` that
    of the file to make, both absolute; `{{` is a brace. Where `{target}` is not in it, the program changes a file in
    place: `{source}` is a copy then, which becomes the result, and the source itself is never touched. So
    `with: {argv: [cwebp, -quiet, "{source}", -o, "{target}"], suffix: .webp}` makes WebP of pictures.

    A word that names a file relative to pipeline.yaml, such as `tools/fix.py`, is given as its absolute path, and the
    contents of the file count as part of the recipe. `files` does the same for a file within a word: `files: {icc:
    p/srgb.icc}` makes `{icc}` of it, as in `--profile={icc}`.

    `suffix` is what the target's name ends with, by which many programs know the format to make, such as `.webp`;
    without it, that of the source. `env` sets environment variables.

    The program runs in a folder of its own, whose contents are thrown away, with nothing on its stdin. If its exit code
    is not 0, or there is no target, the file fails with the end of what the program said on stderr.
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
        self._works_in_place = not any(field == "target" for word in self._argv for _, field in word)

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
        fields = {field for word in words for _, field in word}
        if "source" not in fields:
            raise ValueError("argv: '{source}' is not in it, so the program would not know which file to read")
        if suffix is not None and "target" not in fields:
            raise ValueError("'suffix' is for a '{target}', which is not in argv: the file is changed in place")
        if suffix is not None and not re.fullmatch(r"\.[^/\0]+", suffix):
            raise ValueError(f"suffix: {suffix!r} is none; say one such as '.webp'")
        if isinstance(argv[0], str):  # where a file lies is known when pipeline.yaml's folder is
            _check_program(argv[0], [field for _, field in words[0] if field], os.environ | (env or {}))

    @staticmethod
    def check_output(ending: str, /, *, argv: tuple[str | Path, ...], suffix: str | None, **others: object) -> None:
        """Check the suffix of the output. Raises ValueError if the program makes another format than it names."""
        if suffix is None and ending and "{target}" in "".join(map(str, argv)):
            raise ValueError(f"its output ends with {ending!r}; say 'suffix: {ending}', so that the program makes that")
        if suffix is not None and not (ending and suffix.lower().endswith(ending.lower())):
            raise ValueError(f"its output does not end with {suffix!r}, which is the 'suffix' of what it makes")

    def __call__(self, item: Item[Path]) -> Path:
        scratch, source = Path(os.path.abspath(item.scratch)), Path(os.path.abspath(item.value))
        with tempfile.TemporaryDirectory(dir=scratch, ignore_cleanup_errors=True) as name:
            folder = Path(name)
            target = folder / f"target{source.suffix if self._suffix is None else self._suffix}"
            if self._works_in_place:
                source = target = Path(shutil.copyfile(source, target))
            values = {**self._files, "source": source, "target": target}
            run_program([fill(word, values) for word in self._argv], self._program, folder, self._environment)
            if not target.is_file():
                raise FileFailure(f"{Path(self._program).name} ended well (exit code 0), but {self._lost(target)}")
            return target.rename(scratch / f"{folder.name}-{target.name}")

    def _lost(self, target: Path) -> str:
        if target.is_dir():
            return "made a folder and no file"
        return "the file that it was to change is gone" if self._works_in_place else "made no {target}"


Word = list[tuple[str, str | None]]
"""Pieces of a text, each a literal and the field after it, if there is one."""


def parse(word: str | Path, fields: Iterable[str]) -> Word:
    """Split a word of `argv` into literals and fields. Raises ValueError for an unknown field."""
    if isinstance(word, Path):
        return [(str(word), None)]
    try:
        pieces = list(string.Formatter().parse(word))
    except ValueError:
        raise ValueError(f"argv: {word!r} has a single brace; a brace is written '{{{{' or '}}}}'") from None
    for _, field, spec, conversion in pieces:
        if field is not None and (field not in fields or spec or conversion):
            known = ", ".join(f"{{{each}}}" for each in fields)
            raise ValueError(f"argv: no field '{{{field}}}' in {word!r}; there are {known}, and a brace is '{{{{'")
    return [(literal, field) for literal, field, _, _ in pieces]


def fill(word: Word, values: Mapping[str, Path]) -> str:
    """Join a word of `argv` with the values of its fields."""
    return "".join(literal + (str(values[field]) if field else "") for literal, field in word)


def find_program(name: str, environment: Mapping[str, str]) -> str:
    """Return the absolute path of a program, found as a shell does. Raises ValueError if there is none."""
    found = shutil.which(name, path=environment.get("PATH"))
    if found is None and os.path.isfile(name):
        raise ValueError(f"{name!r} cannot be run as a program; make it executable, as in 'chmod +x'")
    if found is None:
        raise ValueError(f"there is no program {name!r}; is it installed?")
    return os.path.abspath(found)


def _check_program(name: str, fields: list[str], environment: Mapping[str, str]) -> None:
    if any(field in _FIELDS for field in fields):
        raise ValueError(f"argv: it begins with {name!r}, which is no program")
    if fields:
        return  # where the file lies is known when pipeline.yaml's folder is
    if "/" in name and not os.path.isabs(name):
        raise ValueError(f"argv: there is no file {name!r} beside pipeline.yaml")
    find_program(name, environment)
