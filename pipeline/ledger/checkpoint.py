"""How far a writer of the ledger has come, the checksum of its file, and its good copy."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
import time
import zlib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

# Hex digits of the digest in a copy's name.
_DIGITS = 32
_CHUNK_BYTES = 1 << 26
# In place of a digest, of a file that SQLite could not use.
_SPOILT = "spoilt"


@dataclass(frozen=True)
class Seal:
    """What the ledger's file was when we left it."""

    size_bytes: int
    digest: str
    """Empty while the file is being changed: a run that is killed then leaves it unsealed."""
    at: float
    """When that was, in seconds since 1970."""


def digest_of(file: Path) -> str:
    """The digest of a file's contents; of those at hand the one that costs least, 0.1 s for 100 MB."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _seal_file(file: Path) -> Path:
    return file.with_suffix(".seal")


def read_seal(file: Path) -> Seal | None:
    """The seal of a ledger's file; None where there is none, or it is damaged itself."""
    try:
        text, _, check = _seal_file(file).read_bytes().rpartition(b"\n")
        return Seal(**json.loads(text)) if text and check == b"%08x" % zlib.crc32(text) else None
    except (OSError, ValueError, TypeError):
        return None


def put_seal(file: Path) -> Seal:
    """Seal the file as it is."""
    return _put(file, Seal(file.stat().st_size, digest_of(file), time.time()))


def lift_seal(file: Path) -> None:
    """Say that the file is about to be changed, which has to be known before it is, also after a power cut."""
    seal = read_seal(file)
    if seal is None or seal.digest not in ("", _SPOILT):
        try:
            _put(file, Seal(0, "", seal.at if seal else time.time()))
        except OSError:  # such as a full disk, which lets us remove it still
            _seal_file(file).unlink(missing_ok=True)


def spoil_seal(file: Path) -> None:
    """Say of a file that it is not to be trusted, whatever it looks like."""
    _put(file, Seal(0, _SPOILT, time.time()))


def _put(file: Path, seal: Seal) -> Seal:
    text = json.dumps(asdict(seal)).encode()
    place, new = _seal_file(file), file.with_suffix(".seal-new")
    with open(new, "wb") as opened:
        opened.write(text + b"\n%08x" % zlib.crc32(text))
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(place)
    sync_folder(file.parent)
    return seal


def is_sealed(file: Path, seal: Seal) -> bool:
    """Whether the file is as it was when it was sealed."""
    return file.stat().st_size == seal.size_bytes and digest_of(file) == seal.digest


# -- the good copy -----------------------------------------------------------------------------------------------------


def keep_copy(file: Path, seal: Seal) -> None:
    """Keep a copy of a sealed file as the last good one, in place of the one before."""
    place = file.with_name(f"{file.stem}-good-{seal.digest[:_DIGITS]}{file.suffix}")
    if not place.exists():
        new = file.with_name(f"{file.stem}-good.new")
        try:
            copy_file(file, new)
            new.replace(place)
        except OSError:
            # A disk without room for it has room for the one before.
            new.unlink(missing_ok=True)
            return
        sync_folder(file.parent)
    for old in _copies(file):
        if old != place:
            old.unlink(missing_ok=True)


def good_copy(file: Path) -> Path | None:
    """The last good copy, if there is one and it is whole."""
    for copy in _copies(file):
        with contextlib.suppress(OSError):
            if digest_of(copy)[:_DIGITS] == copy.stem.rpartition("-")[2]:
                return copy
    return None


def has_copy(file: Path) -> bool:
    """Whether there is a copy, whole or not."""
    return bool(_copies(file))


def _copies(file: Path) -> list[Path]:
    """The newest first."""
    found = file.parent.glob(f"{file.stem}-good-*{file.suffix}")
    return sorted(found, key=lambda each: each.stat().st_mtime_ns, reverse=True)


def copy_file(file: Path, place: Path) -> None:
    """Copy a file, and see it on the disk; where the file system can, both share their blocks."""
    with open(file, "rb") as source, open(place, "wb") as target:
        try:
            while os.copy_file_range(source.fileno(), target.fileno(), _CHUNK_BYTES):
                pass
        except OSError:  # not on every file system, nor from one to another
            target.truncate(0)
            os.lseek(target.fileno(), 0, os.SEEK_SET)
            os.lseek(source.fileno(), 0, os.SEEK_SET)
            while chunk := os.read(source.fileno(), 1 << 20):
                os.write(target.fileno(), chunk)
        os.fsync(target.fileno())


