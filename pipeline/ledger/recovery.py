"""Checks whether a ledger is what was written, replaces a damaged one, and finds the period that is uncertain then."""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pipeline.errors import AlreadyRunning, EnvironmentFailure
from pipeline.files.atomic import TEMPORARY_PREFIX, run_of
from pipeline.files.clocks import CLOCK_SLACK_NS, boot_id
from pipeline.files.ownership import claimed_run
from pipeline.files.state_dir import State, known_identity, logs_of_runs, without_locks
from pipeline.files.sync import replace_file
from pipeline.ledger.checkpoint import (
    JUDGED,
    bring_in_log,
    copy_of,
    is_as_left,
    log_of,
    mark_as_suspect,
    older_copies,
    size_of,
)
from pipeline.ledger.ledger import Ledger
from pipeline.ledger.runs import CLAIMS, RunRow, Window, boot_time_ns
from pipeline.ledger.schema import create, has_lost_tables
from pipeline.ledger.write_ahead_log import PAGE_BYTES, LogStanding, standing_of_log
from pipeline.records import dataclass
from pipeline.text import shown

# The time in the name of a damaged file, as a pattern of glob, so that no copy of a person's is taken for one.
_TIME = f"{'[0-9]' * 8}-{'[0-9]' * 6}"
# Damaged files that are kept, the newest.
_KEPT_DAMAGED = 2
# Nanoseconds that a run may have been alive after it wrote to its ledger: its workers go on while it dies.
_LONGER_NS = 5_000_000_000
# What SQLite says of a machine that does not let it work, rather than of what is in the file.
_MACHINE = ("BUSY", "LOCKED", "IOERR", "FULL", "CANTOPEN", "READONLY", "PERM", "NOMEM", "PROTOCOL", "NOLFS", "AUTH")
# What is said of a run that did not end in order, by what became of the log.
_WHY = {
    "lost": "a run was killed, and the end of the ledger's log is lost",
    "gone": "a run did not end in order, and the ledger's log is gone",
    "empty": "",  # as every run leaves it before it makes anything
}


class Damaged(Exception):
    """The ledger's file is not what was written; the text follows the file's name in a sentence."""


@dataclass(frozen=True)
class Remains:
    """The files of a ledger as they lay there before it was opened."""

    alive_ns: int
    """When its files were last written to."""
    log_bytes: int | None
    """The size of the log; None where there was none."""
    is_as_left: bool
    """Whether nobody has written to it since its last writer closed it in order."""
    log: LogStanding | Literal["gone"] = "gone"
    """Whether the log has all that was committed, which is known once the file is opened."""


def look_at(file: Path) -> Remains:
    """Look at the files of a ledger before it is opened."""
    times = [each.stat().st_mtime_ns for each in (file, log_of(file)) if each.exists()]
    log_bytes = size_of(log_of(file)) if log_of(file).exists() else None
    return Remains(max(times, default=0), log_bytes, is_as_left(file))


def is_new(file: Path) -> bool:
    """Return whether no writer has ever begun, rather than the ledger having been lost."""
    return not (size_of(file) or size_of(log_of(file)) or _copies(file))


def open_checked(file: Path, remains: Remains) -> tuple[Ledger, Remains]:
    """Open a ledger after checking it, and say how its log ends.

    Raises:
        Damaged: It is not what was written.
        EnvironmentFailure: The machine does not let it be opened.
        AlreadyRunning: Another process has it open.
    """
    if not size_of(file):
        raise Damaged("is gone")
    if size_of(file) % PAGE_BYTES:  # SQLite takes what is lacking of a page for zeros
        raise Damaged("is cut short")
    with _naming_damage(file):
        ledger = Ledger(file, _check)
    try:
        with _naming_damage(file):
            frames = int(ledger._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()[1])
            log = "gone" if remains.log_bytes is None else standing_of_log(log_of(file), frames)
            # Else the next transaction would be written over the first of these, and the rest stay behind it.
            bring_in_log(ledger)
            last = ledger.runs.newest()
            if not remains.is_as_left or remains.log_bytes or (last and last.ended is None):
                ledger.unchanged.delete()
                _read_all(ledger)
        return ledger, replace(remains, log=log)
    except BaseException:
        ledger.close()
        raise


