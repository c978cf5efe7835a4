"""pipeline/operations/recorder.py: what a run keeps of itself, and why it stops."""

from __future__ import annotations

import io

import pytest

from pipeline.observer import RunObserver
from pipeline.operations.recorder import RunLog
from pipeline.report.summary import Summary


@pytest.mark.parametrize(
    ("codes", "wins"),
    [((4,), 4), ((4, 3), 3), ((3, 4), 3), ((130, 3), 130), ((3, 143), 143), ((4, 70, 3), 70), ((4, 4), 4)],
    ids=str,
)
def test_the_gravest_cause_of_a_stop_counts(codes: tuple[int, ...], wins: int) -> None:
    """Of two alike the first; all of them are in the log."""
    file, summary = io.StringIO(), Summary(exit=1)
    log = RunLog(file, summary)
    assert not log.is_stopped
    for place, code in enumerate(codes):
        log.stop(code, f"cause {place}")
    assert log.is_stopped and (summary.exit, summary.stopped) == (wins, f"cause {codes.index(wins)}")
    assert file.getvalue().count("stopped: cause") == len(codes)


def test_a_log_that_cannot_be_written_hides_nothing() -> None:
    """On a full disk the notes are in the summary all the same."""

    class Full(io.StringIO):
        def write(self, text: str) -> int:
            raise OSError(28, "No space left on device")

    summary = Summary()
    log = RunLog(Full(), summary)
    log.note("a note")
    log.report_observer(RunObserver(), ValueError("x"))
    log.stop(3, "no space")
    assert summary.notes == ["a note", "RunObserver failed and was left out from then on: ValueError('x')"]
    assert (summary.exit, summary.stopped) == (3, "no space")
