"""When a source counts as read whole: that no later write can be missed."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import FileFailure, SourceMoved
from pipeline.messages import Source
from pipeline.worker.source import SourceReading


def begin(file: Path) -> tuple[SourceReading, float]:
    """Begin to read a file; gives how long that took, too."""
    reading = SourceReading(file, Source(os.fsencode(file.name), 0, 0))
    began = time.monotonic()
    reading.begin()
    return reading, time.monotonic() - began


def aged(file: Path, seconds: float, *, whole: bool = False) -> Path:
    at = time.time_ns() - round(seconds * 1e9)
    at = at // 10**9 * 10**9 if whole else at // 10**9 * 10**9 + max(1, at % 10**9)
    file.write_text("x")
    os.utime(file, ns=(at, at))
    return file


@pytest.mark.parametrize("seconds", [0.1, 3600, -0.1, -3600])
def test_an_old_file_is_read_at_once(tmp_path: Path, seconds: float) -> None:
    """Nor does a clock that differs cost anything."""
    reading, took = begin(aged(tmp_path / "a", seconds))
    assert took < 0.01 and reading.moved() is None and reading.source.size_bytes == 1


def test_a_file_of_this_very_moment_is_read_when_it_is_over(tmp_path: Path) -> None:
    """A write after the look at the file must show in its time, and so the clock must have ticked between."""
    (tmp_path / "a").write_text("x")
    reading, _ = begin(tmp_path / "a")
    assert time.time_ns() - reading.source.mtime_ns >= 20_000_000
    (tmp_path / "a").write_text("y")
    assert str(reading.moved()) == "changed while reading; the next run does it"


def test_whole_seconds_are_waited_for(tmp_path: Path) -> None:
    """A file system that keeps whole seconds has ticks as long, twice that at worst."""
    reading, took = begin(aged(tmp_path / "a", 1.5, whole=True))
    assert took < 2 and time.time_ns() - reading.source.mtime_ns >= 2 * 10**9


def test_a_file_that_is_written_all_the_time_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A source that is written again during each wait for it to settle fails as changed."""
    file, waits = tmp_path / "a", list[float]()

    def write_during(wait_s: float) -> None:
        waits.append(wait_s)
        # A whole second, which is young for two seconds: however slowly this test runs.
        second = math.ceil(time.time())
        os.utime(file, (second, second))

    file.write_text("text")
    write_during(0)
    monkeypatch.setattr(time, "sleep", write_during)
    with pytest.raises(SourceMoved, match="changed while reading"):
        begin(file)
    assert len(waits) == 1 + 3


@pytest.mark.parametrize("kind", ["changed", "vanished"])
def test_who_is_to_blame(tmp_path: Path, kind: str) -> None:
    """A source that moved, for what any stage may raise over it; never for what we say of a stage ourselves."""
    reading, _ = begin(aged(tmp_path / "a", 10))
    plain, ours, memory, leaving = ValueError(), FileFailure("stage 'x' returned None"), MemoryError(), SystemExit()
    assert all(reading.blame(each) is each for each in (plain, ours, memory, leaving))
    os.unlink(tmp_path / "a") if kind == "vanished" else (tmp_path / "a").write_text("longer")
    blamed = reading.blame(plain)
    assert isinstance(blamed, SourceMoved) and blamed.kind == kind
    assert all(reading.blame(each) is each for each in (ours, memory, leaving))
    with pytest.raises(SourceMoved):
        reading.refuse_moved()
