"""What becomes of a job after each try: the rules, without processes."""

from __future__ import annotations

import pytest
from support.pool_jobs import STAGES, job

from pipeline.engines.attempts import Attempt, NextStep, WorkerFailure, failure_text, with_descendants
from pipeline.engines.output_capture import KEPT_BYTES
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import (
    Begin,
    FailureKind,
    Group,
    GroupJob,
    Handed,
    LateFile,
    Lost,
    Outcome,
    Result,
    Source,
    Target,
    Usage,
)

DECODE, WEB, THUMB, PRINT = range(4)
CRASH = WorkerFailure("crashed", WEB, "killed by SIGSEGV")


def done(stage: str) -> Result:
    return Result(stage, stage.encode(), "done")


def failed(stage: str, kind: FailureKind = "error") -> Result:
    return Result(stage, stage.encode(), "failed", "bad file", kind)


def outcome(attempt: Attempt, *results: Result, **fields: object) -> Outcome:
    return Outcome(attempt.job.source, results)._replace(**fields)


def statuses(attempt: Attempt) -> dict[str, str]:
    return {each.stage: each.kind or each.status for each in attempt.outcome().results}


def remaining(attempt: Attempt) -> list[str]:
    return [target.stage for target in attempt.remaining.targets]


@pytest.mark.parametrize(
    ("results", "is_settled"),
    [((), True), ((done("web"),), True), ((Result("web", b"", "skipped", "no"),), True), ((failed("web"),), False)],
)
def test_most_jobs_are_settled_at_once(results: tuple[Result, ...], is_settled: bool) -> None:
    """Whatever nothing of has failed is delivered as the worker sent it."""
    attempt = Attempt(job("x"))
    assert attempt.is_settled_by(outcome(attempt, *results)) is is_settled


def test_a_later_try_is_merged_with_those_before() -> None:
    """After a death even a perfect outcome is not all there is to say."""
    attempt = Attempt(job("x", "web", "print"))
    attempt.add_failure(CRASH, STAGES)
    assert not attempt.is_settled_by(outcome(attempt, done("web"), done("print")))


def test_what_it_took_is_of_all_tries() -> None:
    """The seat is the last one's, the memory the most of any."""
    attempt = Attempt(job("x", "web"), retries_left=1)
    attempt.add_outcome(outcome(attempt, failed("web"), seat=0, peak_bytes=300))
    attempt.add_outcome(outcome(attempt, done("web"), seat=1, peak_bytes=200))
    assert (attempt.outcome().seat, attempt.outcome().peak_bytes) == (1, 300)


def test_one_death_is_forgiven_and_the_second_costs_its_stage_and_what_is_below() -> None:
    """The siblings of the guilty stage are still to be made, and have a death of their own to be forgiven."""
    attempt = Attempt(job("x", "decode", "web", "thumb", "print"))
    assert attempt.add_failure(CRASH, STAGES) is NextStep.RUN_ALONE
    assert remaining(attempt) == ["decode", "web", "thumb", "print"]
    assert attempt.add_failure(CRASH, STAGES) is NextStep.RUN_ALONE
    assert remaining(attempt) == ["decode", "print"]
    assert attempt.add_failure(CRASH._replace(stage=PRINT), STAGES) is NextStep.RUN_ALONE
    assert attempt.add_failure(CRASH._replace(stage=PRINT), STAGES) is NextStep.RUN_ALONE
    assert remaining(attempt) == ["decode"]
    assert attempt.add_outcome(outcome(attempt, done("decode"))) is NextStep.DELIVER
    assert statuses(attempt) == {"decode": "done", "web": "crashed", "thumb": "crashed", "print": "crashed"}


@pytest.mark.parametrize("kind", ["timeout", "error"])
def test_what_is_not_the_workers_fault_is_not_forgiven(kind: FailureKind) -> None:
    """A job that took too long would take as long again."""
    attempt = Attempt(job("x", "web", "print"))
    assert attempt.add_failure(WorkerFailure(kind, WEB, "took too long"), STAGES) is NextStep.RUN_ALONE
    assert remaining(attempt) == ["print"]


@pytest.mark.parametrize("stage", [NO_STAGE, THUMB])
def test_a_death_in_no_stage_that_remains_costs_everything(stage: int) -> None:
    """Where no stage was in hand, or one that has no output, nothing can be kept."""
    attempt = Attempt(job("x", "web", "print"))
    failure = WorkerFailure("timeout", stage, "took too long", detail="stacks")
    assert attempt.add_failure(failure, STAGES) is NextStep.DELIVER
    assert [(each.kind, each.detail) for each in attempt.outcome().results] == [("timeout", "stacks")] * 2


