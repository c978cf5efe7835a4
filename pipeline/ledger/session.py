"""Opens and closes the ledger of a state folder: checks it, replaces it by its good copy if damaged, seals it.

    writer   one at a time, holding the lock of the state: checks, opens in place, seals
    reader   at any time: copies file and log to a temporary folder, checks and opens the copy, repairs nothing

Damage is noticed by the seal, or if there is none by reading every row; a log that lost its end, by the marker. Outputs
that the ledger may then know nothing of are made anew: those of the uncertain period.
"""

from __future__ import annotations

import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files.state_dir import State
from pipeline.ledger.checkpoint import (
    FRAME_BYTES,
    LOG_HEADER_BYTES,
    Marker,
    bring_in_log,
    good_copy,
    has_copy,
    is_sealed,
    keep_copy,
    lift_seal,
    log_of,
    marker_of,
    put_seal,
    read_seal,
    size_of,
    spoil_seal,
)
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.recovery import (
    Damaged,
    note_uncertain_period,
    open_checked,
    remove_unknown_temporaries,
    replace_damaged,
)

# Bytes of log at which it is brought into the file, or half the file's size if that is more: sealing reads all of it.
_LOG_MOST_BYTES = 1 << 24
# Frames of a run that found nothing to do: its row, and what may go with it. Such a run makes no new copy.
_BOOKKEEPING_FRAMES = 16
# Seconds that a reader waits for a writer to bring its log into the file.
_PATIENCE_S = 5.0


@contextmanager
def open_to_write(state: State, folders: Sequence[bytes] = (), *, is_run: bool = False) -> Iterator[Ledger]:
    """Open the ledger of a locked state, or its good copy; seal it when the writer ends.

    Args:
        state: The state folder, locked.
        folders: What is written below them is synced every few seconds.
        is_run: Whether the writer is a run, which makes a new copy only if there is anything new to keep.
    """
    file = state.ledger
    ledger, marker, in_order = _open(state, folders), None, False
    try:
        for note in ledger.notes:
            print(note, file=sys.stderr)
        marker = writer = Marker(file, folders)
        ledger._connection.execute("PRAGMA wal_autocheckpoint=0")
        ledger.on_commit = lambda: _committed(file, ledger, writer)
        try:
            yield ledger
        except BaseException:
            with suppress(EnvironmentFailure):  # what ended it comes first
                in_order = _close(file, ledger, marker, is_run=is_run)
            raise
        in_order = _close(file, ledger, marker, is_run=is_run)
    finally:
        if not in_order:
            with suppress(OSError):
                lift_seal(file)  # since SQLite brings in the log when it closes
        ledger.close()
        if marker:
            marker.close(in_order=in_order)


@contextmanager
def open_to_read(file: Path) -> Iterator[Ledger]:
    """Open a copy of the ledger as it is, or an empty one if there is none, without disturbing a run."""
    if is_new(file):
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
            ledger, loss = open_checked(place)
        except Damaged as damage:
            text = (
                f"the ledger {file} {damage}; the next run sets it aside and takes its last good copy, if there is one"
            )
            raise EnvironmentFailure(text) from None
        except OSError as error:
            raise EnvironmentFailure(f"the ledger {file} cannot be read: {error}") from error
        try:
            if loss:
                note_uncertain_period(ledger, loss)
            yield ledger
        finally:
            ledger.close()


# -- looking -----------------------------------------------------------------------------------------------------------


def is_new(file: Path) -> bool:
    """Return whether no writer has ever begun, rather than the ledger having been lost."""
    seal = read_seal(file)
    was_sealed = seal is not None and bool(seal.digest)
    return not (size_of(file) or size_of(log_of(file)) or was_sealed or marker_of(file).exists() or good_copy(file))


def _copy_as_it_is(file: Path, place: Path) -> None:
    """Copy file, log, seal and marker in one consistent state."""
    until = time.monotonic() + _PATIENCE_S
    while True:
        seal = read_seal(file)
        # The marker before the log, which may have grown by then, or it would seem to have lost its end.
        for each in (file.with_suffix(".seal"), marker_of(file), file, log_of(file)):
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
        if is_new(file):
            ledger = Ledger(file)
            _settle(file, ledger)
            return ledger
        try:
            ledger, loss = open_checked(file)
        except Damaged as damage:
            ledger, loss = replace_damaged(file, damage)
        if loss:
            ledger.notes.append(loss.note)
            note_uncertain_period(ledger, loss)
            remove_unknown_temporaries(state, ledger, folders)
        seal = read_seal(file)
        if size_of(log_of(file)) or not (seal and seal.digest):
            _settle(file, ledger)
        return ledger
    except sqlite3.Error as error:
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def _settle(file: Path, ledger: Ledger) -> None:
    """Move the log into the file, and seal it. Raises EnvironmentFailure if somebody else has changed the file."""
    seal = read_seal(file)
    if seal and seal.digest and not is_sealed(file, seal):
        spoil_seal(file)
        raise EnvironmentFailure(
            f"the ledger {file} was changed by somebody else; the next run takes its last good copy"
        )
    lift_seal(file)
    bring_in_log(ledger, "TRUNCATE")
    put_seal(file)


# -- while it is written, and closing ----------------------------------------------------------------------------------


def _committed(file: Path, ledger: Ledger, marker: Marker) -> None:
    marker.committed()
    if size_of(log_of(file)) > max(_LOG_MOST_BYTES, size_of(file) // 2):
        marker.settling()
        _settle(file, ledger)
        marker.committed()


def _close(file: Path, ledger: Ledger, marker: Marker, *, is_run: bool) -> bool:
    """Seal the ledger, and copy it if anything but the row of a run is new; return whether that was done."""
    ledger.on_commit = None
    ledger.rollback()
    if ledger.is_suspect:
        spoil_seal(file)
        return False
    try:
        frames = (size_of(log_of(file)) - LOG_HEADER_BYTES) // FRAME_BYTES
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
