"""Walks the input root and yields the sources that the patterns select, in byte order of their paths."""

from __future__ import annotations

import errno
import os
import stat
from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence

from pipeline.files.file_system import OPENING
from pipeline.files.links import is_planted
from pipeline.files.template import OWNER_FILE
from pipeline.messages import Source
from pipeline.text import shown

# How many left-out files are remembered by name for each reason; the rest are only counted.
_NAMED = 20
# How many of them are printed if the user did not list them (with `--files-from`).
_NAMED_UNASKED = 3
# The reasons why a listed name is not an input; every other reason also holds for files that the walk finds.
NOT_THERE = "not there"
OUTSIDE = "outside the input root"
_LINKED_FOLDER = "a linked folder"
IN_LINKED = "in a linked folder"

_SPECIAL = {
    stat.S_IFIFO: "a FIFO",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}

# The sources of a folder are yielded in lists of up to this many, which costs less than one by one.
_SOURCES_PER_LIST = 500
_SLASH = ord("/")
# The mark at the end of a link's name, as a number: no name has a NUL in it.
_LINK = 0
# The one hidden name that is looked for: its folder holds outputs of a pipeline.
_OWNER_FILE = OWNER_FILE.encode()
# The bits of st_mode that hold the type of the file.
_TYPE = 0o170000

# What systems and storage devices put beside people's files: thumbnails, recycle bins, views of folders.
SYSTEM_NAMES = frozenset((
    b"@eaDir", b"@tmp", b"@Recycle", b"#recycle", b"#snapshot", b"lost+found", b"$RECYCLE.BIN",
    b"System Volume Information",
    b"Thumbs.db", b"thumbs.db", b"desktop.ini", b"Desktop.ini",
))  # fmt: skip
# The errors of stat for a name that does not exist.
_GONE = (errno.ENOENT, errno.ENOTDIR)

Match = Callable[[bytes], bool]

# What `Source(...)` does, in half of its time.
_made: Callable[[type[Source], tuple[bytes, int, int]], Source] = tuple.__new__


