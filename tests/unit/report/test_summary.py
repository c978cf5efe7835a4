"""pipeline/report/summary.py: what a run says of itself when it has ended."""

from __future__ import annotations

import pickle
from typing import Any

import pytest

from pipeline.messages import FailureKind, Outcome, Result, Source
from pipeline.report.summary import Summary, next_commands, print_summary


def outcome(
    status: str, text: str = "", kind: FailureKind | None = None, name: bytes = b"a", **more: Any
) -> Outcome:  # fmt: skip
    result = Result("up", b"/out/" + name, status, text, kind, "Traceback of it\n", **more)  # type: ignore[arg-type]
    return Outcome(Source(name, 1, 1), (result,))


def of_failures(*outcomes: Outcome, **more: Any) -> Summary:
    """Return the summary of a run with these outcomes."""
    summary = Summary(yaml="/srv/a b/pipeline.yaml", state="/srv/a b/.pipeline", log="/srv/a b/1.log", **more)
    for each in outcomes:
        summary.add(each)
    return summary


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


def test_many_files_with_one_reason_are_one_line() -> None:
    """A terminal is not filled by a night that went wrong; few files have a line each."""
    summary = Summary(pipeline="photos")
    for number in range(60):
        summary.add(outcome("failed", "cannot identify image", "error", b"%d.jpg" % number, place="stages/up.py:4"))
    for number in range(25):
        summary.add(outcome("failed", f"ValueError: {number}", "error", b"%d.png" % number))
    summary.add(outcome("failed", "KeyError: 'x'", "error", b"k"))
    assert summary.lines() == [
        "photos: 86 failed (0 files, 0.0 s)",
        "  60 files (up): cannot identify image at stages/up.py:4, e.g. 0.jpg, 1.jpg, 2.jpg",
        "  25 files (up): ValueError, e.g. 0.png: ValueError: 0",
        "  k (up): KeyError: 'x'",
        "reasons: 60 cannot identify image, 25 ValueError, 1 KeyError",
    ]


def test_no_more_than_ten_reasons_are_shown_and_the_rest_is_counted() -> None:
    """Where all texts differ, too."""
    summary = of_failures(*(outcome("failed", f"kind {chr(97 + n)}", "error", b"%d" % n) for n in range(26)))
    assert "  ... and 16 more: python -m pipeline failures '/srv/a b/pipeline.yaml'" in summary.lines()
    news = of_failures(
        *(outcome("failed", f"kind {chr(97 + n)}", "error", b"%d" % n, is_new=True) for n in range(26))
    ).news()
    assert "  ... and 16 more new failures" in news and len(news) == 16


def test_failures_without_end_fill_no_memory() -> None:
    """Of a million different ones each has a long traceback; all are counted."""
    summary = Summary()
    for number in range(5000):
        result = Result("up", b"/o", "failed", "x" * 400, "error", "T" * 60_000, place=f"x.py:{number}")
        summary.add(Outcome(Source(b"%d" % number, 1, 1), (result,)))
    assert len(pickle.dumps(summary)) < 4_000_000 and summary.failed == 5000
    assert "  ... and 4,990 more: python -m pipeline failures" in summary.lines()


def test_new_failures_come_first_and_are_marked_among_others() -> None:
    """Whoever sits at the terminal sees what was not so yesterday."""
    old = [outcome("failed", "not UTF-8", "error", b"%d" % number) for number in range(5)]
    summary = of_failures(*old, outcome("failed", "not UTF-8", "error", b"x", is_new=True))
    assert (summary.failed, summary.new_failed) == (6, 1)
    assert summary.lines()[:3] == [
        "6 failed (1 new) (0 files, 0.0 s)",
        "  new: x (up): not UTF-8",
        "  5 files (up): not UTF-8, e.g. 0, 1, 2",
    ]
    assert "new: " not in "".join(of_failures(*old).lines())


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


