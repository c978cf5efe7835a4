"""The files beside the ledger: its checksum (the seal), its log, its last good copy, and its writer's marker."""

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
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pipeline.ledger.ledger import Ledger

# SQLite's write-ahead log: a header, then frames of a header and a page each.
LOG_HEADER_BYTES, _FRAME_HEADER_BYTES, _PAGE_BYTES = 32, 24, 4096
FRAME_BYTES = _FRAME_HEADER_BYTES + _PAGE_BYTES
# Hex digits of the digest in a copy's name.
_DIGITS = 32
_CHUNK_BYTES = 1 << 26
# In place of a digest, of a file that SQLite could not use.
_SPOILT = "spoilt"


@dataclass(frozen=True)
class Seal:
    """Size and checksum of the ledger's file at the end of its last writer."""

    size_bytes: int
    digest: str
    """The SHA-256 in hex; empty while the file is being changed, so that a killed run leaves it unsealed."""
    at: float
    """When the file was sealed, in seconds since 1970."""


def digest_of(file: Path) -> str:
    """Return the SHA-256 of a file, of the digests at hand the fastest: 0.1 s for 100 MB."""
    with open(file, "rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _seal_file(file: Path) -> Path:
    return file.with_suffix(".seal")


def read_seal(file: Path) -> Seal | None:
    """Return the seal of a ledger's file; None if there is none, or it is damaged itself."""
    try:
        text, _, check = _seal_file(file).read_bytes().rpartition(b"\n")
        return Seal(**json.loads(text)) if text and check == b"%08x" % zlib.crc32(text) else None
    except (OSError, ValueError, TypeError):
        return None


def put_seal(file: Path) -> Seal:
    """Write the seal of a file as it is."""
    return _put(file, Seal(file.stat().st_size, digest_of(file), time.time()))


def lift_seal(file: Path) -> None:
    """Mark a file as being changed, on disk, before it is."""
    seal = read_seal(file)
    if seal is None or seal.digest not in ("", _SPOILT):
        try:
            _put(file, Seal(0, "", seal.at if seal else time.time()))
        except OSError:  # such as a full disk, which lets us remove it still
            _seal_file(file).unlink(missing_ok=True)


def spoil_seal(file: Path) -> None:
    """Mark a file as damaged, whatever its contents."""
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
    """Return whether a file is as it was when it was sealed."""
    return file.stat().st_size == seal.size_bytes and digest_of(file) == seal.digest


# -- the log -----------------------------------------------------------------------------------------------------------


def bring_in_log(ledger: Ledger, how: str) -> int:
    """Run a WAL checkpoint, and return the number of whole frames in the log."""
    return int(ledger._connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[1])


def log_of(file: Path) -> Path:
    """Return the path of the write-ahead log of a ledger's file."""
    return file.with_name(f"{file.name}-wal")


def size_of(file: Path) -> int:
    """Return the size of a file in bytes; 0 if there is none."""
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


# -- the good copy -----------------------------------------------------------------------------------------------------


def keep_copy(file: Path, seal: Seal) -> None:
    """Copy a sealed file, and delete the copies before."""
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
    """Return the newest copy whose contents match the digest in its name; None if there is none."""
    for copy in _copies(file):
        with contextlib.suppress(OSError):
            if digest_of(copy)[:_DIGITS] == copy.stem.rpartition("-")[2]:
                return copy
    return None


def has_copy(file: Path) -> bool:
    """Return whether there is a copy, whole or not."""
    return bool(_copies(file))


def _copies(file: Path) -> list[Path]:
    """Return the copies of a file, the newest first."""
    found = file.parent.glob(f"{file.stem}-good-*{file.suffix}")
    return sorted(found, key=lambda each: each.stat().st_mtime_ns, reverse=True)


def copy_file(file: Path, place: Path) -> None:
    """Copy a file and sync the copy; on file systems that can, both share their blocks."""
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
    """Sync a folder, and so the names in it."""
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
    """The marker of a writer that did not end in order."""

    since: float
    """When the writer began, in seconds since 1970."""
    synced: float
    """The time before which all outputs are on disk, in seconds since 1970."""
    boot: str
    log_bytes: int
    """The size of the ledger's log at the last commit."""

    @property
    def lost_power(self) -> bool:
        """Whether the machine has been restarted since."""
        return self.boot != boot_id()


def boot_id() -> str:
    """Return the id of this start of the machine; empty if the kernel does not tell."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def marker_of(file: Path) -> Path:
    """Return the path of the marker of a ledger's file."""
    return file.with_suffix(".open")


def read_marker(file: Path) -> UncleanExit | None:
    """Return what the last writer left; None if it ended in order, or its marker cannot be read."""
    try:
        return UncleanExit(**json.loads(marker_of(file).read_bytes()))
    except (OSError, ValueError, TypeError):
        return None


class Marker:
    """A file that says how far a writer has come; it also syncs what the writer makes, every few seconds."""

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
        """Note a commit of the ledger. Raises OSError if an earlier sync has failed."""
        self._write()
        if self._syncing is not None and not self._syncing.is_alive():
            self._end_sync()
        if self._syncing is None and time.monotonic() >= self._next_sync:
            self._next_sync = time.monotonic() + SYNC_EVERY_S
            self._syncing = threading.Thread(target=self._sync, args=(time.time(),), daemon=True)
            self._syncing.start()

    def settling(self) -> None:
        """Note that the log is about to be truncated, which is then no loss."""
        self._write(log_bytes=0)

    def sync(self) -> None:
        """Sync all that was made. Raises OSError."""
        if self._syncing is not None:
            self._syncing.join()
            self._end_sync()
        self._sync(time.time())
        self._end_sync()

    def close(self, *, in_order: bool) -> None:
        """Remove the marker, or leave it for the next writer if this one did not end in order."""
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
    """Sync the file systems of some folders. Raises OSError."""
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