class Walk:
    """One walk over the input root. Iterate it once; it then has the files left out and the folders it could not list.

    Sources come in byte order of the whole relative path: a folder sorts as its name plus "/", as in git.
    """

    def __init__(
        self, root: bytes, include: Sequence[str] = (), exclude: Sequence[str] = (), without: Collection[bytes] = ()
    ) -> None:
        self._root = os.path.join(root, b"")
        self._included = matcher(include) if include else None
        self._excluded = matcher(exclude) if exclude else None
        self._without = _below(root, without)
        """The folders that are not entered (outputs and state), relative to the root and ending in "/"."""
        self._files = frozenset(each[:-1] for each in self._without if os.path.isfile(self._root + each[:-1]))
        """Those of them that are files, such as one of metrics."""
        self.left_out: Counter[str] = Counter()
        """The number of files left out for each reason."""
        self.left_out_names: list[tuple[bytes, str]] = []
        """The first files left out, each with its reason."""
        self.unlisted: list[tuple[bytes, str]] = []
        """The folders that are not known in full, each with the reason. They could not be listed, or not every file in
        them could be looked at, so that no file in them may be taken for removed.
        """
        self.owned: dict[bytes, str] = {}
        """The folders that are not entered, since they hold outputs of other pipelines, or of this one in former times,
        each with whose they are.

        The input root itself is entered, and so is all that lies in such a folder around it.
        """
        self._incomplete: set[bytes] = set()
        """The folders of which not every file could be looked at."""
        self.is_misled = False
        """True if a name was looked up that is no visible file below the root."""
        self._entered: tuple[bytes, str] = (b"", "")
        """The folder of the last name looked up, and the reason why the walk does not enter it; empty if it does."""

    def __iter__(self) -> Iterator[Source]:
        return self.within(b"", None)

    def within(self, first: bytes, after: bytes | None) -> Iterator[Source]:
        """Yield the sources from one path on, up to and without another; None where there is no end.

        Several such walks over parts of the root, one after the other, are one walk. Folders in which such a part ends
        are listed in full; no file outside the part is looked at.
        """
        folders = [self._entries(b"", first, after)]
        while folders:
            found = next(folders[-1], None)
            if found is None:
                folders.pop()
            elif isinstance(found, bytes):
                folders.append(self._entries(found, first, after))
            else:
                yield from found

    def _entries(self, folder: bytes, first: bytes, after: bytes | None) -> Iterator[bytes | list[Source]]:
        """Yield the sources of one folder in lists, and between them the paths of its folders, which end in "/".

        Only names are kept in memory, for folders of a million files. The folder is open while its files are looked at,
        since a name relative to it takes half the time of a path, and closed while a folder below is walked.
        """
        fd = -1
        files: list[Source] = []
        takes_all = self._included is None and self._excluded is None and not self._files
        try:
            for name in _names_within(self._names(folder), folder, first, after):
                path = folder + name
                if name[-1] == _SLASH:
                    if self._counts(path):
                        fd = _closed(fd)
                        yield files
                        files = []
                        yield path
                    continue
                if not (takes_all or self._takes(path)):
                    continue
                if fd < 0:
                    fd = os.open(self._root + folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
                if source := self._source_in(path, name, fd):
                    files.append(source)
                    if len(files) == _SOURCES_PER_LIST:
                        yield files
                        files = []
            yield files
        except OSError as error:
            yield files
            self._cannot_list(folder, error)
        finally:
            _closed(fd)

    def _source_in(self, path: bytes, name: bytes, folder_fd: int) -> Source | None:
        """Return the source of a name in an open folder; a regular file, the usual case, takes one call of stat."""
        try:
            found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
            if found.st_mode & _TYPE == stat.S_IFREG:
                return _made(Source, (path, found.st_size, found.st_mtime_ns))
        except ValueError:  # a link, with its mark
            path, name = path[:-1], name[:-1]
        except OSError:
            pass
        try:
            return self._source(path, name, folder_fd)
        except OSError as error:
            if error.errno not in _GONE:  # gone since it was listed is simply gone
                self.cannot_look_at(path, error)
            return None

    def _names(self, folder: bytes) -> list[bytes]:
        """Return the names in a folder, sorted; those of folders end in "/".

        Where patterns select files, the names of links end in a NUL, since one may be that of a folder.
        """
        marks_links = self._included is not None
        try:
            with os.scandir(self._root + folder) as entries:
                names = [
                    entry.name + b"/"
                    if entry.is_dir(follow_symlinks=False)
                    else entry.name + b"\0"
                    if marks_links and entry.is_symlink()
                    else entry.name
                    for entry in entries
                    if not (entry.name.startswith(b".") and not _is_owner_file(entry))
                    and entry.name not in SYSTEM_NAMES
                ]
        except OSError as error:
            self._cannot_list(folder, error)
            return []
        names.sort()
        at = bisect_left(names, _OWNER_FILE)
        if at < len(names) and names[at].rstrip(b"\0") == _OWNER_FILE:
            if folder:
                if folder not in self.owned:
                    self.owned[folder] = _whose(self._root + folder)
                    self.leave_out(folder, self.owned[folder])
                return []
            del names[at]
        return names

    def find_owned(self) -> None:
        """Find the folders that hold outputs of other pipelines, and look at no file."""
        folders = [b""]
        while folders:
            folder = folders.pop()
            below = (folder + name for name in self._names(folder) if name[-1] == _SLASH)
            folders += [each for each in below if self._counts(each)]

    def _cannot_list(self, folder: bytes, error: OSError) -> None:
        if error.errno in OPENING:
            raise error  # nothing is wrong with the folder
        if error.errno != errno.ENOENT or not folder:
            self.unlisted.append((folder, error.strerror or str(error)))

    def cannot_look_at(self, path: bytes, error: OSError) -> None:
        """Record that the folder of a file is not known in full, with the reason of the first such file."""
        at = path.rfind(b"/") + 1
        if path[:at] not in self._incomplete:
            self._incomplete.add(path[:at])
            self.unlisted.append((path[:at], f"{shown(path[at:])}: {error.strerror or error}"))

    def describe_unlisted(self) -> list[str]:
        """Return one line for each folder that is not known in full."""
        return [
            f"folder {shown(folder) or '.'} cannot be listed: {why}; what is in it was left alone"
            for folder, why in self.unlisted
        ]

    def _counts(self, path: bytes) -> bool:
        if self._excluded is not None and self._excluded(path):
            return False
        if path.endswith(b"/"):
            return path not in self._without
        return path not in self._files and (self._included is None or self._included(path))

    def look_up(self, path: bytes) -> Source | None:
        """Return the source of a path that the walk would yield; any other is left out with its reason."""
        folder = path[: path.rfind(b"/") + 1]
        if folder != self._entered[0]:
            self._entered = (folder, self._why_not_entered(folder))
        why = self._entered[1] or self._why_not(path)
        if not why:
            try:
                return self._source(path, self._root + path)
            except OSError as error:
                why = NOT_THERE if error.errno in (*_GONE, errno.ENAMETOOLONG) else error.strerror or str(error)
                self.is_misled = True
        self.leave_out(path, why)
        return None

    def why_left_out(self, path: bytes) -> str:
        """Return why a path cannot be one of a source; empty if it can."""
        return self._why_not_entered(path[: path.rfind(b"/") + 1]) or self._why_not(path)

    def _why_not_entered(self, folder: bytes) -> str:
        at = folder.find(b"/") + 1
        while at:
            if why := self._why_not(folder[:at]):
                return why
            if os.path.islink(self._root + folder[: at - 1]):
                return IN_LINKED
            if os.path.isfile(self._root + folder[:at] + _OWNER_FILE):
                return _whose(self._root + folder[:at])
            at = folder.find(b"/", at) + 1
        return ""

    def _why_not(self, path: bytes) -> str:
        if path.startswith(b".") or b"/." in path:
            return "hidden"
        if not SYSTEM_NAMES.isdisjoint(path.split(b"/")):
            return "a file of the system's"
        return "" if self._counts(path) else "not among the inputs"

    def _source(self, path: bytes, name: bytes, folder_fd: int | None = None) -> Source | None:
        """Return the source of a path that is a regular file; `name` is relative to the open folder. Raises OSError."""
        found = os.stat(name, dir_fd=folder_fd, follow_symlinks=False)
        is_link = stat.S_ISLNK(found.st_mode)
        if is_link:
            folder = os.fstat(folder_fd) if folder_fd is not None else os.stat(os.path.dirname(self._root + path))
            if is_planted(found, folder):
                self.leave_out(path, "another user's link in a folder that others can write to")
                return None
            try:
                found = os.stat(name, dir_fd=folder_fd)
            except OSError as error:
                self.leave_out(path, "a symlink loop" if error.errno == errno.ELOOP else "a dangling link")
                return None
        if stat.S_ISREG(found.st_mode):
            return Source(path, found.st_size, found.st_mtime_ns)
        kind = stat.S_IFMT(found.st_mode)
        why = _LINKED_FOLDER if is_link else "a folder"
        self.leave_out(path, why if kind == stat.S_IFDIR else _SPECIAL.get(kind, "not a regular file"))
        return None

    def _takes(self, path: bytes) -> bool:
        """Return whether a file counts by its name; a marked link to a folder whose name does not is left out."""
        if path[-1] != _LINK or self._counts(path[:-1]):
            return path[-1] == _LINK or self._counts(path)
        if self._counts(path[:-1] + b"/") and os.path.isdir(self._root + path[:-1]):
            self.leave_out(path[:-1], _LINKED_FOLDER)
        return False

    def describe_left_out(self) -> list[str]:
        """Return one line for each reason for which files were left out."""
        lines = []
        for reason, count in self.left_out.items():
            most = _NAMED if reason in (NOT_THERE, OUTSIDE) else _NAMED_UNASKED
            names = [shown(path) for path, each in self.left_out_names if each == reason][:most]
            more = f" and {count - len(names):,} more" if count > len(names) else ""
            lines.append(f"left out, {reason}: {', '.join(names)}{more}")
        return lines

    def leave_out(self, path: bytes, reason: str) -> None:
        """Record that a file is left out, with the reason."""
        self.left_out[reason] += 1
        if self.left_out[reason] <= _NAMED:
            self.left_out_names.append((path, reason))


def _names_within(names: list[bytes], folder: bytes, first: bytes, after: bytes | None) -> list[bytes]:
    """Return the sorted names in a folder of which any path within a part of the walk can begin."""
    begin, end = 0, len(names)
    if first.startswith(folder) and first != folder:
        begin = bisect_left(names, _first_component(first, folder))
    if after is not None and after.startswith(folder):
        component = _first_component(after, folder)
        end = (bisect_right if component.endswith(b"/") else bisect_left)(names, component)
    return names[begin:end] if (begin, end) != (0, len(names)) else names


def _first_component(path: bytes, folder: bytes) -> bytes:
    """Return the name that a path has in a folder above it, with a slash if it is that of a folder."""
    below = path[len(folder) :]
    return below[: below.find(b"/") + 1] or below


def _is_owner_file(entry: os.DirEntry[bytes]) -> bool:
    return entry.name == _OWNER_FILE and entry.is_file()


def _whose(folder: bytes) -> str:
    """Return the reason why a folder with an owner file is left out."""
    from pipeline.files.ownership import pipeline_of  # rarely needed

    pipeline = pipeline_of(folder)
    return f"outputs of pipeline {pipeline!r}" if pipeline else f"outputs of a pipeline, by a damaged {OWNER_FILE}"


def _closed(fd: int) -> int:
    """Close a descriptor unless it is -1; return -1."""
    if fd >= 0:
        os.close(fd)
    return -1


def _below(root: bytes, folders: Collection[bytes]) -> frozenset[bytes]:
    """Return the folders that lie below the root, relative to it, with links resolved on both sides."""
    real_root = os.path.join(os.path.realpath(root), b"")
    real = (os.path.join(os.path.realpath(each), b"") for each in folders)
    return frozenset(each[len(real_root) :] for each in real if each.startswith(real_root))


def matcher(patterns: Sequence[str]) -> Match:
    """Return a function that tells whether a relative path matches gitignore-style patterns, ignoring case."""
    from pathspec import GitIgnoreSpec

    spec = GitIgnoreSpec.from_lines([_one_case(pattern) for pattern in patterns])
    return lambda path: spec.match_file(_one_case(os.fsdecode(path)))


def pattern_problem(pattern: str) -> str:
    """Return what is wrong with a gitignore-style pattern; empty if nothing is."""
    from pathspec import GitIgnoreSpec

    try:
        GitIgnoreSpec.from_lines([pattern])
    except ValueError:
        return f"{pattern!r} is no gitignore pattern"
    return ""


def deciding(patterns: Sequence[str], path: bytes) -> str | None:
    """Return the pattern by which a path matches; None where it does not."""
    from pathspec import GitIgnoreSpec

    found = GitIgnoreSpec.from_lines([_one_case(each) for each in patterns]).check_file(_one_case(os.fsdecode(path)))
    return patterns[found.index] if found.include and found.index is not None else None


def _one_case(text: str) -> str:
    # A line end is the one character that "any" leaves out in pathspec's regular expressions.
    return text.lower().replace("\n", "\r")
