"""How the ledger is opened and closed: looked at, replaced by its good copy where it is damaged, sealed at the end.

    writer   one at a time, who holds the state's lock: looks, opens in place, seals
    reader   at any time: copies file and log to a place of its own, looks, opens the copy; never repairs anything

What cannot be trusted is noticed by the seal, or where there is none by reading all of it; a log that lost its end, by
the marker. Outputs of which the ledger may then know nothing are made anew: those of the uncertain period.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from pipeline.errors import EnvironmentFailure
from pipeline.files.atomic import TEMPORARY_PREFIX, run_of
from pipeline.files.state_dir import State
from pipeline.ledger.checkpoint import (
    Marker,
    copy_file,
    good_copy,
    has_copy,
    is_sealed,
    keep_copy,
    lift_seal,
    marker_of,
    put_seal,
    read_seal,
    spoil_seal,
)
from pipeline.ledger.ledger import Ledger, UncertainPeriod
from pipeline.ledger.recovery import (
    FRAME_BYTES,
    LOG_HEADER_BYTES,
    Damaged,
    Loss,
    bring_in_log,
    log_of,
    look,
    moment,
    size_of,
)

# Bytes of log at which it is brought into the file, or half the file's size if that is more: sealing reads all of it.
_LOG_MOST_BYTES = 1 << 24
# Frames of a run that found nothing to do: its row, and what may go with it. Such a run makes no new copy.
_BOOKKEEPING_FRAMES = 16
_KEPT_DAMAGED = 2
# Seconds that a reader waits for a writer to bring its log into the file.
_PATIENCE_S = 5.0
# Seconds by which two clocks, that of the files and ours, may differ.
_SLACK_S = 2.0


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
        ledger._connection.execute("PRAGMA wal_autocheckpoint=0")
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
            ledger, loss = look(place)
        except Damaged as damage:
            text = (
                f"the ledger {file} {damage}; the next run sets it aside and takes its last good copy, if there is one"
            )
            raise EnvironmentFailure(text) from None
        except OSError as error:
            raise EnvironmentFailure(f"the ledger {file} cannot be read: {error}") from error
        try:
            if loss:
                _note_uncertain_period(ledger, loss)
            yield ledger
        finally:
            ledger.close()


# -- looking -----------------------------------------------------------------------------------------------------------


def is_new(file: Path) -> bool:
    """Whether there is no ledger yet, rather than none any more: no writer came as far as to put its marker."""
    seal = read_seal(file)
    was_sealed = seal is not None and bool(seal.digest)
    return not (size_of(file) or size_of(log_of(file)) or was_sealed or marker_of(file).exists() or good_copy(file))


def _copy_as_it_is(file: Path, place: Path) -> None:
    """Copy file, log, seal and marker as they are at one moment."""
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
            ledger, loss = look(file)
        except Damaged as damage:
            ledger, loss = _replace(file, damage)
        if loss:
            ledger.notes.append(loss.note)
            _note_uncertain_period(ledger, loss)
            _clear_away(state, ledger, folders)
        seal = read_seal(file)
        if size_of(log_of(file)) or not (seal and seal.digest):
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
    bring_in_log(ledger, "TRUNCATE")
    put_seal(file)


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


def _note_uncertain_period(ledger: Ledger, loss: Loss) -> None:
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


def _clear_away(state: State, ledger: Ledger, folders: Sequence[bytes]) -> None:
    """Remove the temporaries of runs of which there is a log, but which the ledger does not know any more."""
    known = ledger.run_ids() | {state.run}
    unknown = {log.stem for log in (state.folder / "runs").glob("*.log")} - known
    for folder in folders if unknown else ():
        for place, _, names in os.walk(folder):
            for name in names:
                if name.startswith(TEMPORARY_PREFIX) and run_of(name) in unknown:
                    with suppress(OSError):
                        os.unlink(os.path.join(place, name))


# -- while it is written, and closing ----------------------------------------------------------------------------------


def _committed(file: Path, ledger: Ledger, marker: Marker) -> None:
    marker.committed()
    if size_of(log_of(file)) > max(_LOG_MOST_BYTES, size_of(file) // 2):
        marker.settling()
        _settle(file, ledger)
        marker.committed()


def _close(file: Path, ledger: Ledger, marker: Marker, *, is_run: bool) -> bool:
    """Seal the ledger, and keep a copy of it if anything but the row of a run is new; tells whether that was done."""
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
