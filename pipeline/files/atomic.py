"""Commits outputs: an output is visible whole or not at all.

An output is written to a temporary in the target's own folder and renamed over the target when it is complete, so that
no reader ever sees half a file under its final name. Its digest is taken during the writing, for `verify`.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Sequence
from copy import copy
from pathlib import Path
from typing import BinaryIO

from pipeline.errors import EnvironmentFailure, FileFailure
from pipeline.files import hashlib
from pipeline.files.file_system import WRITING, blame_machine, open_regular
from pipeline.files.permissions import Permissions, current_umask, has_access_list, has_default_list
from pipeline.files.template import OWNER_FILE
from pipeline.records import NamedTuple
from pipeline.text import NO_FILE, shown

TEMPORARY_PREFIX = b".filemill-"

# How a file system says that it has no permissions, such as FAT.
_NO_MODES = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
# Bytes of a digest: that two contents share one is never seen.
_DIGEST_SIZE = 16

Check = Callable[[], None]
"""Function that is called before an output gets its name, and raises to prevent that."""
GiveName = Callable[[bytes, bytes], None]
"""Function that renames a complete temporary to its target."""


class Committed(NamedTuple):
    """Size, modification time and digest of a committed output."""

    size_bytes: int
    mtime_ns: int
    digest: bytes


def temporary_for(target: bytes, run: str) -> bytes:
    """Return the name under which a run writes a target before it is complete; its length is bounded."""
    folder, _, name = target.rpartition(b"/")
    digest = hashlib.blake2b(name, digest_size=8).hexdigest()
    return b"%s/%s%s-%s" % (folder, TEMPORARY_PREFIX, digest.encode(), run.encode())


def run_of(temporary: bytes, *, whole: bool = False) -> str:
    """Return the id of the run that a temporary is named for; if `whole`, in the form of `run_apart`."""
    run = temporary[len(TEMPORARY_PREFIX) :].partition(b"-")[2]
    return os.fsdecode(run if whole else run.partition(b".")[0])


def run_apart(run: str, source: bytes) -> str:
    """Return a run's id for the temporaries of a source whose targets other sources may share."""
    return f"{run}.{hashlib.blake2b(source, digest_size=8).hexdigest()}"


_ANY = Permissions()


class _Modes(NamedTuple):
    """The modes of a new file with certain permissions in a certain kind of folder."""

    at_creation: int
    wanted: int | None
    """The mode that the file must have, whatever umask a stage has set; None where its folder decides."""


class _FolderKind:
    """A kind of output folders, by what they give to new files."""

    def __init__(self, has_default_list: bool, group: int | None, own_group: int, umask: int) -> None:
        self._has_default_list = has_default_list
        """True if an access control list decides about the permissions of new files, and not the umask."""
        self.group = group
        """The group of new files; None if it is that of the process, `own_group`."""
        self._group_of_files = own_group if group is None else group
        self._umask = umask
        self._modes: dict[Permissions, _Modes] = {}

    def modes(self, permissions: Permissions) -> _Modes:
        """Return the modes of a new file; there are few permissions among many files."""
        found = self._modes.get(permissions)
        if found is None:
            bits = permissions.of_group(self._group_of_files).bits
            decided = None if self._has_default_list else bits & ~self._umask
            found = self._modes[permissions] = _Modes(bits, bits if permissions.is_exact else decided)
        return found


