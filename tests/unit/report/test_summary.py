"""pipeline/report/summary.py: what a run says of itself when it has ended."""

from __future__ import annotations

import pytest

from pipeline.messages import FailureKind, Outcome, Result, Source
from pipeline.report.summary import Summary, print_summary


def outcome(status: str, text: str = "", kind: FailureKind | None = None, name: bytes = b"a") -> Outcome:
    result = Result("up", b"/out/" + name, status, text, kind, detail="Traceback of it\n")  # type: ignore[arg-type]
    return Outcome(Source(name, 1, 1), (result,))


def test_results_are_counted_by_status() -> None:
    """Done, skipped and failed each by themselves; what vanished is no failure."""
    summary = Summary()
    for each in (outcome("done"), outcome("skipped", "small"), outcome("failed", "ValueError: x", "error"),
                 outcome("failed", "vanished while reading", "vanished")):  # fmt: skip
        summary.add(each)
    assert (summary.done, summary.skipped, summary.failed, summary.vanished, summary.exit) == (1, 1, 1, 1, 1)
    assert summary.reasons == {"ValueError": 1}


def test_a_source_that_moved_is_no_failed_file() -> None:
    """Only a file over which a stage failed uses up the error budget."""
    summary = Summary()
    assert summary.count_tried(outcome("failed", "x", "error")) and summary.count_tried(
        outcome("failed", "x", "timeout")
    )
    assert not summary.count_tried(outcome("failed", "changed", "changed")) and not summary.count_tried(outcome("done"))
    assert summary.failed_files == 2


def test_the_first_failures_are_named_and_all_are_counted() -> None:
    """A terminal is not filled by a night that went wrong."""
    summary = Summary(pipeline="photos")
    for number in range(25):
        summary.add(outcome("failed", f"ValueError: {number}", "error", b"%d.jpg" % number))
    lines = summary.lines()
    assert lines[0] == "photos: 25 failed (0 files, 0.0 s)"
    assert lines[1] == "  0.jpg (up): ValueError: 0" and len(lines) == 22
    assert lines[-1] == "  ... and 5 more: python -m pipeline failures"


def test_the_program_that_was_typed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever typed `filemill` is told to type `filemill`."""
    monkeypatch.setattr("sys.argv", ["/usr/bin/filemill"])
    summary = Summary(failed=1)
    assert summary.lines()[1] == "  ... and 1 more: filemill failures"


def test_outputs_that_failed_alike_share_a_line() -> None:
    """And only `-v` shows tracebacks."""
    results = tuple(
        Result(stage, b"", "failed", "not UTF-8", "error", "Traceback of it\n") for stage in ("web", "thumb")
    )
    summary = Summary()
    summary.add(Outcome(Source(b"a", 1, 1), results))
    assert summary.lines()[1:] == ["  a (web, thumb): not UTF-8"]
    assert "Traceback of it" in "\n".join(summary.lines(verbose=True))


def test_rare_counts_have_a_key_only_where_they_are() -> None:
    """`--json` stays small."""
    assert set(Summary().as_json()) == {
        "run", "done", "up_to_date", "skipped", "failed", "held", "pruned", "seconds", "exit", "sources"
    }  # fmt: skip
    assert Summary(settling=2).as_json()["settling"] == 2


def test_a_night_without_news_prints_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    """Without a terminal only a run that went wrong writes to stderr, from which cron makes a mail."""
    print_summary(Summary(done=3), is_quiet=False, is_verbose=False)
    assert capsys.readouterr().err == ""
    print_summary(Summary(failed=1, exit=1), is_quiet=True, is_verbose=False)
    assert capsys.readouterr().err.startswith("1 failed")


def test_a_group_that_waits_is_counted_without_its_number() -> None:
    """However many members failed, that is one reason."""
    summary = Summary()
    for number in (1, 1200):
        result = Result("sheet", b"/out/a", "failed", f"{number:,} members failed", "error", code="members_failed")
        summary.add(Outcome(Source(b"a", 1, 1), (result,)))
    assert summary.reasons == {"members failed": 2}


def test_notes_are_counted_by_what_they_have_in_common() -> None:
    """A hundred films of different lengths are one line."""
    summary = Summary()
    for frames in (4, 7):
        notes = ((f"first frame only, of {frames}", "first frame only"),)
        summary.add(Outcome(Source(b"a", 1, 1), (Result("up", b"/out/a", "done", notes=notes),)))
    assert "2 done with a note: first frame only" in summary.lines()
