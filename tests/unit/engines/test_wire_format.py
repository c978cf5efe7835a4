"""Jobs and answers arrive as they were sent."""

from __future__ import annotations

import threading
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.engines import wire_format
from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.made_jobs import MadeJobs
from pipeline.messages import (
    AnyJob,
    Begin,
    Group,
    GroupJob,
    Handed,
    Job,
    MadePart,
    Outcome,
    Result,
    Source,
    Target,
    Usage,
)

NUMBERS = st.integers(-(2**63), 2**63 - 1)
SOURCES = st.builds(Source, st.binary(), NUMBERS, NUMBERS)
BEGINS = st.builds(Begin, st.none() | st.integers(0, 9), st.binary(), st.text(), st.lists(st.text()).map(tuple))
TARGETS = st.builds(Target, st.text(), st.binary()) | st.from_type(Target)
GROUPS = st.builds(
    GroupJob, st.builds(Group, st.text(), st.none() | st.binary(), NUMBERS, NUMBERS), TARGETS, st.binary()
)
JOBS = GROUPS | st.builds(Job, SOURCES, st.lists(TARGETS, max_size=4).map(tuple), st.none() | BEGINS)
RESULTS = st.from_type(Result)
SECONDS = st.floats(allow_nan=False)  # which equals nothing
FAILURES = st.builds(
    WorkerFailure, st.sampled_from(["error", "crashed"]), st.integers(0, 9), st.text(),
    usage=st.none() | st.builds(Usage, SECONDS, st.none() | SECONDS),
)  # fmt: skip
HANDED = st.builds(Handed, st.integers(0, 9), BEGINS, st.lists(st.text()).map(tuple))


def same(one: object, other: object) -> bool:
    """Equal, and of the same types all the way down: a named tuple equals a bare one."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return type(one) is type(other) and len(one) == len(other) and all(map(same, one, other))
    return bool(one == other) and type(one) is type(other)


@st.composite
def plain_outcomes(draw: st.DrawFn, job: AnyJob) -> Outcome:
    """An outcome as nearly all are, with every target done; or nearly so, with a field that is not as usual."""
    made = [(draw(NUMBERS), draw(NUMBERS), draw(st.binary())) for _ in job.targets]
    results = [
        Result(target.stage, target.path, "done", "", None, "", *each)
        for target, each in zip(job.targets, made, strict=True)
    ]
    outcome = Outcome(job.origin, tuple(results), 0.5, source_digest=draw(st.binary()), peak_bytes=draw(NUMBERS))
    if results and draw(st.booleans()):
        field = draw(st.sampled_from(Result._fields))
        other = draw(RESULTS)
        results[-1] = results[-1]._replace(**{field: getattr(other, field)})
        outcome = outcome._replace(results=tuple(results))
    return outcome._replace(**draw(st.sampled_from([{}, {}, {"goes_on": True}, {"output": "text"}, {"bytes_in": 1}])))


def seated(answer: wire_format.Answer) -> wire_format.Answer:
    """Return what arrives of an answer that the worker in seat 3 has sent."""
    return answer if isinstance(answer, WorkerFailure) else answer._replace(seat=3, usage=None)


@given(st.lists(JOBS, max_size=5))
@settings(max_examples=50, deadline=None)
def test_jobs_arrive_as_they_were_sent(jobs: list[AnyJob]) -> None:
    """Every field of each, and as the types that the worker expects."""
    found = wire_format.unpack_jobs(wire_format.pack_jobs(jobs))
    assert len(found) == len(jobs) and all(map(same, found, jobs))


@given(st.data())
@settings(max_examples=50, deadline=None)
def test_answers_arrive_as_they_were_sent(data: st.DataObject) -> None:
    """Outcomes with the source as the worker saw it or the group, and failures; fewer where a worker had to leave."""
    jobs = data.draw(st.lists(JOBS, max_size=5))
    answers: list[wire_format.Answer] = []
    for job in jobs[: data.draw(st.integers(0, len(jobs)))]:
        origin = data.draw(st.just(job.origin) | SOURCES) if isinstance(job, Job) else job.group
        results = tuple(data.draw(st.lists(RESULTS, max_size=3)))
        handed = tuple(data.draw(st.lists(HANDED, max_size=2)))
        whole = Outcome(origin, results, 0.5, data.draw(st.text()), data.draw(st.text()), handed=handed)
        plain = data.draw(plain_outcomes(job))
        answers.append(data.draw(st.just(whole) | st.just(plain) | FAILURES))
    found = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, answers, 3))
    assert len(found) == len(answers) and all(map(same, found, map(seated, answers)))


def test_no_field_is_left_out() -> None:
    """Also one that is added one day arrives."""
    jobs = [Job(Source(b"a", 1, 2), (Target("web", b"/a"),), Begin(0, b"/file", "path", ("note",)))]
    result = Result(*[f"field {number}" for number in range(len(Result._fields))])  # type: ignore[arg-type]
    others = [f"field {number}" for number in range(2, len(Outcome._fields))]
    answers: list[wire_format.Answer] = [Outcome(Source(b"a", 7, 8), (result, result), *others)]  # type: ignore[arg-type]
    found = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, answers, 3))
    assert found == [seated(each) for each in answers]
    target = Target(*[f"field {number}" for number in range(len(Target._fields))])  # type: ignore[arg-type]
    jobs = [Job(Source(b"a", 1, 2), (target,))]
    assert wire_format.unpack_jobs(wire_format.pack_jobs(jobs)) == jobs


def test_parts_arrive() -> None:
    """Those of a fan-out are named tuples in a named tuple."""
    jobs = [Job(Source(b"a", 1, 2), (Target("web", b"/a"),))]
    part = MadePart("0", b"/out/0", 3, 4, b"digest")
    answers: list[wire_format.Answer] = [
        Outcome(jobs[0].source, (Result("web", b"/a", "done", parts=(part, part._replace(name="1"))),))
    ]
    [found] = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, answers, 3))
    assert same(found, seated(answers[0]))


def test_what_cannot_be_sent_costs_its_job_only() -> None:
    """A value that does not pickle becomes a failure that says so; the batch's other answers arrive."""
    jobs = [Job(Source(name, 1, 2), (Target("web", b"/a"),)) for name in (b"a", b"b", b"c")]
    bad: Any = threading.Lock()
    answers: list[wire_format.Answer] = [
        Outcome(each.source, (Result("web", b"/a", "done", bad if each.source.path == b"b" else ""),)) for each in jobs
    ]
    found = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, answers, 3))
    assert (found[0], found[2]) == (seated(answers[0]), seated(answers[2]))
    assert isinstance(found[1], WorkerFailure) and found[1].kind == "error"
    assert "the outcome cannot be sent to the parent" in found[1].text


