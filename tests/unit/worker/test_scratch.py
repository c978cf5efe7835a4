"""The scratch folder of one job: there when it is needed, and gone with the job."""

from __future__ import annotations

import resource
import subprocess
import sys
from pathlib import Path

import pytest
from support.program import ROOT

from pipeline.worker import scratch
from pipeline.worker.scratch import PeakMeter, Scratch


def test_the_folder_is_created_when_it_is_needed(tmp_path: Path) -> None:
    """A job that needs none pays for none, and leaves none."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    scratch.remove(tmp_path / "set-aside")
    assert list(tmp_path.iterdir()) == []
    file = scratch.new_file(".txt")
    file.write_text("x")
    assert file != scratch.new_file(".txt") and scratch.holds(file)
    scratch.remove(tmp_path / "set-aside")
    assert list((tmp_path / "run").iterdir()) == []


def test_what_is_linked_there_does_not_lie_there(tmp_path: Path) -> None:
    """Nor does a path that leads out of it: a file that it holds may be renamed."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    (tmp_path / "source").write_text("x")
    link = scratch.create() / "link"
    link.symlink_to(tmp_path / "source")
    assert not scratch.holds(link) and not scratch.holds(scratch.create() / ".." / ".." / "source")


def test_the_files_of_a_part_go_with_it(tmp_path: Path) -> None:
    """Those that a stage made of it as well; older ones stay."""
    scratch = Scratch(tmp_path / "run", tmp_path, b"")
    kept = scratch.new_file(".txt")
    begun = scratch.begin_part()
    ours, made = scratch.new_file(".png"), scratch.create() / "made"
    for file in (kept, ours, made):
        file.write_text("x")
    scratch.add_part_file(made)
    scratch.end_part(begun)
    assert list(scratch.create().iterdir()) == [kept]


# Holds what each job says, in megabytes, and prints what the meter tells after each.
JOBS = """
import sys
from pipeline.worker.scratch import PeakMeter
meter = PeakMeter()
for megabytes in map(int, sys.argv[1].split()):
    meter.begin()
    held = b"x" * (megabytes * 1_000_000)
    del held
    print((meter.take() or 0) // 1_000_000)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the kernel must begin anew")
def test_the_peak_is_that_of_the_job() -> None:
    """A small job after a large one took what the worker holds anyway, and one that is as large again took as much."""
    # A process that is started by another at once has the peak of that for its own; one that a shell forks does not.
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", JOBS, "1 200 1 1 100 200 1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT)
    own, *peaks = map(int, done.stdout.split())
    assert 0 < own < 60
    expected = [200, 0, 0, 100, 200, 0]
    assert all(abs(peak - own - taken) < 40 for peak, taken in zip(peaks, expected, strict=True)), (own, peaks)


def test_a_peak_of_long_ago_is_no_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the kernel does not begin anew, what does not exceed it is unknown; what does, is known."""
    monkeypatch.setattr(scratch, "_held_bytes", lambda: 0)  # so that what it held before looks as long ago
    meter = PeakMeter()
    meter.begin()
    assert meter.take() is None
    held = b"x" * ((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << 10) + 50_000_000)
    assert (meter.take() or 0) > len(held)
