"""Runs of sources that are as the last run left them: known by one digest, and passed over whole.

    walk   --> spans of sources, with what stat says of them and of their outputs --> digest --+
                                                                                               +-- equal: nothing to do
    ledger --> spans of rows, with what they remember, made after every run       --> digest --+

A night in which nothing changed so reads one row for a thousand files. A span that differs is judged file by file.
"""

from __future__ import annotations

import hashlib
import os
import stat
import zlib
from array import array
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import groupby

from pipeline.errors import FileFailure
from pipeline.ledger import Row, Span, kept_time
from pipeline.messages import Source
from pipeline.outputs import Template

# A span begins where the checksum of a path ends in ten zeros: after about a thousand files, and at the same ones
# whatever else comes or goes, so that a new file changes no span but its own.
_MASK = 0x3FF
# What a span says, and how: one of another format is not equal to any, and so is made anew.
_FORMAT = b"2 "
# What stands for an output that is not there, or is no file.
_NOTHING = (-1, -1)


@dataclass(frozen=True)
class Place:
    """One output of the tree: its stage, where it goes, and the number of its recipe."""

    stage: str
    template: Template
    recipe: int | None


def spans_of(sources: Iterable[Source]) -> Iterator[tuple[list[Source], bytes | None]]:
    """The sources in spans, each with the path at which the next one begins; None after the last."""
    span: list[Source] = []
    for source in sources:
        if span and not zlib.crc32(source.path) & _MASK:
            yield span, source.path
            span = []
        span.append(source)
    if span:
        yield span, None


class Digests:
    """The digests of spans, for one tree of stages: another template or recipe makes every one of them another."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = places
        tree = repr([(each.stage, each.template.key(each.template.folder), each.template.pieces, each.recipe)
                     for each in places])  # fmt: skip
        self._tree = _FORMAT + tree.encode()

    def found(self, span: Sequence[Source]) -> bytes:
        """The digest of sources and of their outputs as they are."""
        numbers = array("q")
        for source in span:
            numbers.extend((source.size_bytes, kept_time(source.mtime_ns)))
        for place in self._places:
            with closing(_Outputs(place.template)) as outputs:
                for source in span:
                    numbers.extend(outputs.stat(source.path))
        return self._digest([source.path for source in span], numbers)

    def recorded(self, rows: Iterable[Row]) -> Span | None:
        """What the ledger's rows of a span come to; None where one of them leaves anything to be done."""
        paths: list[bytes] = []
        numbers, outputs = array("q"), [array("q") for _ in self._places]
        counts: Counter[str] = Counter()
        files: Counter[str] = Counter()
        for path, its in groupby(rows, key=lambda row: row.source):
            of_source = list(its)
            by_stage = {row.stage: row for row in of_source}
            settled = [row for place in self._places if (row := by_stage.get(place.stage)) and _is_settled(row, place)]
            if len(settled) != len(self._places) or len(settled) != len(of_source):
                return None
            if len({(row.source_size, row.source_mtime_ns) for row in settled}) > 1:
                return None
            for row, output in zip(settled, outputs, strict=True):
                output.extend((row.size or 0, row.mtime_ns or 0) if row.status == "done" else _NOTHING)
                counts[_why(row)] += 1
            files[_why(settled[0])] += 1
            paths.append(path)
            numbers.extend((of_source[0].source_size, of_source[0].source_mtime_ns))
        for output in outputs:
            numbers.extend(output)
        both = {why: (count, files[why]) for why, count in counts.items()}
        return Span(paths[0], None, len(paths), self._digest(paths, numbers), both) if paths else None

    def _digest(self, paths: list[bytes], numbers: array[int]) -> bytes:
        digest = hashlib.blake2b(self._tree, digest_size=16)
        digest.update(b"\0".join(paths))
        digest.update(numbers.tobytes())
        return digest.digest()


def _why(row: Row) -> str:
    return "up to date" if row.status == "done" else f"skipped: {row.reason}"


def _is_settled(row: Row, place: Place) -> bool:
    """Whether a row says of an output of the tree that it is as it should be."""
    if row.status == "intended" or row.at_work or row.recipe != place.recipe:
        return False
    try:
        return row.target == place.template.key(place.template.fill(row.source))
    except FileFailure:
        return False


class _Outputs:
    """What stat says of one stage's outputs, source by source; folders are kept open, which halves its cost."""

    def __init__(self, template: Template) -> None:
        self._template = template
        self._folder: bytes | None = None
        self._fd = -1

    def stat(self, source: bytes) -> tuple[int, int]:
        """Size and time of the source's output."""
        folder, name = self._template.fill_apart(source)
        if folder != self._folder:
            self._enter(folder)
        if self._fd < 0:
            return _NOTHING
        try:
            found = os.stat(name, dir_fd=self._fd)
        except OSError:
            return _NOTHING
        return (found.st_size, kept_time(found.st_mtime_ns)) if stat.S_ISREG(found.st_mode) else _NOTHING

    def _enter(self, folder: bytes) -> None:
        self.close()
        self._folder = folder
        try:
            self._fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:
            self._fd = -1

    def close(self) -> None:
        """Close the folder that is open."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1
