"""Reads YAML into plain data with the line and column of every key and value, and collects complaints about them."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import field
from functools import cached_property
from typing import Any

import yaml

from pipeline.config.evidence import MAX_BYTES
from pipeline.errors import ConfigError
from pipeline.records import dataclass
from pipeline.stage.options import Place
from pipeline.text import did_you_mean

# Far above any pipeline a person writes, far below what would keep the parser busy for a second.
MAX_DEPTH = 50
MAX_NODES = 10_000

# Far more than anyone mends before the next try; the rest are counted.
MAX_SHOWN = 100

# The keys whose mapping has a short form, which is the value of this one key of it: `inputs: photos`, `output: PATH`.
SHORT_FORMS = {"inputs": "root", "output": "path"}

# What YAML 1.1, and so PyYAML, counts as the end of a line; str.splitlines knows more.
_LINE_END = re.compile("\r\n|[\n\r\x85\u2028\u2029]")

# The YAML 1.2 core schema, section 10.3.2: `no` and `off` are words, `1e-3` is a number. More digits than these are
# no number: Python and JSON refuse to write them out.
_NULL = re.compile(r"(?:null|Null|NULL|~|)\Z")
_BOOL = re.compile(r"(?:true|True|TRUE|false|False|FALSE)\Z")
_INT = re.compile(r"(?:[-+]?[0-9]{1,4000}|0o[0-7]{1,1000}|0x[0-9a-fA-F]{1,1000})\Z")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?\Z")
_SPECIAL = re.compile(r"(?:[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))\Z")


@dataclass(frozen=True)
class Spot:
    """A line and a column, both from 0, or the command-line option that set the value."""

    line: int
    column: int
    given_by: str = ""
    in_defaults: bool = False
    """Whether the line is one of the file that the pipeline names as its defaults."""


@dataclass(frozen=True)
class Complaint:
    """One error or warning about the file, with its spot."""

    spot: Spot
    text: str
    hint: str = ""


@dataclass
class Document:
    """The data of a YAML file, with the spot of every key and value, and the complaints about it so far."""

    file: str
    text: str
    data: Any = None
    keys: dict[Place, Spot] = field(default_factory=dict)
    values: dict[Place, Spot] = field(default_factory=dict)
    complaints: dict[Complaint, None] = field(default_factory=dict)
    """The errors, each once, in the order they were found."""
    warnings: list[Complaint] = field(default_factory=list)
    """The warnings about values that are allowed but probably mistakes."""
    defaults: Document | None = None
    """The file that this one names as its defaults."""

    @cached_property
    def lines(self) -> list[str]:
        """The lines of the text, as YAML counts them."""
        return _LINE_END.split(self.text)

    def complain(self, place: Place, text: str, *, key: bool = False, hint: str = "") -> None:
        """Add a complaint about a value, or its key; if it is absent, at the nearest mapping above."""
        self.complain_at(self._spot(place, key), text, hint)

    def warn(self, place: Place, text: str) -> None:
        """Add a warning about a value that is allowed but probably a mistake."""
        self.warnings.append(Complaint(self._spot(place), f"warning: {text}"))

    def _where(self, spot: Spot) -> str:
        """Return a spot as a message begins with it."""
        file = self.defaults.file if spot.in_defaults and self.defaults else self.file
        return spot.given_by or f"{file}:{spot.line + 1}:{spot.column + 1}"

    def _spot(self, place: Place, key: bool = False) -> Spot:
        spots = self.keys if key else self.values
        while place and place not in spots:
            place, spots = place[:-1], self.values
        return spots.get(place, Spot(0, 0))

    def complain_at(self, spot: Spot, text: str, hint: str = "") -> None:
        """Add a complaint about a spot, unless there is an equal one."""
        self.complaints[Complaint(spot, text, hint)] = None

    def at(self, place: Place) -> Any:
        """Return the value at a place that exists."""
        here = self.data
        for step in place:
            here = here[step]
        return here

    def complaints_as_error(self) -> ConfigError | None:
        """Return one error with every complaint in the order of the file; None where there is none."""
        if not self.complaints:
            return None
        more = len(self.complaints) - MAX_SHOWN
        shown = self.render(self.complaints)[:MAX_SHOWN]
        return ConfigError("\n".join(shown + ([f"{self.file}: {more} more complaints"] if more > 0 else [])))

    def raise_complaints(self) -> None:
        """Raise ConfigError with every complaint, if there is one."""
        if error := self.complaints_as_error():
            raise error

    def render(self, complaints: Iterable[Complaint]) -> list[str]:
        """Render complaints or warnings in the order of the file, each with its source line and a caret."""
        ordered = sorted(complaints, key=lambda each: (each.spot.in_defaults, each.spot.line, each.spot.column))
        return [self._rendered(each) for each in ordered]

    def _rendered(self, complaint: Complaint) -> str:
        spot = complaint.spot
        hint = f"\n  hint: {complaint.hint}" if complaint.hint else ""
        head, lines = f"{self._where(spot)}: {complaint.text}", self.lines
        if spot.in_defaults and self.defaults:
            head, lines = f"{head} (defaults of {self._where(self._spot(('defaults',)))})", self.defaults.lines
        line = lines[spot.line] if 0 <= spot.line < len(lines) else ""
        if not line.strip():
            return head + hint
        # A window of the line around the spot, so that one endless line does not fill the terminal.
        first = max(0, spot.column - 60)
        shown = "".join(c if c.isprintable() or c == "\t" else "\ufffd" for c in line[first : first + 120])
        margin = re.sub(r"[^\t]", " ", shown[: spot.column - first])
        return f"{head}\n    {shown}\n    {margin}^{hint}"


def read_document(file: str, raw: bytes) -> Document:
    """Read the bytes of a YAML file. Raises ConfigError where they are no YAML mapping; other errors are collected."""
    document = parse_document(file, raw)
    if not isinstance(document.data, dict):
        if not document.complaints:
            is_empty = () not in document.values
            text = "the file is empty; it must say at least" if is_empty else "a mapping is needed here, with"
            document.complain((), f"{text} 'inputs' and 'stages'")
        document.raise_complaints()
    return document


def parse_document(file: str, raw: bytes) -> Document:
    """Read the bytes of a YAML file; where they are no YAML, the document has complaints and no data."""
    document = Document(file, "")
    if len(raw) > MAX_BYTES:
        document.complain((), f"{len(raw)} bytes of YAML, limit {MAX_BYTES}")
        return document
    try:
        document.text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n")
        document.complain_at(Spot(line, 0), f"not UTF-8: byte 0x{raw[error.start]:02x}")
        return document
    with suppress(_NoYaml):
        if node := _compose(document, document.text):
            _Reader(document).read(node)
    return document


class _NoYaml(Exception):
    """Ends the reading of a text about which there is a complaint."""


def _compose(document: Document, text: str) -> yaml.Node | None:
    loader = None
    try:
        loader = _Loader(text)
        node: yaml.Node | None = loader.get_single_node()
        return node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        text = ", ".join(filter(None, (error.context, error.problem)))
        lines = text.splitlines()
        braces = mark is not None and mark.line < len(lines) and "{" in lines[mark.line]
        document.complain_at(_spot(mark), text, hint="a template that begins with '{' must be quoted" if braces else "")
    except yaml.reader.ReaderError as error:
        before = _LINE_END.split(text[: error.position])
        character = f"character U+{ord(text[error.position]):04X} is not allowed"
        document.complain_at(Spot(len(before) - 1, len(before[-1])), character)
    except (OverflowError, ValueError):  # chr(), which PyYAML asks for every number it is given
        document.complain_at(_spot(loader.get_mark() if loader else None), "an escape that is no character")
    raise _NoYaml


def _spot(mark: yaml.Mark | None) -> Spot:
    return Spot(mark.line, mark.column) if mark else Spot(0, 0)


class _Loader(yaml.SafeLoader):
    """Composes nodes, limited in number and depth, and leaves scalars unresolved."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self._depth = self._count = 0

    def compose_node(self, parent: yaml.Node | None, index: Any) -> yaml.Node | None:
        self._depth += 1
        self._count += 1
        too = f"more than {MAX_DEPTH} levels" if self._depth > MAX_DEPTH else ""
        too = f"more than {MAX_NODES} nodes" if self._count > MAX_NODES else too
        if too:
            raise yaml.MarkedYAMLError(problem=too, problem_mark=self.get_mark())
        node = super().compose_node(parent, index)
        self._depth -= 1
        return node

    def resolve(self, kind: type[yaml.Node], value: Any, implicit: Any) -> str:
        return "plain" if kind is yaml.ScalarNode and implicit[0] else "other"


