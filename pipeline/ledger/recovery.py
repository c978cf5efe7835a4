"""Checks whether a ledger and its log are what was written, and replaces what is damaged by the last good copy."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files.atomic import TEMPORARY_PREFIX, run_of
from pipeline.files.state_dir import State, without_locks
from pipeline.ledger.checkpoint import (
    FRAME_BYTES,
    LOG_HEADER_BYTES,
    UncleanExit,
    bring_in_log,
    copy_file,
    good_copy,
    is_sealed,
    lift_seal,
    log_of,
    marker_of,
    read_marker,
    read_seal,
    size_of,
)
from pipeline.ledger.ledger import Ledger, UncertainPeriod

# Damaged files that are kept, the newest.
_KEPT_DAMAGED = 2
# Seconds by which two clocks, that of the files and ours, may differ.
_SLACK_S = 2.0
# What SQLite says of a machine that does not let it work, rather than of what is in the file.
_MACHINE = ("BUSY", "LOCKED", "IOERR", "FULL", "CANTOPEN", "READONLY", "PERM", "NOMEM", "PROTOCOL", "NOLFS", "AUTH")


class Damaged(Exception):
    """The ledger's file is not what was written; the text follows the file's name in a sentence."""


@dataclass(frozen=True)
class Loss:
    """The gaps in the knowledge of a ledger that is whole."""

    since: float | None
    """When that begins, in seconds since 1970; None if the ledger knows of no output at all."""
    note: str
    is_power: bool = False
    """Whether the power was lost, so that files may be older than what is recorded of them."""


def open_checked(file: Path) -> tuple[Ledger, Loss | None]:
    """Open a ledger after checking it, and return what it lost. Raises Damaged, EnvironmentFailure."""
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
    """Raise Damaged for a damaged file, and EnvironmentFailure for a failing machine.

    A file that `is_known` by its seal counts as damaged only if SQLite says so.
    """
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
    """Return what was lost with a writer that did not end in order."""
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
    """Return the size of the committed part of a log, by its frames' headers alone; their contents may be damaged."""
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
    """Read every row of a ledger that has no seal. Raises Damaged, sqlite3.Error."""
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
    """Return whether SQLite says that the file is not what it wrote."""
    return _name_of(error).startswith(("CORRUPT", "NOTADB"))


def _name_of(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")


def moment(at: float) -> str:
    """Return a time in seconds since 1970 as local date and time."""
    return time.strftime("%F %T", time.localtime(at))


# -- repair -----------------------------------------------------------------------------------------------------------


def replace_damaged(file: Path, damage: Damaged) -> tuple[Ledger, Loss]:
    """Set a damaged file aside, and open its good copy in its place, or a new ledger."""
    aside = _set_aside(file)
    said = f"the ledger {file} {damage}" + (f"; it was set aside as {aside.name}" if aside else "")
    copy = good_copy(file)
    if copy is None:
        note = f"{said}; there is no good copy of it, so nothing is known of what was made before"
        return Ledger(file), Loss(None, note)
    new = file.with_suffix(".new")
    copy_file(copy, new)
    new.replace(file)
    ledger = Ledger(file)
    since = ledger.last_moment()
    when = moment(since)
    return ledger, Loss(since, f"{said}, and its copy of {when} was taken; what was made since then is made anew")


def _set_aside(file: Path) -> Path | None:
    aside = file.with_name(f"{file.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}{file.suffix}")
    is_there = file.exists()
    for each, place in ((log_of(file), log_of(aside)), (file, aside)):
        with suppress(FileNotFoundError):
            each.replace(place)
    for each in (file.with_name(f"{file.name}-shm"), file.with_suffix(".seal"), marker_of(file)):
        each.unlink(missing_ok=True)
    for old in sorted(file.parent.glob(f"{file.stem}-damaged-*{file.suffix}"))[:-_KEPT_DAMAGED]:
        old.unlink(missing_ok=True)
        log_of(old).unlink(missing_ok=True)
    return aside if is_there else None


def note_uncertain_period(ledger: Ledger, loss: Loss) -> None:
    """Record the period of which there may be outputs that the ledger does not know of."""
    if loss.since is None:
        return
    since, until = round((loss.since - _SLACK_S) * 1e9), round((time.time() + _SLACK_S) * 1e9)
    if known := ledger.facts.uncertain_period:
        since, lost_power = min(since, known.since_ns), loss.is_power or known.lost_power
    else:
        lost_power = loss.is_power
    ledger.facts.set_uncertain_period(UncertainPeriod(since, until, lost_power))
    ledger.unchanged.delete()


def remove_unknown_temporaries(state: State, ledger: Ledger, folders: Sequence[bytes]) -> None:
    """Remove the temporaries of runs that have a log file but are not in the ledger any more."""
    known = ledger.run_ids() | {state.run}
    unknown = {log.stem for log in (state.folder / "runs").glob("*.log")} - known
    for folder in folders if unknown else ():
        for place, _, names in os.walk(folder):
            for name in names:
                if name.startswith(TEMPORARY_PREFIX) and run_of(name) in unknown:
                    with suppress(OSError):
                        os.unlink(os.path.join(place, name))
