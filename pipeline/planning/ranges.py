"""Divides the walk into ranges of sources, and digests each with its outputs as they lie on disk.

    derived output   every source of a range has one file, where its template leads: nothing else need be known
    listed output    some sources have it, or it is in parts: the range's layout has the paths of its files
    other source     one that no stage takes: the layout has its position

Nothing here imports SQLite, so that who only asks whether anything has changed need not load it.
"""

from __future__ import annotations

import json
import os
import zlib
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from pipeline.errors import FileFailure
from pipeline.files import hashlib
from pipeline.files.store import store_of
from pipeline.files.template import Template
from pipeline.ledger.origins import kept_time
from pipeline.messages import Source
from pipeline.records import NamedTuple, dataclass

if TYPE_CHECKING:
    from pipeline.files.walk import Walk

# A range begins where the checksum of a path ends in ten zeros: after about a thousand files, and at the same ones
# whatever is added or removed elsewhere, so that a new file changes no range but its own.
_MASK = 0x3FF
_DIGEST_BYTES = 16


def walk_by(arguments: Mapping[str, Any]) -> Walk:
    """Return a walk by arguments that JSON can hold."""
    root = os.fsencode(arguments["root"])
    without = {os.fsencode(each) for each in arguments["without"]}
    return store_of(root).walk(root, arguments["include"], arguments["exclude"], without)


def ranges_of(sources: Iterable[Source]) -> Iterator[tuple[list[Source], bytes | None]]:
    """Yield the sources in ranges, each with the path at which the next one begins; None after the last."""
    found: list[Source] = []
    for source in sources:
        if found and not zlib.crc32(source.path) & _MASK:
            yield found, source.path
            found = []
        found.append(source)
    if found:
        yield found, None


FolderCount = tuple[bytes, int]
"""A folder just below the root, which ends in a slash and is empty for the root itself, with a number of sources."""


class HeldRange(NamedTuple):
    """A range of sources that was found to be as it is on record."""

    first: bytes
    after: bytes | None
    digest: bytes
    tops: list[FolderCount]
    """How many sources each folder below the root has in it."""


@dataclass(frozen=True)
class Looked:
    """What was found by who has looked at all files before, so that a plan need not look at them again."""

    tree: bytes
    """The tree of outputs by which it was looked."""
    walk: str
    """The arguments of the walk, in JSON."""
    held: tuple[HeldRange, ...]
    """The ranges that are as they were, in order."""


def tops_of(sources: Sequence[Source]) -> list[FolderCount]:
    """Return how many of these sources, in byte order, each folder below the root has."""
    first = top_of(sources[0])
    if first and first == top_of(sources[-1]):  # most often all are in one folder, and need no look at each
        return [(first, len(sources))]
    if not first and b"/" not in b"".join([source.path for source in sources]):
        return [(b"", len(sources))]
    counts, at = list[FolderCount](), 0
    while at < len(sources):
        top, begin = top_of(sources[at]), at
        if top:  # "0" is what comes after "/"
            at = bisect_left(sources, top[:-1] + b"0", at, key=attrgetter("path"))
        else:
            at = next((other for other in range(at, len(sources)) if b"/" in sources[other].path), len(sources))
        counts.append((top, at - begin))
    return counts


def top_of(source: Source) -> bytes:
    """Return the folder just below the root in which a source is, with its slash; empty if that is the root."""
    return source.path[: source.path.find(b"/") + 1]


