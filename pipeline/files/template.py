"""Templates of output paths; no source can fill in a path outside the template's folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

from pipeline.errors import FileFailure
from pipeline.files.naming import resolve_folder
from pipeline.records import NamedTuple, dataclass

FIELDS = ("dir", "name", "stem", "suffix", "part")
_FIELDS_SHOWN = ", ".join(f"{{{each}}}" for each in FIELDS)
OWNER_FILE = ".filemill"
ALL_PARTS = "{part}"
"""The placeholder for the names of all parts in an output's path; no part can have this name."""
NO_OUTPUT = "none"
"""The `output` of a stage that leaves no file."""
NO_FILE_KEY = b"///none/"
"""The beginning of the keys of outputs without a file, which no path has."""

# Bytes: what a name may have on every common file system; a longer one is refused by open() without saying which.
_NAME_MAX = 255

# No name has it in it, and so a path can be divided where it stands.
_A_PART = "\0"
_SLASHES = re.compile(rb"/+")
_TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class TemplateError(ValueError):
    """A template that cannot be parsed; the text describes the problem."""


class FolderAndName(NamedTuple):
    """The folder and the name of outputs, where neither depends on the other."""

    in_dir: bool
    """True if each output lies in its source's folder below the template's; False if all lie in the template's."""
    name: bytes
    """The format of their names."""

    @property
    def keeps_name(self) -> bool:
        """True if each output has the name of its source."""
        return self.name == b"%(name)b"


@dataclass(frozen=True)
class Template:
    """The paths of one stage's outputs: a literal `folder`, links resolved, and `pieces` filled in below it.

    `pieces` are literal texts (str) and fields (one-element tuples), in order, relative to the folder.
    """

    text: str
    folder: bytes
    written_folder: bytes
    """The folder as the ledger keeps it; relative to the YAML's if it lies there, or is written so without links."""
    pieces: tuple[str | tuple[str], ...]
    has_file: ClassVar[bool] = True
    """True if an output is a file; False where the stage leaves none."""

    @cached_property
    def fields(self) -> frozenset[str]:
        """The names of the template's fields."""
        return frozenset(piece[0] for piece in self.pieces if isinstance(piece, tuple))

    @cached_property
    def suffix(self) -> str:
        """The suffix of every output; empty where it is that of the source."""
        last = self.pieces[-1] if self.pieces else ""
        return os.path.splitext("x" + last)[1] if isinstance(last, str) else ""

    @cached_property
    def _format(self) -> bytes:
        """The format for the `%` operator of bytes, with a leading slash."""
        return b"/" + _format_of(self.pieces)

    @cached_property
    def _is_mirror(self) -> bool:
        """True if outputs mirror the tree of the input root."""
        return self._format == b"/%(dir)b/%(name)b"

    def fill(self, source: bytes, part: str = "") -> bytes:
        """Return the absolute path of a source's output in bytes. Raises FileFailure where it cannot be a name.

        The source's path is relative to the input root.
        """
        filled = b"/" + source if self._is_mirror else self._format % values_of(source, part)
        if b"//" in filled:  # an empty {dir} leaves a slash too many
            filled = _SLASHES.sub(b"/", filled)
        # Nothing else can be wrong with a name.
        if len(filled) > _NAME_MAX or b"/." in filled or filled.endswith(b"/"):
            check_components(filled)
        return self._place + filled

    @cached_property
    def _place(self) -> bytes:
        return self.folder.rstrip(b"/")

    @cached_property
    def folder_and_name(self) -> FolderAndName | None:
        """The folder and the format of names of outputs; None where a folder's name depends on the source's name."""
        pieces = list(self.pieces)
        in_dir = pieces[:1] == [("dir",)] and len(pieces) > 1 and str(pieces[1])[:1] == "/"
        if in_dir:
            pieces[:2] = [str(pieces[1])[1:]] if isinstance(pieces[1], str) else pieces[:2]
        if any(piece == ("dir",) or (isinstance(piece, str) and "/" in piece) for piece in pieces):
            return None
        return FolderAndName(in_dir, _format_of(pieces))

    @cached_property
    def rivals(self) -> Literal["none", "same stem", "any"]:
        """Which other sources may have the same output: none, those in the same folder with the same stem, or any."""
        first, after, *_ = [*self.pieces, "", ""]
        if first != ("dir",) or str(after)[:1] != "/":
            return "any"
        names = [piece[0] for piece in self.pieces[1:] if isinstance(piece, tuple) and piece != ("part",)]
        if names == ["name"] or (names == ["stem", "suffix"] and b"%(stem)b%(suffix)b" in self._format):
            return "none"
        return "same stem" if names in (["stem"], ["stem", "suffix"]) else "any"

    def fill_folder_and_name(self, source: bytes) -> tuple[bytes, bytes]:
        """Return the absolute folder and the name of a source's output, of which `fill` must accept the path."""
        if self.folder_and_name is None:
            folder, _, name = self.fill(source).rpartition(b"/")
            return folder, name
        in_dir, wanted = self.folder_and_name
        folder, _, name = source.rpartition(b"/")
        place = self.folder + b"/" + folder if in_dir and folder else self.folder
        if wanted == b"%(name)b":
            return place, name
        stem, suffix = _split_name(name)
        return place, wanted % {b"name": name, b"stem": stem, b"suffix": suffix, b"part": b""}

    def around_part(self, source: bytes) -> tuple[bytes, bytes]:
        """Return the text before and after a part's name in the path of a source's output."""
        parts = self.fill(source, _A_PART).split(_A_PART.encode())
        return parts[0], parts[1]

    def target_of(self, source: bytes) -> bytes:
        """Return the path of a source's output as the ledger keeps it. Raises FileFailure where it cannot be a name."""
        return self._mirrored + source if self._is_mirror else self.key(self.fill(source))

    @cached_property
    def _mirrored(self) -> bytes:
        return self.key(self._place + b"/")

    def key(self, path: bytes) -> bytes:
        """Return an output's path as the ledger stores it, so that a project can be moved."""
        return self.written_folder + path[len(self.folder) :]


