"""The seal of the ledger's file, by which damage is noticed, and the good copy that is kept beside it.

ledger.sqlite               changed at checkpoints only; between them what is new is in ledger.sqlite-wal
ledger.seal                 its size and digest as we left it
ledger-good-DIGEST.sqlite   the last good copy, which carries its own seal in its name
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
import zlib
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