def _check(connection: sqlite3.Connection) -> None:
    """Check a file before anything is written to it. Raises Damaged."""
    # SQLite takes a file whose first page lost its table of contents for a new one.
    if has_lost_tables(connection):
        raise Damaged("has lost its tables")
    # It reads a damaged tree without a word.
    found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if found != "ok":
        raise Damaged(f"is damaged ({' '.join(str(found).split())})")


def _read_all(ledger: Ledger) -> None:
    """Read every row of a ledger that was not closed in order. Raises Damaged, sqlite3.Error."""
    connection = ledger._connection
    for _ in ledger.outputs.all():
        pass
    try:
        for statement in (
            "parts FROM recipes",
            "value FROM facts",
            "said FROM decrees",
            "versions FROM runs",
            "exits FROM days",
            "totals FROM days",
        ):
            for (text,) in connection.execute(f"SELECT {statement}"):
                json.loads(text or "null")
        for _ in ledger.failures.all(), ledger.runs.summaries(), ledger.intents.parts():
            list(_)
        ledger.intents.get(b"")
    except (ValueError, TypeError) as error:
        raise Damaged(f"is damaged ({error})") from None


@contextmanager
def _naming_damage(file: Path) -> Iterator[None]:
    """Raise Damaged for a damaged file, and EnvironmentFailure for a failing machine."""
    try:
        yield
    except UnicodeDecodeError:  # SQLite's own message about it, or a name, holds bytes that are no text
        raise Damaged("is damaged (a name in it is no text)") from None
    except (sqlite3.Error, EnvironmentFailure) as failure:
        error = failure if isinstance(failure, sqlite3.Error) else failure.__cause__
        if not isinstance(error, sqlite3.Error):
            raise
        name = _name_of(error)
        if is_damage(error) or not name.startswith(_MACHINE):
            raise Damaged(f"cannot be read ({error})") from None
        if name.startswith(("BUSY", "LOCKED")):
            raise AlreadyRunning(f"another run is running with the ledger {file}") from error
        if name.startswith(("IOERR_LOCK", "IOERR_RDLOCK", "PROTOCOL", "NOLFS")):
            raise without_locks(file.parent, error) from error
        raise EnvironmentFailure(f"the ledger {file} cannot be used: {error}") from error


def is_damage(error: sqlite3.Error) -> bool:
    """Return whether SQLite says that the file is not what it wrote."""
    return _name_of(error).startswith(("CORRUPT", "NOTADB"))


def _name_of(error: sqlite3.Error) -> str:
    return str(getattr(error, "sqlite_errorname", "")).removeprefix("SQLITE_")


# -- repair -----------------------------------------------------------------------------------------------------------


def replace_damaged(file: Path, damage: Damaged) -> tuple[Ledger, str]:
    """Set a damaged file aside, open its good copy in its place, or a new ledger; return it with what became of it."""
    aside = _set_aside(file)
    said = f"the ledger {file} {damage}" + (f"; it was set aside as {aside.name}" if aside else "")
    for copy in _copies(file):
        new = file.with_suffix(".new")
        replace_file(file, copy.read_bytes(), new)
        try:
            ledger, _ = open_checked(file, Remains(0, None, is_as_left=False))
        except Damaged:
            file.unlink(missing_ok=True)
            log_of(file).unlink(missing_ok=True)
            continue
        last = ledger.runs.newest()
        when = f" of {moment(last.safe_until)}" if last else ""
        return ledger, f"{said}, and its copy{when} was taken"
    create(file)
    ledger = Ledger(file)
    ledger.notes.append(f"{said}; there is no good copy of it, so nothing is known of what was made before")
    return ledger, ""


def _copies(file: Path) -> list[Path]:
    """Return the copies of a ledger."""
    return [each for each in (copy_of(file), *older_copies(file)) if size_of(each)]


def _set_aside(file: Path) -> Path | None:
    aside = file.with_name(f"{file.stem}-damaged-{time.strftime('%Y%m%d-%H%M%S')}{file.suffix}")
    is_there = file.exists()
    for each, place in ((log_of(file), log_of(aside)), (file, aside)):
        with suppress(FileNotFoundError):
            each.replace(place)
    file.with_name(f"{file.name}-shm").unlink(missing_ok=True)
    for old in sorted(file.parent.glob(f"{file.stem}-damaged-{_TIME}{file.suffix}"))[:-_KEPT_DAMAGED]:
        old.unlink(missing_ok=True)
        log_of(old).unlink(missing_ok=True)
    mark_as_suspect(file)
    return aside if is_there else None


