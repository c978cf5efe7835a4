"""What says that nothing more can be started, and what does not."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from pipeline.files import process_limits
from pipeline.files.process_limits import describe_refusal, is_start_refused


def test_only_what_starts_something_is_refused_a_start() -> None:
    """A socket without data has the same number of an error, and most RuntimeErrors are about something else."""
    one, other = socket.socketpair()
    with one, other:
        one.setblocking(False)
        with pytest.raises(BlockingIOError) as raised:
            one.recv(1)
    assert not is_start_refused(raised.value)
    assert not is_start_refused(RuntimeError("dictionary changed size during iteration"))
    assert is_start_refused(RuntimeError("can't start new thread"))


def test_the_limit_of_a_container_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The smallest on the way up; `max` is none."""
    monkeypatch.setattr(process_limits, "_GROUPS", tmp_path)
    for folder in (tmp_path, tmp_path / "pids"):
        folder.mkdir(exist_ok=True)
        (folder / "pids.max").write_text("64\n")
    assert "64 in this container or service: pids.max" in describe_refusal()
    for folder in (tmp_path, tmp_path / "pids"):
        (folder / "pids.max").write_text("max\n")
    assert "container" not in describe_refusal()