@pytest.mark.parametrize("is_quiet", [False, True])
def test_a_night_without_news_prints_nothing(capsys: pytest.CaptureFixture[str], is_quiet: bool) -> None:
    """Without a terminal only what is new is written to stderr, from which cron makes a mail; `-v` writes all."""
    known = outcome("failed", "not UTF-8", "error")
    for silent in (
        Summary(done=3), of_failures(known), Summary(held=2, exit=6), Summary(notes=["a note"]),
        Summary(exit=5, stopped="its time is up"),
    ):  # fmt: skip
        print_summary(silent, is_quiet=is_quiet, is_verbose=False)
        assert capsys.readouterr().err == ""
    print_summary(Summary(done=3), is_quiet=False, is_verbose=True)
    assert capsys.readouterr().err == "3 done (0 files, 0.0 s)\n"
    print_summary(
        of_failures(outcome("failed", "not UTF-8", "error", is_new=True)), is_quiet=is_quiet, is_verbose=False
    )
    assert capsys.readouterr().err.splitlines() == [
        "1 failed (0 files, 0.0 s)",
        "  a (up): not UTF-8",
        "next: python -m pipeline failures '/srv/a b/pipeline.yaml'",
        "pipeline: /srv/a b/pipeline.yaml",
        "state: /srv/a b/.pipeline",
        "log: /srv/a b/1.log",
    ]


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"exit": 3, "stopped": "no space"},
         ["stopped: no space", "a note", "next: python -m pipeline run '/srv/a b/p.yaml'"]),
        ({"exit": 4, "stopped": "too many", "remedy": "prune", "held": 2},
         ["stopped: too many", "a note", "next: python -m pipeline prune '/srv/a b/p.yaml'"]),
        ({"exit": 130, "stopped": "by SIGINT", "held": 2},
         ["stopped: by SIGINT", "a note", "next: python -m pipeline run '/srv/a b/p.yaml'"]),
        ({"exit": 143, "stopped": "by SIGTERM", "cut_off": ["a: cut off"]},
         ["stopped: by SIGTERM", "a note", "  a: cut off", "next: python -m pipeline run '/srv/a b/p.yaml'"]),
        ({"recovered": 2, "first_recovered": [(Source(b"a", 1, 1), "up"), (Source(b"b", 1, 1), "up")]},
         ["recovered: a (up), b (up)"]),
        ({"new_notes": ["a note"]}, ["a note"]),
        ({"reminder": "held: a", "held": 1, "exit": 6},
         ["held: a", "next: python -m pipeline failures '/srv/a b/p.yaml'"]),
    ],
)  # fmt: skip
def test_what_else_is_news(more: dict[str, Any], said: list[str]) -> None:
    """Why a run was stopped, what has recovered, what the run before did not note."""
    summary = Summary(yaml="/srv/a b/p.yaml", notes=["a note"], **more)
    assert summary.news()[1:-1] == said and summary.news()[-1] == "pipeline: /srv/a b/p.yaml"


@pytest.mark.parametrize("length", [10, 200, 3000, 100_000])
def test_a_mail_is_at_most_4_kB(length: int) -> None:
    """It is cut by whole lines, what is left out is counted, and what to do next stays."""
    failed = [
        outcome("failed", f"{chr(97 + n)} " + "ä" * length, "error", b"%d" % n, is_new=True, place="x.py:1")
        for n in range(12)
    ]
    summary = of_failures(*failed, new_notes=["n" * length + "\x1b[2J\n" for _ in range(30)])
    news = summary.news()
    assert len("".join(f"{line}\n" for line in news).encode()) <= 4000
    assert all(line.isprintable() for line in news)
    assert news[-4:] == [
        "next: python -m pipeline failures '/srv/a b/pipeline.yaml'", "pipeline: /srv/a b/pipeline.yaml",
        "state: /srv/a b/.pipeline", "log: /srv/a b/1.log",
    ]  # fmt: skip
    shown = sum(line.endswith("at x.py:1") or "(up): " in line for line in news)
    left_out = 12 - shown
    assert left_out >= 2 and f"  ... and {left_out} more new failures" in news


def test_a_path_that_fills_a_mail_is_left_out() -> None:
    """A folder may have a name of 4,000 characters."""
    summary = Summary(exit=3, stopped="x", yaml="/y", state="/" + "s" * 4000, log="/l")
    assert summary.news()[-2:] == ["next: python -m pipeline run /y", "pipeline: /y"]


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


@pytest.mark.parametrize(
    ("edits", "more", "commands"),
    [
        (("stages.up.with.mark=it's",), {"exit": 3},
         ("run FILE --set 'stages.up.with.mark=it'\"'\"'s'",)),
        (("a=1", "b=2"), {"exit": 6, "held": 1}, ("failures FILE", "run FILE --retry-failed --set a=1 --set b=2")),
        (("a=1",), {"exit": 2}, ("check FILE --set a=1",)),
        (("a=1",), {"exit": 4, "remedy": "prune"}, ()),
        (("state = other",), {"exit": 1, "failed": 1}, ()),
    ],
)  # fmt: skip
def test_a_command_after_edits_has_them_or_there_is_none(
    edits: tuple[str, ...], more: dict[str, Any], commands: tuple[str, ...]
) -> None:
    """Without them it would make what is good anew, or look at another state."""
    summary = Summary(yaml="/srv/p.yaml", edits=edits, **more)
    assert next_commands(summary) == tuple(
        f"python -m pipeline {each.replace('FILE', '/srv/p.yaml')}" for each in commands
    )