def test_memory_is_forgiven_once_and_siblings_are_kept() -> None:
    """A job that ran out of memory runs with what failed while no other job does, then fails; nothing is made twice."""
    attempt = Attempt(job("x", "web", "print"))
    assert attempt.add_outcome(outcome(attempt, done("print"), failed("web", "memory"))) is NextStep.RUN_LAST
    assert remaining(attempt) == ["web"]
    assert attempt.add_failure(WorkerFailure("memory", WEB, "killed at 3 GB"), STAGES) is NextStep.DELIVER
    assert statuses(attempt) == {"print": "done", "web": "memory"}


def test_errors_are_retried_as_often_as_was_asked_for() -> None:
    """Only what failed is tried again, and its last result counts."""
    attempt = Attempt(job("x", "web", "print"), retries_left=2)
    assert attempt.add_outcome(outcome(attempt, done("print"), failed("web"))) is NextStep.RUN_LATER
    assert (remaining(attempt), attempt.retries_taken) == (["web"], 1)
    assert attempt.add_outcome(outcome(attempt, failed("web"))) is NextStep.RUN_LATER
    assert attempt.add_outcome(outcome(attempt, failed("web"))) is NextStep.DELIVER
    assert statuses(attempt) == {"print": "done", "web": "error"}


@pytest.mark.parametrize("kind", ["vanished", "changed", "collision"])
def test_what_would_end_the_same_is_not_retried(kind: FailureKind) -> None:
    """A source that is gone does not come back for being asked again."""
    attempt = Attempt(job("x"), retries_left=3)
    assert attempt.add_outcome(outcome(attempt, failed("web", kind))) is NextStep.DELIVER


def test_what_the_machine_refused_is_delivered_at_once() -> None:
    """A full disk is nobody's attempt, so it is not retried."""
    attempt = Attempt(job("x"), retries_left=3)
    assert attempt.add_outcome(outcome(attempt, failed("web"), environment="no space left")) is NextStep.DELIVER
    assert attempt.outcome().environment == "no space left"


def test_an_outcome_tells_of_all_tries() -> None:
    """Seconds and texts add up; the source is as it was read first, so that a change meanwhile is noticed."""
    attempt = Attempt(job("x", "web", "print"), retries_left=1)
    handed = (Handed(1, Begin(0, b"/file", "path", ()), ("thumb",)),)
    attempt.add_failure(CRASH._replace(output="last words\n"), STAGES)
    first = Outcome(Source(b"x", 1, 1), (done("print"), failed("web")), 2.0, output="one\n", handed=handed)
    attempt.add_outcome(first)
    attempt.add_outcome(Outcome(Source(b"x", 9, 9), (done("web"),), 0.5, output="two\n"))
    found = attempt.outcome()
    assert (found.source, found.seconds, found.handed) == (Source(b"x", 1, 1), 2.5, handed)
    assert found.output == "last words\none\ntwo\n"
    assert statuses(attempt) == {"print": "done", "web": "done"}


def test_the_parts_of_a_stage_are_kept_together() -> None:
    """Of a stage with several results, all of the latest try count, and none of those before."""
    attempt = Attempt(job("x", "web", "web"), retries_left=1)
    attempt.add_outcome(outcome(attempt, done("web"), failed("web")))
    attempt.add_outcome(outcome(attempt, done("web"), done("web")))
    assert [each.status for each in attempt.outcome().results] == ["done", "done"]


def test_a_group_is_forgiven_once_too() -> None:
    """It has one output, and nothing beside it that could be kept."""
    attempt = Attempt(GroupJob(Group("web", b"g"), Target("web", b"/out")), retries_left=1)
    assert attempt.add_outcome(Outcome(attempt.job.origin, (failed("web"),))) is NextStep.RUN_LATER
    assert attempt.add_failure(CRASH, STAGES) is NextStep.RUN_ALONE
    assert attempt.add_failure(CRASH, STAGES) is NextStep.DELIVER
    assert (attempt.outcome().origin, statuses(attempt)) == (Group("web", b"g"), {"web": "crashed"})


def test_texts_stay_short() -> None:
    """However often a job prints its fill, what is kept of it is bounded."""
    attempt = Attempt(job("x"))
    for _ in range(5):
        attempt.add_failure(CRASH._replace(output="x" * KEPT_BYTES), STAGES)
    assert len(attempt.output) < KEPT_BYTES + 100


