"""A log that lost its end is told from one whose writer was killed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from pipeline.ledger.write_ahead_log import standing_of_log

HEADER, FRAME = 32, 24 + 4096


@pytest.fixture
def log(tmp_path: Path) -> tuple[Path, int, int]:
    """A log with three transactions and the frames of one more that was never committed; how many of both."""
    file = tmp_path / "file"
    with closing(sqlite3.connect(file, isolation_level=None)) as opened:
        opened.executescript("PRAGMA journal_mode=WAL; PRAGMA wal_autocheckpoint=0; PRAGMA cache_size=4")
        opened.execute("CREATE TABLE lines (text TEXT)")
        for number in range(2):
            opened.execute("INSERT INTO lines VALUES (?)", (str(number) * 9000,))
        log = file.with_name("file-wal")
        committed = (log.stat().st_size - HEADER) // FRAME
        opened.execute("BEGIN")
        opened.executemany("INSERT INTO lines VALUES (?)", [("x" * 9000,)] * 20)
        copy = tmp_path / "copy-wal"
        copy.write_bytes(log.read_bytes())
    frames = (copy.stat().st_size - HEADER) // FRAME
    assert frames > committed + 2 > 4
    return copy, committed, frames


def test_what_a_kill_leaves_is_whole(log: tuple[Path, int, int]) -> None:
    """Some frames of a transaction that was not committed, and the header of another; or no more than the log's own."""
    file, committed, frames = log
    data = file.read_bytes()
    for frame in range(committed, frames):
        for more in (0, 24):
            file.write_bytes(data[: HEADER + frame * FRAME + more])
            assert standing_of_log(file, committed) == "whole"
    for size in (HEADER, HEADER + 24, HEADER + FRAME):
        file.write_bytes(data[:size])
        assert standing_of_log(file, 0) == "whole"


def test_what_was_emptied_may_be_whole(log: tuple[Path, int, int]) -> None:
    """As it is after all of it was brought into the file."""
    log[0].write_bytes(b"")
    assert standing_of_log(log[0], 0) == "empty"


def test_what_no_kill_leaves_is_lost(log: tuple[Path, int, int]) -> None:
    """Cut anywhere else, with a bit flipped or a page zeroed after the last transaction that SQLite finds, or gone."""
    file, committed, frames = log
    data = file.read_bytes()
    for frame in range(committed, frames):
        for more in (1, 23, 25, 2000, FRAME - 1):
            file.write_bytes(data[: HEADER + frame * FRAME + more])
            assert standing_of_log(file, committed) == "lost"
        for at in (9, 17, 30, 4000):
            spoilt = bytearray(data)
            spoilt[HEADER + frame * FRAME + at] ^= 4
            file.write_bytes(spoilt)
            assert standing_of_log(file, committed) == "lost"
        file.write_bytes(data[: HEADER + frame * FRAME] + bytes(FRAME))
        assert standing_of_log(file, committed) == "lost"
    for size in (1, HEADER - 1):
        file.write_bytes(data[:size])
        assert standing_of_log(file, 0) == "lost"
    for at in range(HEADER):
        spoilt = bytearray(data)
        spoilt[at] ^= 4
        file.write_bytes(spoilt)
        assert standing_of_log(file, 0) == "lost"
    file.unlink()
    assert standing_of_log(file, 0) == "lost"
