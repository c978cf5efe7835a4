"""When a source counts as read whole: that no later write can be missed."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path

import pytest

from pipeline.errors import FileFailure, SourceMoved
from pipeline.files.atomic import digest_of
from pipeline.messages import Source
from pipeline.worker.source import SourceReading


def begin(file: Path) -> SourceReading:
    """Begin to read a file."""
    reading = SourceReading(os.fsencode(file), Source(os.fsencode(file.name), 0, 0))
    reading.begin()
    return reading


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The seconds of each wait, which takes place."""
    found, sleep = list[float](), time.sleep

    def wait(seconds: float) -> None:
        found.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", wait)
    return found


def aged(file: Path, seconds: float, *, whole: bool = False) -> Path:
    at = time.time_ns() - round(seconds * 1e9)
    at = at // 10**9 * 10**9 if whole else at // 10**9 * 10**9 + max(1, at % 10**9)
    file.write_text("x")
    os.utime(file, ns=(at, at))
    return file


@pytest.mark.parametrize("seconds", [0.1, 3600, -0.1, -3600])
def test_an_old_file_is_read_at_once(tmp_path: Path, seconds: float, waits: list[float]) -> None:
    """Nor does a clock that differs cost anything."""
    reading = begin(aged(tmp_path / "a", seconds))
    assert not waits and reading.moved() is None and reading.source.size_bytes == 1
    assert reading.data == b"x" and reading.digest == digest_of(os.fsencode(tmp_path / "a"))


def test_a_file_of_this_very_moment_is_read_when_it_is_over(tmp_path: Path) -> None:
    """A write after the look at the file must show in its time, and so the clock must have ticked between."""
    (tmp_path / "a").write_text("x")
    reading = begin(tmp_path / "a")
    assert time.time_ns() - reading.source.mtime_ns >= 20_000_000
    (tmp_path / "a").write_text("y")
    assert str(reading.moved()) == "changed while reading; the next run does it"


def test_whole_seconds_are_waited_for(tmp_path: Path) -> None:
    """A file system that keeps whole seconds has ticks as long, twice that at worst."""
    reading = begin(aged(tmp_path / "a", 1.5, whole=True))
    assert time.time_ns() - reading.source.mtime_ns >= 2 * 10**9


def test_what_is_written_while_a_tick_is_waited_for_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A write within the tick does not show in the time, so nothing read before its end is handed on."""
    file, now_ns = tmp_path / "a", [1_700_000_000_000_000_001]

    def write_during(wait_s: float) -> None:
        found = file.stat()
        file.write_text("new")
        os.utime(file, ns=(found.st_mtime_ns, found.st_mtime_ns))
        now_ns[0] += round(wait_s * 1e9) + 1

    file.write_text("old")
    os.utime(file, ns=(now_ns[0], now_ns[0]))
    monkeypatch.setattr(time, "sleep", write_during)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns[0])
    reading = begin(file)
    assert reading.data == b"new" and reading.moved() is None


def test_a_pipe_in_the_place_of_a_source_is_refused_at_once(tmp_path: Path) -> None:
    """To wait for a writer would be to wait for ever."""
    os.mkfifo(tmp_path / "a")
    with pytest.raises(FileFailure, match="is no regular file any more"):
        begin(tmp_path / "a")


@pytest.mark.parametrize("size_bytes", [0, 1 << 20, (1 << 20) + 1])
def test_only_a_small_file_is_read_beforehand(tmp_path: Path, size_bytes: int) -> None:
    """A stage may want no more than the header of a large one."""
    (tmp_path / "a").write_bytes(b"x" * size_bytes)
    os.utime(tmp_path / "a", (1e9, 1e9))
    reading = begin(tmp_path / "a")
    assert (reading.data is None) == (reading.digest == b"") == (size_bytes > 1 << 20)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_file_that_may_not_be_read_is_left_to_the_stage(tmp_path: Path) -> None:
    """Its name alone may be all that is wanted."""
    aged(tmp_path / "a", 10).chmod(0)
    reading = begin(tmp_path / "a")
    assert reading.data is None and reading.digest == b"" and reading.source.size_bytes == 1


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
    reading = begin(aged(tmp_path / "a", 10))
    plain, ours, memory, leaving = ValueError(), FileFailure("stage 'x' returned None"), MemoryError(), SystemExit()
    assert all(reading.blame(each) is each for each in (plain, ours, memory, leaving))
    os.unlink(tmp_path / "a") if kind == "vanished" else (tmp_path / "a").write_text("longer")
    blamed = reading.blame(plain)
    assert isinstance(blamed, SourceMoved) and blamed.kind == kind
    assert all(reading.blame(each) is each for each in (ours, memory, leaving))
    with pytest.raises(SourceMoved):
        reading.refuse_moved()
