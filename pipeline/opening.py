"""How the ledger is opened and closed: looked at, replaced by its good copy where it is damaged, sealed at the end.

    writer   one at a time, who holds the state's lock: looks, opens in place, seals
    reader   at any time: copies file and log to a place of its own, looks, opens the copy; never repairs anything

What cannot be trusted is noticed by the seal, or where there is none by reading all of it; a log that lost its end, by
the marker. Outputs of which the ledger may then know nothing are made anew: those of the time in the fact `behind`.
"""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pipeline.commit import TEMPORARY_PREFIX, run_of
from pipeline.errors import EnvironmentFailure
from pipeline.ledger import Ledger
from pipeline.marker import Left, Marker, marker_of, read_marker
from pipeline.seal import (
    copy_file,
    good_copy,
    has_copy,
    is_sealed,
    keep_copy,
    lift_seal,
    put_seal,
    read_seal,
    spoil_seal,
)
from pipeline.state import State, without_locks

# SQLite's write-ahead log: a header, then frames of a header and a page each.
_LOG_HEADER_BYTES, _FRAME_HEADER_BYTES, _PAGE_BYTES = 32, 24, 4096
_FRAME_BYTES = _FRAME_HEADER_BYTES + _PAGE_BYTES
# Bytes of log at which it is brought into the file, or half the file's size if that is more: sealing reads all of it.
_LOG_MOST_BYTES = 1 << 24
# Frames of a run that found nothing to do: its row, and what may go with it. Such a run makes no new copy.
_BOOKKEEPING_FRAMES = 16
_KEPT_DAMAGED = 2
# Seconds that a reader waits for a writer to bring its log into the file.
_PATIENCE_S = 5.0
# Seconds by which two clocks, that of the files and ours, may differ.
_SLACK_S = 2.0
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


@contextmanager
def open_to_write(state: State, folders: Sequence[bytes] = (), *, is_run: bool = False) -> Iterator[Ledger]:
    """The ledger of a locked state, whole or from its good copy; sealed when the writer ends.

    What is written below `folders` is brought to the disk now and then. What a person should know is said at once.
    """
    ledger, marker, in_order = _open(state, folders), None, False
    try:
        for note in ledger.notes:
            print(note, file=sys.stderr)
        marker = writer = Marker(state.ledger, folders)
        ledger.connection.execute("PRAGMA wal_autocheckpoint=0")
        ledger.on_commit = lambda: _committed(state.ledger, ledger, writer)
        try:
            yield ledger
        except BaseException:
            with suppress(EnvironmentFailure):  # what ended it comes first
                in_order = _close(state.ledger, ledger, marker, is_run=is_run)
            raise
        in_order = _close(state.ledger, ledger, marker, is_run=is_run)
    finally:
        if not in_order:
            with suppress(OSError):
                lift_seal(state.ledger)  # since SQLite brings in the log when it closes
        ledger.close()
        if marker:
            marker.close(in_order=in_order)


@contextmanager
def open_to_read(file: Path) -> Iterator[Ledger]:
    """The ledger as it is at this moment, an empty one where there is none. A run beside it is not disturbed."""
    if _is_new(file):
        ledger = Ledger(None)
        try:
            yield ledger
        finally:
            ledger.close()
        return
    with tempfile.TemporaryDirectory(prefix="filemill-") as folder:
        place = Path(folder) / file.name
        try:
            _copy_as_it_is(file, place)
            ledger, loss = _look(place)
        except Damaged as damage:
            text = (
                f"the ledger {file} {damage}; the next run sets it aside and takes its last good copy, if there is one"
            )
            raise EnvironmentFailure(text) from None
        except OSError as error:
            raise EnvironmentFailure(f"the ledger {file} cannot be read: {error}") from error
        try:
            if loss:
                _fall_behind(ledger, loss)
            yield ledger
        finally:
            ledger.close()


# -- looking -----------------------------------------------------------------------------------------------------------


def _log_of(file: Path) -> Path:
    return file.with_name(f"{file.name}-wal")


def _size(file: Path) -> int:
    try:
        return file.stat().st_size
    except FileNotFoundError:
        return 0


