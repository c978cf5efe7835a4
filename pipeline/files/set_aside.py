"""Keeps files that may be the user's, or all that is left of theirs, in a folder of the state.

It keeps what outputs are about to replace, as links or copies, and what was made of sources that are gone since.
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from pipeline.files.atomic import GiveName, digest_of
from pipeline.files.file_system import open_regular

_CHUNK_BYTES = 1 << 20


class SetAside:
    """The files that one run has set aside, each under its path relative to the pipeline's folder."""

    def __init__(self, folder: Path, base: Path) -> None:
        self._folder = os.fsencode(folder)
        self._base = os.path.join(os.fsencode(base), b"")

    def guarding(self, digests: Collection[bytes], name: GiveName) -> Callable[[bytes, bytes], None]:
        """Return a function that names a temporary, after keeping a file there that has none of the digests."""

        def keep_and_name(temporary: bytes, target: bytes) -> None:
            if self._may_be_a_persons(target, digests, temporary):
                self._keep(target)
            name(temporary, target)

        return keep_and_name

    def _may_be_a_persons(self, target: bytes, digests: Collection[bytes], temporary: bytes) -> bool:
        try:
            found = os.lstat(target)
        except OSError:
            return False
        if not stat.S_ISREG(found.st_mode) or not found.st_size:
            return False
        digest = digest_of(target)
        return digest not in digests and digest != digest_of(temporary) and not _is_blank(target)

    def _keep(self, target: bytes) -> None:
        """Keep the file at a target. Raises OSError before anything is lost."""
        place = self._place_of(target)
        with suppress(FileExistsError):  # a retry of ours
            try:
                os.link(target, place)
            except FileExistsError:
                raise
            except OSError:  # another file system, or one without links
                shutil.copy2(target, place + b".new")  # half a copy would be taken for a whole one by a retry
                os.rename(place + b".new", place)

    def keep_made(self, file: bytes, source: bytes, suffix: bytes) -> None:
        """Move a file that was made of a source which is gone to that source's name, and its own suffix if it differs.

        Where a file has that name already, a number is added. Raises OSError before anything is lost.
        """
        place = self._place_of(source)
        if os.path.splitext(source)[1].lower() != suffix.lower():
            place += suffix
        stem, ending = os.path.splitext(place)
        numbers = count(2)
        while os.path.lexists(place):
            place = b"%s-%d%s" % (stem, next(numbers), ending)
        shutil.move(os.fsdecode(file), os.fsdecode(place))

    def _place_of(self, path: bytes) -> bytes:
        """Return the place where a file is kept, whose folder is made."""
        place = os.path.join(self._folder, path.removeprefix(self._base).lstrip(b"/"))
        os.makedirs(self._folder, 0o700, exist_ok=True)  # a file that was made of a private one is private too
        os.makedirs(os.path.dirname(place), exist_ok=True)
        return place

    def kept(self) -> Iterator[bytes]:
        """Yield the paths of the files set aside, relative to the pipeline's folder, in byte order."""
        found = (os.path.join(place, name) for place, _, names in os.walk(self._folder) for name in names)
        return (path[len(self._folder) + 1 :] for path in sorted(found))


def _is_blank(path: bytes) -> bool:
    """Return whether a file has nothing but zeros, as after a power cut."""
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                return False
    return True