def sync_folder(folder: Path) -> None:
    """See the names in a folder on the disk."""
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


# Seconds between two syncs: what a power cut may cost, in work that is redone. docs/durability.md has the figures.
SYNC_EVERY_S = 5.0
_PADDED_BYTES = 256


@dataclass(frozen=True)
class UncleanExit:
    """What a writer that did not end in order has left said."""

    since: float
    """When it began, in seconds since 1970."""
    synced: float
    """All that was made before this moment is on the disk."""
    boot: str
    log_bytes: int
    """How long the ledger's log was at the last commit."""

    @property
    def lost_power(self) -> bool:
        """Whether the machine was started anew since."""
        return self.boot != boot_id()


def boot_id() -> str:
    """What tells one start of the machine from the next."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def marker_of(file: Path) -> Path:
    """Where the marker of a ledger's file lies."""
    return file.with_suffix(".open")


def read_marker(file: Path) -> UncleanExit | None:
    """What the last writer left said; None where it ended in order, or its marker cannot be read."""
    try:
        return UncleanExit(**json.loads(marker_of(file).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Marker:
    """Says of a writer at work how far it has come, and brings what it made to the disk now and then."""

    def __init__(self, file: Path, folders: Sequence[bytes]) -> None:
        self._log = f"{file}-wal"
        self._folders = folders
        self._since = self._synced = time.time()
        self._boot = boot_id()
        self._syncing: threading.Thread | None = None
        self._error: OSError | None = None
        self._next_sync = time.monotonic() + SYNC_EVERY_S
        self._file = marker_of(file)
        self._fd = os.open(self._file, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
        self._write()

    def committed(self) -> None:
        """The ledger has been committed. Raises OSError where the disk did not take what was written before."""
        self._write()
        if self._syncing is not None and not self._syncing.is_alive():
            self._end_sync()
        if self._syncing is None and time.monotonic() >= self._next_sync:
            self._next_sync = time.monotonic() + SYNC_EVERY_S
            self._syncing = threading.Thread(target=self._sync, args=(time.time(),), daemon=True)
            self._syncing.start()

    def settling(self) -> None:
        """The log is about to be brought into the ledger's file: that it gets shorter is no loss."""
        self._write(log_bytes=0)

    def sync(self) -> None:
        """Bring all that was made to the disk. Raises OSError."""
        if self._syncing is not None:
            self._syncing.join()
            self._end_sync()
        self._sync(time.time())
        self._end_sync()

    def close(self, *, in_order: bool) -> None:
        """Take the marker away, or leave it for the next writer; the ledger is closed."""
        if in_order:
            self._file.unlink(missing_ok=True)
        else:
            with suppress(OSError):
                self._write()
        os.close(self._fd)

    def _end_sync(self) -> None:
        self._syncing = None
        if self._error is not None:
            raise self._error

    def _sync(self, began: float) -> None:
        try:
            sync_file_systems(self._folders)
            self._synced = began
            self._write()
            os.fsync(self._fd)
        except OSError as error:
            self._error = error

    def _write(self, log_bytes: int | None = None) -> None:
        if log_bytes is None:
            try:
                log_bytes = os.stat(self._log).st_size
            except FileNotFoundError:
                log_bytes = 0
        said = UncleanExit(self._since, self._synced, self._boot, log_bytes)
        os.pwrite(self._fd, json.dumps(said.__dict__).ljust(_PADDED_BYTES).encode(), 0)


def sync_file_systems(folders: Sequence[bytes]) -> None:
    """Bring all that was written in the folders' file systems to their disks. Raises OSError."""
    import ctypes

    libc, seen = ctypes.CDLL(None, use_errno=True), set()
    for folder in folders:
        try:
            fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except OSError:  # nothing was made there, or nothing is there any more
            continue
        try:
            device = os.fstat(fd).st_dev
            if device not in seen and libc.syncfs(fd):
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number), os.fsdecode(folder))
            seen.add(device)
        finally:
            os.close(fd)