def _is_new(file: Path) -> bool:
    """Whether there is nothing yet, rather than nothing any more: no writer came as far as to put its marker."""
    seal = read_seal(file)
    was_sealed = seal is not None and bool(seal.digest)
    return not (_size(file) or _size(_log_of(file)) or was_sealed or marker_of(file).exists() or good_copy(file))


def _look(file: Path) -> tuple[Ledger, Loss | None]:
    """Open a ledger that can be trusted. Raises Damaged, EnvironmentFailure."""
    if not _size(file) and not _size(_log_of(file)):
        raise Damaged("is gone")
    seal, left, log = read_seal(file), read_marker(file), _log_of(file)
    if seal and seal.digest and not is_sealed(file, seal):
        raise Damaged("is not as it was left")
    is_unclean, logged_bytes = marker_of(file).exists() or _size(log) > 0, _logged_bytes(log)
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
            found_bytes = _LOG_HEADER_BYTES + _FRAME_BYTES * _bring_in_log(ledger, "PASSIVE")
        logged_bytes = max(logged_bytes, left.log_bytes if left else 0)
        # Killed before it put its marker a writer has lost nothing.
        sealed_at = seal.at if seal and (seal.digest or marker_of(file).exists()) else None
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


def _loss(sealed_at: float | None, left: Left | None, logged_bytes: int, found_bytes: int) -> Loss | None:
    """What was lost with a writer that did not end in order."""
    if left is None and sealed_at is None:  # of an older version, which left neither
        return None
    if left and left.lost_power:
        when = _moment(left.synced)
        text = f"the machine stopped during a run; what was made since {when} may not have reached the disk"
        return Loss(left.synced, f"{text} and is made anew", is_power=True)
    if left is None or found_bytes < logged_bytes:
        since = left.since if left else sealed_at or 0.0
        return Loss(since, f"the end of the ledger's log is lost; what was made since {_moment(since)} is made anew")
    return None


def _logged_bytes(log: Path) -> int:
    """Up to where a log holds what was committed, going by its frames' headers alone, be their contents damaged."""
    try:
        data = log.read_bytes()
    except FileNotFoundError:
        return 0
    heads = [data[at : at + 16] for at in range(_LOG_HEADER_BYTES, len(data) - _FRAME_BYTES + 1, _FRAME_BYTES)]
    salts = [head[8:16] for head in heads]
    own = max(set(salts), key=salts.count, default=b"")
    ends = [number for number, head in enumerate(heads, 1) if head[8:16] == own and head[4:8] != bytes(4)]
    return _LOG_HEADER_BYTES + _FRAME_BYTES * ends[-1] if ends else 0


def _read_all(ledger: Ledger) -> None:
    """Read every row of a ledger without a seal. Raises Damaged, sqlite3.Error."""
    connection = ledger.connection
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