class Committer:
    """Commits the outputs of one run from one process."""

    def __init__(self, run: str, claimed: Sequence[bytes] = ()) -> None:
        self._run = run
        self._claimed = claimed
        self._umask, self._group = current_umask(), os.getegid()
        self._folders: dict[bytes, _FolderKind] = {}
        self._kinds: dict[tuple[bool, int | None], _FolderKind] = {}

    def apart(self, source: bytes) -> Committer:
        """Return a committer whose temporaries no other source shares, since two sources may make the same part."""
        other = copy(self)
        other._run = run_apart(self._run, source)
        return other

    def put(
        self,
        target: bytes,
        data: bytes,
        check: Check = lambda: None,
        name: GiveName | None = None,
        permissions: Permissions = _ANY,
    ) -> Committed:
        """Commit bytes; `name` renames the complete file."""
        temporary, committed = self.write_temporary(target, data, permissions)
        try:
            check()
            (name or give_name)(temporary, target)
        except BaseException:
            discard(temporary)
            raise
        return committed

    def write_temporary(self, target: bytes, data: bytes, permissions: Permissions = _ANY) -> tuple[bytes, Committed]:
        """Write an output that has not got its name yet; return the path of the temporary, and its record."""
        temporary = temporary_for(target, self._run)
        fd, mode = self._create(temporary, permissions)
        try:
            try:
                _write_all(fd, data)
                found = os.fstat(fd)
                if mode is not None and mode != found.st_mode & 0o777:
                    _set_mode(fd, mode, permissions)
            finally:
                os.close(fd)
        except BaseException:
            discard(temporary)
            raise
        digest = hashlib.blake2b(data, digest_size=_DIGEST_SIZE).digest()
        return temporary, Committed(found.st_size, found.st_mtime_ns, digest)

    def write(
        self,
        target: bytes,
        write: Callable[[BinaryIO], None],
        check: Check = lambda: None,
        name: GiveName | None = None,
        permissions: Permissions = _ANY,
    ) -> Committed:
        """Commit the file that `write` writes to."""
        temporary = temporary_for(target, self._run)
        fd, mode = self._create(temporary, permissions)
        file = open(fd, "wb")
        try:
            with file:
                write(file)
                file.flush()
                if mode is not None:
                    _set_mode(file.fileno(), mode, permissions)
            return _reveal(temporary, target, check, name or give_name)
        except BaseException:
            discard(temporary)
            raise

    def move(
        self,
        path: Path,
        target: bytes,
        check: Check = lambda: None,
        name: GiveName | None = None,
        permissions: Permissions = _ANY,
    ) -> Committed | None:
        """Commit a file by renaming it; return None where it must be copied instead.

        It must be copied if it lies on another device, has a second hard link, which may be the source, or where access
        control lists or the group of the folder would be others than those of a new file.
        """
        temporary = temporary_for(target, self._run)
        folder, found = self._folder(os.path.dirname(target)), os.lstat(path)
        mode = folder.modes(permissions).wanted
        if found.st_nlink > 1 or mode is None or has_access_list(os.fspath(path)):
            return None
        try:
            if folder.group not in (None, found.st_gid):
                os.chown(path, -1, folder.group)
            # A scratch file often comes from mkstemp, which lets nobody else read it.
            os.chmod(path, mode)
            os.rename(path, temporary)
        except OSError:
            return None
        try:
            return _reveal(temporary, target, check, name or give_name)
        except BaseException:
            discard(temporary)
            raise

    def blame(self, error: BaseException, target: bytes) -> BaseException:
        """Return why an output was not committed: `error`, or that its folder was lost in the midst of it."""
        if isinstance(error, FileNotFoundError):
            try:
                self._refuse_strange(os.path.dirname(target))
            except (EnvironmentFailure, FileFailure) as lost:
                return lost
        return blame_machine(error, target, WRITING)

    def _create(self, temporary: bytes, permissions: Permissions) -> tuple[int, int | None]:
        """Create a temporary, and its folder if there is none; return its descriptor, and the mode that it must get."""
        folder = temporary[: temporary.rindex(b"/")]
        kind = self._folders.get(folder) or self._folder(folder)
        at_creation, wanted = kind.modes(permissions)
        try:
            return os.open(temporary, _NEW, at_creation), wanted
        except FileNotFoundError:  # someone removed the folder that we had made
            del self._folders[folder]
            at_creation, wanted = self._folder(folder).modes(permissions)
        except FileExistsError:  # this run's own, of a worker that died with it
            os.unlink(temporary)
        return os.open(temporary, _NEW, at_creation), wanted

    def _folder(self, path: bytes) -> _FolderKind:
        """Return the kind of a folder of outputs, which is made at the first call if there is none."""
        kind = self._folders.get(path)
        if kind is None:
            self._refuse_strange(path)
            _make_folder(path)
            self._refuse_strange(path)
            kind = self._folders[path] = self._kind_of(path)
        return kind

    def _kind_of(self, path: bytes) -> _FolderKind:
        """Return the kind of a folder; the one object for all of a kind, since there may be very many folders."""
        found = os.stat(path)
        group = found.st_gid if found.st_mode & stat.S_ISGID else None
        key = has_default_list(path), group
        if (kind := self._kinds.get(key)) is None:
            kind = self._kinds[key] = _FolderKind(*key, self._group, self._umask)
        return kind

    def _refuse_strange(self, path: bytes) -> None:
        """Raise an error where an output folder is gone, or a link that the run does not know leads out of it."""
        around = [each for each in self._claimed if os.path.join(path, b"").startswith(os.path.join(each, b""))]
        for root in around:
            refuse_lost(root)
        if around and os.path.realpath(path) != path:
            from pipeline.files.links import refuse_unlisted  # few have links there
            from pipeline.files.ownership import listed_links

            root = max(around, key=len)
            refuse_unlisted(path, root, listed_links(root))


