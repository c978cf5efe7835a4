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
from dataclasses import dataclass

from pipeline.errors import FileFailure
from pipeline.ledger import Row, Span, kept_time
from pipeline.messages import Source
from pipeline.outputs import Template
from pipeline.reasons import planned_reason

# A span begins where the checksum of a path ends in ten zeros: after about a thousand files, and at the same ones
# whatever else comes or goes, so that a new file changes no span but its own.
_MASK = 0x3FF
# What a span says, and how: one of another format is not equal to any, and so is made anew.
_FORMAT = b"3 "
# The bits of a mode that say what it is the mode of.
_TYPE = 0o170000
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
        self._by_stage = {place.stage: number for number, place in enumerate(places)}
        # Not what the stages are called: renaming one makes no difference.
        tree = repr([(each.template.key(each.template.folder), each.template.pieces, each.recipe) for each in places])
        self._tree = _FORMAT + tree.encode()

    def found(self, span: Sequence[Source]) -> bytes:
        """The digest of sources and of their outputs as they are."""
        paths, sizes, times = map(list, zip(*span, strict=True))
        numbers = sizes + times
        for place in self._places:
            numbers += _stats(place.template, paths)
        return self._digest(paths, numbers)

    def recorded(self, rows: Iterable[Row]) -> Span | None:
        """What the ledger's rows of a span come to; None where one of them leaves anything to be done."""
        paths, sizes, times = list[bytes](), list[int](), list[int]()
        outputs: list[list[int]] = [[] for _ in self._places]
        counts, files = Counter[str](), Counter[str]()
        for row in rows:
            if not paths or paths[-1] != row.source:
                paths.append(row.source)
                sizes.append(row.source_size)
                times.append(row.source_mtime_ns)
                files[_why(row)] += 1
            number = self._place_of(row)
            if number is None:
                return None
            its = outputs[number]
            is_same = (row.source_size, row.source_mtime_ns) == (sizes[-1], times[-1])
            if not is_same or len(its) != 2 * len(paths) - 2:
                return None
            its += (row.size or 0, row.mtime_ns or 0) if row.status == "done" else _NOTHING
            counts[_why(row)] += 1
        if not paths or any(len(its) != 2 * len(paths) for its in outputs):
            return None
        numbers = sizes + times
        for its in outputs:
            numbers += its
        both = {why: (count, files[why]) for why, count in counts.items()}
        return Span(paths[0], None, len(paths), self._digest(paths, numbers), both)

    def _place_of(self, row: Row) -> int | None:
        """The number of the place whose output a row has as it should be; None where it has none so.

        Stages may be called otherwise than when the row was written: then its target says whose it is.
        """
        if row.status == "intended" or row.at_work:
            return None
        named = self._by_stage.get(row.stage)
        if named is not None and _is_settled(row, self._places[named]):
            return named
        return next((number for number, place in enumerate(self._places) if _is_settled(row, place)), None)

    def _digest(self, paths: list[bytes], numbers: list[int]) -> bytes:
        digest = hashlib.blake2b(self._tree, digest_size=16)
        digest.update(b"\0".join(paths))
        try:
            digest.update(array("q", numbers))
        except OverflowError:  # a time past the year 2262, which the ledger keeps as it can
            digest.update(array("q", map(kept_time, numbers)))
        return digest.digest()


def _why(row: Row) -> str:
    return "up to date" if row.status == "done" else planned_reason("up-to-date", f"skipped: {row.reason}")


def _is_settled(row: Row, place: Place) -> bool:
    """Whether what a row has is the output of a place, by its recipe."""
    if row.recipe != place.recipe:
        return False
    try:
        return row.target == place.template.key(place.template.fill(row.source))
    except FileFailure:
        return False


def _stats(template: Template, sources: Sequence[bytes]) -> list[int]:
    """What stat says of the outputs of one stage: size and time of each.

    Their folders are kept open, which halves its cost; to list them as well would only add to it.
    """
    numbers: list[int] = []
    folder, fd = b"", -1
    try:
        for source in sources:
            place, name = template.fill_apart(source)
            if place != folder:
                folder, fd = place, _opened(place, fd)
            try:
                found = os.stat(name, dir_fd=fd) if fd >= 0 else None
            except OSError:
                found = None
            if found and found.st_mode & _TYPE == stat.S_IFREG:
                numbers += found.st_size, found.st_mtime_ns
            else:
                numbers += _NOTHING
    finally:
        _opened(b"", fd)
    return numbers


def _opened(folder: bytes, before: int) -> int:
    """The descriptor of a folder, -1 of one that cannot be opened; the one before it is closed."""
    if before >= 0:
        os.close(before)
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1
