"""How jobs and answers are written for the way between parent and worker: a good part of what a tiny file costs.

A named tuple takes four times as long to pickle as a bare one. So all of them cross bare, and an outcome without its
source, unless the worker saw another one than the job named.
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from typing import Any

from pipeline.engines.attempts import Fall
from pipeline.engines.slots import NO_STAGE
from pipeline.messages import Job, Outcome, Result, Source, Target

Answer = Outcome | Fall

# What `_make` of a named tuple comes down to, at a third of its time.
_made: Any = tuple.__new__
_PLAIN = tuple(Target("", b""))


def pack_jobs(jobs: Sequence[Job]) -> bytes:
    rows = [(tuple(job.source), [_bare(target) for target in job.targets], job.begin) for job in jobs]
    return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)


def unpack_jobs(data: bytes) -> list[Job]:
    return [
        _made(
            Job,
            (_made(Source, source), tuple([_made(Target, each + _PLAIN[len(each) :]) for each in targets]), begin),
        )
        for source, targets, begin in pickle.loads(data)
    ]


def _bare(target: Target) -> tuple[Any, ...]:
    """A target without what only those in parts and of groups have."""
    return target[:2] if target[2:] == _PLAIN[2:] else tuple(target)


def pack_answers(jobs: Sequence[Job], answers: Sequence[Answer]) -> bytes:
    """Write the answers to the first of `jobs`; what cannot be written becomes a fall of its job alone."""
    rows = [_row(job, answer) for job, answer in zip(jobs, answers, strict=False)]
    try:
        return pickle.dumps(rows, pickle.HIGHEST_PROTOCOL)
    except Exception:
        return pickle.dumps([_sendable(row) for row in rows])


def unpack_answers(jobs: Sequence[Job], data: bytes) -> list[Answer]:
    """Read what `pack_answers` wrote."""
    try:
        rows = pickle.loads(data)
    except Exception as error:
        return [Fall("error", NO_STAGE, f"the outcome cannot be read by the parent: {error}")] * len(jobs)
    return [
        row
        if isinstance(row, Fall)
        else _made(
            Outcome,
            (
                _made(Source, row[0]) if row[0] else job.source,
                tuple([_made(Result, result) for result in row[1]]),
                *row[2],
            ),
        )
        for job, row in zip(jobs, rows, strict=False)
    ]


def _row(job: Job, answer: Answer) -> object:
    if isinstance(answer, Fall):
        return answer
    seen = None if answer.source == job.source else tuple(answer.source)
    return seen, [tuple(result) for result in answer.results], answer[2:]


def _sendable(row: object) -> object:
    try:
        pickle.dumps(row)
    except Exception as error:
        return Fall("error", NO_STAGE, f"the outcome cannot be sent to the parent: {error}")
    return row