@pytest.mark.parametrize(
    ("stage", "names"),
    [
        (NO_STAGE, set()), (DECODE, {"decode", "web", "thumb", "print"}), (WEB, {"web", "thumb"}),
        (THUMB, {"thumb"}), (PRINT, {"print"}),
    ],
)  # fmt: skip
def test_a_stage_takes_all_below_it(stage: int, names: set[str]) -> None:
    """Nothing above it, and nothing beside it."""
    assert with_descendants(stage, STAGES) == names


@pytest.mark.parametrize(
    ("stage", "remark", "text"),
    [
        (WEB, "", "killed in stage 'web'"), (WEB, "why", "killed in stage 'web', why"),
        (NO_STAGE, "why", "killed, why"), (99, "", "killed"),
    ],
)  # fmt: skip
def test_the_text_names_the_stage(stage: int, remark: str, text: str) -> None:
    """Where, and what is known beyond that."""
    assert failure_text(WorkerFailure("crashed", stage, "killed", remark), STAGES) == text


def test_who_claims_memory_has_not_failed() -> None:
    """What was made is kept, what was not is made once the memory can be had, without a try of its own."""
    attempt = Attempt(job("x", "web", "print"))
    claim = outcome(attempt, done("web"), failed("print", "memory"), claimed_bytes=300)
    assert not attempt.is_settled_by(claim)
    assert attempt.add_outcome(claim) is NextStep.RUN_LARGE
    assert (attempt.claimed_bytes, remaining(attempt)) == (300, ["print"])
    assert not (attempt.needs_memory or attempt.remaining.is_again)
    assert attempt.add_outcome(outcome(attempt, failed("print", "memory"))) is NextStep.RUN_LAST
    assert attempt.add_outcome(outcome(attempt, done("print"))) is NextStep.DELIVER
    assert statuses(attempt) == {"web": "done", "print": "done"}


def test_a_claim_that_a_stage_has_caught_counts_all_the_same() -> None:
    """All is made again, over what the worker may have named."""
    attempt = Attempt(job("x", "web"))
    late = LateFile(0, "plugin.py", "digest")
    caught = outcome(attempt, done("web"), claimed_bytes=300, late_code=(late,))
    assert not attempt.is_settled_by(caught)
    assert attempt.add_outcome(caught) is NextStep.RUN_LARGE
    assert (remaining(attempt), attempt.remaining.is_again) == (["web"], True)
    again = outcome(attempt, done("web"))
    assert not attempt.is_settled_by(again), "it would not tell what was loaded, which no worker says twice"
    assert attempt.add_outcome(again) is NextStep.DELIVER
    assert (attempt.outcome().late_code, attempt.outcome().claimed_bytes) == ((late,), 0)


def test_a_full_disk_is_no_matter_of_memory() -> None:
    """What the machine refused is told at once."""
    attempt = Attempt(job("x", "web"))
    claim = outcome(attempt, failed("web", "memory"), claimed_bytes=300, environment="disk full")
    assert attempt.add_outcome(claim) is NextStep.DELIVER


def test_a_killed_job_is_of_the_seat_in_which_it_was_killed() -> None:
    """Not of that in which it had an outcome before."""
    attempt = Attempt(job("x", "web"))
    attempt.add_failure(CRASH._replace(seat=1), STAGES)
    attempt.add_failure(CRASH._replace(seat=3), STAGES)
    assert attempt.outcome().seat == 3


@pytest.mark.parametrize("usage", [None, Usage(9.0, 0.5, 1)], ids=["without a trace", "with one"])
def test_what_was_lost_with_a_worker_is_of_its_seat(usage: Usage | None) -> None:
    """The job began there, whichever worker ends it, and that time counts whether or not a trace is written."""
    attempt = Attempt(job("x", "web"))
    attempt.add_failure(
        WorkerFailure("crashed", 0, "killed", seat=4, usage=Usage(2.0, None, 4, (Lost(4, 5.0),))), STAGES
    )
    attempt.add_outcome(outcome(attempt, done("web"), seconds=0.25, seat=1, usage=usage))
    found = attempt.outcome()
    assert (found.seat, found.seconds, found.spent_s, found.lost) == (1, 0.25, 5.25, (Lost(4, 5.0),))
    assert found.usage == Usage(2.0, 0.5 if usage else None, 4, (Lost(4, 5.0),))
