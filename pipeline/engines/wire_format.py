"""Serializes jobs and answers between parent and worker, which is a good part of the cost of a tiny file.

A named tuple takes four times as long to pickle as a plain one. So nearly every job, and nearly every answer, crosses
as one flat row of what is not known on the other side: a plain job has targets without parts, and a plain answer says
that each of them is done. The others cross whole, by their place in the batch.
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping, Sequence
from typing import Any

from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import AnyJob, Job, Outcome, Result, Source, Target

Answer = Outcome | WorkerFailure

Row = tuple[Any, ...]

# Does what `_make` of a named tuple does, in a third of its time.
_made: Any = tuple.__new__

# A row of a job has the fields of its source, and for each target these: stage, path and is_new, and digests.
_SOURCE_WIDTH, _TARGET_WIDTH = len(Source._fields), 4
_HEAD, _LAST = slice(0, 3), -1
_BETWEEN = slice(3, -1)
_NO_PARTS = tuple(Target("", b""))[_BETWEEN]
_REST_OF_JOB = slice(2, None)
_PLAIN_JOB = tuple(Job(Source(b"", 0, 0), ()))[_REST_OF_JOB]

# A row of an answer has seconds, source_digest and peak_bytes, and for each result size_bytes, mtime_ns and digest.
_ANSWER_WIDTH, _MADE_WIDTH = 3, 3
_NAMES, _MADE = slice(0, 2), slice(6, 9)
_BEFORE_MADE, _AFTER_MADE = slice(2, 6), slice(9, None)
_done: Row = tuple(Result("", b"", "done"))
_DONE, _NOTHING_ELSE = _done[_BEFORE_MADE], _done[_AFTER_MADE]
# What an outcome has between its seconds and its source_digest, and between that and its peak_bytes.
_SAID, _MORE = slice(3, 6), slice(7, 14)
_plain: Row = tuple(Outcome(Source(b"", 0, 0), ()))
_NOTHING_SAID, _NO_MORE = _plain[_SAID], _plain[_MORE]


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
        _made(Target, (*row[at : at + 3], *_NO_PARTS, row[at + 3]))
        for at in range(_SOURCE_WIDTH, len(row), _TARGET_WIDTH)
    ]
    job: Job = _made(Job, (_made(Source, row[:_SOURCE_WIDTH]), tuple(targets), *_PLAIN_JOB))
    return job


def pack_answers(jobs: Sequence[AnyJob], answers: Sequence[Answer], seat: int) -> bytes:
    """Serialize the answers to the first of `jobs`; one that cannot be pickled becomes a failure of its job alone.

    `seat` is the number of the worker's slot, which each outcome gets.
    """
    rows = [_row_of_answer(job, answer) for job, answer in zip(jobs, answers, strict=False)]
    others = {place: answers[place] for place, row in enumerate(rows) if row is None}
    try:
        return pickle.dumps((seat, rows, others), pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps((seat, rows, {place: _sendable(answer) for place, answer in others.items()}))


def unpack_answers(jobs: Sequence[AnyJob], data: bytes) -> list[Answer]:
    """Return the answers that `pack_answers` serialized."""
    try:
        seat, rows, others = pickle.loads(data)
    except Exception as error:
        return [WorkerFailure("error", NO_STAGE, f"the outcome cannot be read by the parent: {error}")] * len(jobs)
    return [
        _outcome(job, row, seat) if row else _whole(others, place, seat)
        for place, (job, row) in enumerate(zip(jobs, rows, strict=False))
    ]


def _row_of_answer(job: AnyJob, answer: Answer) -> Row | None:
    """Return the row of an answer; None if it must cross whole."""
    if not isinstance(answer, Outcome) or not isinstance(job, Job):
        return None
    targets: Sequence[Row] = job.targets
    results: Sequence[Row] = answer.results
    is_plain = answer[_SAID] == _NOTHING_SAID and answer[_MORE] == _NO_MORE and answer.origin == job.source
    if not is_plain or len(targets) != len(results):
        return None
    row: Row = (answer.seconds, answer.source_digest, answer.peak_bytes)
    for target, result in zip(targets, results, strict=True):
        if result[_BEFORE_MADE] != _DONE or result[_AFTER_MADE] != _NOTHING_ELSE or result[_NAMES] != target[_NAMES]:
            return None
        row += result[_MADE]
    return row


def _outcome(job: Row, row: Row, seat: int) -> Outcome:
    targets: Sequence[Row] = job[1]
    at, results = _ANSWER_WIDTH, []
    for target in targets:
        results.append(_made(Result, target[_NAMES] + _DONE + row[at : at + _MADE_WIDTH] + _NOTHING_ELSE))
        at += _MADE_WIDTH
    seconds, source_digest, peak_bytes = row[:_ANSWER_WIDTH]
    outcome: Outcome = _made(
        Outcome, (job[0], tuple(results), seconds, *_NOTHING_SAID, source_digest, *_NO_MORE, peak_bytes, seat)
    )
    return outcome


def _whole(others: Mapping[int, Answer], place: int, seat: int) -> Answer:
    answer = others[place]
    return answer if isinstance(answer, WorkerFailure) else answer._replace(seat=seat)


def _sendable(answer: Answer) -> Answer:
    try:
        pickle.dumps(answer)
    except Exception as error:
        return WorkerFailure("error", NO_STAGE, f"the outcome cannot be sent to the parent: {error}")
    return answer