class _Reader:
    """Turns YAML nodes into plain data, and adds their spots and complaints to the document."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._count = 0

    def read(self, node: yaml.Node) -> None:
        self._document.data = self._value(node, (), 0)

    def _complain(self, node: yaml.Node, text: str) -> None:
        self._document.complain_at(_spot(node.start_mark), text)

    def _text(self, node: yaml.Node) -> str:
        """Return a scalar's characters; JSON writes those beyond U+FFFF as a pair of escapes."""
        try:
            return str(node.value).encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            self._complain(node, "half a surrogate pair is no character")
            return ""

    def _value(self, node: yaml.Node, place: Place, depth: int) -> Any:
        self._count += 1
        # Counted again here, since an alias stands for all it names, each time.
        if self._count > MAX_NODES or depth > MAX_DEPTH:
            self._complain(node, f"aliases make more than {MAX_NODES} nodes or {MAX_DEPTH} levels")
            raise _NoYaml
        self._document.values.setdefault(place, _spot(node.start_mark))
        if node.tag not in ("plain", "other"):
            self._complain(node, f"tags are not allowed: {node.tag.replace('tag:yaml.org,2002:', '!!')}")
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self._value(each, (*place, index), depth + 1) for index, each in enumerate(node.value)]
        # The style tells what is plain even where a tag has been refused, so that no more is said of it.
        plain = isinstance(node, yaml.ScalarNode) and not node.style
        return plain_scalar(node.value) if plain else self._text(node)

    def _mapping(self, node: yaml.MappingNode, place: Place, depth: int) -> dict[str, Any]:
        data: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._complain(key_node, "a key must be a word")
                continue
            key = self._text(key_node)
            if key == "<<" and key_node.tag == "plain":
                self._complain(key_node, "merge keys ('<<') are not allowed; write the keys out")
                continue
            if key in data:
                first = self._document.keys[(*place, key)]
                self._complain(key_node, f"key {key!r} stands here twice; the first is in line {first.line + 1}")
                continue
            self._document.keys[(*place, key)] = _spot(key_node.start_mark)
            data[key] = self._value(value_node, (*place, key), depth + 1)
        return data


