"""The interface to the place where files lie; today the local file systems are the only such place.

A store is chosen once for each root, by `store_of`, and handed down from there. It is never called file by file, but
once for a root (`walk`, `read`, `claim`), a run (`put`), or a span of about a thousand sources (`stat_many`), and
returns the object or the numbers with which its caller goes through the files. So no caller needs to know whether files
are remote, and files on a local disk cost no more than without it.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from pipeline.files.atomic import Committer
from pipeline.files.template import Template

if TYPE_CHECKING:
    from pipeline.files.ownership import Owner
    from pipeline.files.walk import Walk

NO_FILE_STAT = -1
"""The number in place of the size and the time where there is no regular file."""

# The bits of a mode that say what it is the mode of.
_TYPE = 0o170000


class Store(Protocol):
    """A place where files lie. Paths are absolute, in bytes."""

    def walk(
        self, root: bytes, include: Sequence[str] = (), exclude: Sequence[str] = (), without: Collection[bytes] = ()
    ) -> Walk:
        """Return the walk over the sources below a root, in byte order of their relative paths.

        Args:
            root: The input root.
            include: gitignore-style patterns, of which a source must match one; none means every file.
            exclude: gitignore-style patterns of files and folders to leave out.
            without: The folders that are not entered.
        """

    def read(self, root: bytes) -> str:
        """Return the folder, ending in "/", below which a worker opens each source by its relative path."""

    def put(self, run: str, roots: Sequence[bytes]) -> Committer:
        """Return the committer of a run's outputs below these claimed roots."""

    def stat_many(self, template: Template, sources: Sequence[bytes]) -> list[int]:
        """Return the sizes of the outputs of these sources, and after them their modification times in nanoseconds.

        Args:
            template: The template of the stage's outputs.
            sources: Paths relative to the input root, in their order.

        Returns:
            Twice as many numbers as sources; `NO_FILE_STAT` for an output that is not there.
        """

    def stat_below(self, folder: bytes, paths: Sequence[bytes]) -> list[int]:
        """Return the sizes and then the times of outputs as `stat_many` does, by their paths below a folder.

        Args:
            folder: The absolute folder.
            paths: Each begins with a slash, unless the folder ends in one.
        """

    def remove(self, path: bytes) -> None:
        """Remove an output. Raises OSError."""

    def claim(
        self,
        root: bytes,
        owner: Owner,
        run: int | None = None,
        run_name: str = "",
        links: Mapping[str, str] | None = None,
    ) -> None:
        """Write the owner, the run and the links through which it may write into the owner file of an output folder.

        The folder is made where there is none.
        """


class LocalStore:
    """The file systems of this machine."""

    put = staticmethod(Committer)
    remove = staticmethod(os.unlink)

    def walk(
        self, root: bytes, include: Sequence[str] = (), exclude: Sequence[str] = (), without: Collection[bytes] = ()
    ) -> Walk:
        """Return the walk over a folder and those below it."""
        from pipeline.files.walk import Walk  # a worker never walks

        return Walk(root, include, exclude, without)

    def read(self, root: bytes) -> str:
        """Return the root itself, since local files are opened where they lie."""
        return os.path.join(os.fsdecode(root), "")

    def stat_many(self, template: Template, sources: Sequence[bytes]) -> list[int]:
        """Return the sizes of outputs and then their times, in the form of `Store.stat_many`."""
        split = template.folder_and_name
        if split is None:
            filled = map(template.fill, sources)
            return _stat_in_folders(path.rpartition(b"/")[::2] for path in filled)
        if not split.keeps_name:
            return _stat_in_folders(map(template.fill_folder_and_name, sources))
        return _stat_in_folders(_beside_each_other(template, sources))

    def stat_below(self, folder: bytes, paths: Sequence[bytes]) -> list[int]:
        """Return the sizes and then the times of outputs, in the form of `Store.stat_below`."""
        return _stat_in_folders((folder + above, name) for above, _, name in (each.rpartition(b"/") for each in paths))

    def claim(
        self,
        root: bytes,
        owner: Owner,
        run: int | None = None,
        run_name: str = "",
        links: Mapping[str, str] | None = None,
    ) -> None:
        """Write the owner file into an output folder. Raises EnvironmentFailure."""
        from pipeline.files.ownership import claim  # a worker never claims

        claim(Path(os.fsdecode(root)), owner, run, run_name, links)


def _beside_each_other(template: Template, sources: Sequence[bytes]) -> Iterator[tuple[bytes, bytes]]:
    """Yield the folder and the name of outputs that keep their sources' names."""
    before, folder = b"/", b""
    for source in sources:
        above, _, name = source.rpartition(b"/")
        if above != before:
            before = above
            folder, name = template.fill_folder_and_name(source)
        yield folder, name


def _stat_in_folders(places: Iterable[tuple[bytes, bytes]]) -> list[int]:
    """Return the sizes and then the times of files, each given by its folder and its name.

    The folder is kept open for those that come together, which halves the cost; listing it would only add to it.
    """
    sizes, times = list[int](), list[int]()
    stat_of, regular = os.stat, stat.S_IFREG
    before, fd = b"", -1
    try:
        for folder, name in places:
            if folder != before:
                before, fd = folder, _open_folder(folder, fd)
            try:
                found = stat_of(name, dir_fd=fd) if fd >= 0 else None
            except OSError:
                found = None
            if found is not None and found.st_mode & _TYPE == regular:
                sizes.append(found.st_size)
                times.append(found.st_mtime_ns)
            else:
                sizes.append(NO_FILE_STAT)
                times.append(NO_FILE_STAT)
    finally:
        if fd >= 0:
            os.close(fd)
    return sizes + times


def _open_folder(folder: bytes, before: int) -> int:
    """Open a folder and close the descriptor of the one before it; -1 for one that cannot be opened."""
    if before >= 0:
        os.close(before)
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return -1


_LOCAL = LocalStore()


def store_of(*roots: bytes) -> Store:
    """Return the store in which these roots lie: an input root, or the output folders of one pipeline."""
    return _LOCAL