@dataclass(frozen=True)
class NoFile:
    """Replaces the template of a stage that leaves no file, whose records still need a key."""

    stage: str
    text: str = NO_OUTPUT
    folder: bytes = b""
    suffix: str = ""
    fields: frozenset[str] = frozenset()
    has_file: ClassVar[bool] = False

    def fill(self, source: bytes, part: str = "") -> bytes:
        """Return the key of a source, which no path can equal."""
        return NO_FILE_KEY + b"/".join([self.stage.encode(), source, *([part.encode()] if part else [])])

    def key(self, path: bytes) -> bytes:
        """Return a key as the ledger stores it."""
        return path

    def around_part(self, source: bytes) -> tuple[bytes, bytes]:
        """Return the text before and after a part's name in the key of a source."""
        return self.fill(source) + b"/", b""


@dataclass(frozen=True)
class GroupTemplate:
    """The template of the names of groups."""

    text: str
    pieces: tuple[str | tuple[str], ...]

    @cached_property
    def fields(self) -> frozenset[str]:
        """The names of the fields in the template."""
        return frozenset(piece[0] for piece in self.pieces if isinstance(piece, tuple))

    @cached_property
    def _format(self) -> bytes:
        return _format_of(self.pieces)

    def fill(self, source: bytes, part: str = "") -> bytes:
        """Return the name of the group to which the output of a source belongs."""
        return self._format % values_of(source, part)

    def may_hold(self, name: bytes, folder: bytes) -> bool:
        """Return whether a source somewhere below a folder, which ends in "/", may belong to the group of a name.

        The folder is relative to the input root, itself given as an empty one.
        """
        below = re.escape(folder[:-1]) + b"(/.*)?" if folder else b".*"
        values = {"dir": below, "part": b".*"}
        pattern = b"".join(
            values.get(each[0], b"[^/]*") if isinstance(each, tuple) else re.escape(os.fsencode(each))
            for each in self.pieces
        )
        return re.fullmatch(pattern, name, re.DOTALL) is not None


def values_of(source: bytes, part: str = "") -> dict[bytes, bytes]:
    """Return the values of all fields for a source, and for a part of its output."""
    folder, _, name = source.rpartition(b"/")
    stem, suffix = _split_name(name)
    return {b"dir": folder, b"name": name, b"stem": stem, b"suffix": suffix, b"part": part.encode()}


def _format_of(pieces: Iterable[str | tuple[str, ...]]) -> bytes:
    return b"".join(
        b"%%(%s)b" % each[0].encode() if isinstance(each, tuple) else os.fsencode(each).replace(b"%", b"%%")
        for each in pieces
    )


def check_components(filled: bytes) -> None:
    """Raise FileFailure where a filled-in path, which begins with a slash, cannot be that of an output."""
    shown = repr(os.fsdecode(filled[1:]))
    if filled.endswith(b"/"):
        raise FileFailure(f"output {shown} would have no name")
    for each in filled[1:].split(b"/"):
        if each in (b".", b".."):
            raise FileFailure(f"output {shown} would leave its folder")
        if each.startswith(OWNER_FILE.encode()):
            raise FileFailure(f"output {shown}: names that begin with {OWNER_FILE} are the program's own")
        if len(each) > _NAME_MAX:
            raise FileFailure(f"output name of {len(each)} bytes, limit {_NAME_MAX}: {os.fsdecode(each)!r}")


def _split_name(name: bytes) -> tuple[bytes, bytes]:
    """Return stem and suffix as pathlib has them."""
    dot = name.rfind(b".")
    return (name[:dot], name[dot:]) if 0 < dot < len(name) - 1 else (name, b"")