def plain_scalar(text: str) -> Any:
    """Return the value of an unquoted YAML word: None, a bool, a number, or the word itself."""
    if _NULL.match(text):
        return None
    if _BOOL.match(text):
        return text.lower() == "true"
    if _INT.match(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    if _FLOAT.match(text) or _SPECIAL.match(text):
        return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
    return text


# -- the edits of the command line -------------------------------------------------------------------------------------


def apply_edit(document: Document, edit: str) -> None:
    """Apply an edit such as `stages.web.with.width=800` to the data, or complain about it."""
    path, equals, text = edit.partition("=")
    spot = Spot(-1, len(document.complaints), f"--set {edit}")
    words = path.split(".")
    if not equals or not all(words):
        document.complain_at(spot, "write it as --set key.key=value")
        return
    value = _edit_value(document, text, spot)
    place = _walk_to(document, words[:-1], spot)
    if place is None:
        return
    here = document.at(place)
    if isinstance(here, list):
        document.complain_at(spot, f"{'.'.join(words[:-1])!r} is a list; set the whole of it, or a key of a stage")
        return
    here[words[-1]] = value
    _mark(document, (*place, words[-1]), value, spot)


def _edit_value(document: Document, text: str, spot: Spot) -> Any:
    """Parse the value of an edit: a list, a mapping or a quoted text as YAML, anything else as an unquoted word."""
    if not text.startswith(("[", "{", "'", '"')):
        return plain_scalar(text)
    try:
        inner = read_document("--set", f"value: {text}".encode("utf-8", "surrogatepass"))
    except ConfigError:  # such as {dir}/{stem}.png
        return text
    for complaint in inner.complaints:
        document.complain_at(spot, complaint.text)
    return inner.data["value"]


def _walk_to(document: Document, words: Sequence[str], spot: Spot) -> Place | None:
    """Return the place of the mapping that the words lead to, creating it if absent; a stage is named by its name."""
    place: Place = ()
    here = document.data
    for word in words:
        if isinstance(here, list):
            names = [str(each.get("name")) for each in here if isinstance(each, dict)] if place == ("stages",) else []
            if word not in names:
                document.complain_at(spot, f"no stage {word!r}{did_you_mean(word, names)}")
                return None
            index = next(i for i, each in enumerate(here) if isinstance(each, dict) and str(each.get("name")) == word)
            place, here = (*place, index), here[index]
            continue
        if not isinstance(here.get(word), (dict, list)):
            _open(document, here, (*place, word), spot)
        place, here = (*place, word), here[word]
    return place


def _open(document: Document, holder: dict[str, Any], place: Place, spot: Spot) -> None:
    """Replace a short form by the mapping that it stands for, and anything else by an empty mapping."""
    value, short = holder.get(str(place[-1])), SHORT_FORMS.get(str(place[-1]))
    if short and value is not None:
        holder[str(place[-1])] = {short: value}
        document.values[(*place, short)] = document.values[place]
    else:
        holder[str(place[-1])] = {}
        document.values[place] = document.keys[place] = spot


def _mark(document: Document, place: Place, value: Any, spot: Spot) -> None:
    """Record the command line as the spot of a value and of all values in it."""
    for spots in (document.keys, document.values):
        for below in [each for each in spots if each[: len(place)] == place]:
            del spots[below]
        spots[place] = spot
    pairs = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for step, each in pairs:
        _mark(document, (*place, step), each, spot)
