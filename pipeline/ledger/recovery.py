"""Whether a ledger's file and its log are what was written, and what they lost: looked at before they are trusted."""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files.state_dir import without_locks
from pipeline.ledger.checkpoint import UncleanExit, is_sealed, lift_seal, marker_of, read_marker, read_seal
from pipeline.ledger.ledger import Ledger

# SQLite's write-ahead log: a header, then frames of a header and a page each.
LOG_HEADER_BYTES, _FRAME_HEADER_BYTES, _PAGE_BYTES = 32, 24, 4096
FRAME_BYTES = _FRAME_HEADER_BYTES + _PAGE_BYTES
# What SQLite says of a machine that does not let it work, rather than of what is in the file.
_MACHINE = ("BUSY", "LOCKED", "IOERR", "FULL", "CANTOPEN", "READONLY", "PERM", "NOMEM", "PROTOCOL", "NOLFS", "AUTH")


class Damaged(Exception):
    """The ledger's file is not what was written; the text goes on after its name."""


@dataclass(frozen=True)
class Loss:
    """What the ledger does not know, though it is whole."""

    since: float | None
    """From when on, in seconds since 1970; None where it knows nothing of before, and so of no output whose it is."""
    note: str
    is_power: bool = False
    """Whether the power was lost: then what is recorded of outputs may be newer than they are."""


def look(file: Path) -> tuple[Ledger, Loss | None]:
    """Open a ledger that can be trusted. Raises Damaged, EnvironmentFailure."""
    if not size_of(file) and not size_of(log_of(file)):
        raise Damaged("is gone")
    seal, left, log = read_seal(file), read_marker(file), log_of(file)
    if seal and seal.digest and not is_sealed(file, seal):
        raise Damaged("is not as it was left")
    is_unclean, logged_bytes = marker_of(file).exists() or size_of(log) > 0, _logged_bytes(log)
    if is_unclean:
        lift_seal(file)
    is_known = bool(seal and seal.digest)
    with _naming_damage(file, is_known=is_known):
        ledger = Ledger(file)
    try:
        with _naming_damage(file, is_known=is_known):
            if not is_known:
                _read_all(ledger)
            if not is_unclean:
                return ledger, None
            found_bytes = LOG_HEADER_BYTES + FRAME_BYTES * bring_in_log(ledger, "PASSIVE")
        logged_bytes = max(logged_bytes, left.log_bytes if left else 0)
        # Killed before it wrote its marker a writer has lost nothing.
        marker = marker_of(file)
        has_begun = size_of(marker) > 0 or (bool(seal and seal.digest) and not marker.exists())
        sealed_at = seal.at if seal and has_begun else None
        return ledger, _loss(sealed_at, left, logged_bytes, found_bytes)
    except BaseException:
        ledger.close()
        raise


@contextmanager
def _naming_damage(file: Path, *, is_known: bool) -> Iterator[None]:
    """Tell what is wrong with the file from what is wrong with the machine; of a known one, only if SQLite says so."""
    try:
        yield
    except (sqlite3.Error, EnvironmentFailure) as failure:
        error = failure if isinstance(failure, sqlite3.Error) else failure.__cause__
        if not isinstance(error, sqlite3.Error):
            raise
        if is_damage(error) or not (is_known or _name_of(error).startswith(_MACHINE)):
            raise Damaged(f"cannot be read ({error})") from None
        if _name_of(error).startswith(("IOERR_LOCK", "IOERR_RDLOCK", "PROTOCOL", "NOLFS")):
            raise without_locks(file.parent, error) from error
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def _loss(sealed_at: float | None, left: UncleanExit | None, logged_bytes: int, found_bytes: int) -> Loss | None:
    """What was lost with a writer that did not end in order."""
    if left is None and sealed_at is None:  # of an older version, which left neither
        return None
    if left and left.lost_power:
        when = moment(left.synced)
        text = f"the machine stopped during a run; what was made since {when} may not have reached the disk"
        return Loss(left.synced, f"{text} and is made anew", is_power=True)
    if left is None or found_bytes < logged_bytes:
        since = left.since if left else sealed_at or 0.0
        return Loss(since, f"the end of the ledger's log is lost; what was made since {moment(since)} is made anew")
    return None


def _logged_bytes(log: Path) -> int:
    """Up to where a log holds what was committed, going by its frames' headers alone, be their contents damaged."""
    try:
        data = log.read_bytes()
    except FileNotFoundError:
        return 0
    heads = [data[at : at + 16] for at in range(LOG_HEADER_BYTES, len(data) - FRAME_BYTES + 1, FRAME_BYTES)]
    salts = [head[8:16] for head in heads]
    own = max(set(salts), key=salts.count, default=b"")
    ends = [number for number, head in enumerate(heads, 1) if head[8:16] == own and head[4:8] != bytes(4)]
    return LOG_HEADER_BYTES + FRAME_BYTES * ends[-1] if ends else 0


def _read_all(ledger: Ledger) -> None:
    """Read every row of a ledger without a seal. Raises Damaged, sqlite3.Error."""
    connection = ledger._connection
    found = connection.execute("PRAGMA integrity_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(f"is damaged ({' '.join(str(found).split())})")
    wrong = "SELECT 1 FROM outputs WHERE status NOT IN ('intended', 'done', 'skipped') OR typeof(target) != 'blob'"
    if connection.execute(wrong).fetchone():
        raise Damaged("is damaged (an output of no known status)")
    try:
        for (table,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'").fetchall():
            for _ in connection.execute(f"SELECT * FROM {table}"):
                pass
        for statement in ("parts FROM recipes", "counts FROM spans", "value FROM facts", "said FROM decrees"):
            for (text,) in connection.execute(f"SELECT {statement}"):
                json.loads(text)
    except (ValueError, TypeError) as error:
        raise Damaged(f"is damaged ({error})") from None


def is_damage(error: sqlite3.Error) -> bool:
    """Whether SQLite says that the file is not what it wrote."""
    return _name_of(error).startswith(("CORRUPT", "NOTADB"))


def _name_of(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")


def bring_in_log(ledger: Ledger, how: str) -> int:
    """Checkpoint; gives how many whole frames there are in the log."""
    return int(ledger._connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[1])


def log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def size_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def moment(at: float) -> str:
    return time.strftime("%F %T", time.localtime(at))
