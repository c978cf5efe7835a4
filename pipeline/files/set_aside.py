"""Keeps files that may be the user's, or all that is left of theirs, in a folder of the state.

It keeps what outputs are about to replace, as links or copies, and what was made of sources that are gone since.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import count
from pathlib import Path

from pipeline.files.atomic import GiveName, digest_of
from pipeline.files.file_system import has_no_file, open_regular
from pipeline.files.removal import remove_tree

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
                import shutil  # here, as below: a run that sets nothing aside needs none

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
        try:
            import shutil

            shutil.move(os.fsdecode(file), os.fsdecode(place))
        except OSError:
            with suppress(OSError):  # half a copy
                os.unlink(place)
            raise

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


# -- scratch folders ---------------------------------------------------------------------------------------------------

# A link beside a scratch folder to the source of its job. If the source is gone, and so is the worker, what lies in the
# folder may be all that is left of it. A double slash separates the pipeline's folder from the name to keep it under.
_MARK = ".source"


def mark_scratch(folder: Path, base: Path, source: bytes) -> None:
    """Note the source of the job that has a scratch folder. Raises OSError."""
    base_bytes, path = os.path.join(os.fsencode(base), b""), source
    is_below = path.startswith(base_bytes)
    mark = os.fsencode(folder) + os.fsencode(_MARK)
    with suppress(FileNotFoundError):
        os.unlink(mark)
    os.symlink((base_bytes + b"/" + path[len(base_bytes) :]) if is_below else b"/" + path, mark)


def clear_scratch(folder: Path, set_aside: Path) -> None:
    """Remove the scratch folder of a job that has ended; if its source is gone, set aside what the job made of it.

    Raises OSError where that is not possible: then the folder has another name, by which the next run finds it.
    """
    mark = folder.with_name(folder.name + _MARK)
    try:
        source = os.readlink(os.fsencode(mark))
    except OSError:  # of a group, or nothing was written there
        source = b""
    if source and has_no_file(source) and not folder.is_symlink() and b"/../" not in source:
        base, _, _ = source.partition(b"//")
        keeper = SetAside(set_aside, Path(os.fsdecode(base or b"/")))
        try:
            for file in made_in(folder):
                keeper.keep_made(file, source.replace(b"//", b"/"), os.path.splitext(file)[1])
        except OSError:
            left = folder.with_name(f"{folder.name}-{time.time_ns()}")
            folder.rename(left)
            mark.rename(left.with_name(left.name + _MARK))
            raise
    remove_tree(folder)
    with suppress(OSError):
        mark.unlink()


def clear_scratch_folders(above: Path, set_aside: Path, prefix: str = "") -> bool:
    """Clear the scratch folders of jobs whose workers are gone, by a prefix of their names.

    Returns whether nothing is left to keep. Raises OSError if the folder `above` them cannot be listed.
    """
    is_clear = True
    for name in {each.removesuffix(_MARK) for each in os.listdir(above) if each.startswith(prefix)}:
        if name[:1].isdigit():
            try:
                clear_scratch(above / name, set_aside)
            except OSError:  # no room, perhaps; it stays for the run after this one
                is_clear = False
    return is_clear


def made_in(folder: Path) -> list[bytes]:
    """Return the paths of the regular files in a folder that are not empty, in byte order."""
    found = [os.path.join(above, name) for above, _, names in os.walk(os.fsencode(folder)) for name in names]
    return sorted(path for path in found if stat.S_ISREG((seen := os.lstat(path)).st_mode) and seen.st_size)


def _is_blank(path: bytes) -> bool:
    """Return whether a file has nothing but zeros, as after a power cut."""
    with open_regular(path) as file:
        while chunk := file.read(_CHUNK_BYTES):
            if chunk.count(0) != len(chunk):
                return False
    return True
