"""Serializes jobs and answers between parent and worker, which is a good part of the cost of a tiny file.

A named tuple takes four times as long to pickle as a plain one. So nearly every job, and nearly every answer, crosses
as one flat row of what is not known on the other side: a plain job has targets without parts, and a plain answer says
that each of them is done. The others cross whole, by their place in the batch.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from itertools import repeat

from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.made_jobs import (
    AFTER_MADE,
    BEFORE_MADE,
    DONE,
    MADE,
    MORE,
    NAMES,
    NO_MORE,
    NOTHING_ELSE,
    NOTHING_SAID,
    SAID,
    MadeBatch,
    MadeJobs,
    Row,
    made,
    outcome_of,
)
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import AnyJob, Job, Outcome, Source, Target, Usage
from pipeline.worker.usage_meter import UsageRow

Answer = Outcome | WorkerFailure

# A row of a job has the fields of its source, and for each target these: stage, path and is_new, and digests.
_SOURCE_WIDTH, _TARGET_WIDTH = len(Source._fields), 4
_HEAD, _LAST = slice(0, 3), -1
_BETWEEN = slice(3, -1)
_NO_PARTS = tuple(Target("", b""))[_BETWEEN]
_REST_OF_JOB = slice(2, None)
_PLAIN_JOB = tuple(Job(Source(b"", 0, 0), ()))[_REST_OF_JOB]


def pack_jobs(jobs: Sequence[AnyJob]) -> bytes:
    """Serialize the jobs of a batch."""
    rows = [_row_of_job(job) for job in jobs]
    others = {place: job for place, (row, job) in enumerate(zip(rows, jobs, strict=True)) if row is None}
    return pickle.dumps((rows, others), pickle.HIGHEST_PROTOCOL)


def unpack_jobs(data: bytes) -> list[AnyJob]:
    """Return the jobs that `pack_jobs` serialized."""
    rows, others = pickle.loads(data)
    return [others[place] if row is None else _job(row) for place, row in enumerate(rows)]


def _row_of_job(job: AnyJob) -> Row | None:
    """Return the row of a job; None if it must cross whole."""
    whole: Row = job
    if not isinstance(job, Job) or whole[_REST_OF_JOB] != _PLAIN_JOB:
        return None
    row: Row = job.source
    targets: Sequence[Row] = job.targets
    for target in targets:
        if target[_BETWEEN] != _NO_PARTS:
            return None
        row += (*target[_HEAD], target[_LAST])
    return row


def _job(row: Row) -> Job:
    targets = [
        made(Target, (*row[at : at + 3], *_NO_PARTS, row[at + 3]))
        for at in range(_SOURCE_WIDTH, len(row), _TARGET_WIDTH)
    ]
    job: Job = made(Job, (made(Source, row[:_SOURCE_WIDTH]), tuple(targets), *_PLAIN_JOB))
    return job


def pack_answers(
    jobs: Sequence[AnyJob], answers: Sequence[Answer], seat: int, usages: Sequence[UsageRow] = ()
) -> bytes:
    """Serialize the answers to the first of `jobs`; one that cannot be pickled becomes a failure of its job alone.

    `seat` is the number of the worker's slot, which each outcome gets, and so it does what its job used, if that is
    known.
    """
    rows = [_row_of_answer(job, answer) for job, answer in zip(jobs, answers, strict=False)]
    others = {place: answers[place] for place, row in enumerate(rows) if row is None}
    try:
        return pickle.dumps((seat, rows, others, usages), pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps((seat, rows, {place: _sendable(answer) for place, answer in others.items()}, usages))


def unpack_answers(jobs: Sequence[AnyJob], data: bytes) -> Sequence[Answer]:
    """Return the answers that `pack_answers` serialized, as MadeJobs where there is a row of each."""
    try:
        seat, rows, others, usages = pickle.loads(data)
    except Exception as error:
        return [WorkerFailure("error", NO_STAGE, f"the outcome cannot be read by the parent: {error}")] * len(jobs)
    if rows and not others:
        batch = MadeBatch(jobs[: len(rows)], rows, seat, usages)  # type: ignore[arg-type]  # groups have no rows
        return MadeJobs([batch])
    return [
        outcome_of(job, row, seat, usage) if row else _whole(others[place], seat, usage)
        for place, (job, row, usage) in enumerate(zip(jobs, rows, usages or repeat(None), strict=False))
    ]


def _row_of_answer(job: AnyJob, answer: Answer) -> Row | None:
    """Return the row of an answer; None if it must cross whole."""
    if not isinstance(answer, Outcome) or not isinstance(job, Job):
        return None
    targets: Sequence[Row] = job.targets
    results: Sequence[Row] = answer.results
    is_plain = answer[SAID] == NOTHING_SAID and answer[MORE] == NO_MORE and answer.origin == job.source
    if not is_plain or len(targets) != len(results):
        return None
    row: Row = (answer.seconds, answer.source_digest, answer.peak_bytes)
    for target, result in zip(targets, results, strict=True):
        if result[BEFORE_MADE] != DONE or result[AFTER_MADE] != NOTHING_ELSE or result[NAMES] != target[NAMES]:
            return None
        row += result[MADE]
    return row


def _whole(answer: Answer, seat: int, usage: UsageRow | None) -> Answer:
    """Return an answer that crossed whole, with what the parent is told of its job beside it."""
    if isinstance(answer, WorkerFailure):
        return answer
    return answer._replace(seat=seat, usage=Usage(*usage, seat) if usage else None)


def _sendable(answer: Answer) -> Answer:
    try:
        pickle.dumps(answer)
    except Exception as error:
        return WorkerFailure("error", NO_STAGE, f"the outcome cannot be sent to the parent: {error}")
    return answer
