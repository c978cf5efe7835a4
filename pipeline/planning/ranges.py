"""Divides the walk into ranges of sources, and digests each with its outputs as they lie on disk.

Nothing here imports SQLite, so that who only asks whether anything has changed need not load it.
"""

from __future__ import annotations

import hashlib
import zlib
from array import array
from collections.abc import Iterable, Iterator, Sequence

from pipeline.files.store import store_of
from pipeline.files.template import Template
from pipeline.ledger.origins import kept_time
from pipeline.messages import Source
from pipeline.records import dataclass

# A range begins where the checksum of a path ends in ten zeros: after about a thousand files, and at the same ones
# whatever is added or removed elsewhere, so that a new file changes no range but its own.
_MASK = 0x3FF
# The format of what a digest covers; a range recorded in another format is compared file by file once.
_FORMAT = b"4 "


@dataclass(frozen=True)
class RangeOutput:
    """One output of the tree, with its stage, its template, and the number of its recipe."""

    stage: str
    template: Template
    recipe: int | None


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


class DiskDigests:
    """The digests of ranges for one tree of outputs; a change of any template or recipe changes all of them."""

    def __init__(self, outputs: Sequence[RangeOutput]) -> None:
        self.outputs = outputs
        self._stores = [store_of(output.template.folder) for output in outputs]
        # Without the stages' names: renaming a stage changes no output.
        tree = repr([(each.template.key(each.template.folder), each.template.pieces, each.recipe)
                     for each in outputs])  # fmt: skip
        self._tree = _FORMAT + tree.encode()

    def found(self, sources: Sequence[Source]) -> bytes:
        """Return the digest of a range by its files on disk."""
        paths, sizes, times = map(list, zip(*sources, strict=True))
        numbers = sizes + times
        for output, store in zip(self.outputs, self._stores, strict=True):
            numbers += store.stat_many(output.template, paths)
        return self.of(paths, numbers)

    def of(self, paths: list[bytes], numbers: list[int]) -> bytes:
        """Return the digest of sources, of whose sizes and times, and those of their outputs, these are the numbers."""
        digest = hashlib.blake2b(self._tree, digest_size=16)
        digest.update(b"\0".join(paths))
        try:
            digest.update(array("q", numbers))
        except OverflowError:  # a time past the year 2262, which the ledger cuts to what it can hold
            digest.update(array("q", map(kept_time, numbers)))
        return digest.digest()
