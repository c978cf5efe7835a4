"""What is recorded of files that failed, and when they are left alone."""

from __future__ import annotations

import time

import pytest
from support.records import RECIPES, SOURCE, done, fail, key, skip

from pipeline.ledger.failures import RetryPolicy
from pipeline.ledger.ledger import Ledger
from pipeline.messages import FailureKind, Outcome, Result


def test_attempts_are_counted_until_it_is_done(ledger: Ledger) -> None:
    """A failure has its last reason and in how many runs it happened; done or left out, it is forgotten."""
    for expected in (1, 2):
        fail(ledger)
        fail(ledger)
        ledger.end_run(1, {}, swept=False)
        (failure,) = ledger.failures.all()
        assert (failure.source, failure.stage, failure.error, failure.attempts) == (b"a", "up", "why", expected)
    done(ledger)
    assert list(ledger.failures.all()) == []
    fail(ledger)
    skip(ledger)
    assert list(ledger.failures.all()) == []


@pytest.mark.parametrize(("exit_code", "counted"), [(0, 1), (1, 1), (3, 0), (130, 0)])
def test_a_run_that_was_cut_short_counts_no_attempt(ledger: Ledger, exit_code: int, counted: int) -> None:
    """Nothing is held for what a full disk or Ctrl-C has done."""
    fail(ledger)
    ledger.end_run(exit_code, {}, swept=False)
    assert [each.attempts for each in ledger.failures.all()] == [counted]


def failed_now(ledger: Ledger, kind: FailureKind = "error", **source: int) -> bool:
    """Record a failure of `a`, and return whether it is a new one."""
    result = Result("up", b"/project/out/a", "failed", "why", kind, place="stages/up.py:3")
    return bool(ledger.record(Outcome(SOURCE._replace(**source), (result,), seat=2), key, RECIPES))


def test_a_failure_is_new_once(ledger: Ledger) -> None:
    """As long as its source and its recipe are the same, and it is not made in between."""
    assert [failed_now(ledger) for _ in range(3)] == [True, False, False]
    assert [failed_now(ledger, mtime_ns=7) for _ in range(2)] == [True, False]
    assert [failed_now(ledger, "changed", mtime_ns=7) for _ in range(2)] == [True, True]
    assert not failed_now(ledger, mtime_ns=7)
    done(ledger)
    assert failed_now(ledger, mtime_ns=7)
    row = ledger._connection.execute("SELECT seat, place FROM failures").fetchall()
    assert row == [(2, "stages/up.py:3")]


@pytest.mark.parametrize("exit_code", [1, 5, 130])
def test_a_job_that_was_cut_off_is_no_attempt(ledger: Ledger, exit_code: int) -> None:
    """However often, and whatever else failed in its run; attempts from before stay."""
    cut = Result("up", b"/project/out/a", "failed", "cut off", "interrupted")
    fail(ledger)
    ledger.end_run(1, {}, swept=False)
    for _ in range(3):
        ledger.record_cut_off(Outcome(SOURCE, ()), cut, RECIPES["up"])
        ledger.end_run(exit_code, {}, swept=False)
    assert [each.attempts for each in ledger.failures.all()] == [1]


def test_a_job_that_was_cut_off_has_not_failed(ledger: Ledger) -> None:
    """Unless it had before; nor has it recovered once it is made."""
    cut = Result("up", b"/project/out/a", "failed", "cut off", "interrupted")

    def cut_off() -> None:
        ledger.record_cut_off(Outcome(SOURCE, ()), cut, RECIPES["up"])
        ledger.end_run(130, {}, swept=False)

    cut_off()
    ledger.begin_run("next")
    assert failed_now(ledger) and [each.is_new for each in ledger.failures.of_run("next")] == [True]
    (failure,), next_ns = ledger.failures.all(), time.time_ns()
    assert not failure.is_new_since(next_ns) and failure.is_new_since(next_ns - 60 * 10**9)
    ledger.end_run(1, {}, swept=False)
    cut_off()
    assert not failed_now(ledger)
    done(ledger)
    ledger.failures.flush()
    assert (ledger.failures.recovered, ledger.failures.first_recovered) == (1, [(b"a", "up")])
    cut_off()
    done(ledger)
    ledger.failures.flush()
    assert ledger.failures.recovered == 1