@dataclass(frozen=True)
class Layout:
    """Which files belong to a range, where the templates of its outputs do not tell."""

    others: tuple[int, ...] = ()
    """The positions of the sources that no stage takes."""
    listed: tuple[tuple[bytes, ...] | None, ...] = ()
    """For each output the paths of its files below the folder of its template; None for a derived one."""

    def pack(self) -> bytes:
        """Return the layout as the ledger keeps it; empty where it tells nothing."""
        if not self.others and all(each is None for each in self.listed):
            return b""
        head = [self.others, [None if each is None else len(each) for each in self.listed]]
        paths = [path for each in self.listed for path in each or ()]
        return zlib.compress(json.dumps(head).encode() + b"\0" + b"\0".join(paths), 1)

    @classmethod
    def unpack(cls, packed: bytes, outputs: int) -> Layout:
        """Return the layout of a range with so many outputs of which `pack` was kept."""
        if not packed:
            return cls((), (None,) * outputs)
        head, *paths = zlib.decompress(packed).split(b"\0")
        others, counts = json.loads(head)
        listed, at = list[tuple[bytes, ...] | None](), 0
        for count in counts:
            listed.append(None if count is None else tuple(paths[at : at + count]))
            at += count or 0
        return cls(tuple(others), tuple(listed))


class RangeFiles(NamedTuple):
    """The sources of a range, divided into those that a stage takes and the others."""

    taken: list[Source]
    others: list[Source]

    @classmethod
    def of(cls, sources: list[Source], positions: Sequence[int]) -> RangeFiles:
        """Divide sources by the positions of the others."""
        if not positions:
            return cls(sources, [])
        apart = set(positions)
        return cls(
            [each for at, each in enumerate(sources) if at not in apart],
            [each for at, each in enumerate(sources) if at in apart],
        )


class DiskDigests:
    """The digests of ranges for one tree of outputs.

    Args:
        tree: The tree as bytes, of which any change makes all digests others.
        templates: The template of each output; None for one without a file.
    """

    def __init__(self, tree: bytes, templates: Sequence[Template | None]) -> None:
        self.tree = tree
        self.templates = templates
        self._stores = [store_of(each.folder if each else b"") for each in templates]

    def found(self, sources: list[Source], layout: bytes = b"", beside: bytes = b"") -> bytes:
        """Return the digest of a range by its files on disk; empty where a source has a name that no output can have.

        Args:
            sources: All sources of the range.
            layout: The packed layout of the range.
            beside: What else the digest depends on.
        """
        laid = Layout.unpack(layout, len(self.templates))
        if len(laid.listed) != len(self.templates):  # of another tree
            return b""
        taken, others = RangeFiles.of(sources, laid.others)
        paths, sizes, times = map(list, zip(*taken, strict=True)) if taken else ([], [], [])
        numbers = sizes + times
        try:
            for template, store, listed in zip(self.templates, self._stores, laid.listed, strict=True):
                if template and listed is None:
                    numbers += store.stat_many(template, paths)
                elif template and listed:
                    numbers += store.stat_below(template.folder, listed)
        except FileFailure:
            return b""
        return self.of(paths, numbers, layout, beside + digest_of_sources(others))

    def of(self, paths: list[bytes], numbers: list[int], layout: bytes, beside: bytes) -> bytes:
        """Return the digest of a range.

        Args:
            paths: The sources that a stage takes.
            numbers: Their sizes and times, and those of their outputs.
            layout: The packed layout of the range.
            beside: What else the digest depends on; at its end the digest of the other sources.
        """
        digest = hashlib.blake2b(self.tree, digest_size=_DIGEST_BYTES)
        digest.update(b"%d %d %d %d\0" % (len(paths), len(numbers), len(layout), len(beside)))
        digest.update(layout)
        digest.update(beside)
        digest.update(b"\0".join(paths))
        digest.update(_as_bytes(numbers))
        return digest.digest()


def digest_of_sources(sources: Sequence[Source]) -> bytes:
    """Return the digest of the names, sizes and times of sources; empty without any."""
    if not sources:
        return b""
    paths, sizes, times = map(list, zip(*sources, strict=True))
    return hashlib.blake2b(b"\0".join(paths) + _as_bytes(sizes + times), digest_size=_DIGEST_BYTES).digest()


def _as_bytes(numbers: list[int]) -> bytes:
    try:
        return array("q", numbers).tobytes()
    except OverflowError:  # a time past the year 2262, which the ledger cuts to what it can hold
        return array("q", map(kept_time, numbers)).tobytes()