def _copy_as_it_is(file: Path, place: Path) -> None:
    """Copy file, log, seal and marker as they are at one moment."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        seal = read_seal(file)
        for each in (file, _log_of(file), file.with_suffix(".seal"), marker_of(file)):
            copy = place.with_name(each.name)
            copy.unlink(missing_ok=True)
            with suppress(FileNotFoundError):
                shutil.copyfile(each, copy)
        # The file changes only after its seal was lifted, and is sealed anew after.
        if (seal == read_seal(file) and (seal is None or seal.digest)) or time.monotonic() > until:
            return
        time.sleep(0.05)


# -- opening -----------------------------------------------------------------------------------------------------------


def _open(state: State, folders: Sequence[bytes]) -> Ledger:
    file = state.ledger
    try:
        if _is_new(file):
            ledger = Ledger(file)
            _settle(file, ledger)
            return ledger
        try:
            ledger, loss = _look(file)
        except Damaged as damage:
            ledger, loss = _replace(file, damage)
        if loss:
            ledger.notes.append(loss.note)
            _fall_behind(ledger, loss)
            _clear_away(state, ledger, folders)
        seal = read_seal(file)
        if _size(_log_of(file)) or not (seal and seal.digest):
            _settle(file, ledger)
        return ledger
    except sqlite3.Error as error:
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def _settle(file: Path, ledger: Ledger) -> None:
    """Bring the log into the file, and seal it; unless somebody else has changed it, which would be sealed then."""
    seal = read_seal(file)
    if seal and seal.digest and not is_sealed(file, seal):
        spoil_seal(file)
        raise EnvironmentFailure(
            f"the ledger {file} was changed by somebody else; the next run takes its last good copy"
        )
    lift_seal(file)
    _bring_in_log(ledger, "TRUNCATE")
    put_seal(file)


def _bring_in_log(ledger: Ledger, how: str) -> int:
    """Checkpoint; gives how many whole frames there are in the log."""
    return int(ledger.connection.execute(f"PRAGMA wal_checkpoint({how})").fetchone()[1])


def _replace(file: Path, damage: Damaged) -> tuple[Ledger, Loss]:
    """Set a damaged file aside and open its good copy in its place, or a new one."""
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
    since = float(ledger.connection.execute("SELECT max(coalesce(ended, started)) FROM runs").fetchone()[0] or 0.0)
    when = _moment(since)
    return ledger, Loss(since, f"{said}, and its copy of {when} was taken; what was made since then is made anew")


def _set_aside(file: Path) -> Path | None:
    aside = file.with_name(f"{file.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}{file.suffix}")
    is_there = file.exists()
    for each, place in ((_log_of(file), _log_of(aside)), (file, aside)):
        with suppress(FileNotFoundError):
            each.replace(place)
    for each in (file.with_name(f"{file.name}-shm"), file.with_suffix(".seal"), marker_of(file)):
        each.unlink(missing_ok=True)
    for old in sorted(file.parent.glob(f"{file.stem}-damaged-*{file.suffix}"))[:-_KEPT_DAMAGED]:
        old.unlink(missing_ok=True)
        _log_of(old).unlink(missing_ok=True)
    return aside if is_there else None


def _fall_behind(ledger: Ledger, loss: Loss) -> None:
    """Remember of which time outputs may be of which the ledger does not know."""
    if loss.since is None:
        return
    since, until = round((loss.since - _SLACK_S) * 1e9), round((time.time() + _SLACK_S) * 1e9)
    known = ledger.facts.get("behind")
    is_power = loss.is_power or bool(known and known[2])
    ledger.facts.set("behind", [min(since, known[0]) if known else since, until, is_power])
    ledger.forget_spans([(b"", None)])


def _clear_away(state: State, ledger: Ledger, folders: Sequence[bytes]) -> None:
    """Remove the temporaries of runs of which there is a log, but which the ledger does not know any more."""
    known = {run for (run,) in ledger.connection.execute("SELECT id FROM runs")} | {state.run}
    unknown = {log.stem for log in (state.folder / "runs").glob("*.log")} - known
    for folder in folders if unknown else ():
        for place, _, names in os.walk(folder):
            for name in names:
                if name.startswith(TEMPORARY_PREFIX) and run_of(name) in unknown:
                    with suppress(OSError):
                        os.unlink(os.path.join(place, name))


def _moment(at: float) -> str:
    return time.strftime("%F %T", time.localtime(at))


# -- while it is written, and closing ----------------------------------------------------------------------------------


def _committed(file: Path, ledger: Ledger, marker: Marker) -> None:
    marker.committed()
    if _size(_log_of(file)) > max(_LOG_MOST_BYTES, _size(file) // 2):
        marker.settling()
        _settle(file, ledger)
        marker.committed()


def _close(file: Path, ledger: Ledger, marker: Marker, *, is_run: bool) -> bool:
    """Seal the ledger, and keep a copy of it if anything but the row of a run is new; tells whether that was done."""
    ledger.on_commit = None
    ledger.connection.rollback()
    if ledger.is_suspect:
        spoil_seal(file)
        return False
    try:
        frames = (_size(_log_of(file)) - _LOG_HEADER_BYTES) // _FRAME_BYTES
        is_changed = not is_run or ledger.has_news or frames > _BOOKKEEPING_FRAMES
        if is_changed:
            marker.sync()
    except OSError as error:
        raise EnvironmentFailure(f"what was made could not be brought to the disk: {error}") from error
    try:
        marker.settling()
        _settle(file, ledger)
        seal = read_seal(file)
        if seal and (is_changed or not has_copy(file)):
            keep_copy(file, seal)
    except (OSError, sqlite3.Error):  # such as a full disk: the next writer sees to what is there
        return False
    return True