def _reveal(temporary: bytes, target: bytes, check: Check, name: GiveName) -> Committed:
    """Rename a complete file to its target, and describe it."""
    found, digest = os.stat(temporary), digest_of(temporary)
    check()
    name(temporary, target)
    return Committed(found.st_size, found.st_mtime_ns, digest)


def _make_folder(path: bytes) -> None:
    """Make a folder of outputs with those above it. Raises EnvironmentFailure, FileFailure where something is there."""
    try:
        os.makedirs(path, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        there = path
        while not os.path.lexists(there):
            there = os.path.dirname(there)
        if os.path.islink(there) and not os.path.exists(there):
            leads = f"{shown(there)} is a link to {shown(os.readlink(there))}, which is not there"
            raise EnvironmentFailure(f"{leads}; is its disk mounted?") from error
        raise FileFailure(f"{shown(there)} is a file, and so no folder for outputs can be made there") from error


def refuse_lost(folder: bytes) -> None:
    """Raise EnvironmentFailure where an output folder has lost the owner file that the run wrote at its start."""
    if not os.path.lexists(os.path.join(folder, os.fsencode(OWNER_FILE))):
        text = f"the output folder {shown(folder)} was removed or unmounted during the run"
        raise EnvironmentFailure(f"{text}: there is no {OWNER_FILE} in it any more")


def digest_of(path: bytes) -> bytes:
    """Return the digest of a file's contents, as a commit takes it. Raises OSError."""
    with open_regular(path) as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=_DIGEST_SIZE)).digest()


def remove_temporaries(target: bytes, runs: Sequence[str]) -> None:
    """Remove the temporaries that unclean runs left beside a target."""
    for run in runs:
        discard(temporary_for(target, run))


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):  # a disk that is nearly full takes a part, and says so at the next one
        written += os.write(fd, memoryview(data)[written:])


def give_name(temporary: bytes, target: bytes) -> None:
    """Rename a complete file to its target. Raises FileFailure where that is a folder."""
    try:
        os.rename(temporary, target)
    except IsADirectoryError:
        raise FileFailure(f"{NO_FILE}: {shown(target)}") from None


def discard(path: bytes) -> None:
    """Remove a temporary that is not to get its name."""
    try:
        os.unlink(path)
    except OSError:  # there is none, or none that could be removed: no reason to hide what went wrong before
        pass


def _set_mode(fd: int, mode: int, permissions: Permissions) -> None:
    """Set the mode of a new file. Raises OSError; not if the file system has no modes and the pipeline says none."""
    try:
        os.fchmod(fd, mode)
    except OSError as error:
        if permissions.is_exact or error.errno not in _NO_MODES:
            raise