def test_what_has_recovered_outlives_another_plan(ledger: Ledger) -> None:
    """The code may change during the run."""
    fail(ledger)
    done(ledger)
    ledger.forget_plan()
    assert (ledger.failures.recovered, ledger.failures.first_recovered) == (1, [(b"a", "up")])


def test_another_source_begins_at_no_attempt(ledger: Ledger) -> None:
    """Attempts and a dismissal are of a source as it was, by the recipe that failed."""
    fail(ledger)
    ledger.end_run(1, {}, swept=False)
    assert ledger.failures.dismiss(lambda source: source == b"a", "a") == (1, 0)
    failed = Result("up", b"/project/out/a", "failed", "why", "error")
    ledger.record(Outcome(SOURCE._replace(mtime_ns=7), (failed,)), key, RECIPES)
    (failure,) = ledger.failures.all()
    assert (failure.attempts, failure.dismissed_at, failure.source_mtime_ns) == (0, None, 7)


@pytest.mark.parametrize(
    ("hold_after", "retry_failed", "dismissed", "left_alone"),
    [(1, False, False, True), (2, False, False, False), (None, False, False, False), (None, False, True, True),
     (1, True, True, False)],
)  # fmt: skip
def test_a_file_is_left_alone_after_so_many_attempts(
    ledger: Ledger, hold_after: int | None, retry_failed: bool, dismissed: bool, left_alone: bool
) -> None:
    """Or once it is dismissed; `--retry-failed` tries both again."""
    fail(ledger)
    ledger.end_run(1, {}, swept=False)
    if dismissed:
        ledger.failures.dismiss(lambda source: True, "*")
    (failure,) = ledger.failures.all()
    assert RetryPolicy(hold_after, retry_failed).is_over(failure) is left_alone


def test_what_only_the_plan_refuses_is_not_dismissed(ledger: Ledger) -> None:
    """No stage was tried: there is nothing to dismiss, and the person is told how many those are."""
    refused = Result("up", b"/project/out/a", "failed", "not ours")
    ledger.record(Outcome(SOURCE, (refused,)), key, RECIPES, tried=False)
    assert ledger.failures.dismiss(lambda source: True, "*") == (0, 1)
    ledger.end_run(1, {}, swept=False)
    assert [each.attempts for each in ledger.failures.all()] == [0]


def test_a_source_that_changed_has_no_failure_but_is_not_made(ledger: Ledger) -> None:
    """Groups that need its output must know that it is missing, until the next run tries anew."""
    fail(ledger, "changed")
    fail(ledger, "vanished")
    assert not list(ledger.failures.all()) and list(ledger.failures.failed_sources("up")) == [b"a"]
    assert not list(ledger.failures.failed_sources("down"))


def test_long_text_is_kept_from_both_ends(ledger: Ledger) -> None:
    """What was printed may be megabytes; its beginning and its end tell most."""
    failed = Result("up", b"/project/out/a", "failed", "why", "error")
    ledger.record(Outcome(SOURCE, (failed,), output="first" + "." * 100_000 + "last"), key, RECIPES)
    (failure,) = ledger.failures.all()
    printed = ledger.failures.printed(failure)
    assert printed.startswith("first") and printed.endswith("last") and len(printed) < 5000
    assert "characters left out" in printed


def test_a_failure_can_be_forgotten(ledger: Ledger) -> None:
    """Its source or its stage is gone."""
    fail(ledger)
    ledger.failures.forget([(b"a", "down")])
    assert len(ledger.failures.of_source(b"a")) == 1
    ledger.failures.forget([(b"a", "up")])
    assert not ledger.failures.of_source(b"a")