# -- the uncertain period ----------------------------------------------------------------------------------------------


def find_window(ledger: Ledger, file: Path, remains: Remains, replaced: str, folders: Iterable[bytes]) -> Window | None:
    """Return the one period of which the ledger may not know all that was made; None if it knows all.

    Args:
        ledger: The ledger, as it was opened.
        file: Its file.
        remains: What lay there before.
        replaced: What became of a damaged file that the ledger took the place of; empty if there was none.
        folders: The output folders, whose owner files name the last run that wrote to them.
    """
    last = ledger.runs.newest()
    if last is None:
        return None
    is_judged = ledger.facts.get(JUDGED) == last.id
    found = [
        *_after_last_run(last, remains, replaced, is_judged),
        *_by_owner_files(ledger, last, file, folders),
        *_by_logs(ledger, last, file),
    ]
    if why := _joined(found):
        since = min(each.since_ns for each in found)
        ledger.notes.append(
            f"{why}; what was made since {moment(since)} is compared by its contents, and made anew where it differs"
        )
    found += [last.unsure] if last.unsure else []
    if not found:
        return None
    since, until = min(each.since_ns for each in found), max(each.until_ns for each in found)
    return Window(since - CLOCK_SLACK_NS, until, _joined(found))


def _joined(windows: Iterable[Window]) -> str:
    return "; ".join(dict.fromkeys(each.why for each in windows if each.why))


def _after_last_run(last: RunRow, remains: Remains, replaced: str, is_judged: bool) -> Iterator[Window]:
    """Yield the period that a damaged ledger, or a last run that did not end in order, leaves."""
    now = time.time_ns()
    if replaced:
        yield Window(last.safe_until, now, replaced)
    elif last.ended is None and last.boot != boot_id():
        until = max(remains.alive_ns + _LONGER_NS, boot_time_ns())
        yield Window(last.synced_until, until, "the machine stopped during a run")
    elif last.ended is None and not is_judged and remains.log != "whole":
        yield Window(last.synced_until, now, _WHY[remains.log])


def _by_owner_files(ledger: Ledger, last: RunRow, file: Path, folders: Iterable[bytes]) -> Iterator[Window]:
    """Yield the periods that a ledger, or outputs, restored from an older backup leave."""
    now, claims, identity = time.time_ns(), ledger.facts.get(CLAIMS) or {}, known_identity(file.parent)
    for folder in folders:
        run = claimed_run(Path(os.fsdecode(folder)), identity)
        if run is None:
            continue
        ledger.least_run = max(ledger.least_run, run + 1)
        if run > last.id:
            yield Window(last.safe_until, now, f"the ledger is older than the outputs in {shown(folder)}")
        elif run < claims.get(os.fsdecode(folder), 0):
            then = ledger.runs.get(run)
            yield Window(
                then.safe_until if then else 0, now, f"the outputs in {shown(folder)} are older than the ledger"
            )


def _by_logs(ledger: Ledger, last: RunRow, file: Path) -> Iterator[Window]:
    """Yield the period of runs that have left a log beside the ledger, and no record in it."""
    known = ledger.runs.names()
    logs = [log for log in logs_of_runs(file.parent) if log.stem not in known]
    if any(log.stat().st_mtime_ns > last.safe_until for log in logs):
        yield Window(last.safe_until, time.time_ns(), "the ledger is older than the logs of its runs")


def moment(at_ns: int) -> str:
    """Return a time in nanoseconds since 1970 as local date and time."""
    return time.strftime("%F %T", time.localtime(at_ns / 1e9))


def remove_old_temporaries(state: State, ledger: Ledger, folders: Sequence[bytes]) -> None:
    """Remove the temporaries of runs that did not end in order, or are not in the ledger any more.

    Usually the jobs that make an output again do that, by its name; but here nobody knows what had been in hand.
    """
    logged = {log.stem for log in logs_of_runs(state.folder)}
    old = (logged - ledger.runs.names() - {state.run}) | set(ledger.runs.unclean())
    for folder in folders if old else ():
        for place, _, names in os.walk(folder):
            for name in names:
                if name.startswith(TEMPORARY_PREFIX) and run_of(name) in old:
                    with suppress(OSError):
                        os.unlink(os.path.join(place, name))
