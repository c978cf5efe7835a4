"""Serializes jobs and answers between parent and worker, which is a good part of the cost of a tiny file.

A named tuple takes four times as long to pickle as a plain one. So all of them cross as plain tuples, and an outcome
without its source, unless the worker saw another than the job named. Jobs of groups are few, and cross unchanged.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from pipeline.engines.attempts import WorkerFailure
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import AnyJob, GroupJob, Job, Outcome, Result, Source, Target

Answer = Outcome | WorkerFailure

# Does what `_make` of a named tuple does, in a third of its time.
_made: Any = tuple.__new__
_DEFAULTS = tuple(Target("", b""))


def pack_jobs(jobs: Sequence[AnyJob]) -> bytes:
    """Serialize the jobs of a batch."""
    rows = [
        job if isinstance(job, GroupJob) else (tuple(job.source), [_plain(target) for target in job.targets], *job[2:])
        for job in jobs
    ]
    return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)


def unpack_jobs(data: bytes) -> list[AnyJob]:
    """Return the jobs that `pack_jobs` serialized."""
    return [row if isinstance(row, GroupJob) else _job(*row) for row in pickle.loads(data)]


def _job(source: tuple[Any, ...], targets: list[tuple[Any, ...]], *rest: object) -> Any:
    whole = tuple([_made(Target, target + _DEFAULTS[len(target) :]) for target in targets])
    return _made(Job, (_made(Source, source), whole, *rest))


def _plain(target: Target) -> tuple[Any, ...]:
    """Return a target as a plain tuple, without the fields that only parts need."""
    return target[:3] if target[3:] == _DEFAULTS[3:] else tuple(target)


def pack_answers(jobs: Sequence[AnyJob], answers: Sequence[Answer]) -> bytes:
    """Serialize the answers to the first of `jobs`; one that cannot be pickled becomes a failure of its job alone."""
    rows = [_row(job, answer) for job, answer in zip(jobs, answers, strict=False)]
    try:
        return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps([_sendable(row) for row in rows])


def unpack_answers(jobs: Sequence[AnyJob], data: bytes) -> list[Answer]:
    """Return the answers that `pack_answers` serialized."""
    try:
        rows = pickle.loads(data)
    except Exception as error:
        return [WorkerFailure("error", NO_STAGE, f"the outcome cannot be read by the parent: {error}")] * len(jobs)
    return [
        row
        if isinstance(row, WorkerFailure)
        else _made(
            Outcome,
            (
                _made(Source, row[0]) if row[0] else job.origin,
                tuple([_made(Result, result) for result in row[1]]),
                *row[2],
            ),
        )
        for job, row in zip(jobs, rows, strict=False)
    ]


def _row(job: AnyJob, answer: Answer) -> object:
    if isinstance(answer, WorkerFailure):
        return answer
    seen = None if answer.origin == job.origin else tuple(answer.origin)
    return seen, [tuple(result) for result in answer.results], answer[2:]


def _sendable(row: object) -> object:
    try:
        pickle.dumps(row)
    except Exception as error:
        return WorkerFailure("error", NO_STAGE, f"the outcome cannot be sent to the parent: {error}")
    return row