def parse_group_template(text: str) -> GroupTemplate:
    """Parse the template of the names of groups. Raises TemplateError."""
    return GroupTemplate(text, tuple(_pieces(text)))


def parse_template(text: str, base: Path, *, of_groups: bool = False) -> Template:
    """Parse a template; a relative one lies under `base`. Raises TemplateError.

    A template `of_groups` may have no fields, since all files may be one group.
    """
    if not text or "\0" in text:
        raise TemplateError("an output path is needed")
    under = ("{name}" if "{dir}" in text else "{dir}/{name}") if text.endswith("/") and not of_groups else ""
    pieces = _pieces(text + under)
    if not of_groups and all(isinstance(piece, str) for piece in pieces):
        raise TemplateError(f"every file would have the one output {text!r}; use {{stem}} or {{name}} in it")
    first = pieces[0] if isinstance(pieces[0], str) else ""
    literal, _, rest = first.rpartition("/")
    if first.startswith("/") and not literal:
        literal = "/"
    literal = os.path.expanduser(literal)
    spelt = os.path.normpath(os.path.join(base, literal))
    folder = os.fsdecode(resolve_folder(os.fsencode(spelt)))
    # A link leads to the same place wherever the project is moved; without one the place may move with it.
    moves = folder == spelt and not os.path.isabs(literal)
    inside = moves or Path(base) == Path(folder) or Path(base) in Path(folder).parents
    written = os.path.relpath(folder, base) if inside else folder
    below = ([rest] if rest else []) + pieces[1 if first else 0 :]
    _check_dots(below, text)
    return Template(text, os.fsencode(folder), os.fsencode(written), tuple(below))


def _pieces(text: str) -> list[str | tuple[str]]:
    pieces: list[str | tuple[str]] = []
    literal, at = "", 0
    for match in _TOKEN.finditer(text):
        literal, at = literal + text[at : match.start()], match.end()
        token, field = match[0], match[1]
        if token in ("{{", "}}"):
            literal += token[0]
            continue
        if field is None:
            raise TemplateError(f"a single '{token}' in {text!r}; write '{token * 2}' for the character itself")
        if field not in FIELDS:
            raise TemplateError(f"no field {{{field}}}; there are {_FIELDS_SHOWN}")
        if literal:
            pieces.append(literal)
        pieces.append((field,))
        literal = ""
    literal += text[at:]
    return [*pieces, literal] if literal else pieces


def _check_dots(below: list[str | tuple[str]], text: str) -> None:
    shown = "".join("x" if isinstance(piece, tuple) else piece for piece in below)
    if any(component in (".", "..") for component in shown.split("/")):
        raise TemplateError(f"'.' or '..' after the first field of {text!r}; write it before")
    if isinstance(below[-1], str) and below[-1].endswith("/"):
        raise TemplateError(f"{text!r} names a folder")


def key_of_path(templates: Iterable[Template], path: bytes) -> bytes | None:
    """Return a path as the ledger keeps it, by the innermost template in whose folder it lies; None outside all."""
    around = [each for each in templates if path.startswith(os.path.join(each.folder, b""))]
    return max(around, key=lambda each: len(each.folder)).key(path) if around else None


def with_one_spelling(templates: Iterable[Template | None], base: Path) -> list[Template | None]:
    """Return the templates, changed so that the ledger keeps no path both relative and absolute."""
    found = list(templates)
    relative = [each.folder for each in found if each and not os.path.isabs(each.written_folder)]
    return [
        replace(each, written_folder=os.path.relpath(each.folder, os.fsencode(base)))
        if each and os.path.isabs(each.written_folder) and any(_is_around(each.folder, other) for other in relative)
        else each
        for each in found
    ]


def _is_around(one: bytes, other: bytes) -> bool:
    """Return whether two folders are the same, or one lies in the other."""
    one, other = os.path.join(one, b""), os.path.join(other, b"")
    return one.startswith(other) or other.startswith(one)


def may_meet(one: Template, other: Template) -> bool:
    """Return whether an output of one template and one of the other, of whatever sources, may have the same path."""
    if not _is_around(one.folder, other.folder):
        return False
    ends = [each.pieces[-1] for each in (one, other)]
    texts = [each for each in ends if isinstance(each, str)]
    return len(texts) < 2 or texts[0].endswith(texts[1]) or texts[1].endswith(texts[0])


def always_same(one: Template, other: Template) -> bool:
    """Return whether two templates give every source the same output."""
    return (one.folder, _spelt_out(one)) == (other.folder, _spelt_out(other))


def _spelt_out(template: Template) -> bytes:
    return _SLASHES.sub(b"/", template._format.replace(b"%(name)b", b"%(stem)b%(suffix)b"))
