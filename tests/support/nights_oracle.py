"""What the outputs of the drill of many nights must be, computed from its sources without any code of the program."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath

# What a run leaves out wherever it lies.
LEFT_OUT = ("Thumbs.db", "desktop.ini", "@eaDir", "lost+found")


@dataclass(frozen=True)
class Recipe:
    """All that decides, beside a source, what is made of it, and where that lies."""

    mark: str = "m0"
    """An option of the stage `clean`."""
    version: str = "v0"
    """A constant in the code of `clean`."""
    table: str = "t0"
    """The contents of a file behind a Path option."""
    word: str = "w0"
    """A constant of a module that the stage of web texts imports."""
    times: int = 2
    web: str = "web"
    """The folder of the web texts."""
    stage: str = "web"
    """The name of their stage."""
    remark: int = 0
    """A number in a comment of the code."""
    has_drafts: bool = True
    """Whether folders called drafts are read."""

    def contents(self, output: str) -> tuple[object, ...]:
        """Return what decides the contents of an output, beside its source."""
        if output.startswith(("sum/", "odd/")):
            return ()
        parts = (self.mark, self.version, self.table)
        return parts if output.startswith("lines/") else (*parts, self.word, self.times)

    @property
    def head(self) -> str:
        return f"{self.mark} {self.version} {self.table}"


@dataclass
class Source:
    """A file of the inputs, as the simulator sees it."""

    path: str
    data: bytes
    mtime_ns: int
    is_readable: bool = True

    @property
    def text(self) -> str:
        return self.data.decode()

    @property
    def kind(self) -> str:
        """The first word: `ok`, `BAD` or `SKIP`."""
        return self.text.split(None, 1)[0]

    @property
    def folder(self) -> str:
        return str(PurePosixPath(self.path).parent).removeprefix(".")

    @property
    def stem(self) -> str:
        return PurePosixPath(self.path).stem


@dataclass(frozen=True)
class Place:
    """Where one stage puts what it makes of a source: a file, or for parts a folder, which ends in a slash."""

    path: str
    made: Mapping[str, bytes]
    fails: bool = False


@dataclass
class Expectation:
    """The outputs as they should be, and those that may be otherwise since something must fail."""

    right: dict[str, bytes] = field(default_factory=dict)
    kept: set[str] = field(default_factory=set)
    """Outputs that must stay as they were; a folder, and so all in it, ends in a slash."""
    unsure: set[str] = field(default_factory=set)
    """Outputs that may be as they were, or right."""
    others: dict[str, set[bytes]] = field(default_factory=dict)
    """Further contents that an output may have: those that another source wants to have there."""
    lists: dict[str, list[tuple[str, str]]] = field(default_factory=dict)
    """The members of each list, which is made of what lies in their places: path and source."""
    sources: dict[str, list[Source]] = field(default_factory=dict)
    """What each output, or folder of parts, is made of."""
    must_fail: list[str] = field(default_factory=list)
    may_fail: list[str] = field(default_factory=list)

    def sources_of(self, output: str) -> list[Source]:
        return next((self.sources[each] for each in above(output) if each in self.sources), [])


def above(path: str) -> Iterable[str]:
    """Yield a path and all folders above it, with their slashes."""
    yield path
    for folder in PurePosixPath(path).parents:
        yield f"{folder}/"


def places_of(source: Source, recipe: Recipe) -> list[Place]:
    """Return where the outputs of one source lie, and what they are."""
    text, kind = source.text, source.kind
    below = f"{source.folder}/" if source.folder else ""
    web, lines = f"{recipe.web}/{below}{source.stem}.txt", f"lines/{below}{source.stem}/"
    clean = f"{recipe.head}\n{text}"
    parts = {
        f"{lines}{line.split()[0]}.txt": f"{recipe.head}|{line}".encode()
        for line in text.splitlines() if line.startswith("k")
    }  # fmt: skip
    is_ok = kind == "ok"
    crc = zlib.crc32(source.data)
    odd = f"odd/{source.path}"
    return [
        Place(web, {web: ((recipe.word + clean) * recipe.times).encode()} if is_ok else {}, kind == "BAD"),
        Place(lines, parts if is_ok else {}, kind == "BAD" or (is_ok and "\nTORN" in text)),
        Place(f"sum/{source.path}.sum", {f"sum/{source.path}.sum": f"{source.path} {crc}\n".encode()}),
        Place(odd, {odd: text[::-1].encode()} if " odd " in text else {}),
    ]


def list_path(folder: str) -> str:
    return f"lists/{folder}/list.txt" if folder else "lists/list.txt"


def list_of(members: Iterable[tuple[str, str]], outputs: Mapping[str, bytes]) -> bytes:
    """Return the list of some members, as the web texts in their places make it."""
    lines = []
    for path, source in sorted(members, key=lambda member: member[0].encode()):
        data = outputs.get(path, b"")
        lines.append(f"{source} {len(data)} {zlib.crc32(data)}\n")
    return "".join(lines).encode()


def is_read(path: str, recipe: Recipe) -> bool:
    """Whether the pipeline reads a file, going by its path alone."""
    names = path.split("/")
    if any(name.startswith(".") or name in LEFT_OUT for name in names):
        return False
    return recipe.has_drafts or "drafts" not in names[:-1]


def expect(
    sources: Iterable[Source], recipe: Recipe, before: Mapping[str, bytes], unlisted: Iterable[str] = ()
) -> Expectation:
    """Return the outputs that a run must leave, where `before` are those that it finds.

    Args:
        unlisted: Folders of the inputs that cannot be listed, or are gone with a disk; each ends in a slash.
    """
    found = Expectation()
    for folder in unlisted:
        for kind in (recipe.web, "lines", "sum", "odd", "lists"):
            found.kept.add(f"{kind}/{folder}")
    for source in sources:
        if is_read(source.path, recipe) and not any(source.path.startswith(each) for each in unlisted):
            places = places_of(source, recipe)
            for place in places:
                _add(found, source, place)
            _add_member(found, source, places[0])
            if not source.is_readable:
                _close(found, source, recipe, before)
    found.unsure -= found.kept
    return found


def _add(found: Expectation, source: Source, place: Place) -> None:
    wanted = found.sources.setdefault(place.path, [])
    wanted.append(source)
    if len(wanted) > 1:
        _collide(found, place, wanted)
    elif place.fails:
        found.kept.add(place.path)
        found.must_fail.append(f"{source.path} is bad")
    else:
        found.right |= place.made


def _add_member(found: Expectation, source: Source, place: Place) -> None:
    """Add the web text of a source to the list of its folder, which stays as it is where a member fails."""
    path, is_alone = list_path(source.folder), len(found.sources[place.path]) == 1
    if place.made or place.fails:
        members = found.lists.setdefault(path, [])
        members += [(place.path, source.path)] if is_alone else []
    if place.fails:
        found.kept.add(path)
    elif not is_alone or not source.is_readable:
        found.unsure.add(path)


def _collide(found: Expectation, place: Place, wanted: list[Source]) -> None:
    """Two sources want one place: one of them may have it, and at least one fails."""
    found.unsure.add(place.path)
    found.kept.discard(place.path)
    for path, data in place.made.items():
        found.others.setdefault(path, set()).add(data)
    found.must_fail.append(f"{wanted[-1].path} and {wanted[0].path} want one place")


def _close(found: Expectation, source: Source, recipe: Recipe, before: Mapping[str, bytes]) -> None:
    """A file that cannot be read fails where anything is to be made of it."""
    for place in places_of(source, recipe):
        found.unsure.add(place.path)
        if any(before.get(path) != data for path, data in place.made.items()):
            found.must_fail.append(f"{source.path} cannot be read")
    found.may_fail.append(f"{source.path} cannot be read")