class Unreadable(Exception):
    """Can be pickled, and not read again."""

    def __init__(self, one: str, other: str) -> None:
        super().__init__(one)


def test_what_cannot_be_read_fails_every_job_of_the_batch() -> None:
    """The parent says so of each, and goes on."""
    jobs = [Job(Source(name, 1, 2), (Target("web", b"/a"),)) for name in (b"a", b"b")]
    bad: Any = Unreadable("a", "b")
    answers: list[wire_format.Answer] = [Outcome(each.source, (Result("web", b"/a", "done", bad),)) for each in jobs]
    found = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, answers, 3))
    assert ["cannot be read by the parent" in each.text for each in found if isinstance(each, WorkerFailure)] == [
        True
    ] * 2


def test_a_plain_job_is_small() -> None:
    """What only parts and groups need does not cross for the others: a good part of what a tiny file costs."""
    plain = wire_format.pack_jobs([Job(Source(b"a", 1, 2), (Target("web", b"/a"),))])
    whole = wire_format.pack_jobs([Job(Source(b"a", 1, 2), (Target("web", b"/a", is_forced=True),))])
    assert len(plain) < len(whole)


def test_what_jobs_used_arrives_with_them() -> None:
    """Where a trace is written, of plain answers as of others; of a job without an outcome nobody asks."""
    jobs = [Job(Source(name, 1, 2), (Target("web", b"/a"),)) for name in (b"a", b"b", b"c")]
    usages = [(1e9, 0.25), (2e9, 0.5), (3e9, 0.75)]
    answers: list[wire_format.Answer] = [Outcome(each.source, (Result("web", b"/a", "done"),)) for each in jobs]
    odd: list[wire_format.Answer] = [WorkerFailure("error", 0, "no"), Outcome(jobs[2].source, ())]
    for sent in (answers, answers[:1] + odd):
        found = wire_format.unpack_answers(jobs, wire_format.pack_answers(jobs, sent, 3, usages))
        used = [None if isinstance(each, WorkerFailure) else each.usage for each in found]
        assert used == [Usage(*usages[0], 3), Usage(*usages[1], 3) if sent is answers else None, Usage(*usages[2], 3)]
        assert isinstance(found, MadeJobs) == (sent is answers)
